//! The snapshots and downloads of the shared tier and of Flex ("Shared-Tier Snapshots" and "Flex
//! Snapshots" of the Atlas Administration API): a download passes through PENDING, QUEUED and
//! RUNNING by the clock, then has a link for four hours. Pure but for the store that signs links.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::clock::iso_seconds;
use super::super::store::Store;
use super::answer::link;
use super::estate::{Cluster, Project, Snapshot, Status, Tier};
use super::knobs::Knobs;

/// A request to download a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Restore {
    pub(super) id: String,
    pub(super) project_id: String,
    pub(super) cluster: String,
    pub(super) snapshot_id: String,
    pub(super) snapshot_finished: Timestamp,
    pub(super) object: String,
    pub(super) scheduled: Timestamp,
    pub(super) ready: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) fails: bool,
    /// Whether the cluster is a Flex one: its documents differ.
    pub(super) flex: bool,
    /// The link last signed.
    pub(super) link: Option<String>,
}

impl Restore {
    /// How far it is: each state before the last takes a third of the time.
    pub(super) fn status(&self, now: Timestamp) -> Status {
        let whole = self.ready.duration_since(self.scheduled);
        let elapsed = now.duration_since(self.scheduled);
        if elapsed >= whole {
            match self.fails {
                true => Status::Failed,
                false => Status::Completed,
            }
        } else if elapsed * 3 < whole {
            Status::Pending
        } else if elapsed * 3 < whole * 2 {
            Status::Queued
        } else {
            Status::Running
        }
    }

    /// The link to answer with, if the download is ready: the last one, or as `knobs` say a new
    /// one while the download lives.
    fn link(&mut self, now: Timestamp, knobs: &Knobs, store: &Store) -> Option<String> {
        if self.status(now) != Status::Completed {
            return None;
        }
        if self.link.is_none() || (knobs.resign && now < self.expires) {
            let end = knobs
                .link_life
                .map_or(self.expires, |life| (now + life).min(self.expires));
            self.link = Some(store.sign(&self.object, end));
        }
        self.link.clone()
    }

    /// `TenantRestore`, and whether a link was signed in place of an earlier one.
    pub(super) fn document(
        &mut self,
        now: Timestamp,
        knobs: &Knobs,
        store: &Store,
        root: &str,
    ) -> (Value, bool) {
        let before = self.link.clone();
        let link_now = self.link(now, knobs, store);
        let refreshed = before.is_some() && before != link_now;
        let (clusters, restores, name) = match self.flex {
            true => ("flexClusters", "restoreJobs", "instanceName"),
            false => ("clusters", "tenant/restores", "clusterName"),
        };
        let own = format!(
            "{root}/groups/{}/{clusters}/{}/backup/{restores}/{}",
            self.project_id, self.cluster, self.id
        );
        let status = self.status(now);
        let mut document = json!({
            "id": self.id,
            name: self.cluster,
            "projectId": self.project_id,
            "deliveryType": "DOWNLOAD",
            "expirationDate": iso_seconds(self.expires),
            "restoreScheduledDate": iso_seconds(self.scheduled),
            "snapshotFinishedDate": iso_seconds(self.snapshot_finished),
            "snapshotId": self.snapshot_id,
            "status": status.tenant_word(),
            "targetDeploymentItemName": self.cluster,
            "targetProjectId": self.project_id,
            "links": [link(&own, "self")],
        });
        if matches!(status, Status::Completed | Status::Failed) {
            document["restoreFinishedDate"] = iso_seconds(self.ready).into();
        }
        if let Some(url) = link_now {
            document["snapshotUrl"] = url.into();
        }
        (document, refreshed)
    }
}

/// `BackupTenantSnapshot`, or that of a Flex cluster, which has no links; neither names a size.
pub(super) fn snapshot(
    project: &Project,
    cluster: &Cluster,
    snapshot: &Snapshot,
    root: &str,
) -> Value {
    let own = format!(
        "{root}/groups/{}/clusters/{}/backup/tenant/snapshots/{}",
        project.id, cluster.name, snapshot.id
    );
    let mut document = json!({
        "id": snapshot.id,
        "status": snapshot.status.tenant_word(),
        "scheduledTime": iso_seconds(snapshot.started),
        "expiration": iso_seconds(snapshot.expires()),
        "mongoDBVersion": cluster.version,
    });
    if cluster.tier != Tier::Flex {
        document["links"] = json!([link(&own, "self")]);
    }
    if !matches!(snapshot.status, Status::Pending | Status::Queued) {
        document["startTime"] = iso_seconds(snapshot.started).into();
    }
    if matches!(snapshot.status, Status::Completed | Status::Failed) {
        document["finishTime"] = iso_seconds(snapshot.finished()).into();
    }
    document
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_restore_moves_by_the_clock() {
        let start = Timestamp::UNIX_EPOCH;
        let after = |seconds| start + SignedDuration::from_secs(seconds);
        let mut restore = Restore {
            id: String::new(),
            project_id: String::new(),
            cluster: String::new(),
            snapshot_id: String::new(),
            snapshot_finished: start,
            object: String::new(),
            scheduled: start,
            ready: after(30),
            expires: after(3600),
            fails: false,
            flex: false,
            link: None,
        };
        let at = |restore: &Restore| [0, 9, 10, 20, 29, 30, 9999].map(|s| restore.status(after(s)));
        use Status::*;
        assert_eq!(
            at(&restore),
            [
                Pending, Pending, Queued, Running, Running, Completed, Completed
            ]
        );
        restore.fails = true;
        assert_eq!(restore.status(after(30)), Failed);
        restore.ready = start;
        assert_eq!(restore.status(start), Failed, "at once");
    }
}
