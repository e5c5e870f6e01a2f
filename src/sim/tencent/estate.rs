//! What a Tencent account consists of, as a test describes it: instances with their backups, and
//! backups kept as folders in COS.

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use super::super::content::Content;
use crate::secret::Secret;

/// An account: its keys, instances and folders. What is `None` is drawn at the start.
#[derive(Debug, Clone, Default)]
pub(in crate::sim) struct Account {
    pub(in crate::sim) secret_id: Option<String>,
    pub(in crate::sim) secret_key: Option<Secret>,
    pub(in crate::sim) token: Option<Secret>,
    pub(in crate::sim) instances: Vec<Instance>,
    pub(in crate::sim) objects: Vec<(String, Content, Timestamp)>,
}

/// An instance: a replica set, or a sharded cluster.
#[derive(Debug, Clone)]
pub struct Instance {
    pub(super) id: String,
    pub(super) region: String,
    pub(super) shards: usize,
    pub(super) created: Timestamp,
    pub(super) backups: Vec<Backup>,
}

impl Instance {
    /// A replica set without backups; an id is `cmgo-` and eight letters or digits.
    pub fn new(id: &str) -> Self {
        Instance {
            id: id.to_owned(),
            region: "ap-guangzhou".to_owned(),
            shards: 1,
            created: Timestamp::from_second(1_700_000_000).unwrap_or_default(),
            backups: Vec::new(),
        }
    }

    /// Makes it a sharded cluster.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// Puts it in another region.
    pub fn region(mut self, region: &str) -> Self {
        self.region = region.to_owned();
        self
    }

    /// Adds a backup.
    pub fn backup(mut self, backup: Backup) -> Self {
        self.backups.push(backup);
        self
    }

    pub(super) fn shard_id(&self, number: usize) -> String {
        format!("{}_{number}", self.id)
    }
}

/// How a backup was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A dump.
    Logical,
    /// The files of the database.
    Physical,
    /// An image of the disk.
    Snapshot,
}

impl Method {
    pub(super) fn code(self) -> i64 {
        match self {
            Method::Logical => 0,
            Method::Physical => 1,
            Method::Snapshot => 3,
        }
    }
}

/// A backup of an instance.
#[derive(Debug, Clone)]
pub struct Backup {
    pub(super) started: Timestamp,
    pub(super) method: Method,
    pub(super) complete: bool,
    pub(super) manual: bool,
    pub(super) refusal: Option<String>,
    pub(super) contents: Vec<Content>,
}

impl Backup {
    /// A complete logical backup of an instance, begun at `started`; its shards hold `contents`.
    pub fn at(started: Timestamp, contents: impl IntoIterator<Item = Content>) -> Self {
        Backup {
            started,
            method: Method::Logical,
            complete: true,
            manual: false,
            refusal: None,
            contents: contents.into_iter().collect(),
        }
    }

    /// Sets how it was taken.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Makes it one that is still being taken.
    pub fn in_progress(mut self) -> Self {
        self.complete = false;
        self
    }

    /// Makes it one that somebody asked for.
    pub fn manual(mut self) -> Self {
        self.manual = true;
        self
    }

    /// Makes every request to download it end with this error code.
    pub fn not_downloadable(mut self, code: &str) -> Self {
        self.refusal = Some(code.to_owned());
        self
    }

    /// Its record id; it is the `number`-th of its instance.
    pub(super) fn id(&self, number: usize) -> i64 {
        1000 + number as i64
    }

    /// When it was finished: six seconds after its start.
    pub(super) fn finished(&self) -> Timestamp {
        self.started + SignedDuration::from_secs(6)
    }

    /// Its name: the instance and the minute of its start, in China.
    pub(super) fn name(&self, instance: &str) -> String {
        format!("{instance}_{}", china(self.started, "%Y-%m-%d %H:%M"))
    }
}

/// `at` in China Standard Time, in which the API writes all times.
pub(super) fn china(at: Timestamp, format: &str) -> String {
    let civil = Offset::constant(8).to_datetime(at);
    civil.strftime(format).to_string()
}
