//! What openers and drives share: the drives under way, their outcomes, and what is remembered of
//! failures and denials for as long as the mount lives.
//!
//! Owns the notes, the denials and the lanes, each behind its own lock, and the [`Drives`]; no two
//! locks are held at once, and none across an await.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Task, TaskKey};
use crate::sync::{Mutex, MutexGuard, lock};
use crate::tasks::drives::{self, Drives};
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
    drives: Arc<Drives<TaskKey, Task, Outcome>>,
    notes: Mutex<HashMap<TaskKey, Note>>,
    denials: Mutex<Denials>,
    lanes: Mutex<Lanes>,
    /// Told whenever somebody left a lane.
    pub(super) moved: Notify,
}

/// How a drive ended; an error is shared by all who waited.
pub(super) type Outcome = Result<Task, Arc<Error>>;

/// One drive as its openers see it: it starts once there is a task, in whatever state.
pub(super) type Drive = drives::Drive<Task, Outcome>;

/// How far one has come.
pub(super) type Stage = drives::Stage<Task, Outcome>;

/// What is remembered of a task beside the ledger, for as long as the mount lives.
#[derive(Default)]
pub(super) struct Note {
    /// The last failure, and when it was met; forgotten when the provider answers.
    pub(super) failure: Option<(Arc<Error>, Instant)>,
    /// The last denial; forgotten likewise, and by the next open that is allowed.
    pub(super) denial: Option<String>,
}

/// An opener's place in a drive.
pub(super) type Seat = drives::Seat<Task, Outcome>;

/// A drive as its own task holds it.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    drive: drives::Running<TaskKey, Task, Outcome>,
}

impl Running {
    pub(super) fn key(&self) -> &TaskKey {
        &self.drive.key
    }

    /// What its openers see.
    pub(super) fn drive(&self) -> &Arc<Drive> {
        &self.drive.drive
    }

    /// Ends the drive.
    pub(super) fn finish(self, outcome: Result<Task>) {
        let outcome = outcome.map_err(Arc::new);
        if let Err(error) = &outcome
            && error.kind() != Kind::Denied
        {
            self.shared.note_failure(self.key(), error);
        }
        self.drive.finish(outcome);
    }

    /// Whether anybody waits. If nobody does the drive can no longer be joined: it has to end.
    pub(super) fn is_wanted(&self) -> bool {
        self.drive.is_wanted()
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
            drives: Arc::new(Drives::new()),
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
        let broken = Error::new(Kind::Internal, "the wait for a download task broke off");
        let joined = self.drives.join(key, adopt_only, Err(Arc::new(broken)));
        let (seat, drive) = joined.ok_or_else(stopping)?;
        let running = drive.map(|drive| Running {
            shared: Arc::clone(self),
            drive,
        });
        Ok((seat, running))
    }

    /// Ends all waits; no drive starts from now on.
    pub(super) fn close(&self) {
        self.drives.close();
        self.stop.cancel();
        self.creates.close();
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
        let waiting = self.drives.waiting(key);
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
        if self.drives.contains(key) {
            return None;
        }
        let notes = self.notes();
        let (error, at) = notes.get(key)?.failure.as_ref()?;
        (at.elapsed() < age).then(|| error.duplicate())
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
