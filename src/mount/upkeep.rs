//! What a serving mount is asked to do by signals: read its configuration again, tell its status.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::config::{Config, ProviderConfig};
use crate::error::{Error, Kind, Result};
use crate::fs::Fs;

/// How a mount reads its configuration again, and opens its log anew.
#[derive(Clone)]
pub struct Upkeep {
    /// Reads the configuration as it was read for mounting.
    pub read: Arc<dyn Fn() -> Result<Config> + Send + Sync>,
    /// Opens the log by its name.
    pub reopen: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep").finish_non_exhaustive()
    }
}

impl Upkeep {
    /// Opens the log anew, reads the configuration, and exchanges the accounts of `fs` for those in
    /// it. `mounted` is what holds for the rest. Whatever is wrong leaves everything as it was; one
    /// line tells.
    pub(super) async fn renew(&self, fs: &Fs, mounted: &Config) {
        if let Err(error) = (self.reopen)() {
            tracing::warn!(%error, "the log cannot be opened anew: it goes on where it went");
        }
        let read = Arc::clone(&self.read);
        // Secrets may come from commands.
        let config = spawn_blocking(move || read())
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "reading ended by a bug")));
        let renewed = config.and_then(|config| {
            same_kinds(&config, mounted)?;
            Ok((fs.renew(&config.providers)?, config))
        });
        match renewed {
            Ok((mut left, config)) => {
                if config.mount != mounted.mount {
                    left.push("[mount] was changed".to_owned());
                }
                left.extend(stale_data(&config, mounted));
                let accounts = config.providers.len();
                if left.is_empty() {
                    tracing::info!(accounts, "the configuration was read again");
                } else {
                    let left = left.join(", ");
                    tracing::warn!(
                        accounts,
                        left,
                        "the configuration was read again; what is left takes a new mount"
                    );
                }
            }
            Err(error) => {
                tracing::error!(%error, "the configuration was not read again: the old one holds");
            }
        }
    }
}

/// That no name stands for another cloud now: its tree would become another one.
fn same_kinds(config: &Config, mounted: &Config) -> Result<()> {
    for new in &config.providers {
        let old = mounted.providers.iter().find(|old| old.name == new.name);
        if old.is_some_and(|old| old.kind.word() != new.kind.word()) {
            let words = format!(
                "provider {} is of another kind now: that takes a new mount",
                new.name
            );
            return Err(Error::new(Kind::Config, words));
        }
    }
    Ok(())
}

/// What was changed of how bytes are fetched: calls go by it, data does not.
fn stale_data(config: &Config, mounted: &Config) -> Vec<String> {
    let data = |account: &ProviderConfig| {
        (
            account.allow_http,
            account.ca_file.clone(),
            account.retry_budget,
            account.poll_interval,
            account.directory().map(Path::to_owned),
        )
    };
    let pairs = config.providers.iter().filter_map(|new| {
        let old = mounted.providers.iter().find(|old| old.name == new.name)?;
        Some((new, old))
    });
    pairs
        .filter(|(new, old)| data(new) != data(old))
        .map(|(new, _)| format!("how {} fetches data was changed", new.name))
        .collect()
}

/// Writes the status document into the log.
pub(super) fn tell(fs: &Fs) {
    match serde_json::to_string(&fs.status()) {
        Ok(status) => tracing::info!(status, "SIGUSR1"),
        Err(error) => tracing::warn!(%error, "the status cannot be told"),
    }
}
