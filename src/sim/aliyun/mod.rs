//! The simulated Alibaba Cloud: ApsaraDB for MongoDB (dds), its download tasks (dbs) and the store
//! that links lead to (OSS), as far as backups need them.
//!
//! A call proves who sends it, then needs a permission, then reaches the account. Owns the account
//! and the knobs, each under a lock of its own, taken in the order knobs, estate, then the store's.

mod dbs;
mod dds;
mod estate;
mod knobs;
mod oss;
mod rpc;
mod signature;

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::dbs::Task;
pub use self::estate::{Account, Backup, Instance};
use self::estate::{Disk, Keys};
pub use self::knobs::{AnotherLink, Knobs};
use self::oss::{Network, Oss, Place};
use self::rpc::Refusal;
use super::content::Content;
use super::faults::{Fault, Injected};
use super::{Site, hex, random};
use crate::clock::Clock;
use crate::secret::Secret;

const DDS_VERSION: &str = "2015-12-01";
const DBS_VERSION: &str = "2021-01-01";
/// Where the backups of local disks lie.
const LOCAL_BUCKET: &str = "rdsbak-hz-v3";
/// Longest request body read.
const MOST_BODY: usize = 64 * 1024;

/// The service. Clones share it.
#[derive(Debug, Clone)]
pub struct Aliyun(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: String,
    site: Site,
    keys: Keys,
    oss: Oss,
    knobs: Mutex<Knobs>,
    estate: Mutex<Estate>,
}

#[derive(Debug)]
struct Estate {
    instances: Vec<Instance>,
    tasks: Vec<Task>,
    nonces: HashSet<String>,
}

impl Aliyun {
    /// The service at `base` whose store is at `store`.
    pub(super) fn new(
        base: String,
        store: String,
        site: Site,
        account: Account,
    ) -> io::Result<Self> {
        let drawn = |prefix: &str| Ok::<_, io::Error>(format!("{prefix}{}", hex(&random::<12>()?)));
        let key = |id: String, secret: String, token| Keys {
            id,
            secret: Secret::new(secret),
            token,
        };
        let service = key(drawn("STS.")?, drawn("service")?, None);
        let keys = key(drawn("LTAI5t")?, drawn("secret")?, account.token);
        for each in [&service, &keys] {
            let secret = Some(each.secret.expose());
            let token = each.token.as_ref().map(Secret::expose);
            for part in [secret, token].into_iter().flatten() {
                site.meter.secrets().add(part);
            }
        }
        let own = account.bucket.map(|name| (name, keys.clone()));
        let aliyun = Aliyun(Arc::new(Inner {
            base,
            oss: Oss::new(store, site.clone(), service, own),
            site,
            keys,
            knobs: Mutex::default(),
            estate: Mutex::new(Estate {
                instances: numbered(account.instances),
                tasks: Vec::new(),
                nonces: HashSet::new(),
            }),
        }));
        for instance in &aliyun.estate().instances {
            for backup in &instance.backups {
                for (index, content) in backup.contents.iter().enumerate() {
                    if instance.disk == Disk::Local {
                        let place = local_place(instance, backup, index);
                        let content = content.clone();
                        aliyun.0.oss.put(&place, content, backup.finished());
                    }
                }
            }
        }
        Ok(aliyun)
    }

    /// The address of both APIs.
    pub fn endpoint(&self) -> &str {
        &self.0.base
    }

    /// The id of the account's access key.
    pub fn access_key_id(&self) -> &str {
        &self.0.keys.id
    }

    /// Its secret.
    pub fn access_key_secret(&self) -> &str {
        self.0.keys.secret.expose()
    }

    /// The name and the address of the account's bucket: the latter is the `endpoint` of
    /// `[provider.oss]`.
    pub fn bucket(&self) -> Option<(&str, String)> {
        self.0.oss.bucket()
    }

    /// The addresses, the key and the bucket, for another process.
    pub(super) fn describe(&self) -> Value {
        let bucket = self.bucket();
        let store = bucket.as_ref().and_then(|(_, base)| base.rsplit_once('/'));
        json!({
            "endpoint": self.endpoint(),
            "access_key_id": self.access_key_id(),
            "access_key_secret": self.access_key_secret(),
            "bucket": bucket.as_ref().map(|(name, _)| name),
            "oss_endpoint": store.map(|(store, _)| store),
        })
    }

    /// The keys of the account's bucket and what lies there.
    pub fn objects(&self) -> Vec<(String, Content)> {
        self.0.oss.own()
    }

    /// The ids of the backup sets of an instance, oldest backup first, shard by shard.
    pub fn backup_sets(&self, instance: &str) -> Vec<String> {
        let estate = self.estate();
        let found = estate.instances.iter().find(|one| one.id == instance);
        let backups = found.map_or(&[][..], |one| &one.backups);
        let sets = backups
            .iter()
            .flat_map(|backup| (0..backup.contents.len()).map(|index| backup.set(index)));
        sets.collect()
    }

    /// What the file of a shard of a backup reads as; `backup` is the id in the tree.
    pub fn artifact(&self, instance: &str, backup: &str, shard: &str) -> Option<Content> {
        let estate = self.estate();
        let found = estate.instances.iter().find(|one| one.id == instance)?;
        let index = found.members().iter().position(|id| id == shard)?;
        let mut backups = found.backups.iter();
        let backup = backups.find(|one| backup == one.set(0) || backup == one.cluster_id())?;
        backup.contents.get(index).cloned()
    }

    /// What the download of a backup set reads as.
    pub fn content(&self, set: &str) -> Option<Content> {
        let estate = self.estate();
        let mut backups = estate.instances.iter().flat_map(|one| &one.backups);
        backups.find_map(|backup| {
            let mut contents = backup.contents.iter().enumerate();
            contents
                .find_map(|(index, content)| (backup.set(index) == set).then(|| content.clone()))
        })
    }

    /// Changes how the service behaves from now on.
    pub fn adjust(&self, change: impl FnOnce(&mut Knobs)) {
        let mut knobs = self.knobs();
        change(&mut knobs);
        self.0.oss.tell_wrong_checksums(knobs.wrong_checksums);
    }

    /// Changes an instance.
    pub fn change(&self, instance: &str, change: impl FnOnce(&mut Instance)) {
        let mut estate = self.estate();
        if let Some(found) = estate.instances.iter_mut().find(|one| one.id == instance) {
            change(found);
        }
    }

    /// The APIs.
    pub(super) fn router(&self) -> Router {
        Router::new().fallback(call).with_state(self.clone())
    }

    /// The store.
    pub(super) fn store(&self) -> Router {
        self.0.oss.router()
    }

    fn knobs(&self) -> MutexGuard<'_, Knobs> {
        lock(&self.0.knobs)
    }

    fn estate(&self) -> MutexGuard<'_, Estate> {
        lock(&self.0.estate)
    }
}

/// Gives each backup the first of its sets' numbers.
fn numbered(mut instances: Vec<Instance>) -> Vec<Instance> {
    let mut next = 190_700_001;
    for instance in &mut instances {
        let members = instance.members().len();
        for backup in &mut instance.backups {
            backup.id = next;
            next += members.max(backup.contents.len()) as u64;
        }
    }
    instances
}

fn local_place(instance: &Instance, backup: &Backup, index: usize) -> Place {
    let time = backup.started.strftime("%Y%m%d%H%M%S");
    let extension = backup.extension.as_deref().unwrap_or_default();
    let set = backup.set(index);
    Place {
        bucket: LOCAL_BUCKET.to_owned(),
        key: format!("custins{}/hins{set}_data_{time}{extension}", instance.id),
    }
}

async fn call(State(cloud): State<Aliyun>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MOST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let now = cloud.0.site.clock.now();
    let knobs = cloud.knobs().clone();
    let mut asked = Asked {
        cloud: &cloud,
        now,
        knobs,
        estate: cloud.estate(),
    };
    let odd = asked.knobs.odd;
    match asked.reply(&request, &body) {
        Ok(document) if odd => rpc::answer(StatusCode::OK, rpc::odd(document)),
        Ok(document) => rpc::answer(StatusCode::OK, document),
        Err(refusal) => refusal.into_response(),
    }
}

/// One call's moment: the time and the knobs stay the same throughout.
struct Asked<'a> {
    cloud: &'a Aliyun,
    now: Timestamp,
    knobs: Knobs,
    estate: MutexGuard<'a, Estate>,
}

impl Asked<'_> {
    fn reply(&mut self, request: &Parts, body: &[u8]) -> Result<Value, Refusal> {
        let injected = request.extensions.get::<Injected>();
        let faults = injected.map_or(&[][..], |faults| &faults.0);
        if faults.contains(&Fault::Unauthorized) {
            return Err(rpc::forged());
        }
        let keys = &self.cloud.0.keys;
        let call = rpc::admit(request, body, keys, &mut self.estate.nonces, self.now)?;
        self.cloud.0.site.meter.call(&call.action);
        for fault in faults {
            if let Fault::ApiError { status, code } = fault {
                return Err(Refusal::new(*status, code, "Refused by a simulated fault."));
            }
        }
        if let Some(wait) = self.take_throttling() {
            return Err(Refusal::throttled(wait));
        }
        let is_download = call.version == DBS_VERSION;
        if !self.knobs.allows(&call.permission()) {
            let (code, words) = match is_download {
                true => ("Request.Forbidden", "Have no Permissions"),
                false => (
                    "Forbidden.RAM",
                    "User not authorized to operate on the resource.",
                ),
            };
            return Err(Refusal::new(403, code, words));
        }
        match call.version.as_str() {
            DBS_VERSION => self.dbs(&call),
            DDS_VERSION => self.dds(&call),
            _ => Err(Refusal::new(
                404,
                "InvalidVersion",
                "Specified parameter Version is not valid.",
            )),
        }
    }

    /// A link to a backup on local disks.
    fn object_link(
        &self,
        instance: &Instance,
        backup: &Backup,
        index: usize,
        network: Network,
    ) -> String {
        let place = local_place(instance, backup, index);
        let ends = self.now + self.knobs.object_link_life;
        let oss = &self.cloud.0.oss;
        oss.link(&place, network, self.now, ends, self.knobs.v4)
    }

    /// How long the call has to wait, if it is throttled.
    fn take_throttling(&self) -> Option<SignedDuration> {
        let (left, wait) = &mut self.cloud.knobs().throttled;
        take(left).then_some(*wait)
    }

    /// Whether the task that begins now is to fail.
    fn take_failure(&self) -> bool {
        take(&mut self.cloud.knobs().failures)
    }
}

/// One less, if there was one.
fn take(left: &mut u32) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

/// For tests that need a task which this account's key did not start.
impl Aliyun {
    /// Somebody else converts the backup set `set` of an instance for `time`; false if there is
    /// no such set. Not on the bill. It fails if the next task is to fail.
    pub fn convert_elsewhere(&self, instance: &str, set: &str, time: SignedDuration) -> bool {
        let now = self.0.site.clock.now();
        let Some(content) = self.content(set) else {
            return false;
        };
        let failed = take(&mut self.knobs().failures);
        let mut estate = self.estate();
        let found = estate.instances.iter().find(|one| one.id == instance);
        let member = found.and_then(|one| match one.shards.as_slice() {
            [] => Some(instance.to_owned()),
            shards => one.backups.iter().find_map(|backup| {
                let index = (0..shards.len()).find(|index| backup.set(*index) == set)?;
                Some(shards[index].clone())
            }),
        });
        let Some(member) = member else {
            return false;
        };
        let number = estate.tasks.len() + 1;
        let task = Task::new(number, instance, &member, set, now, now + time);
        self.0.oss.put(task.place(), content, now + time);
        estate
            .tasks
            .push(if failed { task.failing() } else { task });
        true
    }

    /// The tasks, each with where it stands, for messages of failed tests.
    pub fn tasks(&self) -> Value {
        let now = self.0.site.clock.now();
        let keep = self.knobs().keep;
        let estate = self.estate();
        let documents = estate.tasks.iter().map(|task| task.document(now, keep));
        json!(documents.collect::<Vec<_>>())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
