//! The simulated clouds of `demo`, on their own, for other programs to talk to.
//!
//! Prints one line of JSON with the address and the keys, then serves until its standard input
//! ends or Ctrl-C:
//!
//! ```console
//! $ cargo run --example simulated-clouds
//! {"base_url":"http://127.0.0.1:40123","public_key":"…","private_key":"…", …}
//! ```
//!
//! With `--clusters` it simulates that many alike clusters instead, and with `--links-to` another
//! web server delivers the artifacts: what measurements need. With `--objects` a bucket holds one
//! more folder, of that many objects. The bill is at `/_sim/bill`; faults are posted to
//! `/_sim/faults`.

use std::io;

use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::sim::atlas::{Cluster, Project, Snapshot, Tier};
use mongo_backupfs::sim::{Content, Sim, SimBuilder, demo_clouds, many_objects};
use tokio::sync::oneshot;

/// Simulated clouds that serve until standard input ends.
#[derive(Debug, Parser)]
struct Options {
    /// Base URL of the server that signed links lead to, in place of the simulation's own store.
    #[arg(long, value_name = "URL")]
    links_to: Option<String>,

    /// Simulate this many M2 clusters, `cluster-0` and so on, in place of the demo's.
    #[arg(long, value_name = "NUMBER")]
    clusters: Option<u32>,

    /// Snapshots of each of these clusters, an hour apart.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    snapshots: u32,

    /// Add a folder of this many objects, with names that need care, to the Tencent bucket.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    objects: u64,
}

/// Where the folder lies that `--objects` adds.
const FOLDER: &str = "cmongo_backup/cmgo-archive2_0/snapshot/1544517026";

impl Options {
    fn clouds(&self) -> SimBuilder {
        let clouds = match self.clusters {
            None => demo_clouds(),
            Some(count) => SimBuilder::new().project(
                (0..count)
                    .map(|number| self.cluster(number))
                    .fold(Project::new("Measurements"), Project::cluster),
            ),
        };
        let clouds = self.with_objects(clouds);
        match &self.links_to {
            None => clouds,
            Some(url) => clouds.links_to(url),
        }
    }

    fn with_objects(&self, clouds: SimBuilder) -> SimBuilder {
        let written = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_544_517_060);
        let clouds = match self.objects {
            0 => clouds,
            // The marker by which the console shows an empty folder.
            _ => clouds.object(
                &format!("{FOLDER}/empty folder/"),
                Content::bytes(""),
                written,
            ),
        };
        many_objects(self.objects).fold(clouds, |clouds, (path, content)| {
            clouds.object(&format!("{FOLDER}/{path}"), content, written)
        })
    }

    fn cluster(&self, number: u32) -> Cluster {
        let name = format!("cluster-{number}");
        let newest = Timestamp::now() - SignedDuration::from_hours(1);
        (0..self.snapshots)
            .map(|age| Snapshot::at(newest - SignedDuration::from_hours(age.into())))
            .fold(Cluster::new(&name, Tier::M2), Cluster::snapshot)
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let sim = Sim::start(Options::parse().clouds()).await?;
    println!("{}", sim.describe());
    tokio::select! {
        _ = end_of_input() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

/// Ends with the standard input. A thread reads it, because such a read cannot be cancelled.
async fn end_of_input() {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        // Nothing is expected there; an input that cannot be read has ended too.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}
