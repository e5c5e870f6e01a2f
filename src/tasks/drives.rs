//! The drives under way: at most one for each key, joined by any number of openers.
//!
//! A drive is held by the task that runs it ([`Running`]); its openers hold seats. It ends for all
//! at once, and one that nobody wants any more can no longer be joined. Owns the map of drives
//! behind one lock; nothing is awaited under it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::sync::{Mutex, lock};

/// How far a drive has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage<S, T> {
    /// Nothing is known yet.
    Begun,
    /// What is waited for exists.
    Started(S),
    /// It is over.
    Ended(T),
}

/// The drives under way.
#[derive(Debug)]
pub(crate) struct Drives<K, S, T> {
    state: Mutex<State<K, S, T>>,
}

#[derive(Debug)]
struct State<K, S, T> {
    drives: HashMap<K, Arc<Drive<S, T>>>,
    closed: bool,
}

/// One drive as its openers see it.
#[derive(Debug)]
pub(crate) struct Drive<S, T> {
    /// Each waiting opener holds a receiver.
    stage: watch::Sender<Stage<S, T>>,
    /// Told of each new opener.
    pub(crate) joined: Notify,
    /// Why the drive may not create, if it may not.
    pub(crate) adopt_only: Option<String>,
}

/// An opener's place in a drive.
#[derive(Debug)]
pub(crate) struct Seat<S, T> {
    /// Its stages.
    pub(crate) stage: watch::Receiver<Stage<S, T>>,
    /// Whether the drive may not create.
    pub(crate) adopt_only: bool,
}

/// A drive as its own task holds it. However the task ends, by a panic even, dropping this removes
/// the drive and tells its openers.
#[derive(Debug)]
pub(crate) struct Running<K: Eq + Hash, S, T> {
    drives: Arc<Drives<K, S, T>>,
    /// Whose drive.
    pub(crate) key: K,
    /// What its openers see.
    pub(crate) drive: Arc<Drive<S, T>>,
    /// What they are told in the end.
    outcome: Option<T>,
}

/// A seat, and the drive itself for whoever begins it.
pub(crate) type Joined<K, S, T> = (Seat<S, T>, Option<Running<K, S, T>>);

impl<S, T> Drive<S, T> {
    fn seat(&self) -> Seat<S, T> {
        Seat {
            stage: self.stage.subscribe(),
            adopt_only: self.adopt_only.is_some(),
        }
    }

    /// Tells its openers what is on its way.
    pub(crate) fn start(&self, what: S) {
        self.stage.send_replace(Stage::Started(what));
    }
}

impl<K: Clone + Eq + Hash, S, T> Drives<K, S, T> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Drives {
            state: Mutex::new(State {
                drives: HashMap::new(),
                closed: false,
            }),
        }
    }

    /// A seat in the drive of `key`, and the drive itself if it was not under way; its openers are
    /// told `broken` should it end without an outcome. `None` once closed.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &K,
        adopt_only: Option<String>,
        broken: T,
    ) -> Option<Joined<K, S, T>> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        if let Some(drive) = state.drives.get(key) {
            drive.joined.notify_one();
            return Some((drive.seat(), None));
        }
        let drive = Arc::new(Drive {
            stage: watch::Sender::new(Stage::Begun),
            joined: Notify::new(),
            adopt_only,
        });
        state.drives.insert(key.clone(), Arc::clone(&drive));
        let seat = drive.seat();
        let running = Running {
            drives: Arc::clone(self),
            key: key.clone(),
            drive,
            outcome: Some(broken),
        };
        Some((seat, Some(running)))
    }

    /// No drive starts from now on.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
    }

    /// Whether one of `key` is under way.
    pub(crate) fn contains(&self, key: &K) -> bool {
        lock(&self.state).drives.contains_key(key)
    }

    /// How many openers wait for that of `key`.
    pub(crate) fn waiting(&self, key: &K) -> usize {
        let state = lock(&self.state);
        let drive = state.drives.get(key);
        drive.map_or(0, |drive| drive.stage.receiver_count())
    }
}

impl<K: Clone + Eq + Hash, S, T> Running<K, S, T> {
    /// Ends the drive.
    pub(crate) fn finish(mut self, outcome: T) {
        self.outcome = Some(outcome);
    }

    /// Whether anybody waits. If nobody does the drive can no longer be joined: it has to end.
    pub(crate) fn is_wanted(&self) -> bool {
        let mut state = lock(&self.drives.state);
        let wanted = self.drive.stage.receiver_count() > 0;
        if !wanted {
            state.drives.remove(&self.key);
        }
        wanted
    }
}

impl<K: Eq + Hash, S, T> Drop for Running<K, S, T> {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.drives.state);
            let current = state.drives.get(&self.key);
            if current.is_some_and(|drive| Arc::ptr_eq(drive, &self.drive)) {
                state.drives.remove(&self.key);
            }
        }
        if let Some(outcome) = self.outcome.take() {
            self.drive.stage.send_replace(Stage::Ended(outcome));
        }
    }
}
