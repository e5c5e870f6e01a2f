//! What snapshots and jobs are taken for.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::Instance;

const NOW: &str = "2026-11-22T12:00:00Z";
const LATER: &str = "2026-11-22T12:30:00Z";
const EARLIER: &str = "2026-11-22T11:30:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn snapshot(json: &str) -> CloudSnapshot {
    serde_json::from_str(json).unwrap()
}

fn job(more: &str) -> Job {
    serde_json::from_str(&format!(
        r#"{{"id":"j","snapshotId":"s","deliveryType":"download","desiredTimestamp":{{"increment":null,"time":null,"date":null}}{more}}}"#
    ))
    .unwrap()
}

const ONLY: Wanted<'static> = Wanted {
    snapshot: "s",
    member: None,
    replica_set: "rs0",
};
const FIRST: Wanted<'static> = Wanted {
    snapshot: "s",
    member: Some("m0"),
    replica_set: "shard-0",
};

fn state(job: &Job, wanted: Wanted<'_>, seen: Seen) -> TaskState {
    job.task(wanted, seen, at(NOW)).unwrap().state
}

#[test]
fn a_replica_set_is_one_directory() {
    let full = snapshot(
        r#"{"id":"s","status":"completed","snapshotType":"onDemand","frequencyType":"ondemand","type":"replicaSet",
            "createdAt":"2026-01-05T13:00:10Z","storageSizeBytes":123,"mongodVersion":"8.0.4","replicaSetName":"atlas-x-shard-0"}"#,
    );
    assert!(full.is_complete());
    let full = full.backup("c0").unwrap();
    assert_eq!(full.started, at("2026-01-05T13:00:10Z"));
    assert_eq!(full.finished, full.started);
    assert_eq!(
        (full.trigger.as_deref(), full.version.as_deref()),
        (Some("onDemand"), Some("8.0.4"))
    );
    assert_eq!(full.shards[0].id, "atlas-x-shard-0");
    let bare = snapshot(r#"{"id":"5d03a6a12a9c4336c3d98d51","createdAt":null,"members":null}"#);
    assert!(!bare.is_complete());
    let bare = bare.backup("c0").unwrap();
    assert_eq!(bare.started, at("2019-06-14T13:52:33Z"), "by its id");
    assert_eq!(bare.shards[0].id, "c0");
    let timeless = snapshot(r#"{"id":"s","status":"completed"}"#).backup("c0");
    assert_eq!(timeless.unwrap_err().kind(), Kind::Protocol);
}

#[test]
fn a_sharded_cluster_has_a_directory_for_each_member() {
    let sharded = snapshot(
        r#"{"id":"5d03a6a12a9c4336c3d98d51","status":"completed","type":"shardedCluster","members":[
            {"id":"m0","replicaSetName":"shard-0","cloudProvider":"AWS"},{"id":"m1","replicaSetName":null},
            {"id":"m2","replicaSetName":"config"}]}"#,
    );
    assert!(sharded.has_members());
    let backup = sharded.backup("c0").unwrap();
    let names: Vec<&str> = backup.shards.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(names, ["shard-0", "m1", "config"]);
    let shard = ShardRef {
        provider: "atlas".into(),
        instance: Arc::new(Instance {
            id: "c0".into(),
            created: None,
            facts: Facts::new(),
        }),
        shard: backup.shards[2].clone(),
        backup: Arc::new(backup),
    };
    let wanted = Wanted::of(&shard);
    assert_eq!((wanted.member, wanted.replica_set), (Some("m2"), "config"));
}

#[test]
fn a_job_of_a_replica_set_works_is_ready_and_ends() {
    use TaskState::*;
    let url = r#""deliveryUrl":["https://h/x"]"#;
    for (more, expected) in [
        (
            r#","deliveryUrl":[],"cancelled":false,"failed":false,"expired":false"#.to_owned(),
            Running,
        ),
        (String::new(), Running),
        (
            r#","deliveryUrl":null,"expiresAt":null,"finishedAt":null"#.to_owned(),
            Running,
        ),
        (format!(r#",{url},"expiresAt":"{LATER}""#), Ready),
        (r#","deliveryUrl":"https://h/x""#.to_owned(), Ready),
        (format!(r#",{url},"expiresAt":"{EARLIER}""#), Ready),
        (format!(r#",{url},"finishedAt":"{EARLIER}""#), Ready),
        (
            format!(r#","deliveryUrl":[],"finishedAt":"{EARLIER}""#),
            Expired,
        ),
        (
            format!(r#","deliveryUrl":[],"expiresAt":"{EARLIER}""#),
            Expired,
        ),
        (format!(r#",{url},"expired":true"#), Expired),
        (format!(r#",{url},"failed":true"#), Failed),
        (format!(r#",{url},"cancelled":true"#), Failed),
    ] {
        assert_eq!(state(&job(&more), ONLY, Seen::AtWork), expected, "{more}");
    }
    assert!(Job::default().task(ONLY, Seen::AtWork, at(NOW)).is_none());
}

#[test]
fn case_07_a_job_without_its_link_is_at_work_or_used() {
    let made = job(&format!(r#","deliveryUrl":[],"expiresAt":"{LATER}""#));
    let bare = job(r#","deliveryUrl":[]"#);
    for (job, seen, expected) in [
        (&made, Seen::Linked, TaskState::Expired),
        (&bare, Seen::Linked, TaskState::Expired),
        (&made, Seen::Nothing, TaskState::Expired),
        (&bare, Seen::Nothing, TaskState::Running),
        (&made, Seen::AtWork, TaskState::Running),
        (&bare, Seen::AtWork, TaskState::Running),
    ] {
        assert_eq!(state(job, ONLY, seen), expected, "{seen:?}");
    }
}

#[test]
fn a_member_has_the_link_of_its_replica_set() {
    let job_of = |first: &str, second: &str| {
        job(&format!(
            r#","deliveryUrl":["https://h/0","https://h/1"],"expiresAt":"{LATER}","components":[
                {{"replicaSetName":"shard-1","downloadUrl":{second},"privateDownloadDeliveryUrls":[]}},
                {{"replicaSetName":"shard-0","downloadUrl":{first},"privateDownloadDeliveryUrls":[{{"deliveryUrl":"https://p/0","endpointId":"vpce-1"}}]}}]"#
        ))
    };
    let url = |job: &Job| job.link_to(FIRST).map(|url| url.expose().to_owned());
    let both = job_of(r#""https://h/first""#, r#""https://h/second""#);
    assert_eq!(url(&both).as_deref(), Some("https://h/first"));
    let used = job_of("null", r#""https://h/second""#);
    assert_eq!(url(&used), None, "not another member's, nor a private one");
    assert_eq!(state(&used, FIRST, Seen::Nothing), TaskState::Expired);
    let other = job_of(r#""https://h/first""#, "null");
    assert_eq!(state(&other, FIRST, Seen::Nothing), TaskState::Ready);
    let own = job(r#","deliveryUrl":["https://h/m0"]"#);
    let own = Job {
        snapshot_id: Some("m0".into()),
        ..own
    };
    assert_eq!(url(&own).as_deref(), Some("https://h/m0"));
    assert!(own.is_for(FIRST));
    let second = Wanted {
        member: Some("m1"),
        replica_set: "shard-1",
        ..FIRST
    };
    assert!(!own.is_for(second) && both.is_for(second) && !own.is_for(ONLY));
    let text = format!("{both:?}");
    assert!(!text.contains("https"), "{text}");
}

#[test]
fn the_best_job_is_adopted() {
    // Ids that say when they were made: the last two minutes ago, the others long before.
    let jobs: Vec<Job> = serde_json::from_str(&format!(
        r#"[
        {{"id":"69000000aaaaaaaaaaaaaaaa","snapshotId":"s","failed":true}},
        {{"id":"{recent}aaaaaaaaaaaaaaaa","snapshotId":"s","cancelled":true}},
        {{"id":"{recent}bbbbbbbbbbbbbbbb","snapshotId":"s","failed":true}},
        {{"id":"69000000cccccccccccccccc","snapshotId":"s","deliveryUrl":["https://h/o"],"expiresAt":"{EARLIER}"}},
        {{"id":"69000000dddddddddddddddd","snapshotId":"s","deliveryUrl":[]}},
        {{"id":"69000000eeeeeeeeeeeeeeee","snapshotId":"t","deliveryUrl":["https://h/t"]}},
        {{"id":"69000000ffffffffffffffff","snapshotId":"s","deliveryType":"automated"}},
        {{"id":"69000002aaaaaaaaaaaaaaaa","snapshotId":"s","deliveryUrl":["https://h/b"],"expiresAt":"{LATER}"}},
        {{"id":"69000001aaaaaaaaaaaaaaaa","snapshotId":"s","deliveryUrl":["https://h/a"],"expiresAt":"{LATER}"}}
        ]"#,
        recent = format_args!("{:08x}", at(NOW).as_second() - 120),
    ))
    .unwrap();
    let adopted = |of: &[Job]| {
        let task = adoptable(of, ONLY, at(NOW))?;
        Some((task.id.as_bytes()[8], task.state))
    };
    let newest = adoptable(&jobs, ONLY, at(NOW)).unwrap();
    assert_eq!(newest.id, "69000002aaaaaaaaaaaaaaaa");
    assert_eq!(adopted(&jobs[..7]), Some((b'd', TaskState::Running)));
    assert_eq!(adopted(&jobs[..4]), Some((b'c', TaskState::Expired)));
    assert_eq!(adopted(&jobs[..3]), Some((b'b', TaskState::Failed)));
    assert_eq!(
        adopted(&jobs[..2]),
        None,
        "what is past or cancelled tells nothing"
    );
    assert_eq!(adopted(&jobs[5..7]), None, "another snapshot, a restore");
}

proptest! {
    /// A task is ready exactly when there is a link, or it could not be opened or would wait for
    /// nothing.
    #[test]
    fn case_07_ready_means_linked(
        linked: bool, finished: bool, failed: bool, cancelled: bool, expired: bool,
        hours in proptest::option::of(-2i64..2), seen in 0usize..3,
    ) {
        let job = Job {
            id: Some("j".into()),
            snapshot_id: Some("s".into()),
            delivery_url: linked.then(|| Secret::new("https://h/x")),
            expires_at: hours.map(|h| (at(NOW) + SignedDuration::from_hours(h)).to_string()),
            finished_at: finished.then(|| EARLIER.to_owned()),
            failed: Some(failed),
            cancelled: Some(cancelled),
            expired: Some(expired),
            ..Job::default()
        };
        let seen = [Seen::Linked, Seen::AtWork, Seen::Nothing][seen];
        let task = job.task(ONLY, seen, at(NOW)).unwrap();
        prop_assert_eq!(
            task.state == TaskState::Ready,
            linked && !failed && !cancelled && !expired
        );
        prop_assert_eq!(task.message.is_some(), failed || cancelled);
    }
}
