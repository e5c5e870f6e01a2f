//! What operators see of a task, made from what is in memory.

use jiff::{SignedDuration, Timestamp};

use crate::error::{Kind, one_line};
use crate::model::{Task, TaskKey, TaskState};
use crate::tasks::estimate;
use crate::tasks::ledger::{Record, word};
use crate::tasks::share::Note;

/// What xattrs and status show of a task; never needs I/O.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// Whose task.
    pub key: TaskKey,
    /// `none|queued|running|ready|expired|failed|denied`.
    pub state: &'static str,
    /// The provider's id.
    pub task_id: Option<String>,
    /// 0 to 100.
    pub percent: Option<u8>,
    /// When it may be ready, as far as its progress or the past tell.
    pub estimate: Option<Timestamp>,
    /// When the artifact will be gone.
    pub expires: Option<Timestamp>,
    /// The last failure or denial, one line.
    pub error: Option<String>,
    /// When the intent was written, or the task adopted.
    pub since: Option<Timestamp>,
    /// How many openers wait now.
    pub waiting: usize,
}

impl TaskView {
    /// The view of what the ledger holds and what was noted beside it; `earlier` tells how long
    /// other tasks of the instance took.
    pub(super) fn new(
        key: &TaskKey,
        record: Option<&Record>,
        note: Option<&Note>,
        waiting: usize,
        now: Timestamp,
        earlier: impl FnOnce() -> Vec<SignedDuration>,
    ) -> Self {
        let intended = record.is_some_and(|record| record.intent.is_some());
        let task = record
            .and_then(|record| record.task.as_ref())
            .filter(|_| !intended);
        let denial = note.and_then(|note| note.denial.clone());
        let failure = note.and_then(|note| note.failure.as_ref());
        let state = match task {
            // A request may have been sent: there may be a task that is not seen yet.
            None if intended => "queued",
            None if denial.is_some() => "denied",
            // Others of its instance come first.
            None if waiting > 0 && failure.is_some_and(|(error, _)| error.kind() == Kind::Busy) => {
                "queued"
            }
            None => "none",
            Some(task) if is_over(task, now) => "expired",
            Some(task) => word(task.state),
        };
        TaskView {
            key: key.clone(),
            state,
            task_id: task.map(|task| task.id.clone()).filter(|id| !id.is_empty()),
            percent: match state {
                "ready" => Some(100),
                _ => task.and_then(|task| task.percent),
            },
            estimate: record.zip(task).and_then(|(record, task)| match state {
                "queued" | "running" => estimate::ready_at(task, record.since, now, earlier()),
                _ => None,
            }),
            expires: task.and_then(|task| task.expires),
            error: denial
                .or_else(|| failure.map(|(error, _)| error.to_string()))
                .or_else(|| task?.message.as_deref().map(one_line)),
            since: record.map(|record| record.since),
            waiting,
        }
    }
}

/// Whether a task that was ready has outlived its artifact.
fn is_over(task: &Task, now: Timestamp) -> bool {
    task.state == TaskState::Ready && task.expires.is_some_and(|expires| expires <= now)
}
