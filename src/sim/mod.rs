//! The simulated clouds of `demo` and the tests: strict about signatures, with faults and a bill
//! counter.
//!
//! A [`Sim`] runs on two loopback ports: the clouds' API and the object store that signed links
//! lead to. What all clouds share ([`SimClock`], [`Faults`], the bill, the store, the gate in front
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
mod demo;
mod dump;
mod faults;
mod gate;
mod ranges;
mod serve;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::{Router, middleware};
use jiff::SignedDuration;

pub use self::bill::Bill;
use self::bill::Meter;
pub use self::clock::SimClock;
pub use self::content::Content;
pub use self::demo::demo_clouds;
pub use self::faults::{Fault, Faults, Rule, Side};
use self::gate::Gate;
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

    /// The seed of every fault's chance.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The port of the API; by default any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Where signed links lead: the base URL of another server, which then has to serve the bytes
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
        let base_url = format!("http://{api_address}");

        let site = Site {
            clock: SimClock::default(),
            faults: Faults::seeded(builder.seed),
            meter: Meter::default(),
        };
        let store_url = builder
            .links_to
            .unwrap_or_else(|| format!("http://{data_address}"));
        let store = Store::new(store_url, site.clone(), random()?);
        let atlas = atlas::Atlas::new(
            base_url.clone(),
            site.clone(),
            store.clone(),
            builder.atlas,
            builder.knobs,
        )?;

        let gated = |router: Router, side| {
            let gate = Gate {
                side,
                site: site.clone(),
            };
            router.layer(middleware::from_fn_with_state(gate, gate::pass))
        };
        let api_router = gated(atlas.router(), Side::Api)
            .nest("/_sim", control::router(atlas.clone(), site.clone()));
        let mut hosts = vec![
            serve::serve(api, api_router, site.meter.clone()),
            serve::serve(data, gated(store.router(), Side::Data), site.meter.clone()),
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
                gated(cloud.router(), Side::Api),
                gated(cloud.store(), Side::Data),
            );
            hosts.push(serve::serve(api, api_router, site.meter.clone()));
            hosts.push(serve::serve(data, store, site.meter.clone()));
            aliyun = Some(cloud);
        }
        Ok(Sim {
            atlas,
            aliyun,
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
        })
    }

    /// Adds a snapshot to a cluster that exists; answers its id.
    pub fn add_snapshot(&self, cluster: &str, snapshot: atlas::Snapshot) -> Option<String> {
        self.atlas.add_snapshot(cluster, snapshot)
    }

    /// The content behind a snapshot's download.
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

    /// Changes how Atlas behaves from now on.
    pub fn adjust(&self, change: impl FnOnce(&mut atlas::Knobs)) {
        self.atlas.adjust(change);
    }

    /// Forgets every nonce and token, as a restart of the service would.
    pub fn forget_sessions(&self) {
        self.atlas.forget_sessions();
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
