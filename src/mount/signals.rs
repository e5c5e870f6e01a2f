//! The signals that a mount listens to, and what each asks for.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::environment;
use crate::error::Result;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGTERM, SIGINT: an end.
    End,
    /// SIGHUP, also that of a closed terminal: the configuration and the log, anew.
    Renew,
    /// SIGUSR1: the status, into the log.
    Tell,
}

/// The signals that a mount listens to, from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
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
            user: listen(SignalKind::user_defined1())?,
            last: SignalKind::terminate(),
        })
    }

    /// Resolves at the next signal. Cancel-safe.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => self.last = SignalKind::terminate(),
            _ = self.interrupt.recv() => self.last = SignalKind::interrupt(),
            _ = self.hangup.recv() => return Wish::Renew,
            _ = self.user.recv() => return Wish::Tell,
        }
        Wish::End
    }

    /// Resolves at SIGTERM or SIGINT; what others ask for is not done.
    pub async fn terminated(&mut self) {
        while self.next().await != Wish::End {}
    }

    /// What a process ended by the last signal exits with.
    pub(super) fn exit_code(&self) -> i32 {
        128 + self.last.as_raw_value()
    }
}
