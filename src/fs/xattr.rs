//! Extended attributes: what is known of a file's task and bytes, from memory.
//!
//! Files: `state`, `percent`, `estimate`, `size`, `error`, `task`, `expires`, `etag`, `cached`, `source-name`,
//! `digest` (and whether it was verified). Backup directories: `status`, `method`, `version`, `type`. All below
//! `user.backupfs.`; an attribute without a value is not listed.

use super::Inner;
use super::open::artifact_key;
use crate::error::Result;
use crate::model::{Backup, Origin};
use crate::tree::{FileNode, Node};

/// Names and values.
pub(super) type Attributes = Vec<(&'static str, String)>;

/// What every name of ours begins with.
pub(super) const PREFIX: &str = "user.backupfs.";

impl Inner {
    /// All attributes of `ino` that have a value.
    pub(super) async fn xattrs(&self, ino: u64) -> Result<Attributes> {
        match self.tree.node(ino)? {
            Node::File(node) => Ok(self.of_file(ino, &node).await),
            Node::Backup { backup, .. } => Ok(of_backup(&backup)),
            _ => Ok(Vec::new()),
        }
    }

    async fn of_file(&self, ino: u64, node: &FileNode) -> Attributes {
        let key = artifact_key(node);
        let view = self.opener.engine.view(&key.task);
        let record = self.opener.ledger.artifact(&key);
        let mut found = Vec::new();
        let mut put = |name, value: Option<String>| {
            found.extend(value.map(|value| (name, value)));
        };
        let state = match node.file.origin {
            Origin::Object => "ready",
            Origin::Task => view.state,
        };
        put("user.backupfs.state", Some(state.to_owned()));
        put(
            "user.backupfs.percent",
            view.percent.map(|percent| percent.to_string()),
        );
        put(
            "user.backupfs.estimate",
            view.estimate.map(|at| at.to_string()),
        );
        let size = self.size_of(ino, node).word();
        put("user.backupfs.size", Some(size.to_owned()));
        let refused = node.shard.backup.not_downloadable.clone();
        let failure = || self.handles.failure(ino);
        put(
            "user.backupfs.error",
            refused.or(view.error).or_else(failure),
        );
        put("user.backupfs.task", view.task_id);
        let expires = match &record {
            Some(record) if view.expires.is_none() => self.opener.link_expiry(&key, record),
            _ => view.expires,
        };
        put("user.backupfs.expires", expires.map(|at| at.to_string()));
        let cached = match (self.opener.spools.under_way(&key), &record) {
            (Some(spooling), _) => spooling.bytes(),
            (None, Some(record)) => self.opener.cached_bytes(&key, record).await,
            (None, None) => 0,
        };
        put("user.backupfs.cached", Some(cached.to_string()));
        let checked = record.as_ref().and_then(|record| {
            let word = if record.verified {
                "verified"
            } else {
                "unverified"
            };
            Some(format!("{} {word}", record.digest.as_ref()?))
        });
        let (etag, source_name) = record
            .map(|record| (record.validator.etag, record.source_name))
            .unwrap_or_default();
        put("user.backupfs.etag", etag);
        put("user.backupfs.source-name", source_name);
        put(
            "user.backupfs.digest",
            checked.or_else(|| node.file.digest.clone()),
        );
        found
    }
}

fn of_backup(backup: &Backup) -> Attributes {
    let status = Some(backup.status.clone()).filter(|status| !status.is_empty());
    [
        ("user.backupfs.status", status),
        ("user.backupfs.method", backup.method.clone()),
        ("user.backupfs.version", backup.version.clone()),
        ("user.backupfs.type", backup.trigger.clone()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}
