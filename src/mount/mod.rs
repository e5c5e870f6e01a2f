//! Life of a mount: preflight, start, signals, unmount.
//!
//! A mount either becomes ready and says so, or fails with one line and leaves nothing behind. It
//! ends by a signal or by anybody's unmount; if the process dies instead, the mountpoint answers
//! ENOTCONN rather than look like an empty directory.

mod hardening;
mod mountinfo;
mod preflight;
mod report;
mod unmount;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use self::hardening::shield;
use self::preflight::Machine;
pub use self::preflight::{dead, filesystem_of, fitness, passthrough};
pub use self::report::{Report, ask, mountpoints, serving};
pub use self::unmount::unmount;
use self::unmount::{Detached, GRACE, detach};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::fs::Fs;
use crate::fuse::{FuseOptions, Session};

/// How long files that were open are served after a lazy unmount.
const LINGER: Duration = Duration::from_secs(3);
/// How long threads may take to come home.
const HOME: Duration = Duration::from_secs(1);
/// How long all of an end may take, but for the threads.
const END: Duration = Duration::from_secs(8);
/// What the kernel reads ahead, in KiB: as much as it asks for at once.
const READ_AHEAD_KIB: u64 = 1024;

/// Mounts at `mountpoint` and serves until unmounted, by a signal or by anyone. Says on stdout
/// when it is ready. Makes the process's runtime; nothing else may run in it.
pub fn run(config: &Config, mountpoint: &Path) -> Result<()> {
    let place = preflight::check(&config.mount, mountpoint, &Machine::this())?;
    hardening::raise_open_files();
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mount = Mount::at(place, config)?;
        announce(mount.mountpoint(), config.providers.len());
        mount.serve(&mut signals).await
    });
    end(runtime);
    result
}

/// Ends a runtime: threads that hang in the kernel are left behind.
pub fn end(runtime: Runtime) {
    runtime.shutdown_timeout(HOME);
}

/// The runtime that everything below the adapter runs on.
pub fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| environment("cannot start threads", error))
}

fn environment(words: &str, error: io::Error) -> Error {
    Error::new(Kind::Environment, words).with_source(error)
}

fn announce(mountpoint: &Path, providers: usize) {
    let plural = if providers == 1 { "" } else { "s" };
    let mut stdout = io::stdout().lock();
    // A closed stdout is no reason not to serve.
    let _ = writeln!(
        stdout,
        "mongo-backupfs: {} is ready ({providers} provider{plural})",
        mountpoint.display()
    )
    .and_then(|()| stdout.flush());
}

/// A mounted filesystem.
#[derive(Debug)]
pub struct Mount {
    fs: Fs,
    session: Session,
    mountpoint: PathBuf,
}

impl Mount {
    /// Mounts at `mountpoint`; ready when this returns. Asks no provider anything. Must be called
    /// within a tokio runtime, and blocks for as long as mounting takes.
    pub fn start(config: &Config, mountpoint: &Path) -> Result<Self> {
        let place = preflight::check(&config.mount, mountpoint, &Machine::this())?;
        Mount::at(place, config)
    }

    fn at(mountpoint: PathBuf, config: &Config) -> Result<Self> {
        let options = FuseOptions {
            allow_other: config.mount.allow_other,
            op_timeout: config.mount.op_timeout,
            open_timeout: config
                .mount
                .task_wait
                .saturating_add(config.mount.op_timeout),
        };
        let fs = Fs::open(config, Arc::new(SystemClock))?;
        fs.mounted_at(&mountpoint);
        if let Some(address) = config.mount.metrics {
            fs.serve_metrics(address)?;
        }
        let session = Session::mount(fs.clone(), &mountpoint, &options, Handle::current())?;
        raise_read_ahead(&fs, &mountpoint);
        Ok(Mount {
            fs,
            session,
            mountpoint,
        })
    }

    /// Where it is mounted, without symlinks.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Serves until unmounted by anyone, or until SIGTERM or SIGINT, upon which it unmounts.
    pub async fn serve(mut self, signals: &mut Signals) -> Result<()> {
        tokio::select! {
            ended = self.session.ended() => {
                tracing::info!("unmounted");
                self.flush(Instant::now() + END).await;
                return ended;
            }
            () = signals.terminated() => tracing::info!("unmounting"),
        }
        let mountpoint = self.mountpoint.clone();
        tokio::select! {
            stopped = self.stop() => stopped,
            () = signals.terminated() => {
                // Best effort: who asks twice does not want to wait.
                let _ = detach(&mountpoint, Duration::ZERO);
                std::process::exit(signals.exit_code());
            }
        }
    }

    /// Unmounts: ends all waits, detaches lazily if files stay open, serves those a little longer,
    /// and flushes the cache. Takes less than ten seconds.
    pub async fn stop(mut self) -> Result<()> {
        let deadline = Instant::now() + END;
        self.session.stop_waiting();
        let mountpoint = self.mountpoint.clone();
        let detached = spawn_blocking(move || detach(&mountpoint, GRACE))
            .await
            .map_err(|_| Error::new(Kind::Internal, "unmounting ended by a bug"))?;
        if let Ok(Detached::Lazily) = detached {
            tracing::warn!("files are still open: detached, they are served {LINGER:?} longer");
        }
        let ended = match &detached {
            Ok(_) => timeout(LINGER, self.session.ended())
                .await
                .unwrap_or(Ok(())),
            Err(_) => Ok(()),
        };
        self.flush(deadline).await;
        detached.and(ended)
    }

    async fn flush(&self, deadline: Instant) {
        if timeout_at(deadline, self.fs.stop()).await.is_err() {
            tracing::warn!("the cache was not flushed in time: what is missing is fetched again");
        }
    }
}

/// Sequential reads through the page cache ask for as much at a time as the mount's own device
/// says; only root may change that.
fn raise_read_ahead(fs: &Fs, mountpoint: &Path) {
    let entry = mountinfo::mount_at(mountpoint).ok().flatten();
    let place = entry.map(|entry| format!("/sys/class/bdi/{}/read_ahead_kb", entry.device));
    let raised = place
        .as_ref()
        .is_some_and(|place| std::fs::write(place, READ_AHEAD_KIB.to_string()).is_ok());
    let kib = place.and_then(|place| std::fs::read_to_string(place).ok()?.trim().parse().ok());
    fs.kernel().reads_ahead(kib, raised);
}

/// The signals that a mount listens to, from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    last: SignalKind,
}

impl Signals {
    /// Listens from now on. Must be called within a tokio runtime.
    pub fn new() -> Result<Self> {
        let listen =
            |kind| signal(kind).map_err(|error| environment("cannot listen to signals", error));
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            last: SignalKind::terminate(),
        })
    }

    /// Resolves at SIGTERM or SIGINT. SIGHUP, also that of a closed terminal, ends nothing.
    pub async fn terminated(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => self.last = SignalKind::terminate(),
                _ = self.interrupt.recv() => self.last = SignalKind::interrupt(),
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: the configuration is read when mounting, not now");
                    continue;
                }
            }
            return;
        }
    }

    /// What a process ended by the last signal exits with.
    fn exit_code(&self) -> i32 {
        128 + self.last.as_raw_value()
    }
}
