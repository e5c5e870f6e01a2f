//! The client against the simulated Atlas: whole journeys, with its strict digest, clock and bill.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::config::{AtlasAuth, ProviderKind};
use mongo_backupfs::error::Kind;
use mongo_backupfs::model::{Found, Instance, ShardRef, Task, TaskState};
use mongo_backupfs::providers::{self, Provider};
use mongo_backupfs::secret::Secret;
use mongo_backupfs::sim::atlas::{Cluster, Knobs, Project, Snapshot, Status, TenantApi, Tier};
use mongo_backupfs::sim::{Fault, Rule, Side, Sim, SimBuilder};

use crate::config;

fn newest() -> Timestamp {
    "2026-01-05T13:00:00Z".parse().unwrap()
}

async fn sim(knobs: Knobs) -> Sim {
    let shared = (0..3).fold(Cluster::new("M2AWS", Tier::M2), |cluster, day| {
        cluster.snapshot(Snapshot::at(
            newest() - SignedDuration::from_hours(24 * day),
        ))
    });
    let running = Snapshot::at(newest() + SignedDuration::from_hours(24)).status(Status::Running);
    let project = Project::new("Shop")
        .cluster(Cluster::new("free", Tier::M0))
        .cluster(shared.snapshot(running))
        .cluster(Cluster::new("big", Tier::M10).snapshot(Snapshot::at(newest())));
    Sim::start(SimBuilder::new().knobs(knobs).project(project))
        .await
        .unwrap()
}

fn account(sim: &Sim, auth: AtlasAuth) -> Arc<dyn Provider> {
    let mut config = config(sim.base_url(), auth, Duration::from_secs(20));
    let ProviderKind::Atlas(atlas) = &mut config.kind else {
        unreachable!("it was made for Atlas");
    };
    atlas.project_id = sim.project_id().to_owned();
    providers::build(&config, Arc::new(sim.clock().clone())).unwrap()
}

pub fn by_key(sim: &Sim) -> Arc<dyn Provider> {
    let auth = AtlasAuth::ApiKey {
        public_key: Secret::new(sim.public_key()),
        private_key: Secret::new(sim.private_key()),
    };
    account(sim, auth)
}

fn by_service_account(sim: &Sim) -> Arc<dyn Provider> {
    let auth = AtlasAuth::ServiceAccount {
        client_id: Secret::new(sim.client_id()),
        client_secret: Secret::new(sim.client_secret()),
    };
    account(sim, auth)
}

async fn shared_cluster(atlas: &dyn Provider) -> Instance {
    let listed = atlas.instances().await.unwrap();
    listed.into_iter().find(|i| i.id == "M2AWS").unwrap()
}

/// The newest backup's only shard.
async fn newest_shard(atlas: &dyn Provider) -> ShardRef {
    let instance = shared_cluster(atlas).await;
    let backups = atlas.backups(&instance).await.unwrap();
    let backup = backups.into_iter().max_by_key(|b| b.started).unwrap();
    ShardRef {
        provider: "atlas".into(),
        instance: Arc::new(instance),
        shard: backup.shards[0].clone(),
        backup: Arc::new(backup),
    }
}

async fn found(atlas: &dyn Provider, shard: &ShardRef) -> Task {
    match atlas.find_task(shard).await.unwrap() {
        Found::Task(task) => task,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_way_in_leads_to_the_same_download() {
    let either = Knobs::default();
    let v1 = Knobs {
        v2: false,
        ..Knobs::default()
    };
    let v2 = Knobs {
        v1: false,
        ..Knobs::default()
    };
    let strict = Knobs {
        refuse_reused_counts: true,
        ..Knobs::default()
    };
    for knobs in [either, v1, v2, strict] {
        for way_in in [by_key, by_service_account] {
            let sim = sim(knobs.clone()).await;
            let atlas = way_in(&sim);
            let listed = atlas.instances().await.unwrap();
            let names: Vec<&str> = listed.iter().map(|i| i.id.as_str()).collect();
            assert_eq!(names, ["M2AWS", "big", "free"]);
            assert!(atlas.backups(&listed[2]).await.unwrap().is_empty());
            let shard = newest_shard(&*atlas).await;
            assert_eq!(atlas.backups(&shard.instance).await.unwrap().len(), 3);
            assert_eq!(shard.backup.started, newest());
            assert_eq!(
                shard.backup.finished,
                newest() + SignedDuration::from_secs(31)
            );
            assert_eq!(sim.bill().tasks_created, 0);

            let task = atlas.create_task(&shard).await.unwrap();
            assert_eq!(task.state, TaskState::Ready);
            assert_eq!(found(&*atlas, &shard).await.id, task.id);
            let file = atlas.files(&shard).await.unwrap().remove(0);
            let link = atlas.link(&shard, &file, Some(&task)).await.unwrap();
            let bytes = reqwest::get(link.url.url())
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            assert_eq!(bytes.len(), 1 << 20);
            assert_eq!(sim.bill().tasks_created, 1);
        }
    }
}

#[tokio::test]
async fn a_slow_download_is_polled_until_its_link_and_then_expires() {
    let sim = sim(Knobs {
        task_time: SignedDuration::from_mins(5),
        ..Knobs::default()
    })
    .await;
    let atlas = by_key(&sim);
    let shard = newest_shard(&*atlas).await;
    let task = atlas.create_task(&shard).await.unwrap();
    assert_eq!(task.state, TaskState::Queued);
    assert_eq!(
        found(&*atlas, &shard).await.id,
        task.id,
        "adopted, not made again"
    );
    sim.advance(SignedDuration::from_mins(6));
    let task = atlas.poll_task(&shard, &task).await.unwrap();
    assert_eq!(task.state, TaskState::Ready);
    sim.advance(SignedDuration::from_hours(5));
    assert_eq!(found(&*atlas, &shard).await.state, TaskState::Expired);
    assert_eq!(sim.bill().tasks_created, 1);
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_found_again() {
    for fault in [Fault::SeverAnswer, Fault::LoseAnswer { code: 504 }] {
        let sim = sim(Knobs::default()).await;
        let atlas = by_key(&sim);
        let shard = newest_shard(&*atlas).await;
        sim.faults()
            .add(Rule::new(fault).on(Side::Api).method("POST"));
        let error = atlas.create_task(&shard).await.unwrap_err();
        assert_eq!(error.kind(), Kind::OutcomeUnknown, "{error}");
        assert_eq!(sim.bill().tasks_created, 1);
        sim.faults().clear();
        assert_eq!(found(&*atlas, &shard).await.state, TaskState::Ready);
    }
}

#[tokio::test]
async fn sessions_that_end_are_renewed_without_notice() {
    let sim = sim(Knobs {
        nonce_life: Some(SignedDuration::from_mins(5)),
        refuse_reused_counts: true,
        ..Knobs::default()
    })
    .await;
    for atlas in [by_key(&sim), by_service_account(&sim)] {
        let instance = shared_cluster(&*atlas).await;
        for _ in 0..3 {
            let lists = join_all((0..10).map(|_| atlas.backups(&instance))).await;
            assert!(lists.iter().all(Result::is_ok), "{lists:?}");
            sim.advance(SignedDuration::from_mins(6));
            atlas.backups(&instance).await.unwrap();
            sim.forget_sessions();
        }
    }
}

#[tokio::test]
async fn wrong_keys_missing_roles_and_retired_services_are_told_apart() {
    let sim = sim(Knobs {
        may_download: false,
        ..Knobs::default()
    })
    .await;
    let wrong = account(&sim, crate::api_key());
    let error = wrong.instances().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials);
    assert!(error.to_string().contains("`private_key`"), "{error}");

    let atlas = by_key(&sim);
    let shard = newest_shard(&*atlas).await;
    let error = atlas.create_task(&shard).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials);
    assert!(error.to_string().contains("Project Owner"), "{error}");

    for retired in [TenantApi::NotFound, TenantApi::Gone] {
        sim.adjust(|knobs| knobs.tenant_api = retired);
        let error = atlas.backups(&shard.instance).await.unwrap_err();
        assert!(error.to_string().contains("Flex"), "{error}");
    }
    assert_eq!(sim.bill().tasks_created, 0);
}
