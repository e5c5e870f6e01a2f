//! The main job with real tools: a dump made by mongodump, behind the simulated Atlas or in the
//! simulated COS, is restored by mongorestore straight off the mount, and every document reads back
//! equal.
//!
//! `scripts/real-tools` brings the tools and `scripts/test` names their directory in
//! `MONGO_BACKUPFS_REAL_TOOLS`; without it these tests say so and fail.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use mongo_backupfs::sim::{Content, SimBuilder};
use tempfile::TempDir;

use crate::tencent;
use crate::world::{World, eventually, kill, wait};

/// Enough for several blocks of the archive and every BSON type in each of its collections.
const DOCUMENTS: &str = "10000";

struct Tools(PathBuf);

impl Tools {
    fn find() -> Self {
        let dir = std::env::var_os("MONGO_BACKUPFS_REAL_TOOLS")
            .expect("MONGO_BACKUPFS_REAL_TOOLS is not set: run the tests by scripts/test");
        Tools(PathBuf::from(dir))
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        Command::new(self.0.join(program))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn documents(&self, args: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/documents.py");
        let args: Vec<&str> = [script.to_str().unwrap()]
            .iter()
            .chain(args)
            .copied()
            .collect();
        let output = self.run("venv/bin/python", &args);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// An empty MongoDB wire server on loopback.
struct Server {
    uri: String,
    process: Child,
    _storage: TempDir,
}

impl Server {
    fn start(tools: &Tools) -> Self {
        let storage = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new(tools.0.join("venv/bin/secantusd-py"))
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--cache-size",
                "256M",
            ])
            .arg("--storage-path")
            .arg(storage.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the server listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Server {
            uri: format!("mongodb://127.0.0.1:{port}"),
            process,
            _storage: storage,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill(self.process.id(), libc::SIGTERM);
        if wait(&mut self.process).is_none() {
            let _ = self.process.kill();
        }
    }
}

fn ok(output: Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_real_dump_is_restored_off_the_mount_and_reads_back_equal() {
    let tools = Tools::find();
    let source = Server::start(&tools);
    tools.documents(&["fill", &source.uri, DOCUMENTS]);
    let expected = tools.documents(&["digest", &source.uri]);

    let scratch = tempfile::tempdir().unwrap();
    let archive = scratch.path().join("dump.archive.gz");
    let archive_flag = format!("--archive={}", archive.display());
    ok(tools.run(
        "bin/mongodump",
        &["--uri", &source.uri, "--gzip", &archive_flag],
    ));
    drop(source);
    let whole = std::fs::read(&archive).unwrap();
    let truncated = whole[..whole.len() * 3 / 4].to_vec();

    let mut world = World::with_content([Content::bytes(truncated), Content::bytes(whole)]);
    world.mount();
    let files = world.files();
    let restore = |server: &Server, file: &Path| {
        let archive = format!("--archive={}", file.display());
        tools.run(
            "bin/mongorestore",
            &["--uri", &server.uri, "--gzip", &archive],
        )
    };

    let target = Server::start(&tools);
    ok(restore(&target, &files[1]));
    assert_eq!(tools.documents(&["digest", &target.uri]), expected);
    assert!(expected.contains("\"count\": 2500"), "{expected}");

    let other = Server::start(&tools);
    let output = restore(&other, &files[0]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "a truncated archive was taken for a whole one"
    );
    assert_eq!(world.sim.bill().tasks_created, 2);
    world.unmount();
}

#[test]
fn a_real_dump_in_a_cos_folder_is_restored_off_the_mount() {
    let tools = Tools::find();
    let source = Server::start(&tools);
    tools.documents(&["fill", &source.uri, DOCUMENTS]);
    let expected = tools.documents(&["digest", &source.uri]);
    let scratch = tempfile::tempdir().unwrap();
    let out = format!("--out={}", scratch.path().display());
    ok(tools.run("bin/mongodump", &["--uri", &source.uri, "--gzip", &out]));
    drop(source);

    let written = "2018-12-11T08:31:00Z".parse().unwrap();
    let mut builder = SimBuilder::new();
    let mut folders = vec![scratch.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(scratch.path()).unwrap().display();
            let key = format!("{}/1544517027220146694/{name}", tencent::FOLDER);
            builder = builder.object(&key, Content::file(&path).unwrap(), written);
        }
    }
    let mut world = World::new(builder);
    world.account = Some(tencent::account(&world.sim));
    world.mount();
    let shard = "tencent/cmgo-pfsumk5l/latest/cmgo-pfsumk5l_0/1544517027220146694";
    let dir = format!("--dir={}", world.mountpoint.join(shard).display());
    let target = Server::start(&tools);
    ok(tools.run("bin/mongorestore", &["--uri", &target.uri, "--gzip", &dir]));
    assert_eq!(tools.documents(&["digest", &target.uri]), expected);
    assert!(expected.contains("\"count\": 2500"), "{expected}");
    assert_eq!(world.sim.bill().tasks_created, 0);
    world.unmount();
}
