//! Lets any number of openers share the way to one ready task.
//!
//! An opener is judged by the policy, joins the drive of its task, or starts it, and waits for the
//! outcome. A drive belongs to nobody and goes on when its openers are gone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::SharedClock;
use crate::config::{MountConfig, OnOpen};
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Link, ShardRef, Task, TaskKey, TaskState};
use crate::providers::Provider;
use crate::tasks::drive::Course;
use crate::tasks::ledger::{Ledger, Record};
use crate::tasks::policy::{self, Known, Spender, Verdict};
use crate::tasks::share::{Outcome, Seat, Shared, Stage, label, stopping};
use crate::tasks::view::TaskView;

/// How long a ready task without an expiry is believed without asking again.
const VERIFIED: Duration = Duration::from_secs(10 * 60);

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// What an open may do about a missing task.
    pub on_open: OnOpen,
    /// Process names that may not spend.
    pub deny_processes: Vec<String>,
    /// The only users that may spend; empty for all.
    pub spend_uids: Vec<u32>,
    /// Whether an expired task may be created again by a new open.
    pub recreate_expired: bool,
    /// Most tasks created per day; 0 = no limit.
    pub max_tasks_per_day: u32,
    /// How long an open may wait.
    pub task_wait: Duration,
}

impl From<&MountConfig> for EngineOptions {
    fn from(mount: &MountConfig) -> Self {
        EngineOptions {
            on_open: mount.on_open,
            deny_processes: mount.deny_processes.clone(),
            spend_uids: mount.spend_uids.clone(),
            recreate_expired: mount.recreate_expired,
            max_tasks_per_day: mount.max_tasks_per_day,
            task_wait: mount.task_wait,
        }
    }
}

impl EngineOptions {
    fn rules(&self) -> policy::Rules<'_> {
        policy::Rules {
            on_open: self.on_open,
            deny_processes: &self.deny_processes,
            spend_uids: &self.spend_uids,
            recreate_expired: self.recreate_expired,
            max_tasks_per_day: self.max_tasks_per_day,
        }
    }
}

/// Whether the opener waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until the task is ready or `task_wait` is over.
    UntilReady,
    /// Until it exists: the answer may still be under way.
    UntilStarted,
    /// Not at all: the task is started or adopted in the background, `NotReady` at once.
    No,
}

/// The task engine. Work it starts goes on when the opener that caused it is gone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

impl Engine {
    /// An engine on `ledger`.
    pub fn new(ledger: Ledger, options: EngineOptions, clock: SharedClock) -> Self {
        Engine {
            shared: Arc::new(Shared::new(ledger, options, clock)),
        }
    }

    /// The ready task of `target`: adopted or created, waited for by all openers together. With
    /// [`Wait::UntilStarted`], the task as it stands once there is one.
    ///
    /// `poll_interval` is the provider's first poll; it backs off. Cancel-safe: dropping the
    /// future leaves the shared work running. Must be called within a tokio runtime.
    ///
    /// - `Denied`: a task would have to be created or waited for, and this opener may not.
    /// - `NotReady`: not ready and [`Wait::No`], or a create may have been carried out that the
    ///   provider cannot confirm.
    /// - `TimedOut`, `Busy`: not ready after `task_wait`; the task goes on.
    /// - `TaskFailed`, `Expired`: the task ended without an artifact.
    /// - `Ledger`: no task was created because that could not be recorded.
    /// - `Stopping`: [`Engine::stop`] was called.
    ///
    /// Any other kind is the provider's refusal.
    pub async fn ready(
        &self,
        provider: &Arc<dyn Provider>,
        poll_interval: Duration,
        target: &ShardRef,
        spender: &Spender,
        wait: Wait,
    ) -> Result<Task> {
        let key = target.key();
        let deadline = Instant::now().checked_add(self.shared.options.task_wait);
        loop {
            let adopt_only = match self.allow(&key, spender).await? {
                Allowed::Ready(task) => return Ok(task),
                Allowed::Spend => None,
                Allowed::Adopt(reason) => Some(reason),
            };
            let may_create = adopt_only.is_none();
            if wait == Wait::No
                && let Some(failure) = self.shared.recent_failure(&key, poll_interval)
            {
                return Err(failure);
            }
            let seat = self.join(provider, poll_interval, target, &key, adopt_only)?;
            if wait == Wait::No {
                return Err(self.not_ready(&key, Kind::NotReady, "not waited for"));
            }
            match self.outcome(&key, seat.stage, wait, deadline).await? {
                Ok(task) => return Ok(task),
                // The drive was started for one who may not spend, and we may.
                Err(error) if error.kind() == Kind::Denied && seat.adopt_only && may_create => {}
                Err(error) => return Err(error.duplicate()),
            }
        }
    }

    /// A reader found the artifact of `task_id` gone: the next open may create a new one.
    ///
    /// Where the provider still says that the task is ready, it is believed once: a second report
    /// outweighs it.
    pub async fn report_expired(&self, key: &TaskKey, task_id: &str) {
        let now = self.shared.clock.now();
        tracing::info!(task = %label(key), id = %one_line(task_id), "artifact is gone");
        self.shared.ledger.report_gone(key, task_id, now).await;
    }

    /// The operator has seen that the last request to create the task of `key`, whose outcome no
    /// one knows, was not carried out, or pays for another: the next open may create again.
    ///
    /// `Busy` while another process waits for the answer to it.
    pub async fn dismiss_doubt(&self, key: &TaskKey) -> Result<()> {
        let ledger = &self.shared.ledger;
        let intent = ledger.reload(key).await.and_then(|record| record.intent);
        if intent.is_some_and(|intent| ledger.is_held(&intent)) {
            return Err(Error::new(
                Kind::Busy,
                "another process is creating it at this moment",
            ));
        }
        tracing::warn!(task = %label(key), "the operator lets it be created again");
        ledger.withdraw(key).await;
        Ok(())
    }

    /// What the task `task_id` made will be gone when `link` ends: it is kept until then.
    pub async fn remember_link(&self, key: &TaskKey, task_id: &str, link: &Link) {
        let now = self.shared.clock.now();
        let ledger = &self.shared.ledger;
        ledger.remember_link(key, task_id, link, now).await;
    }

    /// The link that was kept for the task `task_id`, by this process or one before.
    pub async fn remembered_link(&self, key: &TaskKey, task_id: &str) -> Option<Link> {
        let now = self.shared.clock.now();
        self.shared.ledger.link(key, task_id, now).await
    }

    /// What is known of one task.
    pub fn view(&self, key: &TaskKey) -> TaskView {
        self.shared.view(key, self.shared.ledger.task(key).as_ref())
    }

    /// All tasks the ledger knows, and those whose last open was denied or failed; ordered by key.
    pub fn views(&self) -> Vec<TaskView> {
        let known = self.shared.ledger.tasks();
        let mut noted = self.shared.noted();
        noted.retain(|key| known.binary_search_by(|(known, _)| known.cmp(key)).is_err());
        let mut views: Vec<TaskView> = known
            .iter()
            .map(|(key, record)| self.shared.view(key, Some(record)))
            .chain(noted.iter().map(|key| self.shared.view(key, None)))
            .collect();
        views.sort_by(|a, b| a.key.cmp(&b.key));
        views
    }

    /// Tasks created by this state directory in its whole life.
    pub fn created_total(&self) -> u64 {
        self.shared.ledger.created_total()
    }

    /// Ends all waits with [`crate::error::Kind::Stopping`]; the ledger keeps every task.
    pub fn stop(&self) {
        self.shared.close();
    }

    /// After [`Engine::stop`]: returns once no create is between its intent and its answer.
    pub async fn settled(&self) {
        self.shared.creates.wait().await;
    }

    /// How far `spender` may go now. A denial is remembered, and logged once an hour.
    async fn allow(&self, key: &TaskKey, spender: &Spender) -> Result<Allowed> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let record = shared.ledger.task(key);
        let fresh = record.as_ref().and_then(|record| fresh(record, now));
        let rules = shared.options.rules();
        let created = match (rules.max_tasks_per_day, &fresh) {
            (0, _) | (_, Some(_)) => 0,
            _ => shared.ledger.created_in_day(now).await,
        };
        let verdict = policy::decide(&rules, spender, known(record.as_ref()), created);
        match (verdict, fresh) {
            (Verdict::Deny(reason), _) => {
                let name = spender.comm.as_deref().unwrap_or_default();
                shared.log_denial(key, name, &reason);
                Err(shared.denied(key, reason))
            }
            (_, Some(task)) => Ok(Allowed::Ready(task)),
            (Verdict::Spend, None) => {
                shared.forget_denial(key);
                Ok(Allowed::Spend)
            }
            (Verdict::AdoptOnly(reason), None) => Ok(Allowed::Adopt(reason)),
        }
    }

    /// Joins the drive of `key`, starting it if there is none.
    fn join(
        &self,
        provider: &Arc<dyn Provider>,
        poll_interval: Duration,
        target: &ShardRef,
        key: &TaskKey,
        adopt_only: Option<String>,
    ) -> Result<Seat> {
        let (seat, started) = self.shared.join(key, adopt_only)?;
        if let Some(running) = started {
            let course = Course {
                running,
                provider: Arc::clone(provider),
                target: target.clone(),
                first_poll: poll_interval,
                turn: None,
            };
            tokio::spawn(course.run());
        }
        Ok(seat)
    }

    /// The drive's outcome, or the task that is enough, or an error of our own when the time or the mount is over first.
    async fn outcome(
        &self,
        key: &TaskKey,
        mut stage: watch::Receiver<Stage>,
        wait: Wait,
        deadline: Option<Instant>,
    ) -> Result<Outcome> {
        let over = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let is_enough = |stage: &Stage| match stage {
            Stage::Begun => false,
            Stage::Started(_) => wait == Wait::UntilStarted,
            Stage::Ended(_) => true,
        };
        tokio::select! {
            biased;
            done = stage.wait_for(is_enough) => match done.as_deref() {
                Ok(Stage::Ended(outcome)) => Ok(outcome.clone()),
                Ok(Stage::Started(task)) => Ok(Ok(task.clone())),
                _ => Err(Error::new(Kind::Internal, "a task's drive ended without an outcome")),
            },
            () = self.shared.stop.cancelled() => Err(stopping()),
            () = over => {
                let waited = format!("not ready after task_wait = {:?}", self.shared.options.task_wait);
                Err(match self.shared.last_failure(key) {
                    Some(error) if error.kind() == Kind::Busy => error.duplicate().context(waited),
                    _ => self.not_ready(key, Kind::TimedOut, &waited),
                })
            }
        }
    }

    /// The task is under way and will go on.
    fn not_ready(&self, key: &TaskKey, kind: Kind, why: &str) -> Error {
        let view = self.view(key);
        let percent = view.percent.map(|p| format!(", {p} %")).unwrap_or_default();
        let estimate = view
            .estimate
            .map(|at| format!(", expected ready at {at:.0}"))
            .unwrap_or_default();
        let last = view
            .error
            .map(|e| format!("; last error: {e}"))
            .unwrap_or_default();
        Error::new(
            kind,
            format!(
                "the download task of {} is {}{percent}{estimate}: {why}; it goes on, open the file again \
                 later{last}",
                label(key),
                match view.state {
                    "none" | "denied" => "being looked for",
                    state => state,
                },
            ),
        )
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

/// How far an opener may go.
enum Allowed {
    /// No further: it is ready.
    Ready(Task),
    /// Adopt a task or create one.
    Spend,
    /// Only adopt one, for this reason.
    Adopt(String),
}

/// What the policy has to know of `record`.
fn known(record: Option<&Record>) -> Known {
    let task = record
        .filter(|record| record.intent.is_none())
        .and_then(|record| record.task.as_ref());
    match task.map(|task| task.state) {
        Some(TaskState::Ready) => Known::Ready,
        Some(TaskState::Expired) => Known::Expired,
        _ => Known::Other,
    }
}

/// The ready task of `record`, if it needs no further proof at `now`.
fn fresh(record: &Record, now: Timestamp) -> Option<Task> {
    let task = record.task.as_ref().filter(|_| record.intent.is_none())?;
    if task.state != TaskState::Ready {
        return None;
    }
    let believed = match task.expires {
        Some(expires) => expires > now,
        None => now.duration_since(record.checked).unsigned_abs() < VERIFIED,
    };
    believed.then(|| task.clone())
}

#[cfg(test)]
mod tests;
