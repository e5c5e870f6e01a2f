//! The bill: what the clients of the simulated clouds asked for and what it would have cost; and the
//! secrets: what they were told in confidence.
//!
//! A [`Meter`] is shared by every host; [`Bill`] is a copy of its counters at one moment,
//! [`Secrets`] a view of what was told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Counters since the start, or since the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Bill {
    /// Download tasks that came to be: the only thing that costs money.
    pub tasks_created: u64,
    /// Authenticated API calls by kind (`clusters`, `tenant_snapshots`, `tenant_download` …).
    pub calls: BTreeMap<String, u64>,
    /// API requests by method and status (`GET 200`), challenges included; `GET cut` when the
    /// connection was cut instead of an answer, `GET hung` when it was left without one.
    pub api_requests: BTreeMap<String, u64>,
    /// Data requests by method and status (`GET 206`).
    pub data_requests: BTreeMap<String, u64>,
    /// Requests for what restore hosts deliver, by job and replica set (`<job>/<replica set>`).
    pub deliveries: BTreeMap<String, u64>,
    /// Ranges, other than the first byte, that were asked for of whatever version is there.
    pub unpinned_ranges: u64,
    /// Body bytes handed to connections of the data host, those of error documents included.
    pub bytes_served: u64,
    /// Signed links made.
    pub links_signed: u64,
    /// Those of them made because a finished task was asked for again.
    pub link_refreshes: u64,
    /// Uses of a link after its time.
    pub expired_link_uses: u64,
    /// Uses of a link whose signature does not fit the request.
    pub forged_link_uses: u64,
    /// Connections accepted, over all hosts.
    pub connections: u64,
    /// Faults that took effect.
    pub faults: u64,
}

impl Bill {
    /// Calls of `kind`.
    pub fn calls(&self, kind: &str) -> u64 {
        self.calls.get(kind).copied().unwrap_or(0)
    }

    /// Data requests of every method and status.
    pub fn data_requests(&self) -> u64 {
        self.data_requests.values().sum()
    }

    /// API requests of every method and status.
    pub fn api_requests(&self) -> u64 {
        self.api_requests.values().sum()
    }
}

/// What must never be seen outside of the requests that need it. Cheap to clone; what is told later
/// shows in every clone.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    credentials: BTreeSet<String>,
    proofs: BTreeSet<String>,
}

impl Secrets {
    /// The accounts' keys, and the tokens and nonces given out so far.
    pub fn credentials(&self) -> Vec<String> {
        self.told().credentials.iter().cloned().collect()
    }

    /// What makes each signed link given out so far good: its signature, or the part of its path that
    /// cannot be guessed.
    pub fn proofs(&self) -> Vec<String> {
        self.told().proofs.iter().cloned().collect()
    }

    /// Adds a credential.
    pub fn add(&self, credential: &str) {
        if !credential.is_empty() {
            self.told().credentials.insert(credential.to_owned());
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl super::Sim {
    /// What was told in confidence so far and must be seen nowhere.
    pub fn secrets(&self) -> Secrets {
        self.site.meter.secrets().clone()
    }
}

/// The shared counters and secrets.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    bill: Arc<Mutex<Bill>>,
    secrets: Secrets,
}

impl Meter {
    /// The counters, for a short update or a copy.
    pub(super) fn bill(&self) -> MutexGuard<'_, Bill> {
        self.bill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was told in confidence.
    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Counts a link that was signed, and notes what proves it.
    pub(super) fn signed(&self, proof: &str) {
        self.bill().links_signed += 1;
        self.secrets.told().proofs.insert(proof.to_owned());
    }

    /// Notes what proves a link that is not signed but cannot be guessed.
    pub(super) fn hidden(&self, proof: &str) {
        self.secrets.told().proofs.insert(proof.to_owned());
    }

    /// Counts a call of `kind`.
    pub(super) fn call(&self, kind: &str) {
        *self.bill().calls.entry(kind.to_owned()).or_default() += 1;
    }
}
