//! Ending a mount: from inside (the serving process) and from outside (`unmount`).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount as unmount_directly};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::mountinfo;
use super::preflight::is_dead;
use super::report::read_within;
use crate::error::{Error, Kind, Result};

/// How long a mount may stay busy before it is detached lazily.
pub(crate) const GRACE: Duration = Duration::from_secs(3);
/// Pause between two attempts at a busy mount.
const RETRY: Duration = Duration::from_millis(100);
/// How long a mount may take to tell which process serves it.
const ASK: Duration = Duration::from_secs(2);
/// How long the serving process may take to end.
const END: Duration = Duration::from_secs(15);

/// How a mount went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detached {
    /// At once.
    Idle,
    /// Its name is gone; files that were open are served until they are closed.
    Lazily,
}

/// Takes the mount away from its place: at once if it is idle, else when `grace` is over.
/// Blocks for as long.
pub(crate) fn detach(mountpoint: &Path, grace: Duration) -> Result<Detached> {
    let deadline = Instant::now() + grace;
    loop {
        match attempt(mountpoint, UnmountFlags::NOFOLLOW) {
            // EINVAL: it is no mountpoint (any more).
            Ok(()) | Err(Failure::System(Errno::INVAL)) => return Ok(Detached::Idle),
            Err(Failure::System(Errno::BUSY)) if Instant::now() < deadline => thread::sleep(RETRY),
            Err(Failure::System(Errno::BUSY)) => break,
            Err(failure) => return Err(failure.into_error(mountpoint)),
        }
    }
    match attempt(mountpoint, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
        Ok(()) | Err(Failure::System(Errno::INVAL)) => Ok(Detached::Lazily),
        Err(failure) => Err(failure.into_error(mountpoint)),
    }
}

enum Failure {
    System(Errno),
    Fusermount(String),
}

impl Failure {
    fn into_error(self, mountpoint: &Path) -> Error {
        let words = match self {
            Failure::System(errno) => errno.to_string(),
            Failure::Fusermount(words) => words,
        };
        Error::new(
            Kind::Environment,
            format!("cannot unmount {}: {words}", mountpoint.display()),
        )
    }
}

/// umount(2), and where only root may do that, fusermount3.
fn attempt(mountpoint: &Path, flags: UnmountFlags) -> Result<(), Failure> {
    match unmount_directly(mountpoint, flags) {
        Err(Errno::PERM) => fusermount(mountpoint, flags.contains(UnmountFlags::DETACH)),
        result => result.map_err(Failure::System),
    }
}

fn fusermount(mountpoint: &Path, lazily: bool) -> Result<(), Failure> {
    let run = |program: &str| {
        Command::new(program)
            .args(if lazily {
                ["-u", "-z"].as_slice()
            } else {
                &["-u"]
            })
            .arg("--")
            .arg(mountpoint)
            // Our environment may hold keys; its messages are parsed below.
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
    };
    let output = run("fusermount3")
        .or_else(|_| run("fusermount"))
        .map_err(|_| {
            Failure::Fusermount("fusermount3 is not in PATH: install the package fuse3".to_owned())
        })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if words.contains("resource busy") {
        Failure::System(Errno::BUSY)
    } else if mountinfo::mount_at(mountpoint).is_ok_and(|entry| entry.is_none()) {
        Failure::System(Errno::INVAL)
    } else {
        Failure::Fusermount(words)
    })
}

/// Ends the mount at `mountpoint` and waits for the process that serves it: it is asked to end,
/// which also ends what waits inside; if it does not, the mount is detached. A dead mount is
/// detached. Blocks.
pub fn unmount(mountpoint: &Path) -> Result<()> {
    let place = mountinfo::resolve(mountpoint)?;
    let shown = place.display();
    let Some(entry) = mountinfo::mount_at(&place)? else {
        return Err(Error::new(
            Kind::Environment,
            format!("{shown} is not mounted: there is nothing to do"),
        ));
    };
    if !entry.is_ours() {
        return Err(Error::new(
            Kind::Environment,
            format!(
                "{shown} is not a mount of mongo-backupfs but of type {}: use umount",
                entry.kind
            ),
        ));
    }
    let server = if is_dead(&place) {
        None
    } else {
        Server::of(&place)
    };
    if let Some(server) = &server
        && server.ask_to_end()
        && server.wait(END)
    {
        return Ok(());
    }
    detach(&place, GRACE)?;
    match server {
        Some(server) if !server.wait(END) => Err(Error::new(
            Kind::Environment,
            format!(
                "{shown} is unmounted, but process {} still serves files that were open: close them or kill it",
                server.pid
            ),
        )),
        _ => Ok(()),
    }
}

/// Takes away the mounts at `mountpoint` that this program made and whose process is gone; never one
/// that lives, even if it does not answer. Blocks.
pub(crate) fn clear_stale(mountpoint: &Path) -> Result<()> {
    let place = mountinfo::resolve(mountpoint)?;
    while let Some(entry) = mountinfo::mount_at(&place)?
        && entry.is_ours()
        && is_dead(&place)
    {
        tracing::warn!(mountpoint = %place.display(), "a dead mount is replaced");
        detach(&place, Duration::ZERO)?;
    }
    Ok(())
}

/// The process that serves a mount.
#[derive(Debug)]
struct Server {
    pid: i32,
    fd: OwnedFd,
}

impl Server {
    /// As the mount's own status document tells; `None` if it does not, or if the number means
    /// another process here (a mount made in a container).
    fn of(mountpoint: &Path) -> Option<Self> {
        let document = read_within(mountpoint.join(".backupfs/status.json"), ASK)?.ok()?;
        let status: serde_json::Value = serde_json::from_slice(&document).ok()?;
        let pid = i32::try_from(status.get("pid")?.as_i64()?).ok()?;
        let fd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let name = |process: &str| fs::read(format!("/proc/{process}/comm")).ok();
        (name(&pid.to_string())? == name("self")?).then_some(Server { pid, fd })
    }

    fn ask_to_end(&self) -> bool {
        pidfd_send_signal(&self.fd, Signal::TERM).is_ok()
    }

    /// Whether it has ended within `limit`.
    fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // A pidfd is readable once the process has ended.
            let mut fds = [PollFd::from_borrowed_fd(self.fd.as_fd(), PollFlags::IN)];
            let left = Timespec::try_from(left).ok();
            match poll(&mut fds, left.as_ref()) {
                Ok(ended) => return ended > 0,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let error = unmount(dir.path()).unwrap_err();
        assert!(error.to_string().contains("is not mounted"), "{error}");
        let error = unmount(Path::new("/proc")).unwrap_err();
        assert!(
            error.to_string().contains("type proc: use umount"),
            "{error}"
        );
        let error = unmount(&dir.path().join("a/b")).unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
    }

    #[test]
    fn a_process_is_waited_for() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let fd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        let server = Server { pid, fd };
        assert!(!server.wait(Duration::from_millis(20)));
        assert!(server.ask_to_end());
        assert!(server.wait(Duration::from_secs(5)));
        child.wait().unwrap();
    }
}
