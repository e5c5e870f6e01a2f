//! Carries the steps of an [`Attempt`] out: provider calls, ledger writes, pauses.
//!
//! The order that makes a task safe to pay for: what the provider shows is in the ledger before
//! the next step, and an intent is durable before its request is sent. From the intent to the
//! answer runs a task of its own, which nothing but the end of the process cuts short.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

use crate::error::{Error, Kind, Retry, one_line};
use crate::model::{Found, ShardRef, Task, TaskState};
use crate::providers::Provider;
use crate::tasks::ledger::{Intention, Ledger, Record, Write, word};
use crate::tasks::lifecycle::{Action, Attempt, Event, Failure, Known, Rules};
use crate::tasks::policy;
use crate::tasks::request::{Request, Sent, is_refusal, without_links};
use crate::tasks::share::{Running, Turn, label, stopping};

/// How long after a failure no new open creates again.
const COOL_DOWN: Duration = Duration::from_secs(5 * 60);

/// One drive: where it goes and what it rests on.
pub(super) struct Course {
    pub(super) running: Running,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) target: ShardRef,
    pub(super) first_poll: Duration,
    /// The place in the instance's lane, from the first wish to create to the end of the drive.
    pub(super) turn: Option<Turn>,
}

/// What is known besides the attempt's own state.
struct Footing {
    /// The row's revision; every write says that it saw this one.
    revision: u64,
    /// The last call's failure.
    failure: Option<Error>,
}

impl Course {
    /// Drives to a ready task or to an error, attempt by attempt.
    pub(super) async fn run(mut self) {
        let (mut attempt, mut action, mut footing) = self.begin().await;
        loop {
            let event = match action {
                Action::Find(pause) => {
                    sleep(pause).await;
                    self.find(&mut footing).await
                }
                Action::Retry(pause) => {
                    if !self.idle(pause, None).await {
                        return;
                    }
                    self.find(&mut footing).await
                }
                Action::Poll(pause) => {
                    if !self.idle(pause, Some(&mut attempt)).await {
                        return;
                    }
                    self.poll(&mut footing).await
                }
                Action::Restart(pause) => {
                    if !self.idle(pause, None).await {
                        return;
                    }
                    (attempt, action, footing) = self.begin().await;
                    continue;
                }
                Action::Create => match self.turn_then_create(&mut footing).await {
                    Created::Event(event) => event,
                    Created::Unwanted => return,
                    Created::Changed => {
                        (attempt, action, footing) = self.begin().await;
                        continue;
                    }
                    Created::Ended(error) => {
                        return self.running.finish(Err(error));
                    }
                },
                Action::Done(task) => {
                    tracing::info!(task = %self.label(), id = %one_line(&task.id), "ready");
                    return self.running.finish(Ok(task));
                }
                Action::Fail(failure) => return self.fail(failure, footing).await,
            };
            let step = attempt.on(event);
            if let Some(task) = step.keep
                && !self.keep(&task, &mut footing).await
            {
                (attempt, action, footing) = self.begin().await;
                continue;
            }
            action = step.action;
        }
    }

    /// A new attempt, from what the ledger holds now.
    async fn begin(&self) -> (Attempt, Action, Footing) {
        let shared = &self.running.shared;
        let record = shared.ledger.reload(self.running.key()).await;
        let footing = Footing {
            revision: record.as_ref().map_or(0, |record| record.revision),
            failure: None,
        };
        let rules = Rules {
            may_create: self.running.drive().adopt_only.is_none(),
            recreate_expired: shared.options.recreate_expired,
            recreations: self.provider.recreations(),
            first_poll: self.first_poll,
        };
        let known = known(record, &shared.ledger, shared.clock.now());
        let (attempt, action) = Attempt::begin(known, rules);
        (attempt, action, footing)
    }

    async fn find(&self, footing: &mut Footing) -> Event {
        match self.provider.find_task(&self.target).await {
            Ok(found) => {
                self.running.shared.note_answer(self.running.key());
                Event::Found(match found {
                    Found::Task(task) => Found::Task(without_links(task)),
                    other => other,
                })
            }
            Err(error) => {
                self.note(error, footing);
                Event::FindFailed
            }
        }
    }

    async fn poll(&self, footing: &mut Footing) -> Event {
        let shared = &self.running.shared;
        let record = shared.ledger.task(self.running.key());
        let Some(task) = record.and_then(|record| record.task) else {
            return Event::Vanished;
        };
        match self.provider.poll_task(&self.target, &task).await {
            Ok(task) => {
                shared.note_answer(self.running.key());
                Event::Polled(without_links(task))
            }
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Expired) => Event::Vanished,
            Err(error) => {
                let passing = error.kind().retry() == Retry::Backoff;
                self.note(error, footing);
                Event::PollFailed { passing }
            }
        }
    }

    /// Waits for the drive's turn, if the instance makes one task at a time, and creates.
    ///
    /// After a wait the attempt begins again: the task may have come to be meanwhile.
    async fn turn_then_create(&mut self, footing: &mut Footing) -> Created {
        let Some(lane) = self.provider.lane(&self.target) else {
            return self.create(footing).await;
        };
        let shared = Arc::clone(&self.running.shared);
        let key = self.running.key().clone();
        let lane = (key.provider.clone(), lane);
        let turn = self.turn.get_or_insert_with(|| shared.enter(lane, &key));
        let mut waited = false;
        loop {
            // Before the look at the lane, so that nobody leaves it unnoticed in between.
            let mut moved = pin!(shared.moved.notified());
            moved.as_mut().enable();
            let before = turn.before();
            let Some(first) = before.first() else { break };
            let words = format!(
                "its instance makes one download task at a time: {} before it, first {}",
                before.len(),
                label(first)
            );
            shared.note_failure(&key, &Arc::new(Error::new(Kind::Busy, words)));
            waited = true;
            tokio::select! {
                () = moved => {}
                () = sleep(self.first_poll) => {}
                () = shared.stop.cancelled() => return Created::Unwanted,
            }
            if !self.running.is_wanted() {
                return Created::Unwanted;
            }
        }
        match waited {
            true => Created::Changed,
            false => self.create(footing).await,
        }
    }

    /// Makes the intent durable, sends the request and records its answer.
    async fn create(&self, footing: &mut Footing) -> Created {
        let shared = Arc::clone(&self.running.shared);
        if shared.stop.is_cancelled() {
            return Created::Ended(stopping());
        }
        let request = Request {
            shared: Arc::clone(&shared),
            key: self.running.key().clone(),
            provider: Arc::clone(&self.provider),
            target: self.target.clone(),
            revision: footing.revision,
        };
        let sent = shared.creates.spawn(request.send()).await;
        footing.revision = shared
            .ledger
            .task(self.running.key())
            .map_or(0, |record| record.revision);
        match sent {
            Ok(Sent::Answered(task)) => {
                shared.note_answer(self.running.key());
                Created::Event(Event::Created(task))
            }
            Ok(Sent::Failed(error)) => {
                let event = match error.kind() {
                    Kind::Busy | Kind::Throttled => Event::Refused {
                        again_after: Some(error.retry_after().unwrap_or_default()),
                    },
                    kind if is_refusal(kind) => Event::Refused { again_after: None },
                    _ => Event::OutcomeUnknown,
                };
                self.note(error, footing);
                Created::Event(event)
            }
            Ok(Sent::Not(Intention::LimitReached)) => {
                let reason = policy::limit_reached(shared.options.max_tasks_per_day);
                Created::Ended(self.deny(reason).await)
            }
            Ok(Sent::Not(_)) => Created::Changed,
            Ok(Sent::NoLedger(error)) => Created::Ended(error),
            // A panic on the way: nobody knows how far it came.
            Err(_) => Created::Event(Event::OutcomeUnknown),
        }
    }

    /// Has the ledger hold `task`; whether the attempt still stands on firm ground.
    async fn keep(&self, task: &Task, footing: &mut Footing) -> bool {
        let shared = &self.running.shared;
        let key = self.running.key();
        let before = shared.ledger.task(key).and_then(|record| record.task);
        let now = shared.clock.now();
        match shared.ledger.keep(key, footing.revision, task, now).await {
            Write::Done(record) => {
                footing.revision = record.revision;
                if before.is_none_or(|before| before.id != task.id) {
                    let (id, state) = (one_line(&task.id), word(task.state));
                    tracing::info!(task = %label(key), %id, state, "adopted");
                }
                if matches!(task.state, TaskState::Queued | TaskState::Running) {
                    self.running.drive().start(task.clone());
                }
                true
            }
            Write::Changed => false,
        }
    }

    /// Ends the drive with the error of `failure`.
    async fn fail(self, failure: Failure, footing: Footing) {
        let key = self.label();
        let error = match failure {
            Failure::Call => footing.failure.unwrap_or_else(|| {
                Error::new(
                    Kind::Internal,
                    format!("the download task of {key} met a bug"),
                )
            }),
            Failure::MayNotCreate => {
                let reason = self.running.drive().adopt_only.clone().unwrap_or_default();
                self.deny(format!(
                    "there is no live download task for {key}: {reason}"
                ))
                .await
            }
            Failure::MayNotReplace(task) => {
                let reason = format!(
                    "the artifact of download task {} is gone, and recreate_expired = false",
                    one_line(&task.id)
                );
                self.deny(reason).await
            }
            Failure::Undecidable => Error::new(
                Kind::NotReady,
                format!(
                    "a request to create the download task of {key} may have been carried out, and \
                     this provider cannot tell: none is created until the operator, having looked \
                     at the provider, decides; `mongo-backupfs prepare --force` creates another one"
                ),
            ),
            Failure::Lost => Error::new(
                Kind::OutcomeUnknown,
                format!(
                    "the provider lost every request to create the download task of {key}; open \
                     the file again to look for it once more"
                ),
            ),
            Failure::Failed(task) => {
                let words = task.message.as_deref().unwrap_or("it gives no reason");
                Error::new(
                    Kind::TaskFailed,
                    format!(
                        "the provider's download task {} failed: {words}; an open may create \
                         another {} minutes after that was seen",
                        one_line(&task.id),
                        COOL_DOWN.as_secs() / 60
                    ),
                )
            }
            Failure::Expired(task) => Error::new(
                Kind::Expired,
                format!(
                    "the artifact of download task {} expired before it could be read; open the \
                     file again",
                    one_line(&task.id)
                ),
            ),
        };
        if error.kind() != Kind::Denied {
            tracing::debug!(task = %key, "not ready: {error}");
        }
        self.running.finish(Err(error));
    }

    /// No create is allowed and no task can exist: an open intent is disproved.
    async fn deny(&self, reason: String) -> Error {
        let (shared, key) = (&self.running.shared, self.running.key());
        if shared
            .ledger
            .task(key)
            .is_some_and(|record| record.intent.is_some())
        {
            shared.ledger.withdraw(key).await;
        }
        shared.log_denial(key, "", &reason);
        shared.denied(key, reason)
    }

    /// Waits for `pause`, which a new opener of a polled task cuts short. False when the drive is
    /// to end: nobody waits, or the mount stops. Without a pause there is nothing to end.
    async fn idle(&mut self, pause: Duration, mut polled: Option<&mut Attempt>) -> bool {
        if pause.is_zero() {
            return true;
        }
        let start = Instant::now();
        let mut end = start + pause;
        let shared = Arc::clone(&self.running.shared);
        let drive = Arc::clone(self.running.drive());
        loop {
            tokio::select! {
                () = sleep_until(end) => return self.running.is_wanted(),
                () = drive.joined.notified() => {
                    if let Some(attempt) = polled.as_deref_mut() {
                        end = end.min(start + attempt.hurry());
                    }
                }
                () = shared.stop.cancelled() => return false,
            }
        }
    }

    /// Keeps a failure for the end of the attempt, and for the views.
    fn note(&self, error: Error, footing: &mut Footing) {
        let shown = Arc::new(error.duplicate());
        self.running.shared.note_failure(self.running.key(), &shown);
        footing.failure = Some(error);
    }

    fn label(&self) -> String {
        label(self.running.key())
    }
}

/// What became of the wish to create.
enum Created {
    /// The attempt goes on with this.
    Event(Event),
    /// The row, or the provider, is perhaps not what the attempt saw.
    Changed,
    /// Nobody waits any more, or the mount stops.
    Unwanted,
    /// The drive ends.
    Ended(Error),
}

/// What an attempt has to know of a row.
fn known(record: Option<Record>, ledger: &Ledger, now: Timestamp) -> Known {
    let Some(record) = record else {
        return Known::Absent;
    };
    if let Some(intent) = &record.intent {
        return Known::Intended {
            held: ledger.is_held(intent),
            ended: record.task,
        };
    }
    let Some(task) = record.task else {
        return Known::Absent;
    };
    match task.state {
        TaskState::Queued | TaskState::Running | TaskState::Ready => Known::Live(task),
        TaskState::Expired => Known::Expired {
            task,
            reports: record.reports,
        },
        TaskState::Failed => Known::Failed {
            task,
            cooling: now.duration_since(record.changed).unsigned_abs() < COOL_DOWN,
        },
    }
}
