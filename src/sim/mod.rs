//! The simulated clouds of `demo` and the tests: strict about signatures, with faults and a bill
//! counter.
//!
//! A [`Sim`] runs on two loopback ports per cloud: its API and the object store that signed links
//! lead to; Atlas has a third, for links that work once. What all clouds share ([`SimClock`], [`Faults`], the bill, the store, the gate in front
//! of every host) lives here; each cloud has its own folder. Locks: a cloud's own state first, then
//! the store's objects, then the bill or the faults; none is held across an await.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use mongo_backupfs::sim::atlas::{Cluster, Project, Snapshot, Tier};
//! use mongo_backupfs::sim::{Content, Fault, Rule, Side, Sim, SimBuilder};
//!
//! let sim = Sim::start(SimBuilder::new().project(
//!     Project::new("Shop").cluster(
//!         Cluster::new("M2AWS", Tier::M2)
//!             .snapshot(Snapshot::at(jiff::Timestamp::now()).content(Content::noise(1, 64 << 20))),
//!     ),
//! ))
//! .await?;
//! sim.faults().add(Rule::new(Fault::Cut { after: 100_000 }).on(Side::Data).times(2));
//! println!("{} {}", sim.base_url(), sim.bill().tasks_created);
//! # Ok(())
//! # }
//! ```

pub mod aliyun;
pub mod atlas;
mod bill;
mod clock;
mod content;
mod control;
mod cos;
mod demo;
mod dump;
mod durations;
mod faults;
mod folder;
mod gate;
mod object;
mod pbm;
mod ranges;
mod serve;
mod store;
pub mod tencent;
#[cfg(test)]
mod tests;
pub mod ucloud;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::{Router, middleware};
use http::Uri;
use jiff::SignedDuration;

use self::bill::Meter;
pub use self::bill::{Bill, Secrets};
pub use self::clock::SimClock;
pub use self::content::Content;
pub use self::demo::demo_clouds;
pub use self::faults::{Fault, Faults, Rule, Side};
pub use self::folder::many_objects;
use self::gate::Gate;
pub use self::pbm::pbm_storage;
use self::serve::Host;
use self::store::Store;
use crate::secret::Secret;

/// What all clouds of one [`Sim`] share.
#[derive(Debug, Clone)]
struct Site {
    clock: SimClock,
    faults: Faults,
    meter: Meter,
}

/// What to simulate.
#[derive(Debug, Clone, Default)]
pub struct SimBuilder {
    atlas: atlas::Account,
    knobs: atlas::Knobs,
    aliyun: Option<aliyun::Account>,
    tencent: tencent::Account,
    tencent_knobs: tencent::Knobs,
    ucloud: Option<ucloud::Account>,
    seed: u64,
    port: u16,
    links_to: Option<String>,
}

impl SimBuilder {
    /// An Atlas account without projects; keys are drawn at the start.
    pub fn new() -> Self {
        SimBuilder::default()
    }

    /// The account's API key.
    pub fn keys(mut self, public: &str, private: &str) -> Self {
        self.atlas.public_key = Some(public.to_owned());
        self.atlas.private_key = Some(Secret::new(private));
        self
    }

    /// The account's service account.
    pub fn service_account(mut self, id: &str, secret: &str) -> Self {
        self.atlas.client_id = Some(id.to_owned());
        self.atlas.client_secret = Some(Secret::new(secret));
        self
    }

    /// Adds a project.
    pub fn project(mut self, project: atlas::Project) -> Self {
        self.atlas.projects.push(project);
        self
    }

    /// The Tencent account's keys.
    pub fn tencent_keys(mut self, id: &str, key: &str) -> Self {
        self.tencent.secret_id = Some(id.to_owned());
        self.tencent.secret_key = Some(Secret::new(key));
        self
    }

    /// Makes the Tencent account's keys temporary ones, which need this token.
    pub fn tencent_token(mut self, token: &str) -> Self {
        self.tencent.token = Some(Secret::new(token));
        self
    }

    /// Adds a Tencent instance.
    pub fn instance(mut self, instance: tencent::Instance) -> Self {
        self.tencent.instances.push(instance);
        self
    }

    /// Puts an object into the Tencent account's bucket, written at `modified`.
    pub fn object(mut self, key: &str, content: Content, modified: jiff::Timestamp) -> Self {
        self.tencent
            .objects
            .push((key.to_owned(), content, modified));
        self
    }

    /// Sets how Tencent Cloud behaves; [`Sim::adjust_tencent`] changes it later.
    pub fn tencent_knobs(mut self, knobs: tencent::Knobs) -> Self {
        self.tencent_knobs = knobs;
        self
    }

    /// Sets how Atlas behaves; [`Sim::adjust`] changes it later.
    pub fn knobs(mut self, knobs: atlas::Knobs) -> Self {
        self.knobs = knobs;
        self
    }

    /// An Alibaba Cloud account as well, on two ports of its own.
    pub fn aliyun(mut self, account: aliyun::Account) -> Self {
        self.aliyun = Some(account);
        self
    }

    /// A UCloud account as well, on two ports of its own.
    pub fn ucloud(mut self, account: ucloud::Account) -> Self {
        self.ucloud = Some(account);
        self
    }

    /// The seed of every fault's chance.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The port of the Atlas API; by default any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Where signed links of Atlas and UCloud lead: the base URL of another server, which then has to serve the bytes
    /// at the paths of the objects; by default the simulation's own store.
    pub fn links_to(mut self, base_url: &str) -> Self {
        self.links_to = Some(base_url.trim_end_matches('/').to_owned());
        self
    }
}

/// Running clouds. Dropping it stops them and cuts their connections.
#[derive(Debug)]
pub struct Sim {
    atlas: atlas::Atlas,
    aliyun: Option<aliyun::Aliyun>,
    tencent: tencent::Tencent,
    ucloud: Option<ucloud::Ucloud>,
    site: Site,
    base_url: String,
    _hosts: Vec<Host>,
}

impl Sim {
    /// Starts what `builder` describes, on loopback. Needs a Tokio runtime and keeps to it.
    pub async fn start(builder: SimBuilder) -> io::Result<Sim> {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (api, api_address) = serve::listen(loopback(builder.port)).await?;
        let (data, data_address) = serve::listen(loopback(0)).await?;
        let (restores, restores_address) = serve::listen(loopback(0)).await?;
        let (tencent_api, tencent_address) = serve::listen(loopback(0)).await?;
        let (cos, cos_address) = serve::listen(loopback(0)).await?;
        let base_url = format!("http://{api_address}");

        let site = Site {
            clock: SimClock::default(),
            faults: Faults::seeded(builder.seed),
            meter: Meter::default(),
        };
        let links_to = builder.links_to;
        let leading_to = |store: SocketAddr| match &links_to {
            Some(elsewhere) => elsewhere.clone(),
            None => format!("http://{store}"),
        };
        let store = Store::new(leading_to(data_address), site.clone(), random()?);
        let atlas = atlas::Atlas::new(
            base_url.clone(),
            format!("http://{restores_address}"),
            site.clone(),
            store.clone(),
            builder.atlas,
            builder.knobs,
        )?;

        let tencent = tencent::Tencent::new(
            format!("http://{tencent_address}"),
            format!("http://{cos_address}"),
            site.clone(),
            builder.tencent,
            builder.tencent_knobs,
        )?;

        let gated = |router: Router, side: fn(&Uri) -> Side| {
            let gate = Gate {
                side,
                site: site.clone(),
            };
            router.layer(middleware::from_fn_with_state(gate, gate::pass))
        };
        let api_router = gated(atlas.router(), |_| Side::Api).nest(
            "/_sim",
            control::router(atlas.clone(), tencent.clone(), site.clone()),
        );
        let mut hosts = vec![
            serve::serve(api, api_router, site.meter.clone()),
            serve::serve(
                data,
                gated(store.router(), |_| Side::Data),
                site.meter.clone(),
            ),
            serve::serve(
                restores,
                gated(atlas.restore_host(), |_| Side::Data),
                site.meter.clone(),
            ),
            serve::serve(
                tencent_api,
                gated(tencent.router(), |_| Side::Api),
                site.meter.clone(),
            ),
            serve::serve(
                cos,
                gated(tencent.store().router(), cos::side),
                site.meter.clone(),
            ),
        ];
        let mut aliyun = None;
        if let Some(account) = builder.aliyun {
            let (api, api_address) = serve::listen(loopback(0)).await?;
            let (data, data_address) = serve::listen(loopback(0)).await?;
            let (base, store) = (
                format!("http://{api_address}"),
                format!("http://{data_address}"),
            );
            let cloud = aliyun::Aliyun::new(base, store, site.clone(), account)?;
            let (api_router, store) = (
                gated(cloud.router(), |_| Side::Api),
                gated(cloud.store(), |_| Side::Data),
            );
            hosts.push(serve::serve(api, api_router, site.meter.clone()));
            hosts.push(serve::serve(data, store, site.meter.clone()));
            aliyun = Some(cloud);
        }
        let mut ucloud = None;
        if let Some(account) = builder.ucloud {
            let (api, api_address) = serve::listen(loopback(0)).await?;
            let (data, data_address) = serve::listen(loopback(0)).await?;
            let (base, store) = (format!("http://{api_address}"), leading_to(data_address));
            let cloud = ucloud::Ucloud::new(base, store, site.clone(), account)?;
            let api_router =
                gated(cloud.router(), |_| Side::Api).nest("/_sim", control::ucloud(cloud.clone()));
            let files = gated(cloud.files(), |_| Side::Data);
            hosts.push(serve::serve(api, api_router, site.meter.clone()));
            hosts.push(serve::serve(data, files, site.meter.clone()));
            ucloud = Some(cloud);
        }
        Ok(Sim {
            atlas,
            aliyun,
            tencent,
            ucloud,
            site,
            base_url,
            _hosts: hosts,
        })
    }

    /// The API's address, without a path: the provider's `endpoint`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The Alibaba Cloud account, if there is one.
    pub fn aliyun(&self) -> Option<&aliyun::Aliyun> {
        self.aliyun.as_ref()
    }

    /// The UCloud account, if there is one.
    pub fn ucloud(&self) -> Option<&ucloud::Ucloud> {
        self.ucloud.as_ref()
    }

    /// The public key of the Atlas account.
    pub fn public_key(&self) -> &str {
        self.atlas.public_key()
    }

    /// The private key of the Atlas account.
    pub fn private_key(&self) -> &str {
        self.atlas.private_key()
    }

    /// The id of the Atlas service account.
    pub fn client_id(&self) -> &str {
        self.atlas.client_id()
    }

    /// The secret of the Atlas service account.
    pub fn client_secret(&self) -> &str {
        self.atlas.client_secret()
    }

    /// The id of the first project; empty without projects.
    pub fn project_id(&self) -> &str {
        self.atlas.first_project()
    }

    /// The ids of a cluster's snapshots, in the order they were added, in the first project that
    /// has a cluster of that name.
    pub fn snapshot_ids(&self, cluster: &str) -> Vec<String> {
        self.atlas.snapshot_ids(cluster)
    }

    /// The address, the keys and the snapshots by cluster, for another process: one JSON object.
    pub fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "base_url": self.base_url(),
            "public_key": self.public_key(),
            "private_key": self.private_key(),
            "client_id": self.client_id(),
            "client_secret": self.client_secret(),
            "project_id": self.project_id(),
            "snapshots": self.atlas.snapshots(),
            "tencent": self.tencent().describe(),
            "aliyun": self.aliyun().map(aliyun::Aliyun::describe),
            "ucloud": self.ucloud().map(ucloud::Ucloud::describe),
        })
    }

    /// Adds a snapshot to a cluster that exists; answers its id.
    pub fn add_snapshot(&self, cluster: &str, snapshot: atlas::Snapshot) -> Option<String> {
        self.atlas.add_snapshot(cluster, snapshot)
    }

    /// What the download of one replica set of a snapshot contains.
    pub fn part(&self, cluster: &str, snapshot_id: &str, replica_set: &str) -> Option<Content> {
        self.atlas.part(cluster, snapshot_id, replica_set)
    }

    /// What all jobs ever packed of one replica set of a dedicated cluster's snapshot, oldest first.
    pub fn packed(&self, cluster: &str, snapshot_id: &str, replica_set: &str) -> Vec<Content> {
        self.atlas.packed(cluster, snapshot_id, replica_set)
    }

    /// The content behind a snapshot's download; of a sharded cluster, behind that of its first
    /// shard.
    pub fn artifact(&self, cluster: &str, snapshot_id: &str) -> Option<Content> {
        self.atlas.artifact(cluster, snapshot_id)
    }

    /// The SHA-256 of a snapshot's download, in lower-case hex.
    pub fn artifact_sha256(&self, cluster: &str, snapshot_id: &str) -> Option<String> {
        self.artifact(cluster, snapshot_id)?.sha256().ok()
    }

    /// Replaces what a snapshot's links lead to: same key, new bytes, new ETag. False when there
    /// is no such snapshot.
    pub fn replace_artifact(&self, cluster: &str, snapshot_id: &str, content: Content) -> bool {
        self.atlas
            .replace_artifact(cluster, snapshot_id, Some(content))
    }

    /// Removes what a snapshot's links lead to: they answer 404.
    pub fn remove_artifact(&self, cluster: &str, snapshot_id: &str) -> bool {
        self.atlas.replace_artifact(cluster, snapshot_id, None)
    }

    /// The simulated Tencent account.
    pub fn tencent(&self) -> TencentHandle<'_> {
        TencentHandle(&self.tencent)
    }

    /// The bill so far.
    pub fn bill(&self) -> Bill {
        self.site.meter.bill().clone()
    }

    /// Starts a new bill.
    pub fn reset_bill(&self) {
        *self.site.meter.bill() = Bill::default();
    }

    /// What may go wrong.
    pub fn faults(&self) -> &Faults {
        &self.site.faults
    }

    /// The clouds' clock, for a client that should live at the same time.
    pub fn clock(&self) -> &SimClock {
        &self.site.clock
    }

    /// Lets time pass: links, jobs and nonces expire.
    pub fn advance(&self, by: SignedDuration) {
        self.site.clock.advance(by);
    }

    /// Changes how Tencent Cloud behaves from now on.
    pub fn adjust_tencent(&self, change: impl FnOnce(&mut tencent::Knobs)) {
        self.tencent.adjust(change);
    }

    /// Changes how Atlas behaves from now on.
    pub fn adjust(&self, change: impl FnOnce(&mut atlas::Knobs)) {
        self.atlas.adjust(change);
    }

    /// Forgets every nonce and token, as a restart of the service would.
    pub fn forget_sessions(&self) {
        self.atlas.forget_sessions();
    }
}

/// The Tencent account of a [`Sim`].
#[derive(Debug, Clone, Copy)]
pub struct TencentHandle<'a>(&'a tencent::Tencent);

impl TencentHandle<'_> {
    /// The API's address: the provider's `endpoint`.
    pub fn base_url(&self) -> &str {
        self.0.base()
    }

    /// The address of the bucket: the `endpoint` of `[provider.cos]`.
    pub fn bucket_url(&self) -> &str {
        self.0.store().base()
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        self.0.store().bucket()
    }

    /// The account's key id.
    pub fn secret_id(&self) -> &str {
        self.0.secret_id()
    }

    /// The account's key.
    pub fn secret_key(&self) -> &str {
        self.0.secret_key()
    }

    /// The names of an instance's backups, in the order they were added.
    pub fn backup_names(&self, instance: &str) -> Vec<String> {
        self.0.backup_names(instance)
    }

    /// What the download of a shard of a backup contains.
    pub fn artifact(&self, instance: &str, backup: &str, shard: usize) -> Option<Content> {
        self.0.artifact(instance, backup, shard)
    }

    /// The same by the backup's id and the shard's.
    pub fn packed(&self, instance: &str, back_id: &str, shard: &str) -> Option<Content> {
        self.0.packed(instance, back_id, shard)
    }

    /// The keys of the bucket that begin with `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.0.store().keys(prefix)
    }

    /// The object at `key`.
    pub fn object(&self, key: &str) -> Option<Content> {
        self.0.store().content(key)
    }

    /// Puts an object into the bucket in place of what was there.
    pub fn put_object(&self, key: &str, content: Content, modified: jiff::Timestamp) {
        self.0.store().put(key, content, modified, true);
    }

    /// Removes an object from the bucket.
    pub fn remove_object(&self, key: &str) {
        self.0.store().remove(key);
    }

    /// Deletes a backup with its downloads. False when there is no such backup.
    pub fn delete_backup(&self, instance: &str, backup: &str) -> bool {
        self.0.delete_backup(instance, backup)
    }

    /// Removes the packed shard that a finished task's links lead to.
    pub fn remove_packed(&self, backup: &str, shard: &str) {
        self.0.remove_packed(backup, shard);
    }

    /// The addresses and keys, for another process.
    pub fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "base_url": self.base_url(),
            "bucket_url": self.bucket_url(),
            "bucket": self.bucket(),
            "region": "ap-guangzhou",
            "secret_id": self.secret_id(),
            "secret_key": self.secret_key(),
        })
    }
}

/// Random bytes from the system.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// `bytes` in lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
