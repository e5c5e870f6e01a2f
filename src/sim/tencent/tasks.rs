//! Download tasks: what each is at a given time, and when asking for one packs anew. Pure but for
//! the store that packed backups lie in.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::cos::Cos;
use super::estate::china;
use super::knobs::Knobs;

/// A task's status codes.
pub(super) const FINISHED: i64 = 2;
pub(super) const FAILED: i64 = 3;

/// One request to pack a shard of a backup.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) instance: String,
    pub(super) backup: String,
    pub(super) shard: String,
    pub(super) method: i64,
    pub(super) size: u64,
    pub(super) created: Timestamp,
    pub(super) time: SignedDuration,
    pub(super) fails: bool,
    pub(super) waits: bool,
    /// The link that was given last.
    pub(super) link: Option<String>,
    /// Whether the shard was packed again since.
    pub(super) replaced: bool,
}

impl Task {
    pub(super) fn status(&self, now: Timestamp) -> i64 {
        match self.percent(now) {
            100 if self.fails => FAILED,
            100 => FINISHED,
            50..75 if self.waits => 4,
            0 => 0,
            _ => 1,
        }
    }

    fn percent(&self, now: Timestamp) -> i64 {
        let passed = now.duration_since(self.created).as_millis();
        match self.time.as_millis() {
            whole if passed >= whole => 100,
            whole => (passed.max(0) * 100 / whole) as i64,
        }
    }

    /// Where the packed shard lies.
    pub(super) fn key(&self) -> String {
        key(&self.backup, &self.shard)
    }

    /// Whether the packed shard is gone by now.
    pub(super) fn is_lost(&self, now: Timestamp, knobs: &Knobs, store: &Cos) -> bool {
        let over = |life| now.duration_since(self.created + self.time) > life;
        self.status(now) == FINISHED
            && !self.replaced
            && (store.content(&self.key()).is_none() || knobs.packed_life.is_some_and(over))
    }

    /// As it is listed, and whether its link was signed again.
    pub(super) fn document(&mut self, now: Timestamp, knobs: &Knobs, store: &Cos) -> (Value, bool) {
        let status = self.status(now);
        let first = self.link.is_none();
        if status == FINISHED && (first || knobs.resign) {
            let link = store.sign(
                &self.key(),
                now - SignedDuration::from_secs(60),
                now + knobs.link_life,
            );
            self.link = Some(link);
        }
        let mut document = json!({
            "CreateTime": china(self.created, "%Y-%m-%d %H:%M:%S"),
            "BackupName": self.backup,
            "ReplicaSetId": self.shard,
            "BackupSize": self.size,
            "Status": status,
            "Percent": self.percent(now),
            "TimeSpend": now.duration_since(self.created).as_secs().clamp(0, self.time.as_secs()),
            "BackupMethod": self.method,
            "BackupDesc": "",
            "Region": "ap-guangzhou",
            "Bucket": store.bucket(),
        });
        match (status, &self.link) {
            (FINISHED, Some(link)) => document["Url"] = link.as_str().into(),
            _ if knobs.empty_links => document["Url"] = "".into(),
            _ => {}
        }
        (document, status == FINISHED && !first && knobs.resign)
    }
}

/// Where the packed `shard` of `backup` lies.
pub(super) fn key(backup: &str, shard: &str) -> String {
    format!("{backup}/{shard}.tar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_goes_its_way() {
        let created = Timestamp::from_second(1_800_000_000).unwrap();
        let statuses = |fails, waits| {
            let task = Task {
                instance: "i".into(),
                backup: "b".into(),
                shard: "s".into(),
                method: 0,
                size: 1,
                created,
                time: SignedDuration::from_secs(100),
                fails,
                waits,
                link: None,
                replaced: false,
            };
            [0, 10, 60, 99, 100].map(|s| task.status(created + SignedDuration::from_secs(s)))
        };
        assert_eq!(statuses(false, false), [0, 1, 1, 1, 2]);
        assert_eq!(statuses(true, false), [0, 1, 1, 1, 3]);
        assert_eq!(statuses(false, true), [0, 1, 4, 1, 2]);
        assert_eq!(key("n 01:02", "n_0"), "n 01:02/n_0.tar");
    }
}
