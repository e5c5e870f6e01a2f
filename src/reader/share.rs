//! The memory for reading ahead, shared fairly: between the artifacts that are being read, and
//! within each between its handles.
//!
//! A share is a bound that each reader keeps to of its own accord; what is really in memory is
//! counted by the budget. The other part of the budget is for reads that somebody waits for.
//!
//! Locks, in this order: of a [`Lot`], of the [`Commons`]; both for moments only.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::lock;
use super::turnout::{Ballot, Turnout};

/// How long silence is taken for absence, at least.
const TERM: Duration = Duration::from_secs(1);

/// What all artifacts share.
#[derive(Debug)]
pub(super) struct Commons {
    /// Bytes.
    room: u64,
    since: Instant,
    artifacts: Mutex<Turnout>,
}

impl Commons {
    /// Half of `memory` bytes is for reading ahead.
    pub(super) fn new(memory: u64) -> Arc<Self> {
        Arc::new(Commons {
            room: memory / 2,
            since: Instant::now(),
            artifacts: Mutex::default(),
        })
    }
}

/// One artifact's lot.
#[derive(Debug)]
pub(super) struct Lot {
    commons: Arc<Commons>,
    state: Mutex<(Ballot, Turnout)>,
}

impl Lot {
    pub(super) fn new(commons: Arc<Commons>) -> Self {
        Lot {
            commons,
            state: Mutex::default(),
        }
    }

    /// All there is to share, in bytes.
    pub(super) fn room(&self) -> u64 {
        self.commons.room
    }

    /// The bytes that the handle with this ballot, which is reading ahead now, may ask ahead.
    pub(super) fn share(&self, ballot: &mut Ballot) -> u64 {
        let term = self.commons.since.elapsed().as_secs() / TERM.as_secs();
        let (artifacts, handles) = {
            let mut state = lock(&self.state);
            let (own, handles) = &mut *state;
            let artifacts = lock(&self.commons.artifacts).attend(term, own);
            (artifacts, handles.attend(term, ballot))
        };
        self.commons.room / (artifacts * handles) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn artifacts_share_alike_however_many_read_them() {
        let commons = Commons::new(2400);
        let [a, b] = [(); 2].map(|()| Lot::new(commons.clone()));
        let mut ballots = [Ballot::default(); 4];
        let [first, second, third, other] = &mut ballots;
        assert_eq!(a.share(first), 1200);
        assert_eq!(a.share(second), 600);
        assert_eq!(a.share(third), 400);
        assert_eq!(b.share(other), 600);
        assert_eq!(a.share(first), 200);
        // The readers of the first artifact are gone.
        tokio::time::advance(3 * TERM).await;
        assert_eq!(b.share(other), 1200);
    }
}
