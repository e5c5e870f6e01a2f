//! Drives providers through the lifecycle; all openers of a shard share one wait.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::SharedClock;
use crate::config::OnOpen;
use crate::error::Result;
use crate::model::{ShardRef, Task, TaskKey};
use crate::providers::Provider;
use crate::tasks::ledger::Ledger;
use crate::tasks::policy::Spender;

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// What an open may do about a missing task.
    pub on_open: OnOpen,
    /// Process names that may not spend.
    pub deny_processes: Vec<String>,
    /// Whether an expired task may be created again by a new open.
    pub recreate_expired: bool,
    /// Most tasks created per day; 0 = no limit.
    pub max_tasks_per_day: u32,
    /// How long an open may wait.
    pub task_wait: Duration,
}

/// Whether the opener waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until the task is ready or `task_wait` is over.
    UntilReady,
    /// Not at all: the task is started or adopted in the background, `NotReady` at once.
    No,
}

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
    /// When the artifact will be gone.
    pub expires: Option<Timestamp>,
    /// The last failure or denial, one line.
    pub error: Option<String>,
    /// When the intent was written.
    pub since: Option<Timestamp>,
    /// How many openers wait now.
    pub waiting: usize,
}

/// The task engine. Work it starts goes on when the opener that caused it is gone.
#[derive(Debug, Clone)]
pub struct Engine {}

impl Engine {
    /// An engine on `ledger`.
    pub fn new(_ledger: Ledger, _options: EngineOptions, _clock: SharedClock) -> Self {
        todo!()
    }

    /// The ready task of `target`: adopted or created, waited for by all openers together.
    ///
    /// `poll_interval` is the provider's first poll; it backs off. Cancel-safe: dropping the
    /// future leaves the shared work running.
    pub async fn ready(
        &self,
        _provider: &Arc<dyn Provider>,
        _poll_interval: Duration,
        _target: &ShardRef,
        _spender: &Spender,
        _wait: Wait,
    ) -> Result<Task> {
        todo!()
    }

    /// A reader found the artifact of `task_id` gone: the next open may create a new one.
    pub async fn report_expired(&self, _key: &TaskKey, _task_id: &str) {
        todo!()
    }

    /// What is known of one task.
    pub fn view(&self, _key: &TaskKey) -> TaskView {
        todo!()
    }

    /// All tasks the ledger knows.
    pub fn views(&self) -> Vec<TaskView> {
        todo!()
    }

    /// Tasks created by this state directory in its whole life.
    pub fn created_total(&self) -> u64 {
        todo!()
    }

    /// Ends all waits with [`crate::error::Kind::Stopping`]; the ledger keeps every task.
    pub fn stop(&self) {
        todo!()
    }
}
