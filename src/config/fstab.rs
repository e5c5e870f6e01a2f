//! What mount(8) hands to `mount.mongo-backupfs`, as arguments of `mongo-backupfs`. Pure.
//!
//! `SOURCE DIR [-sfnvrw] [-o option,…]…`, as `/sbin/mount.*` helpers are called. SOURCE is a
//! configuration file, or `none` or `mongo-backupfs` for the usual one or what the option `config`
//! says: the last is what the kernel shows as the source, by which `mount -a` sees that a line is
//! mounted already, and systemd that its mount is `_netdev`. Every key of `[mount]` is an option; so
//! are the few of the command line that a mount needs. Options of other filesystems are ignored where
//! they say what holds anyway or concern mount(8) alone, and refused otherwise.

use super::document::closest;
use super::settings::SETTINGS;
use crate::error::{Error, Kind, Result};
use crate::names;

/// Options with a value that are flags of the command line, before the command.
const GLOBAL: [&str; 4] = ["config", "log_file", "log_format", "log_level"];
/// Sources that are no configuration file.
const UNNAMED: [&str; 2] = ["none", "mongo-backupfs"];
/// An option without a value that is a flag of `mount`.
const REPLACE_STALE: &str = "replace_stale";

/// What holds anyway, or is for mount(8), systemd and fuse's own helper.
const IGNORED: [&str; 37] = [
    "_netdev",
    "async",
    "atime",
    "auto",
    "comment",
    "default_permissions",
    "defaults",
    "diratime",
    "dirsync",
    "fsname",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "noexec",
    "nofail",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "ro",
    "rw",
    "silent",
    "strictatime",
    "subtype",
    "user",
    "users",
];

/// The arguments of `mongo-backupfs`, its own name left out, for those of a mount helper.
///
/// # Errors
/// [`Kind::Config`] for what is not an invocation of a mount helper.
pub fn arguments(given: &[String]) -> Result<Vec<String>> {
    let mut places = Vec::new();
    let (mut options, mut fake, mut sloppy) = (Vec::new(), false, false);
    let mut words = given.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix('-') {
            None | Some("") => places.push(word),
            Some(flags) => {
                for (at, flag) in flags.char_indices() {
                    match flag {
                        'f' => fake = true,
                        's' => sloppy = true,
                        // No mtab, more words, read-only, read-write (which mount(8) says unasked).
                        'n' | 'v' | 'r' | 'w' => {}
                        'o' | 't' | 'N' => {
                            let attached = &flags[at + 1..];
                            let value = match attached {
                                "" => words.next().map_or("", String::as_str),
                                attached => attached,
                            };
                            if flag == 'o' {
                                options.extend(split(value));
                            }
                            break;
                        }
                        other => {
                            let other = names::display(&other.to_string());
                            return Err(refused(&format!("unknown flag -{other}")));
                        }
                    }
                }
            }
        }
    }
    let [source, directory] = places.as_slice() else {
        return Err(refused("expected SOURCE DIR [-o options]"));
    };
    let mut before = Vec::new();
    if !UNNAMED.contains(&source.as_str()) {
        before.push(format!("--config={source}"));
    }
    let mut after = Vec::new();
    for (name, value) in &options {
        match translated(name, value.as_deref()) {
            Ok(Some(Place::Before(flag))) => before.push(flag),
            Ok(Some(Place::After(flag))) => after.push(flag),
            Ok(None) => {}
            Err(_) if sloppy => {}
            Err(words) => return Err(refused(&words)),
        }
    }
    let mut arguments = before;
    if fake {
        arguments.extend(["config".to_owned(), "check".to_owned()]);
    } else {
        arguments.extend(["mount".to_owned(), "--daemon".to_owned()]);
        arguments.extend(after);
        arguments.extend(["--".to_owned(), (*directory).clone()]);
    }
    Ok(arguments)
}

/// Where a flag stands.
enum Place {
    /// Before the command.
    Before(String),
    /// Behind it.
    After(String),
}

/// The flag that an option is; `None` if it changes nothing.
fn translated(name: &str, value: Option<&str>) -> Result<Option<Place>, String> {
    let key = name.replace('-', "_");
    let shown = names::display(name);
    let needed = || value.ok_or(format!("option {shown} needs a value: {shown}=…"));
    if GLOBAL.contains(&&*key) {
        let flag = key.replace('_', "-");
        return Ok(Some(Place::Before(format!("--{flag}={}", needed()?))));
    }
    if key == REPLACE_STALE {
        return Ok(Some(Place::After("--replace-stale".to_owned())));
    }
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
        let value = match value {
            None if setting.is_switch() => "true",
            _ => needed()?,
        };
        return Ok(Some(Place::After(format!("--{}={value}", setting.flag()))));
    }
    if IGNORED.contains(&name) || name.starts_with("x-") || name.starts_with("X-") {
        return Ok(None);
    }
    Err(match name {
        "dev" | "exec" | "suid" => format!("option {name}: a mount is always no{name}"),
        "remount" => "a mount cannot be changed: unmount it and mount again".to_owned(),
        _ => {
            let known = SETTINGS.iter().map(|setting| setting.key);
            match closest(&key, known.chain(GLOBAL).chain([REPLACE_STALE])) {
                Some(similar) => format!("unknown option {shown}; did you mean {similar}?"),
                None => format!("unknown option {shown}"),
            }
        }
    })
}

/// The options of one `-o`: separated by commas, but not by those between double quotes.
fn split(text: &str) -> Vec<(String, Option<String>)> {
    let mut options = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match (c, options.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => options.push(String::new()),
            (c, Some(option)) => option.push(c),
            (_, None) => {}
        }
    }
    options.retain(|option| !option.is_empty());
    let pairs = options
        .into_iter()
        .map(|option| match option.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (option, None),
        });
    pairs.collect()
}

fn refused(words: &str) -> Error {
    Error::new(Kind::Config, format!("mount.mongo-backupfs: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(line: &str) -> Result<Vec<String>> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        arguments(&words)
    }

    #[test]
    fn a_line_of_fstab_becomes_a_mount() {
        for (line, expected) in [
            ("none /mnt", "mount --daemon -- /mnt"),
            (
                "/etc/b.toml /mnt -o rw,_netdev,noauto,user=ana,x-systemd.automount,nofail",
                "--config=/etc/b.toml mount --daemon -- /mnt",
            ),
            (
                "none /mnt -s -v -n -o allow_other,list-ttl=5m,log_file=/var/log/b.log,replace_stale,unheard=of",
                "--log-file=/var/log/b.log mount --daemon --allow-other=true --list-ttl=5m --replace-stale -- /mnt",
            ),
            (
                "-r none -w -orw,deny_processes=\"a,b\",file_mode=0440 -- /mnt",
                "",
            ),
            (
                "-rw none -orw,deny_processes=\"a,b\",file_mode=0440 /mnt -t mongo-backupfs",
                "mount --daemon --deny-processes=a,b --file-mode=0440 -- /mnt",
            ),
            (
                "mongo-backupfs /mnt -o rw,config=/etc/b.toml,_netdev",
                "--config=/etc/b.toml mount --daemon -- /mnt",
            ),
            ("none /mnt -f -o on_open=never", "config check"),
        ] {
            let got = translate(line).map_or(String::new(), |words| words.join(" "));
            assert_eq!(got, expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_meant_is_refused_with_a_hint() {
        for (line, words) in [
            ("none", "expected SOURCE DIR"),
            ("none /mnt /more", "expected SOURCE DIR"),
            ("none /mnt -x", "unknown flag -x"),
            ("none /mnt -o cache_sise=1GiB", "did you mean cache_size?"),
            ("none /mnt -o cache_size", "needs a value"),
            ("none /mnt -o suid", "always nosuid"),
            ("none /mnt -o remount,ro", "unmount it and mount again"),
        ] {
            let error = translate(line).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.to_string().contains(words), "{line}: {error}");
        }
    }
}
