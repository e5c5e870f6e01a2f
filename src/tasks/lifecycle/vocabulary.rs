//! What an [`Attempt`](super::Attempt) is told and what it answers. Plain data.

use std::time::Duration;

use crate::model::{Found, Task};

/// What the ledger knows when an attempt begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// No task, and none was asked for.
    Absent,
    /// An intent is open: a request may have been sent, its outcome is not known.
    Intended {
        /// Whether a live process is between the intent and the answer.
        held: bool,
        /// The task that had ended before.
        ended: Option<Task>,
    },
    /// A task under way, or a ready one to be verified.
    Live(Task),
    /// The artifact is gone.
    Expired {
        /// The task that made it.
        task: Task,
        /// How often a reader, rather than the provider, said so.
        reports: u8,
    },
    /// It ended without an artifact.
    Failed {
        /// The task.
        task: Task,
        /// Whether it is too early to try again.
        cooling: bool,
    },
}

/// What an attempt may do.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whether it may ask for a create at all.
    pub may_create: bool,
    /// Whether a create may replace an expired task.
    pub recreate_expired: bool,
    /// How many failed tasks one attempt may follow at once by another.
    pub recreations: u32,
    /// The first pause between polls.
    pub first_poll: Duration,
}

/// What came of the last [`Action`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The provider answered the look.
    Found(Found),
    /// The look failed, for as long as the provider was ready to repeat it.
    FindFailed,
    /// The create was answered with a task.
    Created(Task),
    /// The create may have been carried out.
    OutcomeUnknown,
    /// The create was surely not carried out; with a pause when it may be asked for again later.
    Refused {
        /// Wait at least so long and look again.
        again_after: Option<Duration>,
    },
    /// The provider answered the poll.
    Polled(Task),
    /// The provider does not know the polled task.
    Vanished,
    /// The poll failed; `passing` when another may succeed.
    PollFailed {
        /// Whether the failure passes.
        passing: bool,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// After the pause ask the provider for a task, whether or not anybody waits.
    Find(Duration),
    /// After the pause do so again, if anybody waits.
    Retry(Duration),
    /// Make an intent durable, then ask the provider to create a task.
    Create,
    /// After the pause poll the task, if anybody waits.
    Poll(Duration),
    /// After the pause begin again from the ledger, if anybody waits: another process is at it.
    Restart(Duration),
    /// The task is ready.
    Done(Task),
    /// The attempt ends.
    Fail(Failure),
}

/// Why an attempt ends without a ready task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The call that was just reported failed for good.
    Call,
    /// There is no task, and creating one is not allowed.
    MayNotCreate,
    /// The task expired, and replacing it is not allowed.
    MayNotReplace(Task),
    /// A request may have been carried out and the provider cannot tell.
    Undecidable,
    /// Requests were lost again and again.
    Lost,
    /// The task failed.
    Failed(Task),
    /// The task expired while it was waited for.
    Expired(Task),
}

/// The answer to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What the ledger must hold before `action` is carried out; closes an open intent.
    pub keep: Option<Task>,
    /// What to do.
    pub action: Action,
}
