//! Dedicated and Flex clusters: snapshots, members, jobs and their links that work once.

use std::sync::Arc;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::error::Kind;
use mongo_backupfs::model::{Backup, Found, Instance, LinkMode, ShardRef, Size, Task, TaskState};
use mongo_backupfs::providers::Provider;
use mongo_backupfs::sim::atlas::{Cluster, Knobs, Project, Snapshot, Tier, UsedJob};
use mongo_backupfs::sim::{Content, Sim, SimBuilder};

use crate::journey::by_key;
use crate::server::{Reply, Request, Server, Verifier};
use crate::{GROUP, atlas};

const V2: &str = "application/vnd.atlas.2023-01-01+json";

fn newest() -> Timestamp {
    "2026-11-21T04:00:00Z".parse().unwrap()
}

/// A replica set, two shards, a Flex cluster, and a deleted replica set beside one of its name.
async fn sim(knobs: Knobs) -> Sim {
    let daily = |name: &str, tier| {
        Cluster::new(name, tier).daily(2, newest(), |day| Content::noise(day, 1000))
    };
    let parts = (0..3).map(|part| Content::noise(70 + part, 5000 + part));
    let project = Project::new("Shop")
        .cluster(daily("rs0", Tier::M10))
        .cluster(
            Cluster::new("many", Tier::M10)
                .sharded(2)
                .snapshot(Snapshot::at(newest()).contents(parts)),
        )
        .cluster(daily("flex", Tier::Flex))
        .cluster(daily("gone", Tier::M10).deleted())
        .cluster(Cluster::new("free", Tier::M0));
    Sim::start(SimBuilder::new().knobs(knobs).project(project))
        .await
        .unwrap()
}

async fn instance(atlas: &dyn Provider, name: &str) -> Instance {
    let listed = atlas.instances().await.unwrap();
    listed.into_iter().find(|i| i.id == name).unwrap()
}

fn shard_of(instance: &Instance, backup: &Backup, shard: usize) -> ShardRef {
    ShardRef {
        provider: "atlas".into(),
        instance: Arc::new(instance.clone()),
        backup: Arc::new(backup.clone()),
        shard: backup.shards[shard].clone(),
    }
}

/// The shards of the newest backup of `name`.
async fn shards(atlas: &dyn Provider, name: &str) -> Vec<ShardRef> {
    let instance = instance(atlas, name).await;
    let backups = atlas.backups(&instance).await.unwrap();
    let newest = backups.iter().max_by_key(|b| b.started).unwrap();
    (0..newest.shards.len())
        .map(|at| shard_of(&instance, newest, at))
        .collect()
}

async fn link(atlas: &dyn Provider, shard: &ShardRef, task: &Task) -> String {
    let file = atlas.files(shard).await.unwrap().remove(0);
    let link = atlas.link(shard, &file, Some(task)).await.unwrap();
    link.url.expose().to_owned()
}

async fn bytes(url: &str) -> Vec<u8> {
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().to_vec()
}

fn task(id: &str, state: TaskState) -> Task {
    Task {
        id: id.into(),
        state,
        percent: None,
        expires: None,
        message: None,
    }
}

#[tokio::test]
async fn all_kinds_of_clusters_are_listed() {
    let sim = sim(Knobs::default()).await;
    let atlas = by_key(&sim);
    let listed = atlas.instances().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|i| i.id.as_str()).collect();
    assert_eq!(names, ["flex", "free", "gone", "many", "rs0"]);
    let mut seen = Vec::new();
    for instance in &listed {
        let backups = atlas.backups(instance).await.unwrap();
        for backup in &backups {
            for at in 0..backup.shards.len() {
                let files = atlas.files(&shard_of(instance, backup, at)).await.unwrap();
                assert_eq!((files.len(), files[0].size), (1, Size::Unknown));
                seen.push(files[0].path.clone());
            }
        }
    }
    let expected = [
        "flex.tgz",
        "flex.tgz",
        "gone.tar.gz",
        "gone.tar.gz",
        "many-shard-0.tar.gz",
        "many-shard-1.tar.gz",
        "config.tar.gz",
        "rs0.tar.gz",
        "rs0.tar.gz",
    ];
    assert_eq!(seen, expected);
    assert_eq!(sim.bill().tasks_created, 0);
}

#[tokio::test]
async fn a_job_is_polled_to_a_link_that_works_once() {
    for used_job in [UsedJob::Finished, UsedJob::Emptied] {
        let sim = sim(Knobs {
            task_time: SignedDuration::from_mins(4),
            used_job,
            bare_delivery_url: used_job == UsedJob::Emptied,
            ..Knobs::default()
        })
        .await;
        let atlas = by_key(&sim);
        for name in ["rs0", "gone"] {
            let shard = &shards(&*atlas, name).await[0];
            assert_eq!(atlas.find_task(shard).await.unwrap(), Found::Nothing);
            let made = atlas.create_task(shard).await.unwrap();
            assert_eq!((made.state, made.expires), (TaskState::Running, None));
            let again = atlas.create_task(shard).await.unwrap_err();
            assert_eq!(again.kind(), Kind::Busy, "{again}");
            let found = atlas.find_task(shard).await.unwrap();
            assert_eq!(found, Found::Task(made.clone()));
            sim.advance(SignedDuration::from_mins(4));
            let ready = atlas.poll_task(shard, &made).await.unwrap();
            assert_eq!(ready.state, TaskState::Ready);
            assert!(ready.expires.is_some());
            let file = atlas.files(shard).await.unwrap().remove(0);
            let given = atlas.link(shard, &file, Some(&ready)).await.unwrap();
            assert_eq!((given.mode, given.expires), (LinkMode::Once, ready.expires));
            assert!(given.headers.is_empty());
            assert_eq!(bytes(given.url.expose()).await.len(), 1000);
            // Used: the task is over, and so it is found.
            let over = atlas.poll_task(shard, &ready).await.unwrap();
            assert_eq!(over.state, TaskState::Expired);
            let refused = atlas.link(shard, &file, Some(&ready)).await.unwrap_err();
            assert_eq!(refused.kind(), Kind::Expired, "{refused}");
            let Found::Task(found) = atlas.find_task(shard).await.unwrap() else {
                panic!("the job is listed");
            };
            assert_eq!(found.state, TaskState::Expired);
        }
        assert_eq!(sim.bill().tasks_created, 2);
    }
}

#[tokio::test]
async fn racing_members_share_one_job() {
    let sim = sim(Knobs {
        task_time: SignedDuration::from_mins(4),
        ..Knobs::default()
    })
    .await;
    let atlas = by_key(&sim);
    let shards = shards(&*atlas, "many").await;
    let lanes: Vec<_> = shards.iter().map(|shard| atlas.lane(shard)).collect();
    assert!(lanes[0].is_some() && lanes.iter().all(|lane| *lane == lanes[0]));
    let made = join_all(shards.iter().map(|shard| atlas.create_task(shard))).await;
    let ids: Vec<String> = made.into_iter().map(|task| task.unwrap().id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(sim.bill().tasks_created, 1);
    sim.advance(SignedDuration::from_mins(4));
    for shard in &shards {
        let ready = atlas
            .poll_task(shard, &task(&ids[0], TaskState::Running))
            .await;
        let url = link(&*atlas, shard, &ready.unwrap()).await;
        let snapshot = &shard.backup.id;
        let content = sim.part("many", snapshot, &shard.shard.id).unwrap();
        assert_eq!(bytes(&url).await, content.read(0..content.size()).unwrap());
    }
}

#[tokio::test]
async fn a_member_whose_link_was_used_needs_another_job_and_the_others_do_not() {
    let sim = sim(Knobs::default()).await;
    let atlas = by_key(&sim);
    let shards = shards(&*atlas, "many").await;
    let first = atlas.create_task(&shards[0]).await.unwrap();
    bytes(&link(&*atlas, &shards[0], &first).await).await;
    let state = async |shard: &ShardRef| match atlas.find_task(shard).await.unwrap() {
        Found::Task(task) => (task.id, task.state),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        state(&shards[0]).await,
        (first.id.clone(), TaskState::Expired)
    );
    assert_eq!(
        state(&shards[1]).await,
        (first.id.clone(), TaskState::Ready)
    );
    let second = atlas.create_task(&shards[0]).await.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(
        state(&shards[0]).await,
        (second.id.clone(), TaskState::Ready)
    );
    assert_eq!(sim.bill().tasks_created, 2);
}

#[tokio::test]
async fn members_have_jobs_of_their_own_where_the_whole_is_refused() {
    let sim = sim(Knobs {
        component_jobs: false,
        ..Knobs::default()
    })
    .await;
    let atlas = by_key(&sim);
    let shards = shards(&*atlas, "many").await;
    assert!(atlas.lane(&shards[0]).is_some());
    for shard in shards {
        let made = atlas.create_task(&shard).await.unwrap();
        let Found::Task(found) = atlas.find_task(&shard).await.unwrap() else {
            panic!("{} has a job", shard.shard.id);
        };
        assert!(atlas.lane(&shard).is_none(), "nobody waits for another's");
        assert_eq!(found.id, made.id);
        let url = link(&*atlas, &shard, &made).await;
        let content = sim.part("many", &shard.backup.id, &shard.shard.id).unwrap();
        assert_eq!(bytes(&url).await, content.read(0..content.size()).unwrap());
    }
    let bill = sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.calls("create_restore_job")),
        (3, 4),
        "refused once"
    );
}

#[tokio::test]
async fn a_flex_download_is_awaited() {
    let sim = sim(Knobs {
        task_time: SignedDuration::from_secs(60),
        v1: false,
        ..Knobs::default()
    })
    .await;
    let atlas = by_key(&sim);
    let shard = &shards(&*atlas, "flex").await[0];
    let made = atlas.create_task(shard).await.unwrap();
    assert_eq!(made.state, TaskState::Queued);
    sim.advance(SignedDuration::from_secs(60));
    let ready = atlas.poll_task(shard, &made).await.unwrap();
    assert_eq!(ready.state, TaskState::Ready);
    assert_eq!(bytes(&link(&*atlas, shard, &ready).await).await.len(), 1000);
    let file = atlas.files(shard).await.unwrap().remove(0);
    let given = atlas.link(shard, &file, Some(&ready)).await.unwrap();
    assert_eq!(given.mode, LinkMode::Ranged);
}

/// The scripted account's clusters: a replica set `c0`, or a sharded one.
fn clusters(kind: &str) -> Reply {
    Reply::list(&[format!(
        r#"{{"id":"1","name":"c0","clusterType":"{kind}","replicationSpecs":[{{"regionConfigs":[{{"providerName":"AWS","electableSpecs":{{"instanceSize":"M30"}}}}]}}]}}"#
    )])
}

#[tokio::test]
async fn requests_are_the_documented_ones() {
    let verifier = Verifier::default();
    let server = Server::start(move |request: &Request, _| {
        if let Some(refusal) = verifier.refuse(request) {
            return refusal;
        }
        let page = |n| Reply::json(200, format!(
            r#"{{"results":[{{"id":"s{n}","status":"completed","createdAt":"2026-01-0{n}T00:00:00Z"}}],"totalCount":2}}"#
        ));
        let (_, below) = request.path().split_once(GROUP).unwrap();
        match (request.method.as_str(), below) {
            ("GET", "/clusters") => {
                assert_eq!(request.query("includeDeletedWithRetainedBackups"), Some("true"));
                clusters("REPLICASET")
            }
            ("GET", "/flexClusters") => Reply::list(&[]),
            ("GET", "/clusters/c0/backup/snapshots") => {
                page(if request.query("pageNum") == Some("1") { 1 } else { 2 })
            }
            ("POST", "/clusters/c0/backup/restoreJobs") => {
                assert_eq!(request.body, r#"{"deliveryType":"download","snapshotId":"s2"}"#);
                Reply::json(200, r#"{"id":"j1","snapshotId":"s2","deliveryType":"download","deliveryUrl":[],"failed":false,"desiredTimestamp":{"increment":null,"time":null,"date":null}}"#)
            }
            ("GET", "/clusters/c0/backup/restoreJobs/j1") => Reply::json(
                200,
                r#"{"id":"j1","snapshotId":"s2","deliveryType":"download","deliveryUrl":"http://vm.example:27017/CANARY/restore-s2.tar.gz"}"#,
            ),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let atlas = atlas(&server.origin);
    let shard = &shards(&*atlas, "c0").await[0];
    assert_eq!(shard.backup.id, "s2");
    let made = atlas.create_task(shard).await.unwrap();
    let ready = atlas.poll_task(shard, &made).await.unwrap();
    assert_eq!(ready.state, TaskState::Ready);
    let url = link(&*atlas, shard, &ready).await;
    assert!(url.starts_with("http://vm.example:27017/"), "{url}");
    let backups = server
        .authorized()
        .into_iter()
        .filter(|r| r.path().contains("/backup/"));
    for request in backups {
        assert_eq!(request.header("accept"), V2, "{}", request.target);
    }
}

#[tokio::test]
async fn case_07_members_that_the_list_does_not_tell_are_asked_for() {
    let server = Server::start(|request, _| {
        let sharded = |more: &str| {
            format!(r#"{{"id":"5d03a6a12a9c4336c3d98d51","status":"completed","createdAt":null{more}}}"#)
        };
        match request.path().rsplit('/').next().unwrap() {
            "clusters" => clusters("GEOSHARDED"),
            "shardedClusters" => {
                assert_eq!(request.query("pageNum"), None, "it has no pages");
                Reply::list(&[sharded(""), r#"{"id":"later","status":"inProgress"}"#.into()])
            }
            "5d03a6a12a9c4336c3d98d51" => Reply::json(
                200,
                sharded(r#","members":[{"id":"m0","replicaSetName":"a"},{"id":"m1","replicaSetName":"config"}]"#),
            ),
            _ => Reply::refusal(404, "RESOURCE_NOT_FOUND"),
        }
    })
    .await;
    let atlas = atlas(&server.origin);
    let names: Vec<String> = shards(&*atlas, "c0")
        .await
        .into_iter()
        .map(|shard| shard.shard.id)
        .collect();
    assert_eq!(names, ["a", "config"]);
}

#[tokio::test]
async fn a_living_cluster_hides_a_deleted_one_of_its_name() {
    for (first, second) in [("DELETED", "IDLE"), ("IDLE", "DELETED")] {
        let server = Server::start(move |request, _| match request.path().ends_with("/clusters") {
            true => {
                let cluster = |id: u8, state: &str| {
                    let (kind, size) = match state {
                        "IDLE" => ("REPLICASET", "M0"),
                        _ => ("SHARDED", "M30"),
                    };
                    format!(r#"{{"id":"{id}","name":"c0","stateName":"{state}","clusterType":"{kind}","providerSettings":{{"providerName":"AWS","instanceSizeName":"{size}"}}}}"#)
                };
                Reply::list(&[cluster(1, first), cluster(2, second)])
            }
            false => Reply::list(&[]),
        })
        .await;
        let atlas = atlas(&server.origin);
        let living = instance(&*atlas, "c0").await;
        assert!(
            atlas.backups(&living).await.unwrap().is_empty(),
            "M0 has none"
        );
    }
}
