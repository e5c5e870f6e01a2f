//! Download tasks as Alibaba Cloud lists them: where each stands, and which of them matters. Pure.
//!
//! States are written in several spellings. Words not known yet count as "under way": to wait for a
//! task that has ended costs time, to create another one may cost money.

use jiff::Timestamp;

use super::wire::{DownloadTask, Storage};
use crate::config::Network;
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Link, Task, TaskState};
use crate::providers::presigned;

/// Where a listed task stands.
fn state(task: &DownloadTask) -> TaskState {
    let status = task.download_status.as_deref().unwrap_or_default();
    match status.to_ascii_lowercase().as_str() {
        "initializing" | "queueing" | "queuing" | "queued" => TaskState::Queued,
        "finished" | "success" | "successful" => TaskState::Ready,
        "expired" => TaskState::Expired,
        "failed" => TaskState::Failed,
        _ => TaskState::Running,
    }
}

/// Done tables of all tables, `3/17`, in percent.
fn percent(progress: &str) -> Option<u8> {
    let (done, all) = progress.split_once('/')?;
    let (done, all): (u64, u64) = (done.trim().parse().ok()?, all.trim().parse().ok()?);
    let percent = done.saturating_mul(100).checked_div(all)?;
    u8::try_from(percent.min(100)).ok()
}

/// The task of the house; `None` if it has no id, by which alone it can be recognized.
pub(super) fn task(listed: &DownloadTask) -> Option<Task> {
    let id = listed.task_id.clone()?;
    let state = state(listed);
    Some(Task {
        percent: match state {
            TaskState::Ready => Some(100),
            _ => listed.progress.as_deref().and_then(percent),
        },
        expires: None,
        message: (state == TaskState::Failed).then(|| {
            "Alibaba Cloud gives no reason; known ones are a passing lack of resources and data that is not supported: time-series collections, names with a slash".to_owned()
        }),
        id,
        state,
    })
}

/// What a task is to make, of which backup set.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The backup set; for one shard of a cluster, also the cluster's own.
    pub(super) sets: Vec<String>,
    /// The folder of the own bucket that it writes into; a file behind a link without.
    pub(super) folder: Option<String>,
}

impl Wanted {
    /// Whether `listed` makes it. An answer to a question about one set need not repeat it.
    pub(super) fn is(&self, listed: &DownloadTask) -> bool {
        let target = match self.folder {
            None => "URL",
            Some(_) => "OSS",
        };
        let same = |path: &str| {
            let folder = self.folder.as_deref().unwrap_or(path);
            path.trim_matches('/') == folder.trim_matches('/')
        };
        let (kind, path) = (listed.target_type.as_deref(), listed.target_path.as_deref());
        kind.is_none_or(|kind| kind.eq_ignore_ascii_case(target))
            && path.is_none_or(same)
            && listed
                .bak_set_id
                .as_ref()
                .is_none_or(|id| self.sets.contains(id))
    }
}

/// The task to adopt for `wanted`: a finished one, else one under way, else an expired one; the newest
/// of each. A failed one is none: to start it again is what a create does.
pub(super) fn adoptable(listed: &[DownloadTask], wanted: &Wanted) -> Option<Task> {
    listed
        .iter()
        .filter(|listed| wanted.is(listed))
        .filter_map(|listed| Some((listed.gmt_create, task(listed)?)))
        .filter(|(_, task)| task.state != TaskState::Failed)
        .max_by_key(|(created, task)| (preference(task.state), *created))
        .map(|(_, task)| task)
}

fn preference(state: TaskState) -> u8 {
    match state {
        TaskState::Ready => 3,
        TaskState::Running | TaskState::Queued => 2,
        TaskState::Expired | TaskState::Failed => 1,
    }
}

/// A task under way, whosever it is.
pub(super) fn under_way(listed: &[DownloadTask]) -> Option<&DownloadTask> {
    listed
        .iter()
        .find(|listed| matches!(state(listed), TaskState::Queued | TaskState::Running))
}

/// The place in `listed` of the newest failed task, whosever it is: the one that blocks its instance.
pub(super) fn failed(listed: &[DownloadTask]) -> Option<usize> {
    let listed = listed.iter().enumerate();
    let failed =
        listed.filter(|(_, task)| state(task) == TaskState::Failed && task.task_id.is_some());
    failed
        .max_by_key(|(_, task)| task.gmt_create)
        .map(|(at, _)| at)
}

/// `listed` in words for whoever has to wait for it.
pub(super) fn described(listed: &DownloadTask) -> String {
    let word = |word: &Option<String>| one_line(word.as_deref().unwrap_or("unknown"));
    let progress = listed.progress.as_deref().and_then(percent);
    let progress = progress.map(|p| format!(", {p} %")).unwrap_or_default();
    format!(
        "download task {} of backup set {} ({}{progress})",
        word(&listed.task_id),
        word(&listed.bak_set_id),
        word(&listed.download_status),
    )
}

/// The link that `storage` names for `network`; the other one where there is only one.
pub(super) fn storage_link(storage: Storage, network: Network, allow_http: bool) -> Result<Link> {
    let url = match network {
        Network::Public => storage.public_url.or(storage.private_url),
        Network::Private => storage.private_url.or(storage.public_url),
    };
    let url = url.ok_or_else(|| {
        Error::new(
            Kind::NotReady,
            "Alibaba Cloud has not made the download link yet",
        )
    })?;
    let mut link = link(url.expose(), allow_http)?;
    link.expires = link.expires.or(storage.expiration_time.and_then(instant));
    Ok(link)
}

/// The link at `url`. The listings name plain http, the signature covers neither scheme nor host.
pub(super) fn link(url: &str, allow_http: bool) -> Result<Link> {
    let url = presigned::over_tls(url.trim(), allow_http);
    presigned::link("Alibaba Cloud", &url, allow_http)
}

/// A time since 1970 in seconds or milliseconds: no link lives until the year 5138.
fn instant(number: u64) -> Option<Timestamp> {
    let number = i64::try_from(number).ok()?;
    match number < 100_000_000_000 {
        true => Timestamp::from_second(number).ok(),
        false => Timestamp::from_millisecond(number).ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(id: &str, set: &str, status: &str, created: u64) -> DownloadTask {
        let json = serde_json::json!({
            "TaskId": id, "BakSetId": set, "DownloadStatus": status, "TargetType": "URL",
            "GmtCreate": created.to_string(), "Progress": "3/17",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn states_in_every_spelling() {
        for (word, expected) in [
            ("Initializing", TaskState::Queued),
            ("queuing", TaskState::Queued),
            ("queueing", TaskState::Queued),
            ("running", TaskState::Running),
            ("Finished", TaskState::Ready),
            ("EXPIRED", TaskState::Expired),
            ("failed", TaskState::Failed),
            ("uploading", TaskState::Running),
            ("", TaskState::Running),
        ] {
            assert_eq!(state(&listed("t", "s", word, 0)), expected, "{word}");
        }
    }

    #[test]
    fn percent_of_tables() {
        for (progress, expected) in [
            ("3/17", Some(17)),
            ("0/0", None),
            ("17/17", Some(100)),
            ("18/17", Some(100)),
            ("half", None),
        ] {
            assert_eq!(percent(progress), expected, "{progress}");
        }
    }

    #[test]
    fn the_best_task_of_the_set_is_adopted() {
        let all = [
            listed("other", "s2", "finished", 9),
            listed("failed", "s", "failed", 8),
            listed("expired", "s", "expired", 1),
            listed("running", "s", "running", 2),
            listed("old", "s", "finished", 3),
            listed("new", "s", "finished", 4),
        ];
        let wanted = |folder: Option<&str>| Wanted {
            sets: vec!["s".into()],
            folder: folder.map(str::to_owned),
        };
        let adopted = |of: &[DownloadTask]| adoptable(of, &wanted(None)).map(|task| task.id);
        assert_eq!(adopted(&all).as_deref(), Some("new"));
        assert_eq!(adopted(&all[..4]).as_deref(), Some("running"));
        assert_eq!(adopted(&all[..3]).as_deref(), Some("expired"));
        assert_eq!(adopted(&all[..2]), None);
        let mut other_target = all[5].clone();
        other_target.target_type = Some("OSS".into());
        other_target.target_path = Some("a/b/".into());
        let others = [other_target];
        assert_eq!(adopted(&others), None);
        assert!(adoptable(&others, &wanted(Some("a/b"))).is_some());
        assert!(adoptable(&others, &wanted(Some("a/c"))).is_none());
        assert!(adoptable(&all, &wanted(Some("a/b"))).is_none());
        assert_eq!(under_way(&all).unwrap().task_id.as_deref(), Some("running"));
        assert_eq!(failed(&all), Some(1));
        assert_eq!(
            described(&all[3]),
            "download task running of backup set s (running, 17 %)"
        );
    }

    #[test]
    fn links_tell_their_end_in_either_signature() {
        for (url, expected) in [
            (
                "http://b.oss/k?Expires=1774692000&Signature=S%3D&Region=r",
                Some(1_774_692_000),
            ),
            (
                "http://b.oss/k?x-oss-date=20260328T080000Z&x-oss-expires=7200&x-oss-signature=s",
                Some(1_774_692_000),
            ),
            ("http://b.oss/k", None),
            ("http://b.oss/k?Expires=soon", None),
        ] {
            let link = link(url, true).unwrap();
            assert_eq!(link.expires.map(Timestamp::as_second), expected, "{url}");
            assert_eq!(link.url.expose(), url);
        }
        assert!(link("http://b.oss/k", false).unwrap().url.is_https());
        assert_eq!(link("ftp://b/k", true).unwrap_err().kind(), Kind::Protocol);
    }

    #[test]
    fn the_network_chooses_the_link() {
        let storage = |json: &str| serde_json::from_str::<Storage>(json).unwrap();
        let both = r#"{"PublicUrl":"http://public/k","PrivateUrl":"http://private/k","ExpirationTime":"1774692000000"}"#;
        let public = storage_link(storage(both), Network::Public, true).unwrap();
        assert_eq!(public.url.expose(), "http://public/k");
        assert_eq!(
            public.expires.map(Timestamp::as_second),
            Some(1_774_692_000)
        );
        let private = storage_link(storage(both), Network::Private, true).unwrap();
        assert_eq!(private.url.expose(), "http://private/k");
        let one = r#"{"PublicUrl":"http://public/k","PrivateUrl":""}"#;
        let only = storage_link(storage(one), Network::Private, true).unwrap();
        assert_eq!(only.url.expose(), "http://public/k");
        let none = storage_link(Storage::default(), Network::Public, true).unwrap_err();
        assert_eq!(none.kind(), Kind::NotReady);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(word in ".{0,20}", url in ".{0,60}", number: u64) {
            let _ = percent(&word);
            let _ = instant(number);
            let _ = link(&url, false);
            let _ = link(&format!("http://h/{url}"), false);
        }
    }
}
