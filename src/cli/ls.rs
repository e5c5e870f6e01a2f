//! `ls [PATH] [-l] [--json]`: the tree without a mount.
//!
//! Asks the providers for listings and the ledger for what is known of tasks and sizes; creates
//! and changes nothing, and needs neither the cache nor the mount's lock.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::table::{Align, columns, short_size};
use super::{Context, Exit, finish, print};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, MountArgs};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::model::{ArtifactKey, Backup, Origin, Size};
use crate::names;
use crate::tasks::ledger::Ledger;
use crate::tasks::{Engine, EngineOptions};
use crate::tree::{FileNode, Leaf, Leaves, Node, Tree};

/// Lists every file at or below PATH, on one line with its size and the state of its download task.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to begin, such as atlas-prod/M2AWS/latest [default: everything]
    path: Option<String>,
    /// Exact sizes in bytes, and what is known of each file's backup
    #[arg(short, long)]
    long: bool,
    /// One JSON array of objects; a key that does not apply is null
    #[arg(long, conflicts_with = "long")]
    json: bool,
}

/// One line of the answer: a file, a `latest` link, or a directory with nothing in it.
///
/// With `--json` these are the keys of each object. They are added to, never renamed or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Row {
    /// Path below the mountpoint; `provider` to `file` are its parts.
    path: String,
    /// `file`, `symlink` or `directory`.
    kind: &'static str,
    provider: Option<String>,
    instance: Option<String>,
    backup: Option<String>,
    shard: Option<String>,
    file: Option<String>,
    /// Bytes, unless unknown.
    size: Option<u64>,
    /// How the size is known: `exact`, `declared` by the provider, or `unknown`.
    size_is: Option<&'static str>,
    /// As `user.backupfs.state`: `none`, `queued`, `running`, `ready`, `expired`, `failed`.
    state: Option<&'static str>,
    /// Progress of the task, 0 to 100.
    percent: Option<u8>,
    /// The provider's id of the task.
    task: Option<String>,
    /// When the artifact will be gone (RFC 3339, as all times).
    expires: Option<Timestamp>,
    /// Why the task failed, or why the backup cannot be downloaded.
    error: Option<String>,
    /// When the backup began.
    started: Option<Timestamp>,
    /// When the backup finished.
    finished: Option<Timestamp>,
    /// As `user.backupfs.status` of the backup, likewise the next three.
    status: Option<String>,
    method: Option<String>,
    version: Option<String>,
    r#type: Option<String>,
    /// Where a symlink leads.
    target: Option<String>,
}

pub(super) fn run(context: &Context, args: Args) -> Result<Exit> {
    let config = context.config(&MountArgs::default())?;
    let clock: SharedClock = Arc::new(SystemClock);
    let path = args.path.as_deref().unwrap_or_default();
    let runtime = super::runtime()?;
    let mut found = runtime.block_on(async {
        let tree = fs::tree(&config, Arc::clone(&clock))?;
        below(&tree, path).await
    })?;

    let memory = Memory::open(&config, clock).unwrap_or_else(|error| {
        found.failures.push(error);
        Memory { engine: None }
    });
    let rows: Vec<Row> = found.leaves.iter().map(|leaf| memory.row(leaf)).collect();
    print(&match (args.json, args.long) {
        (true, _) => json(&rows)?,
        (false, true) => long_table(&rows),
        (false, false) => table(&rows),
    })?;
    finish(found.failures, !rows.is_empty())
}

/// Everything at or below `path`.
async fn below(tree: &Tree, path: &str) -> Result<Leaves> {
    let start = tree.resolve_listed(path).await?;
    Ok(tree.leaves(&start).await)
}

/// What this machine remembers of tasks and artifacts.
struct Memory {
    /// An engine that is only looked at, with its ledger, if there is one.
    engine: Option<(Engine, Ledger)>,
}

impl Memory {
    fn open(config: &Config, clock: SharedClock) -> Result<Self> {
        let mount = &config.mount;
        let ledger = Ledger::open_read_only(&mount.state_dir)?;
        let options = EngineOptions::from(mount);
        let engine = ledger.map(|ledger| (Engine::new(ledger.clone(), options, clock), ledger));
        Ok(Memory { engine })
    }

    fn row(&self, leaf: &Leaf) -> Row {
        let row = Row::at(&leaf.path);
        match &leaf.child.node {
            Node::File(file) => self.file(row.of_backup(&file.shard.backup), file),
            Node::Latest { target, finished } => Row {
                kind: "symlink",
                finished: Some(*finished),
                target: Some(target.clone()),
                ..row
            },
            Node::Backup { backup, .. } => row.of_backup(backup),
            Node::Shard(shard) | Node::Directory { shard, .. } => row.of_backup(&shard.backup),
            _ => row,
        }
    }

    fn file(&self, row: Row, node: &FileNode) -> Row {
        let key = ArtifactKey {
            task: node.shard.key(),
            file: node.file.path.clone(),
        };
        let engine = self.engine.as_ref();
        let view = engine.map(|(engine, _)| engine.view(&key.task));
        let exact = engine.and_then(|(_, ledger)| ledger.artifact(&key));
        let size = exact.map_or(node.file.size, |record| Size::Exact(record.validator.size));
        let state = match node.file.origin {
            Origin::Object => "ready",
            Origin::Task => view.as_ref().map_or("none", |view| view.state),
        };
        let refused = node.shard.backup.not_downloadable.clone();
        Row {
            kind: "file",
            size: match size {
                Size::Unknown => None,
                Size::Exact(bytes) | Size::Declared(bytes) => Some(bytes),
            },
            size_is: Some(size.word()),
            state: Some(state),
            percent: view.as_ref().and_then(|view| view.percent),
            task: view.as_ref().and_then(|view| view.task_id.clone()),
            expires: view.as_ref().and_then(|view| view.expires),
            error: refused.or_else(|| view.and_then(|view| view.error)),
            ..row
        }
    }
}

impl Row {
    /// A directory at `path` of which nothing else is known.
    fn at(path: &[String]) -> Self {
        let part = |at: usize| path.get(at).cloned();
        Row {
            path: path.join("/"),
            kind: "directory",
            provider: part(0),
            instance: part(1),
            backup: part(2),
            shard: part(3),
            file: path
                .get(4..)
                .filter(|rest| !rest.is_empty())
                .map(|rest| rest.join("/")),
            ..Row::default()
        }
    }

    fn of_backup(self, backup: &Backup) -> Self {
        Row {
            started: Some(backup.started),
            finished: Some(backup.finished),
            status: Some(backup.status.clone()),
            method: backup.method.clone(),
            version: backup.version.clone(),
            r#type: backup.trigger.clone(),
            ..self
        }
    }

    /// The path as people read it.
    fn shown_path(&self) -> String {
        let shown = names::display(&self.path);
        match (&self.target, self.kind) {
            (Some(target), _) => format!("{shown} -> {}", names::display(target)),
            (None, "directory") => format!("{shown}/"),
            (None, _) => shown,
        }
    }

    fn shown_state(&self) -> String {
        match (self.state, self.percent) {
            (Some("running"), Some(percent)) => format!("running {percent}%"),
            (Some(state), _) => state.to_owned(),
            (None, _) => String::new(),
        }
    }

    /// The size, written by `write`.
    fn shown_size(&self, write: fn(u64) -> String) -> String {
        match (self.size, self.size_is) {
            (Some(bytes), _) => write(bytes),
            (None, Some(word)) => word.to_owned(),
            (None, None) => String::new(),
        }
    }
}

/// Path, size and state of each row.
fn table(rows: &[Row]) -> String {
    let lines: Vec<[String; 3]> = rows
        .iter()
        .map(|row| {
            [
                row.shown_path(),
                row.shown_size(short_size),
                row.shown_state(),
            ]
        })
        .collect();
    columns([Align::Left, Align::Right, Align::Left], &lines)
}

/// What `table` shows and what is known of the backup, under a heading.
fn long_table(rows: &[Row]) -> String {
    let heading = [
        "STATE", "SIZE", "FINISHED", "METHOD", "TYPE", "VERSION", "PATH",
    ];
    let text = |value: &Option<String>| names::display(value.as_deref().unwrap_or("-"));
    let lines = rows.iter().map(|row| {
        [
            row.shown_state(),
            row.shown_size(|bytes| bytes.to_string()),
            row.finished.map_or("-".to_owned(), |at| format!("{at:.0}")),
            text(&row.method),
            text(&row.r#type),
            text(&row.version),
            row.shown_path(),
        ]
    });
    let lines: Vec<[String; 7]> = std::iter::once(heading.map(str::to_owned))
        .chain(lines)
        .collect();
    let mut align = [Align::Left; 7];
    align[1] = Align::Right;
    columns(align, &lines)
}

fn json(rows: &[Row]) -> Result<String> {
    let text = serde_json::to_string_pretty(rows);
    let text = text.map_err(|error| {
        Error::new(Kind::Internal, "cannot write the rows as JSON").with_source(error)
    })?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::events::Events;
    use crate::providers::Provider;
    use crate::tree::TreeOptions;
    use crate::tree::fake::{self, Fake};

    fn tree(providers: &[(&str, &Arc<Fake>)]) -> Tree {
        let clock: SharedClock = Arc::new(SystemClock);
        let options = TreeOptions {
            list_ttl: std::time::Duration::from_secs(60),
            patience: std::time::Duration::from_secs(60),
            events: Events::new(Arc::clone(&clock)),
        };
        let named = providers
            .iter()
            .map(|(name, fake)| (Arc::from(*name), Arc::clone(fake) as Arc<dyn Provider>));
        Tree::new(named.collect(), options, clock)
    }

    fn rows(found: &Leaves) -> Vec<Row> {
        let nothing = Memory { engine: None };
        found.leaves.iter().map(|leaf| nothing.row(leaf)).collect()
    }

    fn paths(found: &Leaves) -> Vec<String> {
        rows(found).iter().map(Row::shown_path).collect()
    }

    #[tokio::test]
    async fn everything_is_listed_in_order_and_nothing_is_created() {
        let fake = Fake::small();
        let found = below(&tree(&[("b", &fake), ("a", &fake)]), "")
            .await
            .unwrap();
        assert!(found.failures.is_empty());
        let listed = [
            "c0/20240101T000000Z-b2/rs0/rs0.archive.gz",
            "c0/20240102T000000Z-b3/rs0/rs0.archive.gz",
            "c0/20240103T000000Z-b1/rs0/rs0.archive.gz",
            "c0/latest -> 20240102T000000Z-b3",
        ];
        let both = ["a", "b"].iter();
        let expected = both.flat_map(|name| listed.map(|path| format!("{name}/{path}")));
        assert_eq!(paths(&found), expected.collect::<Vec<_>>());
        assert_eq!(fake.creates.load(std::sync::atomic::Ordering::SeqCst), 0);
        assert_eq!(fake.task_calls.load(std::sync::atomic::Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_path_narrows_the_list_and_latest_is_followed() {
        let tree = tree(&[("a", &Fake::small())]);
        let file = "a/c0/20240102T000000Z-b3/rs0/rs0.archive.gz";
        for path in ["a/c0/latest", "/a/c0/latest/rs0/", file] {
            assert_eq!(paths(&below(&tree, path).await.unwrap()), [file]);
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_an_error() {
        let tree = tree(&[("a", &Fake::small())]);
        for path in [
            "b",
            "a/c9",
            "a/c0/latest/rs0/none",
            ".backupfs",
            ".backupfs/metrics",
        ] {
            let error = below(&tree, path).await.unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound, "{path}");
            assert!(error.to_string().starts_with(path), "{error}");
        }
    }

    #[tokio::test]
    async fn one_failing_provider_does_not_hide_the_others() {
        let broken = Fake::small();
        broken.state().fails = Some(Kind::Credentials);
        let tree = tree(&[("a", &broken), ("b", &Fake::small())]);
        let found = below(&tree, "").await;
        let found = found.unwrap();
        assert_eq!(paths(&found).len(), 4);
        let failures: Vec<String> = found.failures.iter().map(Error::to_string).collect();
        assert_eq!(failures.len(), 1);
        assert!(failures[0].contains("/a: told to fail"), "{failures:?}");
        assert_eq!(finish(found.failures, true).unwrap(), Exit::Partly);
    }

    #[test]
    fn failing_altogether_is_a_failure() {
        assert_eq!(finish(Vec::new(), false).unwrap(), Exit::Done);
        let failures = vec![Error::new(Kind::Credentials, "refused")];
        assert_eq!(
            finish(failures, false).unwrap_err().kind(),
            Kind::Credentials
        );
    }

    #[tokio::test]
    async fn empty_directories_are_shown() {
        let empty = Fake::default();
        empty.state().instances = vec![fake::instance("c1")];
        let found = below(&tree(&[("a", &Arc::new(empty))]), "").await.unwrap();
        assert_eq!(paths(&found), ["a/c1/"]);
        let row = &rows(&found)[0];
        assert_eq!(
            (row.kind, row.instance.as_deref()),
            ("directory", Some("c1"))
        );
    }

    #[tokio::test]
    async fn the_json_of_a_file() {
        let fake = Fake::small();
        let mut listed = fake::file("data/x\u{202e}.gz");
        listed.size = Size::Declared(1536);
        fake.state().files = vec![listed];
        let found = below(&tree(&[("a", &fake)]), "a/c0/latest").await.unwrap();
        let text = json(&rows(&found)).unwrap();
        let expected = serde_json::json!([{
            "path": "a/c0/20240102T000000Z-b3/rs0/data/x\u{202e}.gz",
            "kind": "file",
            "provider": "a",
            "instance": "c0",
            "backup": "20240102T000000Z-b3",
            "shard": "rs0",
            "file": "data/x\u{202e}.gz",
            "size": 1536,
            "size_is": "declared",
            "state": "none",
            "percent": null,
            "task": null,
            "expires": null,
            "error": null,
            "started": "2024-01-02T00:00:00Z",
            "finished": "2024-01-02T00:05:00Z",
            "status": "COMPLETED",
            "method": "logical",
            "version": "8.0.4",
            "type": null,
            "target": null,
        }]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value, expected);
        assert_eq!(
            table(&rows(&found)),
            "a/c0/20240102T000000Z-b3/rs0/data/x\\u{202e}.gz  1.5KiB  none\n"
        );
        assert_eq!(
            long_table(&rows(&found)),
            "STATE  SIZE  FINISHED              METHOD   TYPE  VERSION  PATH\n\
             none   1536  2024-01-02T00:05:00Z  logical  -     8.0.4    a/c0/20240102T000000Z-b3/rs0/data/x\\u{202e}.gz\n"
        );
    }
}
