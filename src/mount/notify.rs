//! What the service manager is told (sd_notify(3)): that we are ready, that we end, that we live.
//!
//! Without a manager there is no socket, and every call does nothing. No state but the address.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager, if one started us and asked to be told.
#[derive(Debug)]
pub(super) struct Notify {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As this process's environment says.
    pub(super) fn this() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        Notify {
            address: std::env::var_os("NOTIFY_SOCKET").and_then(|name| address(&name)),
            watchdog: number("WATCHDOG_USEC")
                .filter(|micros| *micros > 0 && ours)
                .map(Duration::from_micros),
        }
    }

    /// How often it wants to hear that we live: twice before it gives us up.
    pub(super) fn heartbeat(&self) -> Option<Duration> {
        self.address
            .as_ref()
            .and(self.watchdog)
            .map(|limit| limit / 2)
    }

    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// The configuration is being read again; [`Notify::ready`] must follow.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, words: &str) {
        let Some(address) = &self.address else { return };
        let sent = UnixDatagram::unbound()
            .and_then(|socket| socket.send_to_addr(words.as_bytes(), address));
        if let Err(error) = sent {
            tracing::debug!(%error, "the service manager cannot be told");
        }
    }
}

/// A path, or with `@` a name in the abstract namespace.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None => SocketAddr::from_pathname(name).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_what_happens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify {
            address: address(path.as_os_str()),
            watchdog: Some(Duration::from_secs(30)),
        };
        assert_eq!(notify.heartbeat(), Some(Duration::from_secs(15)));
        let heard = || {
            let mut words = [0; 256];
            let length = manager.recv(&mut words).unwrap();
            String::from_utf8_lossy(&words[..length]).into_owned()
        };
        notify.ready("serving");
        assert_eq!(heard(), "READY=1\nSTATUS=serving");
        notify.alive();
        assert_eq!(heard(), "WATCHDOG=1");
        notify.reloading();
        assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        notify.stopping();
        assert_eq!(heard(), "STOPPING=1");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let nobody = Notify {
            address: None,
            watchdog: Some(Duration::from_secs(30)),
        };
        assert_eq!(nobody.heartbeat(), None);
        nobody.ready("serving");
    }
}
