//! Cloud backups of dedicated clusters ("Cloud Backups" of the Atlas Administration API): a download
//! job has an empty `deliveryUrl` until it is ready, then one link for each replica set, which
//! works once and for an hour, and ends used, expired or cancelled for good. Pure but for the host
//! that knows which links were used.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::clock::iso_seconds;
use super::answer::link;
use super::estate::{Cluster, Project, Snapshot, Status, Topology};
use super::host::{Host, Transfer};
use super::knobs::{Knobs, UsedJob};

/// A download job.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) project_id: String,
    pub(super) cluster: String,
    /// As it was asked for: of a whole snapshot or of one member.
    pub(super) snapshot_id: String,
    pub(super) snapshot_finished: Timestamp,
    pub(super) parts: Vec<Part>,
    /// Whether the parts are named one by one.
    pub(super) whole_cluster: bool,
    pub(super) created: Timestamp,
    pub(super) ready: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) fails: bool,
    pub(super) cancelled: bool,
}

/// One archive of a job.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) replica_set: String,
    /// By which the host knows its link.
    pub(super) path: String,
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
    pub(super) fn cancel(&mut self, now: Timestamp, host: &Host) {
        if matches!(self.stage(now), Stage::Working | Stage::Ready) {
            self.cancelled = true;
            self.parts.iter().for_each(|part| host.cancel(&part.path));
        }
    }

    /// `DiskBackupSnapshotRestoreJob`.
    pub(super) fn document(&self, now: Timestamp, knobs: &Knobs, host: &Host, root: &str) -> Value {
        let cluster = format!(
            "{root}/groups/{}/clusters/{}",
            self.project_id, self.cluster
        );
        let stage = self.stage(now);
        let links: Vec<Option<String>> = match stage {
            Stage::Ready => self
                .parts
                .iter()
                .map(|part| shown(part, knobs, host))
                .collect(),
            _ => vec![None; self.parts.len()],
        };
        let all: Vec<&String> = links.iter().flatten().collect();
        let mut document = json!({
            "id": self.id,
            "snapshotId": self.snapshot_id,
            "deliveryType": "download",
            "deliveryUrl": all,
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
        if let (true, Some(first)) = (knobs.bare_delivery_url, all.first()) {
            document["deliveryUrl"] = first.as_str().into();
        }
        if self.whole_cluster {
            let components = self.parts.iter().zip(&links).map(|(part, link)| {
                json!({
                    "replicaSetName": part.replica_set,
                    "downloadUrl": link,
                    "privateDownloadDeliveryUrls": [],
                })
            });
            document["components"] = components.collect();
        }
        match stage {
            Stage::Working | Stage::Cancelled => {}
            Stage::Failed => document["finishedAt"] = iso_seconds(self.ready).into(),
            Stage::Expired => document["finishedAt"] = iso_seconds(self.expires).into(),
            Stage::Ready => {
                document["expiresAt"] = iso_seconds(self.expires).into();
                if all.is_empty() && knobs.used_job == UsedJob::Finished {
                    document["finishedAt"] = iso_seconds(now).into();
                }
            }
        }
        document
    }
}

/// The link of a part as a ready job shows it.
fn shown(part: &Part, knobs: &Knobs, host: &Host) -> Option<String> {
    let unused = host.transfer(&part.path) == Transfer::None;
    let restarts = knobs.restore_host.restarts && host.transfer(&part.path) == Transfer::BrokenOff;
    (unused || restarts || knobs.used_job == UsedJob::Unchanged).then(|| host.link(&part.path))
}

/// `DiskBackupReplicaSet`, or `DiskBackupShardedClusterSnapshot` with its members. The size is what
/// the snapshot stores, not that of its archive.
pub(super) fn snapshot(
    project: &Project,
    cluster: &Cluster,
    snapshot: &Snapshot,
    root: &str,
) -> Value {
    let base = format!("{root}/groups/{}/clusters/{}", project.id, cluster.name);
    let (kind, frequency) = match snapshot.on_demand {
        true => ("onDemand", "ondemand"),
        false => ("scheduled", "daily"),
    };
    let mut document = json!({
        "id": snapshot.id,
        "status": snapshot.status.dedicated_word(),
        "snapshotType": kind,
        "frequencyType": frequency,
        "expiresAt": iso_seconds(snapshot.expires()),
        "storageSizeBytes": 0,
        "mongodVersion": cluster.version,
        "copyRegions": [],
        "policyItems": [],
    });
    let own = match cluster.topology {
        Topology::ReplicaSet => {
            document["type"] = "replicaSet".into();
            document["replicaSetName"] = cluster.name.as_str().into();
            document["cloudProvider"] = "AWS".into();
            "snapshots"
        }
        Topology::Sharded(_) | Topology::GeoSharded(_) => {
            let members = cluster.replica_sets().into_iter().map(|replica_set| {
                json!({
                    "id": snapshot.member_id(&replica_set),
                    "replicaSetName": replica_set,
                    "cloudProvider": "AWS",
                })
            });
            let members: Vec<Value> = members.collect();
            document["type"] = "shardedCluster".into();
            document["snapshotIds"] = members.iter().map(|member| member["id"].clone()).collect();
            document["members"] = members.into();
            document["configServerType"] = "DEDICATED".into();
            "snapshots/shardedCluster"
        }
    };
    document["links"] = json!([
        link(&format!("{base}/backup/{own}/{}", snapshot.id), "self"),
        link(&base, "https://cloud.mongodb.com/cluster"),
    ]);
    if snapshot.encrypted {
        document["masterKeyUUID"] = "5d03a6a0-2a9c-4336-c3d9-8d4000000000".into();
    }
    if matches!(snapshot.status, Status::Completed | Status::Running) {
        document["createdAt"] = iso_seconds(snapshot.started).into();
    }
    if snapshot.status == Status::Completed {
        document["storageSizeBytes"] = 3_000_000_000_u64.into();
    }
    document
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_job_ends_once() {
        let host = Host::new(String::new());
        let start = Timestamp::UNIX_EPOCH;
        let after = |minutes| start + SignedDuration::from_mins(minutes);
        let job = Job {
            id: String::new(),
            project_id: String::new(),
            cluster: String::new(),
            snapshot_id: String::new(),
            snapshot_finished: start,
            parts: Vec::new(),
            whole_cluster: false,
            created: start,
            ready: after(4),
            expires: after(64),
            fails: false,
            cancelled: false,
        };
        use Stage::*;
        let stages = |job: &Job| [0, 4, 63, 64].map(|m| job.stage(after(m)));
        assert_eq!(stages(&job), [Working, Ready, Ready, Expired]);
        let mut cancelled = job.clone();
        cancelled.cancel(after(5), &host);
        assert_eq!(cancelled.stage(after(64)), Cancelled);
        let mut late = job.clone();
        late.cancel(after(64), &host);
        assert_eq!(late.stage(after(64)), Expired);
        let failed = Job { fails: true, ..job };
        assert_eq!(stages(&failed), [Working, Failed, Failed, Failed]);
    }
}
