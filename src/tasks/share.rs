//! What openers and drives share: the drives under way, their outcomes, and what is remembered of
//! failures and denials for as long as the mount lives.
//!
//! Owns three maps and the lanes, each behind its own lock; no two are held at once, and none across
//! an await.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Task, TaskKey};
use crate::tasks::engine::EngineOptions;
use crate::tasks::lanes::{Lane, Lanes};
use crate::tasks::ledger::{Ledger, Record};
use crate::tasks::policy::Denials;
use crate::tasks::view::TaskView;

/// What openers and drives share.
pub(super) struct Shared {
    pub(super) ledger: Ledger,
    pub(super) options: EngineOptions,
    pub(super) clock: SharedClock,
    /// Cancelled when all waits are to end.
    pub(super) stop: CancellationToken,
    /// Creates under way.
    pub(super) creates: TaskTracker,
    drives: Mutex<HashMap<TaskKey, Arc<Drive>>>,
    notes: Mutex<HashMap<TaskKey, Note>>,
    denials: Mutex<Denials>,
    lanes: Mutex<Lanes>,
    /// Told whenever somebody left a lane.
    pub(super) moved: Notify,
}

/// How a drive ended; an error is shared by all who waited.
pub(super) type Outcome = Result<Task, Arc<Error>>;

/// One drive as its openers see it: each waiting opener holds a receiver of `outcome`.
pub(super) struct Drive {
    outcome: watch::Sender<Option<Outcome>>,
    /// The first task that was found or made on the way.
    pub(super) started: watch::Sender<Option<Task>>,
    /// Told of each new opener.
    pub(super) joined: Notify,
    /// Why the drive may not create, if it may not.
    pub(super) adopt_only: Option<String>,
}

/// What is remembered of a task beside the ledger, for as long as the mount lives.
#[derive(Default)]
pub(super) struct Note {
    /// The last failure, and when it was met; forgotten when the provider answers.
    pub(super) failure: Option<(Arc<Error>, Instant)>,
    /// The last denial; forgotten likewise, and by the next open that is allowed.
    pub(super) denial: Option<String>,
}

/// An opener's place in a drive.
pub(super) struct Seat {
    pub(super) outcome: watch::Receiver<Option<Outcome>>,
    pub(super) started: watch::Receiver<Option<Task>>,
    /// Whether the drive may not create.
    pub(super) adopt_only: bool,
}

impl Drive {
    fn seat(&self) -> Seat {
        Seat {
            outcome: self.outcome.subscribe(),
            started: self.started.subscribe(),
            adopt_only: self.adopt_only.is_some(),
        }
    }
}

/// A drive as its own task holds it. However the task ends, by a panic even, dropping this removes
/// the drive and tells its openers.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) key: TaskKey,
    pub(super) drive: Arc<Drive>,
    outcome: Option<Outcome>,
}

impl Running {
    /// Ends the drive.
    pub(super) fn finish(mut self, outcome: Result<Task>) {
        let outcome = outcome.map_err(Arc::new);
        if let Err(error) = &outcome
            && error.kind() != Kind::Denied
        {
            self.shared.note_failure(&self.key, error);
        }
        self.outcome = Some(outcome);
    }

    /// Whether anybody waits. If nobody does the drive can no longer be joined: it has to end.
    pub(super) fn is_wanted(&self) -> bool {
        let mut drives = self.shared.drives();
        let wanted = self.drive.outcome.receiver_count() > 0;
        if !wanted {
            drives.remove(&self.key);
        }
        wanted
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut drives = self.shared.drives();
        if drives
            .get(&self.key)
            .is_some_and(|drive| Arc::ptr_eq(drive, &self.drive))
        {
            drives.remove(&self.key);
        }
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let error = Error::new(Kind::Internal, "the wait for a download task broke off");
            Err(Arc::new(error))
        });
        self.drive.outcome.send_replace(Some(outcome));
    }
}

/// A place in a lane; given up when dropped.
pub(super) struct Turn {
    shared: Arc<Shared>,
    lane: Lane,
    key: TaskKey,
}

impl Turn {
    /// Who goes first, its turn first.
    pub(super) fn before(&self) -> Vec<TaskKey> {
        lock(&self.shared.lanes).before(&self.lane, &self.key)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.shared.lanes).leave(&self.lane, &self.key);
        self.shared.moved.notify_waiters();
    }
}

impl Shared {
    pub(super) fn new(ledger: Ledger, options: EngineOptions, clock: SharedClock) -> Self {
        Shared {
            ledger,
            options,
            clock,
            stop: CancellationToken::new(),
            creates: TaskTracker::new(),
            drives: Mutex::default(),
            notes: Mutex::default(),
            denials: Mutex::default(),
            lanes: Mutex::default(),
            moved: Notify::new(),
        }
    }

    /// A seat in the drive of `key`, and the drive itself if it was not under way.
    pub(super) fn join(
        self: &Arc<Self>,
        key: &TaskKey,
        adopt_only: Option<String>,
    ) -> Result<(Seat, Option<Running>)> {
        let mut drives = self.drives();
        // Under the lock: no drive starts once all were told to stop.
        if self.stop.is_cancelled() {
            return Err(stopping());
        }
        if let Some(drive) = drives.get(key) {
            drive.joined.notify_one();
            return Ok((drive.seat(), None));
        }
        let drive = Arc::new(Drive {
            outcome: watch::Sender::new(None),
            started: watch::Sender::new(None),
            joined: Notify::new(),
            adopt_only,
        });
        drives.insert(key.clone(), Arc::clone(&drive));
        let seat = drive.seat();
        let running = Running {
            shared: Arc::clone(self),
            key: key.clone(),
            drive,
            outcome: None,
        };
        Ok((seat, Some(running)))
    }

    /// A place at the end of `lane`.
    pub(super) fn enter(self: &Arc<Self>, lane: Lane, key: &TaskKey) -> Turn {
        lock(&self.lanes).enter(&lane, key);
        Turn {
            shared: Arc::clone(self),
            lane,
            key: key.clone(),
        }
    }

    /// What operators see of `key`, of which the ledger holds `record`.
    pub(super) fn view(&self, key: &TaskKey, record: Option<&Record>) -> TaskView {
        let waiting = self
            .drives()
            .get(key)
            .map_or(0, |drive| drive.outcome.receiver_count());
        let now = self.clock.now();
        let earlier = || self.ledger.task_times(&key.provider, &key.instance);
        TaskView::new(key, record, self.notes().get(key), waiting, now, earlier)
    }

    /// The keys with a failure or a denial.
    pub(super) fn noted(&self) -> Vec<TaskKey> {
        self.notes().keys().cloned().collect()
    }

    /// Remembers a failure for the views.
    pub(super) fn note_failure(&self, key: &TaskKey, error: &Arc<Error>) {
        self.notes().entry(key.clone()).or_default().failure =
            Some((Arc::clone(error), Instant::now()));
    }

    /// The provider answered: what was the matter before is over.
    pub(super) fn note_answer(&self, key: &TaskKey) {
        self.notes().remove(key);
    }

    /// The error of a denial, remembered for the views.
    pub(super) fn denied(&self, key: &TaskKey, reason: String) -> Error {
        let error = Error::new(Kind::Denied, reason);
        self.notes().entry(key.clone()).or_default().denial = Some(error.to_string());
        error
    }

    /// An open was allowed.
    pub(super) fn forget_denial(&self, key: &TaskKey) {
        if let Some(note) = self.notes().get_mut(key) {
            note.denial = None;
        }
    }

    /// Says once an hour and process name that spending was denied.
    pub(super) fn log_denial(&self, key: &TaskKey, name: &str, reason: &str) {
        if lock(&self.denials).first(name, self.clock.now()) {
            tracing::info!(task = %label(key), process = %one_line(name), "denied: {reason}");
        }
    }

    /// The last failure that was not followed by an answer.
    pub(super) fn last_failure(&self, key: &TaskKey) -> Option<Arc<Error>> {
        let notes = self.notes();
        let (error, _) = notes.get(key)?.failure.as_ref()?;
        Some(Arc::clone(error))
    }

    /// The failure of a drive that ended less than `age` ago.
    pub(super) fn recent_failure(&self, key: &TaskKey, age: Duration) -> Option<Error> {
        if self.drives().contains_key(key) {
            return None;
        }
        let notes = self.notes();
        let (error, at) = notes.get(key)?.failure.as_ref()?;
        (at.elapsed() < age).then(|| error.duplicate())
    }

    fn drives(&self) -> MutexGuard<'_, HashMap<TaskKey, Arc<Drive>>> {
        lock(&self.drives)
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<TaskKey, Note>> {
        lock(&self.notes)
    }
}

pub(super) fn stopping() -> Error {
    Error::new(Kind::Stopping, "the mount is shutting down")
}

/// A key for one log line: its parts are remote text.
pub(super) fn label(key: &TaskKey) -> String {
    one_line(&key.to_string())
}

/// The data stays consistent through a panic: every change of it is a single call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
