//! The Atlas client against scripted servers: what it sends, how often, and what it makes of answers.

mod auth;
#[path = "../support/authority.rs"]
mod authority;
mod dedicated;
mod faults;
mod http2;
mod journey;
mod rights;
mod server;
mod tasks;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mongo_backupfs::clock::SystemClock;
use mongo_backupfs::config::{AtlasAuth, AtlasConfig, ProviderConfig, ProviderKind};
use mongo_backupfs::model::{Backup, Facts, Instance, Shard, ShardRef};
use mongo_backupfs::providers::{self, Provider};
use mongo_backupfs::secret::Secret;

use crate::server::{PASSWORD, Reply, Request, USER};

pub const GROUP: &str = "32b6e34b3d91647abb20e7b8";

pub fn api_key() -> AtlasAuth {
    AtlasAuth::ApiKey {
        public_key: Secret::new(USER),
        private_key: Secret::new(PASSWORD),
    }
}

pub fn service_account() -> AtlasAuth {
    AtlasAuth::ServiceAccount {
        client_id: Secret::new("mdb_sa_id_1"),
        client_secret: Secret::new("mdb_sa_sk_1"),
    }
}

pub fn config(origin: &str, auth: AtlasAuth, budget: Duration) -> ProviderConfig {
    ProviderConfig {
        name: "atlas".into(),
        allow_http: true,
        ca_file: None,
        poll_interval: Duration::from_secs(1),
        retry_budget: budget,
        kind: ProviderKind::Atlas(AtlasConfig {
            endpoint: origin.parse().unwrap(),
            project_id: GROUP.into(),
            auth,
        }),
    }
}

pub fn atlas_with(origin: &str, auth: AtlasAuth, budget: Duration) -> Arc<dyn Provider> {
    providers::build(&config(origin, auth, budget), Arc::new(SystemClock)).unwrap()
}

/// An account by API key that may lose 20 s to retries.
pub fn atlas(origin: &str) -> Arc<dyn Provider> {
    atlas_with(origin, api_key(), Duration::from_secs(20))
}

/// The M2 cluster `c0`, without asking.
pub fn cluster() -> Instance {
    instance("shared")
}

pub fn instance(service: &str) -> Instance {
    Instance {
        id: "c0".into(),
        created: None,
        facts: Facts::from([("service", service.to_owned())]),
    }
}

/// The only shard of snapshot `s1` of `c0`.
pub fn shard_of(instance: Instance) -> ShardRef {
    let shard = Shard {
        id: "c0".into(),
        facts: Facts::new(),
    };
    ShardRef {
        provider: "atlas".into(),
        instance: Arc::new(instance),
        backup: Arc::new(Backup {
            id: "s1".into(),
            started: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
            status: "COMPLETED".into(),
            successful: true,
            method: None,
            version: None,
            trigger: None,
            not_downloadable: None,
            shards: vec![shard.clone()],
            facts: Facts::new(),
        }),
        shard,
    }
}

pub fn shard() -> ShardRef {
    shard_of(cluster())
}

pub fn snapshot(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","status":"COMPLETED","startTime":"2026-01-05T13:00:00Z","finishTime":"2026-01-05T13:00:31Z","mongoDBVersion":"7.0.14"}}"#
    )
}

/// Answers every snapshot list with one snapshot, anything else with 404.
pub fn one_snapshot(request: &Request) -> Reply {
    if request.path().ends_with("/snapshots") {
        Reply::list(&[snapshot("s1")])
    } else {
        Reply::refusal(404, "RESOURCE_NOT_FOUND")
    }
}
