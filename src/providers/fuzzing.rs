//! What every cloud's answers must keep, whoever wrote them.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::http::Answer;
use super::{objects, presigned};
use crate::error::{Error, Kind};
use crate::fuzzing::{Input, assert_one_line};
use crate::model::{Backup, Facts, Instance, Link, RemoteFile, Shard, ShardRef, Task, TaskState};
use crate::names;
use crate::secret::Secret;

/// An answer of a status with `body`.
pub(super) fn answer(status: StatusCode, body: &[u8]) -> Answer {
    Answer {
        status,
        headers: HeaderMap::new(),
        body: body.to_vec().into(),
        origin: "https://api.example".into(),
    }
}

/// The body of a successful answer, read as any of an API's answers is.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    match answer(StatusCode::OK, body).json() {
        Ok(read) => Some(read),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Protocol);
            assert_quotes_nothing(&error, body);
            None
        }
    }
}

/// An instance that is asked about.
pub(super) fn instance() -> Instance {
    Instance {
        id: "instance".to_owned(),
        created: None,
        facts: Facts::new(),
    }
}

/// A shard of `backup` that is asked about.
pub(super) fn shard_of(instance: &Instance, backup: &Backup, shard: &Shard) -> ShardRef {
    ShardRef {
        provider: "cloud".into(),
        instance: Arc::new(instance.clone()),
        backup: Arc::new(backup.clone()),
        shard: shard.clone(),
    }
}

/// That the tree can show it: its name is a name, and so are those of its shards.
pub(super) fn assert_shown(backup: &Backup) {
    let name = names::backup_name(backup.started, &backup.id);
    assert!(
        name.len() <= names::MAX_BYTES && !name.contains(['/', '\0']),
        "{name:?}"
    );
    for shard in &backup.shards {
        let name = names::component(&shard.id);
        assert!(!name.is_empty() && !name.starts_with('.'), "{name:?}");
    }
}

/// That `file` does not claim more than a file can have.
pub(super) fn assert_file(file: &RemoteFile) {
    assert!(!file.path.is_empty());
}

/// That progress ends at 100, and that only a failure has a message.
pub(super) fn assert_task(task: &Task) {
    assert!(
        task.percent.is_none_or(|percent| percent <= 100),
        "{task:?}"
    );
    assert!(
        task.message.is_none() || task.state == TaskState::Failed,
        "{task:?}"
    );
    task.message
        .as_deref()
        .into_iter()
        .for_each(assert_one_line);
}

/// That an error is one line, not longer than one can read.
pub(super) fn assert_told(error: &Error) {
    let words = error.to_string();
    assert_one_line(&words);
    assert!(words.len() < 8192, "{} bytes", words.len());
}

/// That an error about `body` repeats none of it.
fn assert_quotes_nothing(error: &Error, body: &[u8]) {
    assert_told(error);
    if body.windows(6).any(|window| window == b"CANARY") {
        assert!(!error.to_string().contains("CANARY"), "{error}");
    }
}

/// That `secret`, which stands in `body` once, is not in what is `shown` of it.
pub(super) fn assert_hidden(secret: Option<&Secret>, shown: &str, body: &[u8]) {
    let Some(secret) = secret
        .map(Secret::expose)
        .filter(|secret| secret.len() >= 12)
    else {
        return;
    };
    let found = body
        .windows(secret.len())
        .filter(|window| *window == secret.as_bytes());
    if found.count() == 1 {
        assert!(!shown.contains(secret), "{shown}");
    }
}

/// That a link is what may be asked, and shows nothing of itself.
fn assert_private(link: &Link) {
    assert!(link.url.is_https(), "{link:?}");
    let shown = format!("{} {:?}", link.url, link.url);
    assert!(!shown.contains('?'), "{shown}");
}

/// A link as a cloud would give it, by each of the ways in which links come.
pub fn links(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(link) = presigned::link("The cloud", &text, false) {
        assert_private(&link);
    }
    let over_tls = presigned::over_tls(&text, false);
    if let Ok(link) = presigned::link("The cloud", &over_tls, false) {
        assert_private(&link);
    }
    assert_eq!(presigned::over_tls(&over_tls, false), over_tls);
    assert_eq!(presigned::over_tls(&text, true), text);
}

/// The body of a refusal, with a status before it, for each cloud and store: one line that tells
/// what is wrong.
pub fn refusals(data: &[u8]) {
    let mut input = Input(data);
    let status = input.line();
    let Ok(status) = StatusCode::from_bytes(status.as_bytes()) else {
        return;
    };
    let answer = answer(status, input.0);
    let (code, message) = objects::complaint(&answer);
    assert!(!status.is_success() || (code.is_empty() && message.is_empty()));
    super::aliyun::fuzzing::refusal(&answer);
    super::atlas::fuzzing::refusal(&answer);
    super::bucket::fuzzing::refusal(&answer);
    super::tencent::fuzzing::refusal(&answer);
    super::ucloud::fuzzing::refusal(&answer);
}
