//! What one account's data client has done, for status and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since start. They only grow.
#[derive(Debug, Default)]
pub struct FetchStats {
    pub(super) requests: Counter,
    pub(super) bytes: Counter,
    pub(super) retries: Counter,
    pub(super) refused: Counter,
    pub(super) protocol_errors: Counter,
}

impl FetchStats {
    /// Requests sent, redirects followed included.
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Bytes of artifacts received and accepted.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Requests made again after a failure.
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// Answers that turned a link down.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Answers that the protocol does not allow.
    pub fn protocol_errors(&self) -> u64 {
        self.protocol_errors.get()
    }
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
