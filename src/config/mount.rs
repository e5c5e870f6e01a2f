//! How to mount: defaults, overlaid by the file, by the environment and by flags, in this order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Environment;
use super::document::Section;
use super::settings::{MountArgs, SETTINGS};
use crate::error::{Error, Kind, Result};

/// The `[mount]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountConfig {
    /// Block cache directory, absolute.
    pub cache_dir: PathBuf,
    /// Ledger directory, absolute.
    pub state_dir: PathBuf,
    /// Most bytes the block cache may hold.
    pub cache_size: u64,
    /// One budget in bytes for all read-ahead and blocks in memory.
    pub memory: u64,
    /// How long a listing is served before it is asked again.
    pub list_ttl: Duration,
    /// What an open may do about a missing task.
    pub on_open: OnOpen,
    /// Process names (comm) that may look but not spend.
    pub deny_processes: Vec<String>,
    /// The only users, by their ids, whose opens may have a task made; empty for all.
    pub spend_uids: Vec<u32>,
    /// Whether a task whose artifact is gone may be created again by a new open.
    pub recreate_expired: bool,
    /// Most tasks created per day; 0 = no limit.
    pub max_tasks_per_day: u32,
    /// How long an open may wait for its task.
    pub task_wait: Duration,
    /// Deadline of every other operation.
    pub op_timeout: Duration,
    /// Whether other users may look.
    pub allow_other: bool,
    /// Permission bits of files.
    pub file_mode: u16,
    /// Permission bits of directories.
    pub dir_mode: u16,
    /// Where to serve Prometheus text, if at all.
    pub metrics: Option<SocketAddr>,
}

/// What an open may do about a missing task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOpen {
    /// Adopt an existing task, create one if there is none.
    Create,
    /// Use existing tasks only.
    Adopt,
    /// Never use tasks.
    Never,
}

impl MountConfig {
    /// The documented defaults, with the directories that belong to this user. A directory stays
    /// empty where no home is known: then it has to be set.
    pub fn defaults(environment: &Environment) -> Self {
        let directory = |root: &str, variable, fallback| {
            if environment.is_root() {
                PathBuf::from(root)
            } else {
                let base = environment.xdg(variable, fallback);
                base.map(|base| base.join("mongo-backupfs"))
                    .unwrap_or_default()
            }
        };
        let denied = [
            "updatedb",
            "plocate-build",
            "tracker-miner-f",
            "baloo_file",
            "tumblerd",
        ];
        MountConfig {
            cache_dir: directory("/var/cache/mongo-backupfs", "XDG_CACHE_HOME", ".cache"),
            state_dir: directory("/var/lib/mongo-backupfs", "XDG_STATE_HOME", ".local/state"),
            cache_size: 50 << 30,
            memory: 512 << 20,
            list_ttl: Duration::from_secs(60),
            on_open: OnOpen::Create,
            deny_processes: denied.map(str::to_owned).into(),
            spend_uids: Vec::new(),
            recreate_expired: true,
            max_tasks_per_day: 0,
            task_wait: Duration::from_secs(6 * 3600),
            op_timeout: Duration::from_secs(60),
            allow_other: false,
            file_mode: 0o400,
            dir_mode: 0o500,
            metrics: None,
        }
    }

    /// Takes over what the file's `[mount]` table says.
    pub(super) fn apply_file(&mut self, table: &Section<'_>) -> Result<()> {
        let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        table.allow_only(&[&names])?;
        for setting in &SETTINGS {
            if let Some(entry) = table.get(setting.key) {
                let set = setting.set_value(self, entry.value());
                set.map_err(|words| entry.error(&words))?;
            }
        }
        Ok(())
    }

    /// Takes over what the environment says.
    pub(super) fn apply_environment(&mut self, environment: &Environment) -> Result<()> {
        for setting in &SETTINGS {
            let variable = setting.variable();
            if let Some(value) = environment.get(&variable) {
                let text = value.to_str().ok_or("not UTF-8 text".to_owned());
                text.and_then(|text| setting.set_text(self, text))
                    .map_err(|words| complaint(&variable, &words))?;
            }
        }
        Ok(())
    }

    /// Takes over what the command line says.
    pub(super) fn apply_flags(&mut self, flags: &MountArgs) -> Result<()> {
        for (setting, text) in &flags.given {
            setting
                .set_text(self, text)
                .map_err(|words| complaint(&format!("--{}", setting.flag()), &words))?;
        }
        Ok(())
    }

    /// What only the sum of all sources can tell.
    pub(super) fn check(&self) -> Result<()> {
        let directories = [
            ("cache_dir", &self.cache_dir),
            ("state_dir", &self.state_dir),
        ];
        for (key, path) in directories {
            if path.as_os_str().is_empty() {
                let words = "has no default because HOME is not set; set it to an absolute path";
                return Err(Error::new(Kind::Config, format!("[mount]: {key} {words}")));
            }
        }
        Ok(())
    }
}

fn complaint(origin: &str, words: &str) -> Error {
    Error::new(Kind::Config, format!("{origin}: {words}"))
}
