//! What Atlas, or whoever stands in its place, may send.

use super::cloud::{self, CloudSnapshot, Job, Wanted};
use super::paging::Listing;
use super::wire::{Cluster, Page, Restore, Snapshot, TokenGrant};
use super::{convert, refusal};
use crate::fuzzing::NOW;
use crate::model::{Task, TaskState};
use crate::providers::fuzzing::{
    assert_hidden, assert_shown, assert_task, assert_told, instance, read, shard_of,
};
use crate::providers::http::Answer;

/// Each input is read as every kind of answer.
pub fn atlas(data: &[u8]) {
    for cluster in listed::<Cluster>(data) {
        let service = convert::service_of(&cluster);
        let instance = convert::instance(&cluster, service);
        assert_eq!(convert::service(&instance), service);
    }
    for snapshot in listed::<Snapshot>(data) {
        match convert::backup(snapshot, "cluster") {
            Ok(backup) => backup.iter().for_each(assert_shown),
            Err(error) => assert_told(&error),
        }
    }
    if let Some(restore) = read::<Restore>(data) {
        restored(&[restore], data);
    }
    restored(&listed::<Restore>(data), data);
    for snapshot in listed::<CloudSnapshot>(data) {
        match snapshot.backup("cluster") {
            Ok(backup) => assert_shown(&backup),
            Err(error) => assert_told(&error),
        }
    }
    if let Some(job) = read::<Job>(data) {
        delivered(&[job], data);
    }
    delivered(&listed::<Job>(data), data);
    if let Some(grant) = read::<TokenGrant>(data) {
        assert_eq!(format!("{:?}", grant.access_token), "Secret(…)");
    }
}

/// The items of a list, each once.
fn listed<T>(data: &[u8]) -> Vec<T>
where
    T: super::paging::Keyed + serde::de::DeserializeOwned,
{
    let mut listing = Listing::new(true);
    if let Some(page) = read::<Page<T>>(data)
        && let Err(error) = listing.add(page)
    {
        assert_told(&error);
    }
    listing.items
}

fn restored(restores: &[Restore], data: &[u8]) {
    for restore in restores {
        if let Some(task) = convert::task(restore, NOW) {
            assert_task(&task);
            assert!(task.state != TaskState::Ready || restore.snapshot_url.is_some());
        }
        assert_hidden(restore.snapshot_url.as_ref(), &format!("{restore:?}"), data);
        let snapshot = restore.snapshot_id.as_deref().unwrap_or_default();
        if let Some(task) = convert::adoptable(restores, snapshot, NOW) {
            adopted(&task);
        }
    }
}

fn delivered(jobs: &[Job], data: &[u8]) {
    let of = instance();
    let Ok(Some(backup)) = convert::backup(
        Snapshot {
            id: "5f1a2b3c4d5e6f7081920304".to_owned(),
            status: Some("COMPLETED".to_owned()),
            scheduled_time: None,
            start_time: None,
            finish_time: None,
            mongodb_version: None,
        },
        "cluster",
    ) else {
        panic!("an ObjectId tells a time");
    };
    let shard = shard_of(&of, &backup, &backup.shards[0]);
    let wanted = Wanted::of(&shard);
    for job in jobs {
        assert_hidden(job.link_to(wanted), &format!("{job:?}"), data);
    }
    if let Some(task) = cloud::adoptable(jobs, wanted, NOW) {
        adopted(&task);
    }
}

fn adopted(task: &Task) {
    assert_task(task);
    assert!(!task.id.is_empty(), "it can be asked about again");
    let over = task.expires.is_some_and(|at| at <= NOW);
    assert!(task.state != TaskState::Ready || !over, "{task:?}");
}

/// A refusal as an error.
pub(in crate::providers) fn refusal(answer: &Answer) {
    assert_told(&refusal::refused(answer));
}
