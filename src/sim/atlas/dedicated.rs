//! Cloud backups of dedicated replica sets ("Cloud Backups" of the Atlas Administration API): a
//! download job has an empty `deliveryUrl` until it is ready, then one link for an hour, and ends
//! expired or cancelled for good. Pure but for the store that signs links.
//!
//! The link leads to the object store, which allows more than the real one-time restore host.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::clock::iso_seconds;
use super::super::store::Store;
use super::answer::link;
use super::estate::{Cluster, Project, Snapshot, Status};

/// A download job.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) project_id: String,
    pub(super) cluster: String,
    pub(super) snapshot_id: String,
    pub(super) snapshot_finished: Timestamp,
    pub(super) object: String,
    pub(super) created: Timestamp,
    pub(super) ready: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) fails: bool,
    pub(super) cancelled: bool,
    pub(super) link: Option<String>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Working,
    Ready,
    Failed,
    Expired,
    Cancelled,
}

impl Job {
    pub(super) fn stage(&self, now: Timestamp) -> Stage {
        if self.cancelled {
            Stage::Cancelled
        } else if now < self.ready {
            Stage::Working
        } else if self.fails {
            Stage::Failed
        } else if now < self.expires {
            Stage::Ready
        } else {
            Stage::Expired
        }
    }

    /// Ends a job that has not ended.
    pub(super) fn cancel(&mut self, now: Timestamp) {
        self.cancelled |= matches!(self.stage(now), Stage::Working | Stage::Ready);
    }

    /// `DiskBackupSnapshotRestoreJob`.
    pub(super) fn document(&mut self, now: Timestamp, store: &Store, root: &str) -> Value {
        let cluster = format!(
            "{root}/groups/{}/clusters/{}",
            self.project_id, self.cluster
        );
        let stage = self.stage(now);
        let mut document = json!({
            "id": self.id,
            "snapshotId": self.snapshot_id,
            "deliveryType": "download",
            "deliveryUrl": [],
            "cancelled": stage == Stage::Cancelled,
            "expired": stage == Stage::Expired,
            "failed": stage == Stage::Failed,
            "createdAt": iso_seconds(self.created),
            "timestamp": iso_seconds(self.snapshot_finished),
            // Recorded with nulls for downloads.
            "desiredTimestamp": {"date": null, "increment": null, "time": null},
            "links": [
                link(&format!("{cluster}/backup/restoreJobs/{}", self.id), "self"),
                link(
                    &format!("{cluster}/backup/snapshots/{}", self.snapshot_id),
                    "https://cloud.mongodb.com/snapshot",
                ),
            ],
        });
        match stage {
            Stage::Working | Stage::Cancelled => {}
            Stage::Failed => document["finishedAt"] = iso_seconds(self.ready).into(),
            Stage::Expired => document["finishedAt"] = iso_seconds(self.expires).into(),
            Stage::Ready => {
                let (object, expires) = (&self.object, self.expires);
                let url = self.link.get_or_insert_with(|| store.sign(object, expires));
                document["deliveryUrl"] = json!([url]);
                document["expiresAt"] = iso_seconds(self.expires).into();
            }
        }
        document
    }
}

/// `DiskBackupReplicaSet`. The size is what the snapshot stores, not that of its archive.
pub(super) fn snapshot(
    project: &Project,
    cluster: &Cluster,
    snapshot: &Snapshot,
    root: &str,
) -> Value {
    let base = format!("{root}/groups/{}/clusters/{}", project.id, cluster.name);
    let mut document = json!({
        "id": snapshot.id,
        "status": snapshot.status.dedicated_word(),
        "snapshotType": "scheduled",
        "frequencyType": "daily",
        "type": "replicaSet",
        "expiresAt": iso_seconds(snapshot.expires()),
        "storageSizeBytes": 0,
        "mongodVersion": cluster.version,
        "replicaSetName": cluster.name,
        "cloudProvider": "AWS",
        "copyRegions": [],
        "policyItems": [],
        "links": [
            link(&format!("{base}/backup/snapshots/{}", snapshot.id), "self"),
            link(&base, "https://cloud.mongodb.com/cluster"),
        ],
    });
    if matches!(snapshot.status, Status::Completed | Status::Running) {
        document["createdAt"] = iso_seconds(snapshot.started).into();
    }
    if snapshot.status == Status::Completed {
        document["storageSizeBytes"] = (snapshot.content.size() * 3).into();
    }
    document
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_job_ends_once() {
        let start = Timestamp::UNIX_EPOCH;
        let after = |minutes| start + SignedDuration::from_mins(minutes);
        let job = Job {
            id: String::new(),
            project_id: String::new(),
            cluster: String::new(),
            snapshot_id: String::new(),
            snapshot_finished: start,
            object: String::new(),
            created: start,
            ready: after(4),
            expires: after(64),
            fails: false,
            cancelled: false,
            link: None,
        };
        use Stage::*;
        let stages = |job: &Job| [0, 4, 63, 64].map(|m| job.stage(after(m)));
        assert_eq!(stages(&job), [Working, Ready, Ready, Expired]);
        let mut cancelled = job.clone();
        cancelled.cancel(after(5));
        assert_eq!(cancelled.stage(after(64)), Cancelled);
        let mut late = job.clone();
        late.cancel(after(64));
        assert_eq!(late.stage(after(64)), Expired);
        let failed = Job { fails: true, ..job };
        assert_eq!(stages(&failed), [Working, Failed, Failed, Failed]);
    }
}
