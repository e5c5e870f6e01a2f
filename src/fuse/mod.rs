//! fuser, and only here: translation to [`crate::fs`], interrupts, deadlines.
//!
//! [`Session`] is a mounted filesystem being served. `adapter` translates requests (`convert`,
//! `listing` and `opening` are its parts), `serve` runs them, `interrupts` watches their callers,
//! `sizes` keeps the kernel's idea of file sizes exact, `directories` that of listings, `iomode`
//! the ways by which it reads apart, `terms` agrees on it all.

mod adapter;
mod convert;
mod directories;
mod interrupts;
mod iomode;
mod listing;
mod opening;
mod serve;
mod sizes;
mod terms;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fuser::{BackgroundSession, MountOption, SessionACL};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::adapter::Adapter;
use self::directories::Directories;
use self::interrupts::Interrupts;
use self::serve::Service;
use self::sizes::Sizes;
use crate::error::{Error, Kind, Result};
use crate::fs::Fs;

/// Source and subtype of our mounts, as mount tables show them.
pub const FILESYSTEM_NAME: &str = "mongo-backupfs";

/// How to serve.
#[derive(Debug, Clone)]
pub struct FuseOptions {
    /// Other users may look (with default_permissions, always).
    pub allow_other: bool,
    /// Deadline of every operation but open.
    pub op_timeout: Duration,
    /// Deadline of open.
    pub open_timeout: Duration,
}

/// A mounted session. Dropping it neither unmounts nor ends it; unmounting does.
#[derive(Debug)]
pub struct Session {
    ended: oneshot::Receiver<std::io::Result<()>>,
    stopping: CancellationToken,
}

impl Session {
    /// Mounts `fs` at `mountpoint` and serves it on its own threads; ready when this returns.
    ///
    /// Blocks for as long as mounting takes: as an ordinary user it runs `fusermount3`.
    pub fn mount(
        fs: Fs,
        mountpoint: &Path,
        options: &FuseOptions,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self> {
        Session::start(fs, options, runtime, |adapter| {
            fuser::Session::new(adapter, mountpoint, &configuration(options))
        })
        .map_err(|error| {
            error.context(format!(
                "cannot mount at {}; mounting takes root or fusermount3, and in a container \
                 `--device /dev/fuse --cap-add SYS_ADMIN`",
                mountpoint.display()
            ))
        })
    }

    /// Serves `fs` to the kernel over `connection`: an open FUSE device that somebody else mounts,
    /// or has mounted, with options of their own.
    pub fn over(
        fs: Fs,
        connection: OwnedFd,
        options: &FuseOptions,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self> {
        Session::start(fs, options, runtime, |adapter| {
            let configuration = configuration(options);
            fuser::Session::from_fd(adapter, connection, configuration.acl, configuration)
        })
        .map_err(|error| error.context("cannot serve the given FUSE connection"))
    }

    fn start(
        fs: Fs,
        options: &FuseOptions,
        runtime: tokio::runtime::Handle,
        begin: impl FnOnce(Adapter) -> std::io::Result<fuser::Session<Adapter>>,
    ) -> Result<Self> {
        let stopping = CancellationToken::new();
        let service = Arc::new(Service {
            fs,
            interrupts: Interrupts::start(&runtime),
            runtime,
            sizes: Sizes::default(),
            directories: Directories::default(),
            ways: Mutex::default(),
            stopping: stopping.clone(),
            owner: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
        });
        let adapter = Adapter::new(service, options.op_timeout, options.open_timeout);
        let background = begin(adapter)
            .and_then(fuser::Session::spawn)
            .map_err(|error| {
                Error::new(Kind::Environment, "the kernel refuses it").with_source(error)
            })?;
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("fuse-end".to_owned())
            .spawn(move || {
                // A receiver that is gone no longer wants to know.
                let _ = end.send(join(background));
            })
            .map_err(|error| {
                Error::new(Kind::Environment, "cannot start a thread").with_source(error)
            })?;
        Ok(Session { ended, stopping })
    }

    /// Ends all operations that wait, and every one that would, except reads of open files.
    pub fn stop_waiting(&self) {
        self.stopping.cancel();
    }

    /// Resolves when the kernel ended the session (unmounted by anyone, and no file open).
    pub async fn ended(&mut self) -> Result<()> {
        let ended = (&mut self.ended).await.unwrap_or(Ok(()));
        ended.map_err(|error| {
            Error::new(Kind::Environment, "the connection to the kernel broke").with_source(error)
        })
    }
}

/// Waits for the event loops' end. The session itself is never dropped: that would unmount
/// whatever lies at the mountpoint by then.
fn join(mut background: BackgroundSession) -> std::io::Result<()> {
    let stand_in = std::thread::spawn(|| Ok(()));
    let loops = std::mem::replace(&mut background.guard, stand_in);
    std::mem::forget(background);
    loops
        .join()
        .unwrap_or_else(|_| Err(std::io::Error::other("an event loop ended by a bug")))
}

fn configuration(options: &FuseOptions) -> fuser::Config {
    let mut config = fuser::Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoExec,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
        MountOption::FSName(FILESYSTEM_NAME.to_owned()),
        // As MountOption::Subtype it would reach only fusermount3, not mount(2).
        MountOption::CUSTOM(format!("subtype={FILESYSTEM_NAME}")),
    ];
    config.acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config.n_threads = Some(terms::event_loops());
    config.clone_fd = true;
    config
}
