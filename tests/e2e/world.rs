//! A simulated cloud, a configuration and a mount of the built binary, for one test.
//!
//! When a world ends, everything its processes printed, showed and left is searched for what its cloud
//! told in confidence ([`canary`]).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mongo_backupfs::sim::atlas::{Cluster, Project, Snapshot, Tier};
use mongo_backupfs::sim::{Content, Secrets, Sim, SimBuilder};
use sha2::{Digest, Sha256};

use crate::canary;
use crate::documents::assert_status_documents;

/// The longest that anything in these tests may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The configured name of the simulated account: the top directory of the tree.
pub const PROVIDER: &str = "atlas-test";
/// The cluster that [`World::with_content`] makes.
pub const CLUSTER: &str = "M2AWS";

/// What all mounts of a world have logged.
const LOG: &str = "mount.log";
/// What they and other commands have printed and shown.
const SHOWN: &str = "shown";

/// A cloud and the places of one mount. Dropping it unmounts and ends the process.
pub struct World {
    pub sim: Sim,
    pub runtime: tokio::runtime::Runtime,
    pub dir: tempfile::TempDir,
    pub mountpoint: PathBuf,
    /// Lines added to `[mount]`.
    pub mount_keys: Vec<String>,
    /// Lines added to the provider.
    pub provider_keys: Vec<String>,
    /// The whole account in place of the simulated Atlas project.
    pub account: Option<String>,
    /// Environment of the mount process.
    pub environment: Vec<(String, String)>,
    process: Option<Child>,
}

impl World {
    pub fn new(builder: SimBuilder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let sim = runtime.block_on(Sim::start(builder)).unwrap();
        let dir = tempfile::Builder::new()
            .prefix("backupfs-e2e-")
            .tempdir()
            .unwrap();
        let mountpoint = dir.path().join("mnt");
        fs::create_dir(&mountpoint).unwrap();
        World {
            sim,
            runtime,
            dir,
            mountpoint,
            mount_keys: Vec::new(),
            provider_keys: Vec::new(),
            account: None,
            environment: Vec::new(),
            process: None,
        }
    }

    /// One M2 cluster whose snapshots, a day apart, hold `contents`.
    pub fn with_content(contents: impl IntoIterator<Item = Content>) -> Self {
        Self::new(one_cluster(contents))
    }

    pub fn key(mut self, line: &str) -> Self {
        self.mount_keys.push(line.to_owned());
        self
    }

    /// Writes the configuration as it stands now.
    pub fn write_config(&self) -> PathBuf {
        let dir = self.dir.path();
        self.write_config_in(dir, &dir.join("state"))
    }

    /// The same with the places of a mount in `dir`, but the ledger in `state`.
    fn write_config_in(&self, dir: &Path, state: &Path) -> PathBuf {
        let config = dir.join("config.toml");
        let atlas = format!(
            "[[provider]]\nname = \"{PROVIDER}\"\nkind = \"atlas\"\nendpoint = \"{endpoint}\"\n\
             project_id = \"{project}\"\npublic_key = \"{public}\"\nprivate_key = \"{private}\"\n\
             allow_http = true\npoll_interval = \"50ms\"\n",
            endpoint = self.sim.base_url(),
            project = self.sim.project_id(),
            public = self.sim.public_key(),
            private = self.sim.private_key(),
        );
        let text = format!(
            "[mount]\ncache_dir = \"{cache}\"\nstate_dir = \"{state}\"\n{mount}\n\
             {account}\n{provider}\n",
            cache = dir.join("cache").display(),
            state = state.display(),
            mount = self.mount_keys.join("\n"),
            account = self.account.as_ref().unwrap_or(&atlas),
            provider = self.provider_keys.join("\n"),
        );
        let _ = fs::remove_file(&config);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&config)
            .unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        config
    }

    /// The command `mongo-backupfs ARGS` with this world's configuration.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_with(&self.write_config(), args)
    }

    /// Notes what a process printed or showed, for the search at the end.
    fn note(&self, shown: &[u8]) {
        let file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.dir.path().join(SHOWN));
        std::io::Write::write_all(&mut file.unwrap(), shown).unwrap();
    }

    /// Notes what the mount shows of itself now. Its status documents must be as published.
    fn note_documents(&self) {
        let [status, tasks, ..] =
            ["status.json", "tasks.json", "metrics", "events.log"].map(|name| {
                let path = self.mountpoint.join(".backupfs").join(name);
                // A mount whose process is gone shows nothing.
                let shown = fs::read(path).unwrap_or_default();
                self.note(&shown);
                shown
            });
        if !status.is_empty() && !tasks.is_empty() {
            assert_status_documents(&self.mountpoint, &status, &tasks);
        }
        let line = format!("/proc/{}/cmdline", self.pid());
        self.note(&fs::read(line).unwrap_or_default());
    }

    fn command_with(&self, config: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--config").arg(config).args(args);
        for (name, _) in std::env::vars() {
            if name.starts_with("MONGO_BACKUPFS_") {
                command.env_remove(name);
            }
        }
        command.envs(
            self.environment
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str())),
        );
        command.stdin(Stdio::null());
        command
    }

    /// Runs `mongo-backupfs ARGS` to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        self.note(&output.stdout);
        self.note(&output.stderr);
        output
    }

    /// Runs `mongo-backupfs COMMAND ARGS` to its end: what it printed on stdout and stderr, and its
    /// exit code.
    pub fn told(&self, command: &str, args: &[&str]) -> (String, String, i32) {
        let args: Vec<&str> = [command].iter().chain(args).copied().collect();
        let Output {
            status,
            stdout,
            stderr,
        } = self.run(&args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(stdout), text(stderr), status.code().unwrap())
    }

    /// Mounts and waits for the line that says so.
    pub fn mount(&mut self) -> &mut Self {
        let (mut child, line) = self.start(&self.write_config(), &self.mountpoint);
        if !line.contains("ready") {
            end(&mut child, &self.mountpoint);
            panic!("no ready line: {line:?}; log:\n{}", self.log());
        }
        self.process = Some(child);
        self
    }

    /// Mounts the same account a second time, as another host would: with a state and a cache of
    /// its own.
    pub fn another_host(&self) -> Host {
        self.another(|own| own.join("state"))
    }

    /// Mounts the same account a second time on this host: with the same state and a cache of its
    /// own.
    pub fn another_mount(&self) -> Host {
        self.another(|_own| self.dir.path().join("state"))
    }

    fn another(&self, state: impl FnOnce(&Path) -> PathBuf) -> Host {
        let dir = tempfile::Builder::new()
            .prefix("backupfs-e2e-")
            .tempdir()
            .unwrap();
        let mountpoint = dir.path().join("mnt");
        fs::create_dir(&mountpoint).unwrap();
        let (process, line) = self.start(
            &self.write_config_in(dir.path(), &state(dir.path())),
            &mountpoint,
        );
        let host = Host {
            mountpoint,
            process,
            dir,
            secrets: self.sim.secrets(),
            ledger_keeps_links: self.sim.aliyun().is_some(),
        };
        assert!(line.contains("ready"), "no ready line: {line:?}");
        host
    }

    /// A mount process and the first line it prints.
    fn start(&self, config: &Path, mountpoint: &Path) -> (Child, String) {
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.log_path())
            .unwrap();
        let mountpoint = mountpoint.to_str().unwrap();
        let mut child = self
            .command_with(config, &["--log-level", "trace", "mount", mountpoint])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
            // Keeps the pipe open until the process ends.
            let _ = stdout.read_to_end(&mut Vec::new());
        });
        let line = receiver.recv_timeout(PATIENCE).unwrap_or_default();
        (child, line)
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("mounted").id()
    }

    /// Everything all mounts of this world have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join(LOG)
    }

    /// Asks the mount to end with `signal` and waits for it.
    pub fn stop_with(&mut self, signal: i32) -> ExitStatus {
        self.note_documents();
        kill(self.pid(), signal);
        let status = self.ended();
        if signal == libc::SIGKILL {
            detach(&self.mountpoint);
        }
        status
    }

    /// Waits for the process that was told to end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("mounted");
        wait(&mut child).expect("the mount ends")
    }

    /// Ends the mount as an operator would.
    pub fn unmount(&mut self) {
        let status = self.stop_with(libc::SIGTERM);
        assert!(status.success(), "{status}; log:\n{}", self.log());
        assert!(!is_mounted(&self.mountpoint));
    }

    /// The daemon is gone from one moment to the next; its mount is detached.
    pub fn kill9(&mut self) {
        self.stop_with(libc::SIGKILL);
    }

    /// `<mountpoint>/<provider>/<cluster>`.
    pub fn cluster(&self) -> PathBuf {
        self.mountpoint.join(PROVIDER).join(CLUSTER)
    }

    /// The path in the tree of what the mount shows, as commands take it.
    pub fn path_of(&self, shown: &Path) -> String {
        let path = shown.strip_prefix(&self.mountpoint).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The only file of the newest backup.
    pub fn latest_file(&self) -> PathBuf {
        only_file(&self.cluster().join("latest").canonicalize().unwrap())
    }

    /// The only file of each backup, oldest first.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut backups: Vec<PathBuf> = fs::read_dir(self.cluster())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap() != "latest")
            .collect();
        backups.sort();
        backups.iter().map(|backup| only_file(backup)).collect()
    }

    /// The SHA-256 of what the newest backup must read as.
    pub fn latest_sha256(&self) -> String {
        let ids = self.sim.snapshot_ids(CLUSTER);
        self.sim
            .artifact_sha256(CLUSTER, ids.last().unwrap())
            .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.process.is_some() && !thread::panicking() {
            self.note_documents();
        }
        if let Some(mut child) = self.process.take() {
            end(&mut child, &self.mountpoint);
        }
        if is_mounted(&self.mountpoint) {
            detach(&self.mountpoint);
        }
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the last lines of the mount's log ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
            return;
        }
        let left = ["cache", "state", SHOWN, LOG].map(|name| self.dir.path().join(name));
        canary::assert_kept(&self.sim.secrets(), &left, self.sim.aliyun().is_some());
    }
}

/// A second mount of one account. Dropping it unmounts and ends the process.
pub struct Host {
    pub mountpoint: PathBuf,
    process: Child,
    dir: tempfile::TempDir,
    secrets: Secrets,
    ledger_keeps_links: bool,
}

impl Drop for Host {
    fn drop(&mut self) {
        end(&mut self.process, &self.mountpoint);
        if !thread::panicking() {
            let left = ["cache", "state"].map(|name| self.dir.path().join(name));
            canary::assert_kept(&self.secrets, &left, self.ledger_keeps_links);
        }
    }
}

/// Ends a mount whatever state it is in.
fn end(process: &mut Child, mountpoint: &Path) {
    kill(process.id(), libc::SIGTERM);
    if wait(process).is_none() {
        let _ = process.kill();
        let _ = process.wait();
    }
    if is_mounted(mountpoint) {
        detach(mountpoint);
    }
}

/// A project with one M2 cluster whose snapshots, a day apart, hold `contents`.
pub fn one_cluster(contents: impl IntoIterator<Item = Content>) -> SimBuilder {
    let mut cluster = Cluster::new(CLUSTER, Tier::M2);
    let first: jiff::Timestamp = "2026-01-05T14:00:00Z".parse().unwrap();
    for (day, content) in contents.into_iter().enumerate() {
        let at = first + jiff::SignedDuration::from_hours(24 * day as i64);
        cluster = cluster.snapshot(Snapshot::at(at).content(content));
    }
    SimBuilder::new().project(Project::new("Shop").cluster(cluster))
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_mongo-backupfs")
}

/// The only regular file below `dir`.
pub fn only_file(dir: &Path) -> PathBuf {
    let entries: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(
        entries.len(),
        1,
        "one entry in {}: {entries:?}",
        dir.display()
    );
    let entry = &entries[0];
    if entry.symlink_metadata().unwrap().is_dir() {
        only_file(entry)
    } else {
        entry.clone()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Digest of a file read in pieces.
pub fn sha256_of(path: &Path) -> String {
    let mut file = fs::File::open(path).unwrap();
    let mut sha = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut piece).unwrap();
        if n == 0 {
            return sha
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
        }
        sha.update(&piece[..n]);
    }
}

/// The extended attribute `user.backupfs.NAME` of a file.
pub fn attribute(path: &Path, name: &str) -> String {
    let path = path.display();
    sh(&format!(
        "getfattr --only-values -n user.backupfs.{name} '{path}'"
    ))
}

/// SHA-256 of every file below `dir`, by its path.
pub fn digests(dir: &Path) -> BTreeMap<String, String> {
    let script = format!(
        "cd '{}' && find -L . -type f -print0 | sort -z | xargs -0 -r sha256sum -z | tr '\\0' '\\n'",
        dir.display()
    );
    sh(&script)
        .lines()
        .map(|line| {
            let (digest, path) = line.split_once("  ").unwrap();
            (path.trim_start_matches("./").to_owned(), digest.to_owned())
        })
        .collect()
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never happened: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a shell script that must succeed; its standard output.
pub fn sh(script: &str) -> String {
    let output = Command::new("bash").args(["-ec", script]).output().unwrap();
    assert!(
        output.status.success(),
        "{script}\n{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn kill(pid: u32, signal: i32) {
    // SAFETY: kill has no memory effects; the pid is a child of this process that was not reaped.
    unsafe { libc::kill(pid as i32, signal) };
}

pub fn wait(child: &mut Child) -> Option<ExitStatus> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn is_mounted(mountpoint: &Path) -> bool {
    let mountpoint = mountpoint.to_str().unwrap();
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(mountpoint))
}

fn detach(mountpoint: &Path) {
    let _ = Command::new("umount").arg("-l").arg(mountpoint).status();
}

/// Permission bits of a path.
pub fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}
