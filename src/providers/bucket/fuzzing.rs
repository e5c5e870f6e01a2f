//! What an object store, or whoever wrote into it, may hold.

use super::store::Object;
use super::{pbm, refusal, times};
use crate::config::BucketService;
use crate::providers::fuzzing::{assert_shown, assert_told};
use crate::providers::http::Answer;

/// A name on the first line, the description of a snapshot of that name behind it.
pub fn pbm(data: &[u8]) {
    let mut input = crate::fuzzing::Input(data);
    let name = input.line();
    let _ = times::of_name(&name);
    let object = Object {
        key: name.clone(),
        size: 0,
        modified: None,
        etag: None,
    };
    if let Some(backup) = pbm::backup(&name, &object, pbm::describe(&name, input.0)) {
        assert_shown(&backup);
        assert!(backup.finished >= backup.started, "{backup:?}");
        assert_eq!(backup.successful, backup.status == "done");
        let mut ids: Vec<&str> = backup.shards.iter().map(|shard| &*shard.id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "{backup:?}");
    }
}

/// A refusal as an error.
pub(in crate::providers) fn refusal(answer: &Answer) {
    let _ = refusal::is_throttling(answer);
    for service in [BucketService::S3, BucketService::Gcs] {
        assert_told(&refusal::error(service, answer));
    }
}
