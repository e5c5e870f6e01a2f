//! What a UCloud account consists of, as a test describes it: instances with their backups.

use jiff::{SignedDuration, Timestamp};

use super::super::content::Content;
use crate::secret::Secret;

/// The region that everything is in, unless it says otherwise.
pub(super) const REGION: &str = "cn-bj2";

/// An account with its instances; its keys are drawn at the start unless they are given.
#[derive(Debug, Clone, Default)]
pub struct Account {
    pub(super) keys: Option<(String, Secret)>,
    pub(super) project: Option<String>,
    pub(super) instances: Vec<Instance>,
}

impl Account {
    /// An account without instances.
    pub fn new() -> Self {
        Account::default()
    }

    /// Sets its keys.
    pub fn keys(mut self, public: &str, private: &str) -> Self {
        self.keys = Some((public.to_owned(), Secret::new(private)));
        self
    }

    /// Sets the id of its only project.
    pub fn project(mut self, id: &str) -> Self {
        self.project = Some(id.to_owned());
        self
    }

    /// Adds an instance.
    pub fn instance(mut self, instance: Instance) -> Self {
        self.instances.push(instance);
        self
    }
}

/// An instance: a replica set, or a sharded cluster.
#[derive(Debug, Clone)]
pub struct Instance {
    pub(super) id: String,
    pub(super) region: String,
    pub(super) zone: String,
    pub(super) sharded: bool,
    pub(super) created: Timestamp,
    pub(super) backups: Vec<Backup>,
}

impl Instance {
    /// A replica set without backups.
    pub fn replica_set(id: &str) -> Self {
        Instance {
            id: id.to_owned(),
            region: REGION.to_owned(),
            zone: format!("{REGION}-05"),
            sharded: false,
            created: Timestamp::from_second(1_700_000_000).unwrap_or_default(),
            backups: Vec::new(),
        }
    }

    /// A sharded cluster without backups.
    pub fn sharded(id: &str) -> Self {
        Instance {
            sharded: true,
            ..Self::replica_set(id)
        }
    }

    /// Puts it into another region and zone.
    pub fn zone(mut self, region: &str, zone: &str) -> Self {
        self.region = region.to_owned();
        self.zone = zone.to_owned();
        self
    }

    /// Adds a backup.
    pub fn backup(mut self, backup: Backup) -> Self {
        self.backups.push(backup);
        self
    }

    /// The replica set of the `part`-th row of a backup: a shard, or the config servers at the end.
    pub(super) fn member(&self, backup: &Backup, part: usize) -> (&'static str, String) {
        if self.sharded && part + 1 == backup.contents.len() {
            ("ConfigRepl", format!("{}-config", self.id))
        } else {
            ("DataRepl", format!("{}-shard{part}", self.id))
        }
    }

    /// The directory of that row.
    pub(super) fn shard_name(&self, backup: &Backup, part: usize) -> String {
        match (self.sharded, self.member(backup, part)) {
            (false, _) => "rs".to_owned(),
            (true, ("ConfigRepl", _)) => "config".to_owned(),
            (true, (_, member)) => member,
        }
    }
}

/// A backup of an instance: one row for each replica set.
#[derive(Debug, Clone)]
pub struct Backup {
    pub(super) started: Timestamp,
    pub(super) running: bool,
    pub(super) manual: bool,
    pub(super) snapshot: bool,
    pub(super) contents: Vec<Content>,
    pub(super) oplogs: Vec<Content>,
    pub(super) id: Option<String>,
    /// Its place among the backups of all instances, counted at the start.
    pub(super) number: usize,
}

impl Backup {
    /// A complete logical backup begun at `started`. Of a sharded cluster, the last of `contents` is
    /// that of its config servers.
    pub fn at(started: Timestamp, contents: impl IntoIterator<Item = Content>) -> Self {
        Backup {
            started,
            running: false,
            manual: false,
            snapshot: false,
            contents: contents.into_iter().collect(),
            oplogs: Vec::new(),
            id: None,
            number: 0,
        }
    }

    /// Sets the id of its first row.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// Makes it one that is still being taken.
    pub fn running(mut self) -> Self {
        self.running = true;
        self
    }

    /// Makes it one that somebody asked for.
    pub fn manual(mut self) -> Self {
        self.manual = true;
        self
    }

    /// Makes it an image of the disk.
    pub fn snapshot(mut self) -> Self {
        self.snapshot = true;
        self
    }

    /// Adds the log of the hour that follows, or of the hour after the last one.
    pub fn oplog(mut self, content: Content) -> Self {
        self.oplogs.push(content);
        self
    }

    /// The id of a row.
    pub(super) fn row(&self, part: usize) -> String {
        match (&self.id, part) {
            (Some(id), 0) => id.clone(),
            _ => format!("umongodb-bk-{:04}{part}", self.number),
        }
    }

    /// The id that the rows of a sharded cluster share.
    pub(super) fn batch(&self) -> String {
        format!("batch-{:04}", self.number)
    }

    /// The id of the package of a log.
    pub(super) fn package(&self, log: usize) -> usize {
        self.number * 100 + log
    }

    /// When it was finished: 90 seconds after its start.
    pub(super) fn finished(&self) -> Timestamp {
        self.started + SignedDuration::from_secs(90)
    }

    /// The hour of a log.
    pub(super) fn hour(&self, log: usize) -> (Timestamp, Timestamp) {
        let hour = |number: usize| {
            self.finished() + SignedDuration::from_hours(i64::try_from(number).unwrap_or(i64::MAX))
        };
        (hour(log), hour(log + 1))
    }
}
