//! The settings of a mount, once: as keys of `[mount]`, as flags and as environment variables.
//!
//! The file, the flags of [`MountArgs`] and the variables `MONGO_BACKUPFS_<KEY>` are all read
//! through [`SETTINGS`], so they cannot differ in names or in meaning.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches};
use toml::de::DeValue;

use super::document::{texts, type_of};
use super::units;
use super::{MountConfig, OnOpen};

/// One key of `[mount]`.
#[derive(Debug)]
pub(super) struct Setting {
    /// Its name in the file.
    pub(super) key: &'static str,
    /// What `--help` says.
    pub(super) help: &'static str,
    /// Which field it fills, and from what.
    field: Field,
}

/// A field of [`MountConfig`], by the type of its text.
#[derive(Debug)]
enum Field {
    Directory(fn(&mut MountConfig) -> &mut PathBuf),
    /// With the least that is accepted.
    Size(fn(&mut MountConfig) -> &mut u64, u64),
    /// With the least that is accepted.
    Duration(fn(&mut MountConfig) -> &mut Duration, Duration),
    OnOpen(fn(&mut MountConfig) -> &mut OnOpen),
    Names(fn(&mut MountConfig) -> &mut Vec<String>),
    Users(fn(&mut MountConfig) -> &mut Vec<u32>),
    Switch(fn(&mut MountConfig) -> &mut bool),
    Count(fn(&mut MountConfig) -> &mut u32),
    Mode(fn(&mut MountConfig) -> &mut u16),
    Address(fn(&mut MountConfig) -> &mut Option<SocketAddr>),
}

/// Every setting of a mount, in the order of the documentation.
pub(super) static SETTINGS: [Setting; 16] = [
    Setting {
        key: "cache_dir",
        help: "Directory of the block cache",
        field: Field::Directory(|mount| &mut mount.cache_dir),
    },
    Setting {
        key: "state_dir",
        help: "Directory of the task ledger",
        field: Field::Directory(|mount| &mut mount.state_dir),
    },
    Setting {
        key: "cache_size",
        help: "Most bytes the block cache may hold",
        field: Field::Size(|mount| &mut mount.cache_size, 1 << 20),
    },
    Setting {
        key: "memory",
        help: "Budget for all read-ahead and blocks in memory",
        field: Field::Size(|mount| &mut mount.memory, 16 << 20),
    },
    Setting {
        key: "list_ttl",
        help: "How long a listing is served before it is asked again",
        field: Field::Duration(|mount| &mut mount.list_ttl, Duration::ZERO),
    },
    Setting {
        key: "on_open",
        help: "What an open may do about a missing download task: create it, adopt only, or never",
        field: Field::OnOpen(|mount| &mut mount.on_open),
    },
    Setting {
        key: "deny_processes",
        help: "Names of processes that may look but never cause a download task",
        field: Field::Names(|mount| &mut mount.deny_processes),
    },
    Setting {
        key: "spend_uids",
        help: "Ids of the only users whose opens may cause a download task, none for all",
        field: Field::Users(|mount| &mut mount.spend_uids),
    },
    Setting {
        key: "recreate_expired",
        help: "Whether a new open may create a task again when its artifact is gone",
        field: Field::Switch(|mount| &mut mount.recreate_expired),
    },
    Setting {
        key: "max_tasks_per_day",
        help: "Most download tasks created per day, 0 for no limit",
        field: Field::Count(|mount| &mut mount.max_tasks_per_day),
    },
    Setting {
        key: "task_wait",
        help: "How long an open may wait for its task",
        field: Field::Duration(|mount| &mut mount.task_wait, Duration::ZERO),
    },
    Setting {
        key: "op_timeout",
        help: "Deadline of every other operation",
        field: Field::Duration(|mount| &mut mount.op_timeout, Duration::from_millis(1)),
    },
    Setting {
        key: "allow_other",
        help: "Let other users look, as far as the modes allow",
        field: Field::Switch(|mount| &mut mount.allow_other),
    },
    Setting {
        key: "file_mode",
        help: "Permission bits of files, in octal",
        field: Field::Mode(|mount| &mut mount.file_mode),
    },
    Setting {
        key: "dir_mode",
        help: "Permission bits of directories, in octal",
        field: Field::Mode(|mount| &mut mount.dir_mode),
    },
    Setting {
        key: "metrics",
        help: "Address that serves Prometheus text at /metrics, such as 127.0.0.1:9187",
        field: Field::Address(|mount| &mut mount.metrics),
    },
];

impl Setting {
    pub(super) fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// Whether it is on or off.
    pub(super) fn is_switch(&self) -> bool {
        matches!(self.field, Field::Switch(_))
    }

    pub(super) fn variable(&self) -> String {
        format!("MONGO_BACKUPFS_{}", self.key.to_uppercase())
    }

    /// Takes a value of the file, or says what is wrong with it.
    pub(super) fn set_value(
        &self,
        mount: &mut MountConfig,
        value: &DeValue<'_>,
    ) -> Result<(), String> {
        let expected = match (&self.field, value) {
            (Field::Switch(field), DeValue::Boolean(value)) => {
                *field(mount) = *value;
                return Ok(());
            }
            (Field::Count(_), DeValue::Integer(number)) => {
                return self.set_text(mount, &number.to_string());
            }
            (Field::Names(field), DeValue::Array(items)) => {
                *field(mount) = texts(items).ok_or("expected a list of non-empty strings")?;
                return Ok(());
            }
            (Field::Users(_), DeValue::Array(items)) => {
                let numbers = items.iter().map(|item| match item.get_ref() {
                    DeValue::Integer(number) => Some(number.to_string()),
                    _ => None,
                });
                let numbers: Option<Vec<String>> = numbers.collect();
                let numbers = numbers.ok_or("expected a list of user ids, such as [0, 1000]")?;
                return self.set_text(mount, &numbers.join(","));
            }
            (Field::Users(_), _) => "a list of user ids",
            (Field::Switch(_), _) => "true or false",
            (Field::Count(_), _) => "an integer",
            (Field::Names(_), _) => "a list of strings",
            (_, DeValue::String(text)) => return self.set_text(mount, text),
            _ => "a string",
        };
        Err(format!("expected {expected}, found {}", type_of(value)))
    }

    /// Takes the text of a flag or variable, or says what is wrong with it.
    pub(super) fn set_text(&self, mount: &mut MountConfig, text: &str) -> Result<(), String> {
        match self.field {
            Field::Directory(field) => {
                if !Path::new(text).is_absolute() {
                    return Err("expected an absolute path".into());
                }
                *field(mount) = text.into();
            }
            Field::Size(field, least) => {
                let size = units::size(text)?;
                if size < least {
                    return Err(format!("must be at least {}", units::show_size(least)));
                }
                *field(mount) = size;
            }
            Field::Duration(field, least) => {
                let duration = units::duration(text)?;
                if duration < least {
                    return Err("must be longer than nothing".into());
                }
                *field(mount) = duration;
            }
            Field::OnOpen(field) => {
                *field(mount) = match text {
                    "create" => OnOpen::Create,
                    "adopt" => OnOpen::Adopt,
                    "never" => OnOpen::Never,
                    _ => return Err("expected one of `create`, `adopt`, `never`".into()),
                };
            }
            Field::Names(field) => {
                let names = text.split(',').map(str::trim);
                *field(mount) = names
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect();
            }
            Field::Users(field) => {
                let ids = text.split(',').map(str::trim).filter(|id| !id.is_empty());
                *field(mount) = ids
                    .map(str::parse)
                    .collect::<Result<_, _>>()
                    .map_err(|_| "expected user ids, such as `0,1000`")?;
            }
            Field::Switch(field) => {
                *field(mount) = match text {
                    "true" | "yes" | "on" | "1" => true,
                    "false" | "no" | "off" | "0" => false,
                    _ => return Err("expected `true` or `false`".into()),
                };
            }
            Field::Count(field) => {
                *field(mount) = text
                    .parse()
                    .map_err(|_| format!("expected a number from 0 to {}", u32::MAX))?;
            }
            Field::Mode(field) => *field(mount) = units::mode(text)?,
            Field::Address(field) => {
                *field(mount) = match text {
                    "" => None,
                    _ => Some(text.parse().map_err(
                        |_| "expected an address with a port, such as `127.0.0.1:9187`, or nothing",
                    )?),
                };
            }
        }
        Ok(())
    }

    /// What a mount holds, as the file would say it.
    pub(super) fn shown(&self, mount: &MountConfig) -> String {
        let mut mount = mount.clone();
        let quoted = |text: &str| format!("\"{text}\"");
        let listed = |items: Vec<String>| format!("[{}]", items.join(", "));
        match self.field {
            Field::Directory(field) => quoted(&field(&mut mount).to_string_lossy()),
            Field::Size(field, _) => quoted(&units::show_size(*field(&mut mount))),
            Field::Duration(field, _) => quoted(&units::show_duration(*field(&mut mount))),
            Field::OnOpen(field) => quoted(match field(&mut mount) {
                OnOpen::Create => "create",
                OnOpen::Adopt => "adopt",
                OnOpen::Never => "never",
            }),
            Field::Names(field) => {
                let names = field(&mut mount).iter();
                listed(names.map(|name| quoted(name)).collect())
            }
            Field::Users(field) => {
                listed(field(&mut mount).iter().map(ToString::to_string).collect())
            }
            Field::Switch(field) => field(&mut mount).to_string(),
            Field::Count(field) => field(&mut mount).to_string(),
            Field::Mode(field) => quoted(&format!("{:04o}", field(&mut mount))),
            Field::Address(field) => {
                let address = field(&mut mount).map(|address| address.to_string());
                quoted(&address.unwrap_or_default())
            }
        }
    }

    /// The flag for the command line.
    fn arg(&self) -> Arg {
        let arg = Arg::new(self.key)
            .long(self.flag())
            .help(format!("{} [env: {}]", self.help, self.variable()))
            .help_heading("Mount settings");
        match self.field {
            Field::Directory(_) => arg.value_name("DIR"),
            Field::Size(..) => arg.value_name("SIZE"),
            Field::Duration(..) => arg.value_name("DURATION"),
            Field::OnOpen(_) => arg.value_name("create|adopt|never"),
            Field::Names(_) => arg.value_name("NAME,…"),
            Field::Users(_) => arg.value_name("UID,…"),
            Field::Switch(_) => arg
                .value_name("true|false")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            Field::Count(_) => arg.value_name("NUMBER"),
            Field::Mode(_) => arg.value_name("MODE"),
            Field::Address(_) => arg.value_name("ADDRESS:PORT"),
        }
    }
}

/// The flags of a mount: one for each key of `[mount]`.
#[derive(Debug, Clone, Default)]
pub struct MountArgs {
    pub(super) given: Vec<(&'static Setting, String)>,
}

impl clap::Args for MountArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(SETTINGS.iter().map(Setting::arg))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for MountArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SETTINGS.iter().filter_map(|setting| {
            let text = matches.get_one::<String>(setting.key)?;
            Some((setting, text.clone()))
        });
        Ok(MountArgs {
            given: given.collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
