//! `demo [MOUNTPOINT]`: simulated clouds in this process, mounted; no account is needed.
//!
//! Everything lives in one temporary directory that goes away with the demo. `--check` makes the
//! whole journey by itself ([`check`]), `--serve` only serves the clouds for other clients.

mod check;
mod tree;

use std::fs;
use std::io;
use std::iter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::{Context, Exit, print};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Environment, MountArgs};
use crate::error::{Error, Kind, Result};
use crate::mount::{self, Mount, Signals};
use crate::sim::{Fault, Rule, Side, Sim, demo_clouds, pbm_storage};

/// The top-level directories of the demo's accounts.
const ATLAS: &str = "atlas-demo";
const TENCENT: &str = "tencent-demo";
const ALIYUN: &str = "aliyun-demo";
const UCLOUD: &str = "ucloud-demo";
const BUCKET: &str = "bucket-demo";

/// With `--slow`: from the request of a download task to its link.
const TASK_TIME: SignedDuration = SignedDuration::from_secs(4);
/// With `--slow`: what each answer brings.
const BYTES_PER_SECOND: u64 = 256 << 10;

/// The local directory, within the demo's, that is shown as a bucket.
const STORAGE: &str = "pbm";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An empty directory [default: a temporary one]
    mountpoint: Option<PathBuf>,
    /// List, copy and verify everything, print what it cost, and end: 0 if all of it was right
    #[arg(long)]
    check: bool,
    /// As in life: download tasks take some seconds, and bytes come slowly
    #[arg(long)]
    slow: bool,
    /// Serve the simulated clouds without mounting them; print their keys as a line of JSON, then
    /// a configuration
    #[arg(long, conflicts_with_all = ["check", "mountpoint"])]
    serve: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let runtime = mount::runtime()?;
    let done = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let sim = Sim::start(demo_clouds())
            .await
            .map_err(|error| environment("cannot serve the simulated clouds", error))?;
        if args.slow {
            slow_down(&sim);
        }
        if args.serve {
            print(&format!("{}\n{}", keys(&sim), accounts(&sim)))?;
            signals.terminated().await;
            return Ok(());
        }
        let stage = Stage::new(args.mountpoint.as_deref())?;
        let config = stage.config(&sim, context)?;
        let mount = Mount::start(&config, &stage.mountpoint)?;
        if args.check {
            let report = tokio::select! {
                report = check::journey(&sim, &stage) => report,
                () = signals.terminated() => Err(Error::new(Kind::Interrupted, "interrupted")),
            };
            mount.stop().await?;
            return check::conclude(report?, &stage);
        }
        match introduce(mount.mountpoint(), &stage.config_path()).await {
            Ok(()) => mount.serve(&mut signals, None).await,
            Err(error) => mount.stop().await.and(Err(error)),
        }
    });
    mount::end(runtime);
    done.map(|()| Exit::Done)
}

fn environment(words: &str, error: io::Error) -> Error {
    Error::new(Kind::Environment, words).with_source(error)
}

/// Where the demo takes place.
#[derive(Debug)]
struct Stage {
    mountpoint: PathBuf,
    dir: TempDir,
}

impl Stage {
    fn new(mountpoint: Option<&Path>) -> Result<Self> {
        let made = || {
            let dir = TempDir::with_prefix("mongo-backupfs-demo-")?;
            let mountpoint = match mountpoint {
                Some(given) => given.to_owned(),
                None => {
                    let own = dir.path().join("mnt");
                    fs::create_dir(&own)?;
                    own
                }
            };
            // Whole hours, and never in the future.
            let now = SystemClock.now().as_second();
            let hour = Timestamp::from_second(now - now.rem_euclid(3600)).unwrap_or_default();
            pbm_storage(
                &dir.path().join(STORAGE),
                hour - SignedDuration::from_hours(3),
            )?;
            Ok(Stage { mountpoint, dir })
        };
        made().map_err(|error| environment("cannot make a temporary directory", error))
    }

    fn config_path(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// The configuration of the simulated accounts, read from a file like any other. Nothing in
    /// the process environment changes it.
    fn config(&self, sim: &Sim, context: &Context) -> Result<Config> {
        let dir = self.dir.path();
        let text = format!(
            "[mount]\ncache_dir = {}\nstate_dir = {}\ncache_size = \"256MiB\"\n\n{}\n{}",
            quoted(&dir.join("cache").to_string_lossy()),
            quoted(&dir.join("state").to_string_lossy()),
            accounts(sim),
            bucket(&dir.join(STORAGE)),
        );
        let path = self.config_path();
        let mut file = fs::OpenOptions::new();
        file.write(true).create_new(true).mode(0o600);
        file.open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(|error| environment("cannot write the demo's configuration", error))?;
        let bare = Environment::new(
            iter::empty::<(String, String)>(),
            context.environment.is_root(),
        );
        Config::load(&path, &MountArgs::default(), &bare)
    }
}

/// The accounts as a configuration says them.
fn accounts(sim: &Sim) -> String {
    let cloud = sim.tencent();
    let atlas = format!(
        "[[provider]]\n\
         name = {}\n\
         kind = \"atlas\"\n\
         endpoint = {}\n\
         allow_http = true\n\
         project_id = {}\n\
         public_key = {}\n\
         private_key = {}\n\
         poll_interval = \"500ms\"\n",
        quoted(ATLAS),
        quoted(sim.base_url()),
        quoted(sim.project_id()),
        quoted(sim.public_key()),
        quoted(sim.private_key()),
    );
    let tencent = format!(
        "[[provider]]\n\
         name = {}\n\
         kind = \"tencent\"\n\
         regions = [\"ap-guangzhou\"]\n\
         endpoint = {}\n\
         allow_http = true\n\
         secret_id = {}\n\
         secret_key = {}\n\
         poll_interval = \"500ms\"\n\
         [provider.cos]\n\
         bucket = {}\n\
         region = \"ap-guangzhou\"\n\
         endpoint = {}\n",
        quoted(TENCENT),
        quoted(cloud.base_url()),
        quoted(cloud.secret_id()),
        quoted(cloud.secret_key()),
        quoted(cloud.bucket()),
        quoted(cloud.bucket_url()),
    );
    format!("{atlas}\n{tencent}\n{}\n{}", aliyun(sim), ucloud(sim))
}

fn aliyun(sim: &Sim) -> String {
    let Some(cloud) = sim.aliyun() else {
        return String::new();
    };
    format!(
        "[[provider]]\n\
         name = {}\n\
         kind = \"aliyun\"\n\
         regions = [\"cn-hangzhou\"]\n\
         endpoint = {endpoint}\n\
         dbs_endpoint = {endpoint}\n\
         allow_http = true\n\
         access_key_id = {}\n\
         access_key_secret = {}\n\
         poll_interval = \"500ms\"\n",
        quoted(ALIYUN),
        quoted(cloud.access_key_id()),
        quoted(cloud.access_key_secret()),
        endpoint = quoted(cloud.endpoint()),
    )
}

fn ucloud(sim: &Sim) -> String {
    let Some(cloud) = sim.ucloud() else {
        return String::new();
    };
    format!(
        "[[provider]]\n\
         name = {}\n\
         kind = \"ucloud\"\n\
         regions = [\"cn-bj2\"]\n\
         endpoint = {}\n\
         allow_http = true\n\
         public_key = {}\n\
         private_key = {}\n",
        quoted(UCLOUD),
        quoted(cloud.endpoint()),
        quoted(cloud.public_key()),
        quoted(cloud.private_key()),
    )
}

fn bucket(root: &Path) -> String {
    format!(
        "[[provider]]\n\
         name = {}\n\
         kind = \"bucket\"\n\
         service = \"fs\"\n\
         layout = \"pbm\"\n\
         options = {{ root = {} }}\n",
        quoted(BUCKET),
        quoted(&root.to_string_lossy()),
    )
}

/// The accounts for scripts, on one line.
fn keys(sim: &Sim) -> serde_json::Value {
    serde_json::json!({
        "endpoint": sim.base_url(),
        "project_id": sim.project_id(),
        "public_key": sim.public_key(),
        "private_key": sim.private_key(),
        "client_id": sim.client_id(),
        "client_secret": sim.client_secret(),
        "tencent": sim.tencent().describe(),
    })
}

/// A TOML string. JSON's escapes are TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Lets everybody see how waiting looks.
fn slow_down(sim: &Sim) {
    sim.adjust(|knobs| knobs.task_time = TASK_TIME);
    sim.adjust_tencent(|knobs| knobs.task_time = TASK_TIME);
    if let Some(cloud) = sim.aliyun() {
        cloud.adjust(|knobs| knobs.task_time = TASK_TIME);
    }
    let slow = Fault::Throttle {
        bytes_per_second: BYTES_PER_SECOND,
    };
    sim.faults().add(Rule::new(slow).on(Side::Data));
}

/// Shows what is there and what to do with it.
async fn introduce(mountpoint: &Path, config: &Path) -> Result<()> {
    let root = mountpoint.to_owned();
    let listed = aside(move || tree::list(&root)).await?;
    let (root, config) = (mountpoint.display(), config.display());
    print(&format!(
        "Simulated clouds are mounted at {root}; looking is free, opening a file creates its \
         download task.\n\n\
         {}\n\
         Try, in another terminal:\n  \
         export MONGO_BACKUPFS_CONFIG={config}\n  \
         mongo-backupfs get {TENCENT}/cmgo-ledger01/latest /tmp/ledger\n  \
         tar tzvf {root}/{ATLAS}/reviews/latest/reviews/reviews.tgz\n  \
         mongo-backupfs status\n  \
         mongo-backupfs doctor\n\n\
         Ctrl-C unmounts and leaves nothing behind.\n",
        tree::overview(&listed)
    ))
}

/// Runs what touches the mount off the threads that serve it.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::new(Kind::Internal, "the demo ended by a bug"))?
        .map_err(|error| environment("the demo's mount cannot be read", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_printed_configuration_is_valid() {
        let sim = Sim::start(demo_clouds()).await.unwrap();
        let stage = Stage::new(None).unwrap();
        let path = stage.dir.path().join("printed.toml");
        fs::write(&path, accounts(&sim)).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let home = [("HOME", stage.dir.path())];
        let environment = Environment::new(home, false);
        let config = Config::load(&path, &MountArgs::default(), &environment).unwrap();
        let names: Vec<&str> = config.providers.iter().map(|p| &*p.name).collect();
        assert_eq!(names, [ATLAS, TENCENT, ALIYUN, UCLOUD]);
        assert_eq!(keys(&sim)["endpoint"], sim.base_url());
    }
}
