//! A real S3 server, s3s-fs, over a temporary directory whose files are its objects; and what it was
//! asked for, as a proxy in front of it saw.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::world::{eventually, kill, wait};

/// The secret key.
pub const KEY: &str = "c2VjcmV0IGtleSBvZiB0aGUgdGVzdHM";

/// The name of its bucket.
pub const BUCKET: &str = "backups";

/// The server, with one bucket.
pub struct S3 {
    dir: tempfile::TempDir,
    bucket: PathBuf,
    process: Child,
    port: u16,
    proxy: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl S3 {
    pub fn start() -> Self {
        Self::with_keys(Some(KEY))
    }

    /// One that asks for no signature.
    pub fn public() -> Self {
        Self::with_keys(None)
    }

    fn with_keys(key: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bucket = dir.path().join(BUCKET);
        fs::create_dir(&bucket).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let requests = Arc::default();
        S3 {
            process: serve(dir.path(), port, key),
            proxy: forward(port, Arc::clone(&requests)),
            dir,
            bucket,
            port,
            requests,
        }
    }

    /// Starts anew, over the same objects, with another secret key.
    pub fn restart(&mut self, key: &str) {
        end(&mut self.process);
        self.process = serve(self.dir.path(), self.port, Some(key));
    }

    /// Where the bucket's objects are.
    pub fn bucket(&self) -> &Path {
        &self.bucket
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy)
    }

    /// The options of a provider that may read it.
    pub fn options(&self) -> String {
        format!(
            "bucket = \"{BUCKET}\", endpoint = \"{}\", region = \"eu-central-1\", \
             access_key_id = \"AKIDEXAMPLE\", secret_access_key = \"{KEY}\"",
            self.endpoint()
        )
    }

    /// Path and query of every listing.
    pub fn lists(&self) -> Vec<String> {
        self.asked(|request| request.contains("list-type=2"))
    }

    /// Path and query of everything else.
    pub fn data_requests(&self) -> Vec<String> {
        self.asked(|request| !request.contains("list-type=2"))
    }

    fn asked(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| wanted(request))
            .cloned()
            .collect()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

fn serve(root: &Path, port: u16, key: Option<&str>) -> Child {
    let tools = std::env::var_os("MONGO_BACKUPFS_REAL_TOOLS")
        .expect("MONGO_BACKUPFS_REAL_TOOLS is not set: run the tests by scripts/test");
    let mut command = Command::new(Path::new(&tools).join("bin/s3s-fs"));
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    if let Some(key) = key {
        command.args(["--access-key", "AKIDEXAMPLE", "--secret-key", key]);
    }
    let process = command
        .arg(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the S3 server listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    process
}

fn end(process: &mut Child) {
    kill(process.id(), libc::SIGKILL);
    wait(process);
}

/// Forwards connections to `port` as they are, and notes the request line of each request: none has
/// a body. Ends with the process.
fn forward(port: u16, requests: Arc<Mutex<Vec<String>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                continue;
            };
            let (from_server, to_client) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            let requests = Arc::clone(&requests);
            thread::spawn(move || pass(from_server, to_client, |_| {}));
            thread::spawn(move || {
                let mut head = Vec::new();
                pass(client, server, |bytes| {
                    head.extend_from_slice(bytes);
                    while let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                        let line = String::from_utf8_lossy(&head[..end]).into_owned();
                        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
                        requests.lock().unwrap().push(target);
                        head.drain(..end + 4);
                    }
                });
            });
        }
    });
    own
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        see(&piece[..length]);
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
