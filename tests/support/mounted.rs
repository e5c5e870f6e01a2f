//! The real binary, mounted over simulated clouds, for tests that go through the kernel.
//!
//! What its processes log and leave is searched for secrets when a world ends ([`canary`]).

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mongo_backupfs::sim::atlas::{Cluster, Project, Snapshot, Tier};
use mongo_backupfs::sim::{Content, Sim, SimBuilder};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::canary;

/// Why this machine cannot mount; the caller skips its test and says so.
pub fn no_fuse() -> Option<&'static str> {
    let openable = fs::File::options().read(true).write(true).open("/dev/fuse");
    match openable {
        Ok(_) => None,
        Err(_) => Some("/dev/fuse cannot be opened"),
    }
}

/// Returns from a test that needs a mount where there can be none.
#[macro_export]
macro_rules! need_fuse {
    () => {
        if let Some(reason) = $crate::mounted::no_fuse() {
            eprintln!("SKIPPED: {reason}");
            return;
        }
    };
}

/// Simulated clouds and directories for one mount after another.
pub struct World {
    pub sim: Sim,
    pub dir: TempDir,
    _runtime: Runtime,
}

impl World {
    /// One cluster `c0` whose snapshots are `contents`, oldest first.
    pub fn new(contents: Vec<Content>) -> World {
        let mut cluster = Cluster::new("c0", Tier::M2);
        for (day, content) in (1_i64..).zip(contents) {
            let started = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(200 - 24 * day);
            cluster = cluster.snapshot(Snapshot::at(started).content(content));
        }
        let runtime = Runtime::new().unwrap();
        let builder = SimBuilder::new().project(Project::new("P").cluster(cluster));
        let sim = runtime.block_on(Sim::start(builder)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        World {
            sim,
            dir,
            _runtime: runtime,
        }
    }

    pub fn mountpoint(&self) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join("mnt")
    }

    /// Writes a configuration with `settings` as further lines of `[mount]`.
    pub fn config(&self, settings: &str) -> PathBuf {
        let dir = self.dir.path().display();
        let text = format!(
            "[mount]\ncache_dir = \"{dir}/cache\"\nstate_dir = \"{dir}/state\"\n{settings}\n\
             [[provider]]\nname = \"atlas\"\nkind = \"atlas\"\nallow_http = true\n\
             endpoint = \"{}\"\nproject_id = \"{}\"\npublic_key = \"{}\"\nprivate_key = \"{}\"\n\
             poll_interval = \"200ms\"\nretry_budget = \"10s\"\n",
            self.sim.base_url(),
            self.sim.project_id(),
            self.sim.public_key(),
            self.sim.private_key(),
        );
        let path = self.dir.path().join("config.toml");
        let _ = fs::remove_file(&path);
        let mut file = fs::File::options();
        let mut file = file
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        path
    }

    /// The command with this configuration.
    pub fn command(&self, settings: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mongo-backupfs"));
        command
            .arg("--config")
            .arg(self.config(settings))
            .args(arguments);
        command
    }

    /// Mounts and waits until it is ready.
    #[track_caller]
    pub fn mount(&self, settings: &str) -> Mounted {
        let place = self.mountpoint();
        let mut child = self
            .command(
                settings,
                &["--log-level", "trace", "mount", place.to_str().unwrap()],
            )
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut ready).unwrap();
        if !ready.contains("is ready") {
            let mut errors = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut errors)
                .unwrap();
            panic!("not mounted: {ready}{errors}");
        }
        let errors = drain(child.stderr.take().unwrap());
        Mounted {
            child,
            place,
            ready,
            errors: Some(errors),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let left = ["cache", "state", LOG].map(|name| self.dir.path().join(name));
            canary::assert_kept(&self.sim.secrets(), &left, false);
        }
    }
}

/// What all mounts of a world have logged.
const LOG: &str = "mount.log";

/// A running `mount`. Dropped, it is killed and its mountpoint freed.
pub struct Mounted {
    child: Child,
    place: PathBuf,
    pub ready: String,
    errors: Option<std::thread::JoinHandle<String>>,
}

impl Mounted {
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The files of the tree, oldest backup first.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.place.join("atlas/c0")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() => directories.push(entry.path()),
                    kind if kind.is_file() => found.push(entry.path()),
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }

    /// `status.json`, read through the mount.
    pub fn status(&self) -> serde_json::Value {
        let text = fs::read(self.place.join(".backupfs/status.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// How many openers wait for a task.
    pub fn waiting(&self) -> u64 {
        self.status()["tasks"]["waiting"].as_u64().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).unwrap();
    }

    /// Waits for the process; also tells what it logged.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> (ExitStatus, String) {
        let status = wait(&mut self.child, limit);
        (status, self.take_log())
    }

    /// What was logged, once the process has ended; kept for the search as well.
    fn take_log(&mut self) -> String {
        let log = self.errors.take().map(|errors| errors.join().unwrap());
        let log = log.unwrap_or_default();
        let place = self.place.parent().unwrap().join(LOG);
        let mut file = fs::File::options();
        let file = file.append(true).create(true).open(place);
        std::io::Write::write_all(&mut file.unwrap(), log.as_bytes()).unwrap();
        log
    }

    pub fn is_mounted(&self) -> bool {
        is_mounted(&self.place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            self.take_log();
        }
        if self.is_mounted() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            if rustix::mount::unmount(&self.place, flags).is_err() {
                let _ = Command::new("fusermount3")
                    .args(["-u", "-z"])
                    .arg(&self.place)
                    .status();
            }
        }
    }
}

/// Unmounts as anybody would; whether that succeeded.
pub fn unmount(place: &Path, options: &[&str]) -> bool {
    let unmounted = Command::new("fusermount3")
        .arg("-u")
        .args(options)
        .arg(place)
        .status();
    unmounted.unwrap().success()
}

pub fn is_mounted(place: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.contains(&format!(" {} ", place.display()))
}

pub fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

/// Waits for a child that must end within `limit`.
#[track_caller]
pub fn wait(child: &mut Child, limit: Duration) -> ExitStatus {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "still running after {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    })
}
