//! What Tencent Cloud, or whoever stands in its place, may send.

use super::client::Action;
use super::paging::{Listing, Search};
use super::refusal::Refusal;
use super::{convert, wire};
use crate::fuzzing::NOW;
use crate::model::TaskState;
use crate::providers::fuzzing::{
    assert_hidden, assert_shown, assert_task, assert_told, instance, read,
};
use crate::providers::http::Answer;

/// Each input is read as every kind of answer; also as a link.
pub fn tencent(data: &[u8]) {
    let regions = ["ap-guangzhou".to_owned()];
    if let Some(page) = read::<wire::Instances>(data) {
        let mut listing = Listing::new();
        let _complete = listing.add(page.total_count, page.instance_details);
        for listed in listing.items {
            if let Some(found) = convert::instance(listed, "ap-guangzhou", &regions) {
                assert_eq!(found.facts[convert::REGION], "ap-guangzhou");
            }
        }
    }
    if let Some(page) = read::<wire::Backups>(data) {
        for listed in page.backup_list {
            match convert::backup(listed, &instance()) {
                Ok(backup) => backup.iter().for_each(assert_shown),
                Err(error) => assert_told(&error),
            }
        }
    }
    if let Some(page) = read::<wire::Tasks>(data) {
        let mut search = Search::new();
        search.add(page.total_count, page.tasks);
        for listed in &search.items {
            let task = convert::task(listed);
            assert_task(&task);
            assert!(task.state != TaskState::Ready || listed.url.is_some());
            assert_hidden(listed.url.as_ref(), &format!("{listed:?}"), data);
            let (name, shard) = (
                listed.backup_name.as_deref(),
                listed.replica_set_id.as_deref(),
            );
            if let (Some(name), Some(shard)) = (name, shard) {
                let newest = convert::newest(&search.items, name, shard);
                let newest = newest.expect("there is at least this one");
                let failed = |task| convert::task(task).state == TaskState::Failed;
                assert!(!failed(newest) || failed(listed), "a live one goes first");
            }
        }
    }
    let link = String::from_utf8_lossy(data);
    if let Some(end) = convert::link_end(&link) {
        let _passed = end < NOW;
    }
}

/// A refusal as an error, if it is one.
pub(in crate::providers) fn refusal(answer: &Answer) {
    if let Some(refusal) = Refusal::of(answer) {
        let _ = (refusal.verdict(false), refusal.is_about_a_parameter());
        assert_told(&refusal.into_error(Action::CreateTask));
    }
}
