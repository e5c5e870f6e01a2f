//! From what Atlas sends to the nouns of the house. Pure: the time is a parameter.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::versions::Service;
use super::wire::{Cluster, Restore, Snapshot};
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Backup, Facts, Instance, Shard, Task, TaskState};

/// Under which of an instance's facts its service stands.
const SERVICE: &str = "service";

/// How a cluster listed in any of the three shapes is backed up; `None` for the free tier, which is
/// not. One that does not say its size is taken for shared: its backups are then asked for, and the
/// answer tells.
pub(super) fn service_of(cluster: &Cluster) -> Option<Service> {
    let settings = cluster.provider_settings.as_ref();
    let region = || {
        let specs = cluster.replication_specs.as_ref()?;
        specs
            .iter()
            .find_map(|spec| spec.region_configs.as_ref()?.first())
    };
    let size = settings
        .and_then(|s| s.instance_size_name.clone())
        .or_else(|| region()?.electable_specs.as_ref()?.instance_size.clone());
    let provider = settings
        .and_then(|s| s.provider_name.clone())
        .or_else(|| region()?.provider_name.clone());
    let dedicated = match cluster.cluster_type.as_deref() {
        Some("SHARDED" | "GEOSHARDED") => Service::Sharded,
        _ => Service::ReplicaSet,
    };
    match (size.as_deref(), provider.as_deref()) {
        (Some("M0"), _) => None,
        (Some("M2" | "M5"), _) => Some(Service::Shared),
        (Some("FLEX"), _) | (_, Some("FLEX")) => Some(Service::Flex),
        // Only dedicated clusters are sharded, and only theirs outlive them.
        (None, None) if dedicated == Service::Sharded || is_deleted(cluster) => Some(dedicated),
        (_, Some("TENANT")) | (None, None) => Some(Service::Shared),
        _ => Some(dedicated),
    }
}

/// Whether only the backups of the cluster are left.
pub(super) fn is_deleted(cluster: &Cluster) -> bool {
    cluster.state_name.as_deref() == Some("DELETED")
}

/// The directory of a cluster; `None` for the service means that it has no backups.
pub(super) fn instance(cluster: &Cluster, service: Option<Service>) -> Instance {
    let mut facts = Facts::new();
    if let Some(service) = service {
        facts.insert(SERVICE, service.word().to_owned());
    }
    Instance {
        id: cluster.name.clone(),
        created: cluster.create_date.as_deref().and_then(timestamp),
        facts,
    }
}

/// The service whose backups `instance` has, if any.
pub(super) fn service(instance: &Instance) -> Option<Service> {
    Service::from_word(instance.facts.get(SERVICE)?)
}

/// The backup that a snapshot is, once it is complete.
pub(super) fn backup(snapshot: Snapshot, cluster: &str) -> Result<Option<Backup>> {
    let status = snapshot.status.unwrap_or_default();
    if !status.eq_ignore_ascii_case("COMPLETED") {
        return Ok(None);
    }
    let time = |text: Option<String>| text.as_deref().and_then(timestamp);
    let (started, scheduled, finished) = (
        time(snapshot.start_time),
        time(snapshot.scheduled_time),
        time(snapshot.finish_time),
    );
    let Some(started) = started
        .or(scheduled)
        .or(finished)
        .or_else(|| object_id_time(&snapshot.id))
    else {
        return Err(Error::new(
            Kind::Protocol,
            format!(
                "Atlas lists snapshot {} without any time",
                one_line(&snapshot.id)
            ),
        ));
    };
    Ok(Some(Backup {
        id: snapshot.id,
        started,
        finished: finished.unwrap_or(started),
        status,
        successful: true,
        method: Some("snapshot".to_owned()),
        version: snapshot.mongodb_version,
        trigger: Some("scheduled".to_owned()),
        not_downloadable: None,
        shards: vec![Shard {
            id: cluster.to_owned(),
            facts: Facts::new(),
        }],
        facts: Facts::new(),
    }))
}

/// Where a download stands. `None` if it has no id, by which alone it can be asked about again.
///
/// A completed download is ready as long as it has a link, even past its expiry: only using the
/// link proves that the artifact is gone.
pub(super) fn task(restore: &Restore, now: Timestamp) -> Option<Task> {
    let id = restore.id.clone().filter(|id| !id.is_empty())?;
    let expires = restore.expiration_date.as_deref().and_then(timestamp);
    let status = restore.status.as_deref().unwrap_or_default();
    let state = match status.to_ascii_uppercase().as_str() {
        "PENDING" | "QUEUED" => TaskState::Queued,
        "COMPLETED" if restore.snapshot_url.is_some() => TaskState::Ready,
        "COMPLETED" if expires.is_some_and(|at| at <= now) => TaskState::Expired,
        "FAILED" | "CANCELLED" | "CANCELED" => TaskState::Failed,
        "EXPIRED" => TaskState::Expired,
        // RUNNING, COMPLETED that still lacks its link, and words not known yet.
        _ => TaskState::Running,
    };
    Some(Task {
        id,
        state,
        percent: (state == TaskState::Ready).then_some(100),
        expires,
        message: (state == TaskState::Failed)
            .then(|| format!("Atlas reports the download as {}", one_line(status))),
    })
}

/// The download of `snapshot` to adopt: one with a live link, else one under way, else an expired,
/// else a failed one; the newest of each.
pub(super) fn adoptable(restores: &[Restore], snapshot: &str, now: Timestamp) -> Option<Task> {
    restores
        .iter()
        .filter(|restore| restore.snapshot_id.as_deref() == Some(snapshot))
        .filter(|restore| {
            let kind = restore.delivery_type.as_deref();
            kind.is_none_or(|kind| kind.eq_ignore_ascii_case("DOWNLOAD"))
        })
        .filter_map(|restore| {
            let mut task = task(restore, now)?;
            if task.state == TaskState::Ready && task.expires.is_some_and(|at| at <= now) {
                task.state = TaskState::Expired;
            }
            let scheduled = restore
                .restore_scheduled_date
                .as_deref()
                .and_then(timestamp);
            Some((scheduled, task))
        })
        .max_by_key(|(scheduled, task)| (preference(task.state), *scheduled, task.expires))
        .map(|(_, task)| task)
}

/// The higher, the rather adopted.
pub(super) fn preference(state: TaskState) -> u8 {
    match state {
        TaskState::Ready => 4,
        TaskState::Running | TaskState::Queued => 3,
        TaskState::Expired => 2,
        TaskState::Failed => 1,
    }
}

/// An ISO 8601 time; one without an offset is UTC.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        civil
            .to_zoned(TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    })
}

/// When an ObjectId was made: its first four bytes are seconds since 1970 (BSON specification).
pub(super) fn object_id_time(id: &str) -> Option<Timestamp> {
    let valid = id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let seconds = valid.then(|| i64::from_str_radix(&id[..8], 16).ok())??;
    Timestamp::from_second(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(json: &str) -> Cluster {
        serde_json::from_str(json).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn tiers_are_known_in_all_three_shapes() {
        use Service::*;
        for (json, expected) in [
            (
                r#"{"name":"c","providerSettings":{"providerName":"TENANT","instanceSizeName":"M0"}}"#,
                None,
            ),
            (
                r#"{"name":"c","providerSettings":{"providerName":"TENANT","instanceSizeName":"M2"}}"#,
                Some(Shared),
            ),
            (
                r#"{"name":"c","providerSettings":{"providerName":"AWS","instanceSizeName":"M10"}}"#,
                Some(ReplicaSet),
            ),
            (
                r#"{"name":"c","providerSettings":{"providerName":"FLEX"}}"#,
                Some(Flex),
            ),
            (
                r#"{"name":"c","replicationSpecs":[{"numShards":1,"regionConfigs":[{"providerName":"TENANT","electableSpecs":{"instanceSize":"M5"}}]}]}"#,
                Some(Shared),
            ),
            (
                r#"{"name":"c","replicationSpecs":[{"regionConfigs":[{"providerName":"TENANT","electableSpecs":{"instanceSize":"M0"}}]}]}"#,
                None,
            ),
            (
                r#"{"name":"c","replicationSpecs":[{"regionConfigs":[]},{"regionConfigs":[{"providerName":"GCP","electableSpecs":{"instanceSize":"R40"}}]}]}"#,
                Some(ReplicaSet),
            ),
            (
                r#"{"name":"c","providerSettings":{"providerName":"TENANT"}}"#,
                Some(Shared),
            ),
            (r#"{"name":"c"}"#, Some(Shared)),
            (
                r#"{"name":"c","clusterType":"GEOSHARDED","replicationSpecs":[{"regionConfigs":[{"providerName":"AWS","electableSpecs":{"instanceSize":"M30"}}]}]}"#,
                Some(Sharded),
            ),
            (r#"{"name":"c","clusterType":"SHARDED"}"#, Some(Sharded)),
            (r#"{"name":"c","stateName":"DELETED"}"#, Some(ReplicaSet)),
        ] {
            assert_eq!(service_of(&cluster(json)), expected, "{json}");
        }
    }

    #[test]
    fn instances_remember_their_service() {
        let json = r#"{"name":"c","createDate":"2026-01-05T14:00:00Z"}"#;
        let shared = instance(&cluster(json), Some(Service::Shared));
        assert_eq!(service(&shared), Some(Service::Shared));
        assert_eq!(shared.created, Some(at("2026-01-05T14:00:00Z")));
        assert_eq!(service(&instance(&cluster(json), None)), None);
    }

    #[test]
    fn only_complete_snapshots_are_backups() {
        let read = |json: &str| backup(serde_json::from_str(json).unwrap(), "c");
        let full = read(
            r#"{"id":"s1","status":"COMPLETED","scheduledTime":"2026-01-05T13:00:00Z","startTime":"2026-01-05T13:00:10Z","finishTime":"2026-01-05T13:00:31Z","expiration":"2026-01-13T13:00:00Z","mongoDBVersion":"7.0.14"}"#,
        )
        .unwrap()
        .unwrap();
        assert_eq!(full.started, at("2026-01-05T13:00:10Z"));
        assert_eq!(full.finished, at("2026-01-05T13:00:31Z"));
        assert_eq!(full.version.as_deref(), Some("7.0.14"));
        assert_eq!(full.shards[0].id, "c");
        for other in ["PENDING", "QUEUED", "RUNNING", "FAILED", ""] {
            let json = format!(r#"{{"id":"s","status":"{other}"}}"#);
            assert!(read(&json).unwrap().is_none(), "{other}");
        }
    }

    #[test]
    fn missing_times_fall_back_to_what_is_known() {
        let read = |json: &str| backup(serde_json::from_str(json).unwrap(), "c");
        let only_finish = read(
            r#"{"id":"s","status":"COMPLETED","startTime":null,"finishTime":"2026-01-05T13:00:31"}"#,
        );
        let only_finish = only_finish.unwrap().unwrap();
        assert_eq!(only_finish.started, at("2026-01-05T13:00:31Z"));
        let by_id = read(r#"{"id":"5d03a6a12a9c4336c3d98d51","status":"COMPLETED"}"#);
        assert_eq!(by_id.unwrap().unwrap().started, at("2019-06-14T13:52:33Z"));
        let error = read(r#"{"id":"s","status":"COMPLETED"}"#).unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol);
    }

    #[test]
    fn states_follow_status_link_and_time() {
        let now = at("2026-01-05T14:00:00Z");
        let state = |json: &str| {
            let restore: Restore = serde_json::from_str(json).unwrap();
            task(&restore, now).unwrap().state
        };
        let (early, late) = ("2026-01-05T13:00:00Z", "2026-01-05T18:00:00Z");
        for (json, expected) in [
            (
                r#"{"id":"r","status":"PENDING"}"#.to_owned(),
                TaskState::Queued,
            ),
            (
                r#"{"id":"r","status":"RUNNING"}"#.to_owned(),
                TaskState::Running,
            ),
            (
                r#"{"id":"r","status":"COMPLETED"}"#.to_owned(),
                TaskState::Running,
            ),
            (r#"{"id":"r"}"#.to_owned(), TaskState::Running),
            (
                format!(r#"{{"id":"r","status":"COMPLETED","expirationDate":"{late}"}}"#),
                TaskState::Running,
            ),
            (
                format!(r#"{{"id":"r","status":"COMPLETED","expirationDate":"{early}"}}"#),
                TaskState::Expired,
            ),
            (
                format!(
                    r#"{{"id":"r","status":"COMPLETED","expirationDate":"{early}","snapshotUrl":"https://h/x"}}"#
                ),
                TaskState::Ready,
            ),
            (
                r#"{"id":"r","status":"COMPLETED","snapshotUrl":"https://h/x"}"#.to_owned(),
                TaskState::Ready,
            ),
            (
                r#"{"id":"r","status":"FAILED","snapshotUrl":"https://h/x"}"#.to_owned(),
                TaskState::Failed,
            ),
        ] {
            assert_eq!(state(&json), expected, "{json}");
        }
        assert!(task(&Restore::default(), now).is_none());
    }

    #[test]
    fn the_best_download_is_adopted() {
        let now = at("2026-01-05T14:00:00Z");
        let restores: Vec<Restore> = serde_json::from_str(
            r#"[
            {"id":"failed","snapshotId":"s","deliveryType":"DOWNLOAD","status":"FAILED"},
            {"id":"old","snapshotId":"s","deliveryType":"DOWNLOAD","status":"COMPLETED","snapshotUrl":"https://h/o","expirationDate":"2026-01-05T13:59:59Z"},
            {"id":"other","snapshotId":"t","deliveryType":"DOWNLOAD","status":"COMPLETED","snapshotUrl":"https://h/x"},
            {"id":"restore","snapshotId":"s","deliveryType":"RESTORE","status":"RUNNING"},
            {"id":"running","snapshotId":"s","deliveryType":"DOWNLOAD","status":"RUNNING"},
            {"id":"live","snapshotId":"s","deliveryType":"DOWNLOAD","status":"COMPLETED","snapshotUrl":"https://h/a","restoreScheduledDate":"2026-01-05T12:00:00Z","expirationDate":"2026-01-05T16:00:00Z"},
            {"id":"newest","snapshotId":"s","deliveryType":"DOWNLOAD","status":"COMPLETED","snapshotUrl":"https://h/b","restoreScheduledDate":"2026-01-05T13:00:00Z","expirationDate":"2026-01-05T17:00:00Z"}
            ]"#,
        )
        .unwrap();
        let adopted = |of: &[Restore]| adoptable(of, "s", now).map(|task| (task.id, task.state));
        assert_eq!(
            adopted(&restores),
            Some(("newest".into(), TaskState::Ready))
        );
        assert_eq!(
            adopted(&restores[..5]),
            Some(("running".into(), TaskState::Running))
        );
        assert_eq!(
            adopted(&restores[..4]),
            Some(("old".into(), TaskState::Expired))
        );
        assert_eq!(
            adopted(&restores[..1]),
            Some(("failed".into(), TaskState::Failed))
        );
        assert_eq!(adopted(&restores[2..4]), None);
    }
}
