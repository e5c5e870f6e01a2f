//! Life of a mount: preflight, start, signals, unmount.
//!
//! A mount either becomes ready and says so, or fails with one line and leaves nothing behind. It
//! ends by a signal or by anybody's unmount; if the process dies instead, the mountpoint answers
//! ENOTCONN rather than look like an empty directory.

mod daemon;
mod hardening;
mod mountinfo;
mod notify;
mod preflight;
mod report;
mod signals;
mod unmount;
mod upkeep;

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

pub use self::daemon::{CHILD, Started, start as start_in_background};
pub(crate) use self::hardening::shield;
use self::notify::Notify;
use self::preflight::Machine;
pub use self::preflight::{dead, filesystem_of, fitness, passthrough};
pub use self::report::{Report, ask, mountpoints, serving};
pub use self::signals::Signals;
use self::signals::Wish;
pub use self::unmount::unmount;
use self::unmount::{Detached, GRACE, clear_stale, detach};
pub use self::upkeep::Upkeep;
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

/// How to mount, besides what is configured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// A dead mount at the place is taken away first.
    pub replace_stale: bool,
    /// This process was started by [`start_in_background`].
    pub in_background: bool,
}

/// Mounts at `mountpoint` and serves until unmounted, by a signal or by anyone. Says on stdout, and
/// to the service manager, when it is ready. Makes the process's runtime; nothing else may run in it.
///
/// `/dev/fd/N` for a mountpoint is an open FUSE device that whoever started us mounts: in a container
/// that itself may not mount.
pub fn run(config: &Config, mountpoint: &Path, manner: Manner, upkeep: &Upkeep) -> Result<()> {
    if manner.in_background {
        daemon::leave_terminal()?;
    }
    if manner.replace_stale {
        clear_stale(mountpoint)?;
    }
    let place = Place::of(config, mountpoint)?;
    hardening::raise_open_files();
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let waits = matches!(place, Place::Connection(..));
        let (owned, runtime) = (config.clone(), Handle::current());
        let mut begin = spawn_blocking(move || Mount::at(place, &owned, runtime));
        let mount = tokio::select! {
            mount = &mut begin => mount.map_err(|_| bug("mounting"))??,
            // Whoever holds the other end may never mount; what is ours to mount is never left half made.
            () = signals.terminated(), if waits => std::process::exit(signals.exit_code()),
        };
        if let Err(error) = announce(mount.mountpoint(), config.providers.len())
            && manner.in_background
        {
            // Whoever waited for it has gone, and does not know that it is mounted.
            mount.stop().await?;
            return Err(environment("nobody waits for this mount any more", error));
        }
        if manner.in_background {
            std::env::set_current_dir("/")
                .map_err(|error| environment("cannot leave the directory", error))?;
        }
        mount.serve(&mut signals, Some((config, upkeep))).await
    });
    end(runtime);
    result
}

fn bug(doing: &str) -> Error {
    Error::new(Kind::Internal, format!("{doing} ended by a bug"))
}

/// Where a mount is made.
#[derive(Debug)]
enum Place {
    /// At a directory, free of symlinks.
    Directory(PathBuf),
    /// Wherever whoever holds the other end mounts it; with the path by which we were told.
    Connection(OwnedFd, PathBuf),
}

impl Place {
    fn of(config: &Config, mountpoint: &Path) -> Result<Self> {
        let number = mountpoint.strip_prefix("/dev/fd").ok();
        let Some(number) = number.and_then(|number| number.to_str()?.parse().ok()) else {
            let machine = Machine::this();
            return preflight::check(&config.mount, mountpoint, &machine).map(Place::Directory);
        };
        let connection = preflight::connection(number)?;
        Ok(Place::Connection(connection, mountpoint.to_owned()))
    }
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

/// Says that it is ready. In the foreground a closed stdout is no reason not to serve.
fn announce(mountpoint: &Path, providers: usize) -> io::Result<()> {
    let plural = if providers == 1 { "" } else { "s" };
    let mut stdout = io::stdout().lock();
    writeln!(
        stdout,
        "mongo-backupfs: {} is ready ({providers} provider{plural})",
        mountpoint.display()
    )?;
    stdout.flush()
}

/// A mounted filesystem.
#[derive(Debug)]
pub struct Mount {
    fs: Fs,
    session: Session,
    mountpoint: PathBuf,
    /// Whether it is ours to unmount.
    is_ours: bool,
}

impl Mount {
    /// Mounts at `mountpoint`; ready when this returns. Asks no provider anything. Must be called
    /// within a tokio runtime, and blocks for as long as mounting takes.
    pub fn start(config: &Config, mountpoint: &Path) -> Result<Self> {
        Mount::at(Place::of(config, mountpoint)?, config, Handle::current())
    }

    fn at(place: Place, config: &Config, runtime: Handle) -> Result<Self> {
        let options = FuseOptions {
            allow_other: config.mount.allow_other,
            op_timeout: config.mount.op_timeout,
            open_timeout: config
                .mount
                .task_wait
                .saturating_add(config.mount.op_timeout),
        };
        let fs = Fs::open(config, Arc::new(SystemClock))?;
        let (Place::Directory(mountpoint) | Place::Connection(_, mountpoint)) = &place;
        let mountpoint = mountpoint.clone();
        fs.mounted_at(&mountpoint);
        if let Some(address) = config.mount.metrics {
            fs.serve_metrics(address)?;
        }
        let is_ours = matches!(place, Place::Directory(_));
        let session = match place {
            Place::Directory(_) => {
                let session = Session::mount(fs.clone(), &mountpoint, &options, runtime)?;
                raise_read_ahead(&fs, &mountpoint);
                session
            }
            Place::Connection(connection, _) => {
                Session::over(fs.clone(), connection, &options, runtime)?
            }
        };
        Ok(Mount {
            fs,
            session,
            mountpoint,
            is_ours,
        })
    }

    /// Where it is mounted, without symlinks.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Serves until unmounted by anyone, or until SIGTERM or SIGINT, upon which it unmounts. SIGHUP
    /// renews what `upkeep` can, which knows the configuration that was mounted.
    pub async fn serve(
        mut self,
        signals: &mut Signals,
        upkeep: Option<(&Config, &Upkeep)>,
    ) -> Result<()> {
        let notify = Notify::this();
        notify.ready("serving");
        let beats = self.is_ours.then(|| self.mountpoint.clone());
        let heart = notify
            .heartbeat()
            .map(|every| tokio::spawn(beat(every, beats)));
        loop {
            let wish = tokio::select! {
                ended = self.session.ended() => {
                    tracing::info!("unmounted");
                    notify.stopping();
                    self.flush(Instant::now() + END).await;
                    return ended;
                }
                wish = signals.next() => wish,
            };
            match (wish, upkeep) {
                (Wish::End, _) => break,
                (Wish::Tell, _) => upkeep::tell(&self.fs),
                (Wish::Renew, None) => tracing::info!("SIGHUP: there is nothing to read again"),
                (Wish::Renew, Some((mounted, upkeep))) => {
                    notify.reloading();
                    upkeep.renew(&self.fs, mounted).await;
                    notify.ready("serving");
                }
            }
        }
        tracing::info!("unmounting");
        notify.stopping();
        heart.inspect(tokio::task::JoinHandle::abort);
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
        if !self.is_ours {
            // It goes with the connection, which ends with this process.
            self.flush(deadline).await;
            return Ok(());
        }
        let mountpoint = self.mountpoint.clone();
        let detached = spawn_blocking(move || detach(&mountpoint, GRACE))
            .await
            .map_err(|_| bug("unmounting"))?;
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

/// Tells the service manager again and again that the mount answers; silence makes it start
/// another process. What is asked goes through the kernel and all of our threads but the network.
async fn beat(every: Duration, mountpoint: Option<PathBuf>) {
    let notify = Notify::this();
    loop {
        let place = mountpoint.clone();
        let asked =
            spawn_blocking(move || place.is_none_or(|place| rustix::fs::statfs(&place).is_ok()));
        match timeout(every, asked).await {
            Ok(Ok(true)) => notify.alive(),
            _ => tracing::error!("the mount does not answer itself"),
        }
        tokio::time::sleep(every).await;
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
