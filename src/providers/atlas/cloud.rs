//! Cloud backups of dedicated clusters (M10 and larger): snapshots, with the members of a sharded
//! cluster, and download jobs with their one-time links ("Cloud Backups" of the Atlas
//! Administration API). Read as leniently as the rest of what Atlas sends. Pure: the time is a
//! parameter.
//!
//! A job has no link until it is ready and none once the link was used, and nothing documented
//! tells the two apart: [`Seen`] is what the caller knows of it.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::convert::{object_id_time, preference, timestamp};
use super::wire::{lenient, link};
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Backup, Facts, Shard, ShardRef, Task, TaskState};
use crate::secret::Secret;

/// Under which of a shard's facts its member's id stands.
const MEMBER: &str = "member";

/// How long a failed job tells anything about the next one.
const HISTORY: SignedDuration = SignedDuration::from_hours(1);

/// A snapshot of a replica set or of a sharded cluster. `storageSizeBytes` is not read: it is what
/// the snapshot stores, not the size of the file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CloudSnapshot {
    pub(super) id: String,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) status: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    snapshot_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    frequency_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    created_at: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    mongod_version: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    replica_set_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    members: Option<Vec<Member>>,
}

/// The part of a snapshot that is one shard, or the config servers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    id: String,
    #[serde(default, deserialize_with = "lenient")]
    replica_set_name: Option<String>,
}

/// A download job. Its links are private, hence no derived Debug.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Job {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    snapshot_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    delivery_type: Option<String>,
    #[serde(default, deserialize_with = "link")]
    delivery_url: Option<Secret>,
    #[serde(default, deserialize_with = "lenient")]
    components: Option<Vec<Component>>,
    #[serde(default, deserialize_with = "lenient")]
    expires_at: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    finished_at: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    failed: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    cancelled: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    expired: Option<bool>,
}

/// The link of one member in a job of a whole sharded cluster. Links through private endpoints are
/// not read: they work from inside one network only.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    #[serde(default, deserialize_with = "lenient")]
    replica_set_name: Option<String>,
    #[serde(default, deserialize_with = "link")]
    download_url: Option<Secret>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("linked", &self.delivery_url.is_some())
            .finish_non_exhaustive()
    }
}

/// The body of a create.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobRequest<'a> {
    delivery_type: &'static str,
    snapshot_id: &'a str,
}

impl<'a> JobRequest<'a> {
    /// Asks for the download of a snapshot, or of one member of it.
    pub(super) fn download(snapshot_id: &'a str) -> Self {
        JobRequest {
            delivery_type: "download",
            snapshot_id,
        }
    }
}

impl CloudSnapshot {
    pub(super) fn is_complete(&self) -> bool {
        let status = self.status.as_deref().unwrap_or_default();
        status.eq_ignore_ascii_case("completed")
    }

    /// Whether it says of which replica sets it consists.
    pub(super) fn has_members(&self) -> bool {
        self.members
            .as_ref()
            .is_some_and(|members| !members.is_empty())
    }

    /// The backup that it is: a directory for each member, or one for the only replica set.
    pub(super) fn backup(self, cluster: &str) -> Result<Backup> {
        let taken = self.created_at.as_deref().and_then(timestamp);
        let Some(taken) = taken.or_else(|| object_id_time(&self.id)) else {
            let words = format!(
                "Atlas lists snapshot {} without any time",
                one_line(&self.id)
            );
            return Err(Error::new(Kind::Protocol, words));
        };
        let members = self.members.unwrap_or_default();
        let shards = match members.is_empty() {
            true => vec![Shard {
                id: named(self.replica_set_name).unwrap_or_else(|| cluster.to_owned()),
                facts: Facts::new(),
            }],
            false => members.into_iter().map(Member::shard).collect(),
        };
        Ok(Backup {
            id: self.id,
            started: taken,
            finished: taken,
            status: self.status.unwrap_or_default(),
            successful: true,
            method: Some("snapshot".to_owned()),
            version: self.mongod_version,
            trigger: named(self.snapshot_type).or(named(self.frequency_type)),
            not_downloadable: None,
            shards,
            facts: Facts::new(),
        })
    }
}

impl Member {
    fn shard(self) -> Shard {
        Shard {
            id: named(self.replica_set_name).unwrap_or_else(|| self.id.clone()),
            facts: Facts::from([(MEMBER, self.id)]),
        }
    }
}

fn named(name: Option<String>) -> Option<String> {
    name.filter(|name| !name.trim().is_empty())
}

/// What is to be downloaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The id of the snapshot.
    pub(super) snapshot: &'a str,
    /// The id of the member, in a sharded cluster.
    pub(super) member: Option<&'a str>,
    replica_set: &'a str,
}

impl<'a> Wanted<'a> {
    /// The download that a directory of the tree stands for.
    pub(super) fn of(shard: &'a ShardRef) -> Self {
        Wanted {
            snapshot: &shard.backup.id,
            member: shard.shard.facts.get(MEMBER).map(String::as_str),
            replica_set: &shard.shard.id,
        }
    }
}

/// What a caller knows of a job besides what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It had a link before.
    Linked,
    /// It had none yet.
    AtWork,
    /// Nothing: it was found.
    Nothing,
}

impl Seen {
    /// What an earlier look at `task` saw.
    pub(super) fn of(task: &Task) -> Self {
        match task.state {
            TaskState::Ready => Seen::Linked,
            _ => Seen::AtWork,
        }
    }
}

impl Job {
    /// Whether it downloads what is wanted, among other things perhaps.
    pub(super) fn is_for(&self, wanted: Wanted<'_>) -> bool {
        let of = self.snapshot_id.as_deref();
        let kind = self.delivery_type.as_deref();
        kind.is_none_or(|kind| kind.eq_ignore_ascii_case("download"))
            && (of == Some(wanted.snapshot) || (of.is_some() && of == wanted.member))
    }

    /// The link to what is wanted, if there is one now. A job of a member alone has it in the place
    /// of the whole.
    pub(super) fn link_to(&self, wanted: Wanted<'_>) -> Option<&Secret> {
        let components = self.components.as_deref().unwrap_or_default();
        let component = components
            .iter()
            .find(|part| part.replica_set_name.as_deref() == Some(wanted.replica_set))
            .and_then(|part| part.download_url.as_ref());
        let alone = self.snapshot_id.as_deref() == wanted.member;
        match wanted.member.is_none() || alone {
            true => self.delivery_url.as_ref().or(component),
            false => component,
        }
    }

    /// Where it stands for who wants a part of it. `None` if it has no id, by which alone it can be
    /// asked about again.
    ///
    /// It is ready as long as it has a link, even past its expiry: only using the link proves that
    /// the artifact is gone.
    pub(super) fn task(&self, wanted: Wanted<'_>, seen: Seen, now: Timestamp) -> Option<Task> {
        let id = self.id.clone().filter(|id| !id.is_empty())?;
        let expires = self.expires_at.as_deref().and_then(timestamp);
        let cancelled = self.cancelled == Some(true);
        let used = match seen {
            Seen::Linked => true,
            Seen::AtWork => false,
            // It appears with the link.
            Seen::Nothing => expires.is_some(),
        };
        let over = used || self.finished_at.is_some() || expires.is_some_and(|at| at <= now);
        let state = if cancelled || self.failed == Some(true) {
            TaskState::Failed
        } else if self.expired == Some(true) {
            TaskState::Expired
        } else if self.link_to(wanted).is_some() {
            TaskState::Ready
        } else if over {
            TaskState::Expired
        } else {
            TaskState::Running
        };
        let words = match cancelled {
            true => "somebody cancelled the download job",
            false => "Atlas reports the download job as failed",
        };
        Some(Task {
            id,
            state,
            percent: (state == TaskState::Ready).then_some(100),
            expires,
            message: (state == TaskState::Failed).then(|| words.to_owned()),
        })
    }

    /// Whether it tells nothing any more about a job made now.
    fn is_history(&self, state: TaskState, now: Timestamp) -> bool {
        let made = self.id.as_deref().and_then(object_id_time);
        let old = made.is_none_or(|made| now.duration_since(made) > HISTORY);
        state == TaskState::Failed && (self.cancelled == Some(true) || old)
    }
}

/// The job to adopt: one with a live link, else one at work, else one whose link was used or is
/// over, else one that failed just now; the newest of each.
pub(super) fn adoptable(jobs: &[Job], wanted: Wanted<'_>, now: Timestamp) -> Option<Task> {
    jobs.iter()
        .filter(|job| job.is_for(wanted))
        .filter_map(|job| {
            let mut task = job.task(wanted, Seen::Nothing, now)?;
            if task.state == TaskState::Ready && task.expires.is_some_and(|at| at <= now) {
                task.state = TaskState::Expired;
            }
            (!job.is_history(task.state, now)).then_some(task)
        })
        .max_by_key(|task| (preference(task.state), object_id_time(&task.id)))
}

#[cfg(test)]
mod tests;
