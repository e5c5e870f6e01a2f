//! Lets any number of openers share the way to one ready task.
//!
//! It owns the drives under way, one per task, and what is remembered of the last failure or
//! denial of each. An opener joins a drive and waits for its outcome; a drive belongs to nobody
//! and goes on when its openers are gone. No two locks are held at once, and none across an await.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SharedClock;
use crate::config::OnOpen;
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{ShardRef, Task, TaskKey, TaskState};
use crate::providers::Provider;
use crate::tasks::drive::Course;
use crate::tasks::ledger::{self, Ledger, Record};
use crate::tasks::policy::{self, Denials, Known, Spender, Verdict};

/// How long a ready task without an expiry is believed without asking again.
const VERIFIED: Duration = Duration::from_secs(10 * 60);

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

impl EngineOptions {
    fn rules(&self) -> policy::Rules<'_> {
        policy::Rules {
            on_open: self.on_open,
            deny_processes: &self.deny_processes,
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
    /// When the intent was written, or the task adopted.
    pub since: Option<Timestamp>,
    /// How many openers wait now.
    pub waiting: usize,
}

/// The task engine. Work it starts goes on when the opener that caused it is gone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

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
}

/// How a drive ended; an error is shared by all who waited.
pub(super) type Outcome = Result<Task, Arc<Error>>;

/// One drive as its openers see it: each waiting opener holds a receiver of `outcome`.
pub(super) struct Drive {
    outcome: watch::Sender<Option<Outcome>>,
    /// Told of each new opener.
    pub(super) joined: Notify,
    /// Why the drive may not create, if it may not.
    pub(super) adopt_only: Option<String>,
}

/// What is remembered of a task beside the ledger, for as long as the mount lives.
#[derive(Default)]
struct Note {
    /// The last failure, and when it was met; forgotten when the provider answers.
    failure: Option<(Arc<Error>, Instant)>,
    /// The last denial; forgotten likewise, and by the next open that is allowed.
    denial: Option<String>,
}

impl Engine {
    /// An engine on `ledger`.
    pub fn new(ledger: Ledger, options: EngineOptions, clock: SharedClock) -> Self {
        Engine {
            shared: Arc::new(Shared {
                ledger,
                options,
                clock,
                stop: CancellationToken::new(),
                creates: TaskTracker::new(),
                drives: Mutex::default(),
                notes: Mutex::default(),
                denials: Mutex::default(),
            }),
        }
    }

    /// The ready task of `target`: adopted or created, waited for by all openers together.
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
            let known = self.shared.ledger.task(&key);
            let now = self.shared.clock.now();
            let fresh = known.as_ref().and_then(|record| fresh(record, now));
            let adopt_only = self.allow(&key, spender, known.as_ref(), now).await?;
            if let Some(task) = fresh {
                return Ok(task);
            }
            if wait == Wait::No
                && let Some(failure) = self.shared.recent_failure(&key, poll_interval)
            {
                return Err(failure);
            }
            let seat = self.join(provider, poll_interval, target, &key, adopt_only.clone())?;
            if wait == Wait::No {
                return Err(self.not_ready(&key, Kind::NotReady, "not waited for"));
            }
            match self.outcome(&key, seat.outcome, deadline).await? {
                Ok(task) => return Ok(task),
                // The drive was started for one who may not spend, and we may.
                Err(error)
                    if error.kind() == Kind::Denied && seat.adopt_only && adopt_only.is_none() => {}
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

    /// What is known of one task.
    pub fn view(&self, key: &TaskKey) -> TaskView {
        self.view_of(key, self.shared.ledger.task(key).as_ref())
    }

    /// All tasks the ledger knows, and those that were denied.
    pub fn views(&self) -> Vec<TaskView> {
        let known = self.shared.ledger.tasks();
        let mut keys: Vec<TaskKey> = self.shared.notes().keys().cloned().collect();
        keys.retain(|key| known.binary_search_by(|(known, _)| known.cmp(key)).is_err());
        let mut views: Vec<TaskView> = known
            .iter()
            .map(|(key, record)| self.view_of(key, Some(record)))
            .chain(keys.iter().map(|key| self.view_of(key, None)))
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
        self.shared.stop.cancel();
        self.shared.creates.close();
    }

    /// After [`Engine::stop`]: returns once no create is between its intent and its answer.
    pub async fn settled(&self) {
        self.shared.creates.wait().await;
    }

    /// Whether `spender` may go on, and if only to adopt, why. Says so once an hour if not.
    async fn allow(
        &self,
        key: &TaskKey,
        spender: &Spender,
        record: Option<&Record>,
        now: Timestamp,
    ) -> Result<Option<String>> {
        let state = record
            .filter(|record| record.intent.is_none())
            .and_then(|record| record.task.as_ref())
            .map(|task| task.state);
        let known = match state {
            Some(TaskState::Ready) => Known::Ready,
            Some(TaskState::Expired) => Known::Expired,
            _ => Known::Other,
        };
        let options = &self.shared.options;
        let created = match options.max_tasks_per_day {
            0 => 0,
            _ => self.shared.ledger.created_in_day(now).await,
        };
        match policy::decide(&options.rules(), spender, known, created) {
            Verdict::Spend => {
                if let Some(note) = self.shared.notes().get_mut(key) {
                    note.denial = None;
                }
                Ok(None)
            }
            Verdict::AdoptOnly(reason) => Ok(Some(reason)),
            Verdict::Deny(reason) => {
                let name = spender.comm.as_deref().unwrap_or_default();
                self.shared.log_denial(key, name, &reason);
                Err(self.shared.denied(key, reason))
            }
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
        let mut drives = self.shared.drives();
        if self.shared.stop.is_cancelled() {
            return Err(stopping());
        }
        if let Some(drive) = drives.get(key) {
            drive.joined.notify_one();
            return Ok(drive.seat());
        }
        let drive = Arc::new(Drive {
            outcome: watch::Sender::new(None),
            joined: Notify::new(),
            adopt_only,
        });
        let seat = drive.seat();
        drives.insert(key.clone(), Arc::clone(&drive));
        drop(drives);
        let course = Course {
            running: Running {
                shared: Arc::clone(&self.shared),
                key: key.clone(),
                drive,
                outcome: None,
            },
            provider: Arc::clone(provider),
            target: target.clone(),
            first_poll: poll_interval,
        };
        tokio::spawn(course.run());
        Ok(seat)
    }

    /// The drive's outcome, or an error of our own when the time or the mount is over first.
    async fn outcome(
        &self,
        key: &TaskKey,
        mut outcome: watch::Receiver<Option<Outcome>>,
        deadline: Option<Instant>,
    ) -> Result<Outcome> {
        let over = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = outcome.wait_for(Option::is_some) => match done.as_deref() {
                Ok(Some(outcome)) => Ok(outcome.clone()),
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
        let last = view
            .error
            .map(|e| format!("; last error: {e}"))
            .unwrap_or_default();
        Error::new(
            kind,
            format!(
                "the download task of {} is {}{percent}: {why}; it goes on, open the file again \
                 later{last}",
                label(key),
                match view.state {
                    "none" | "denied" => "being looked for",
                    state => state,
                },
            ),
        )
    }

    fn view_of(&self, key: &TaskKey, record: Option<&Record>) -> TaskView {
        let waiting = self
            .shared
            .drives()
            .get(key)
            .map_or(0, |drive| drive.outcome.receiver_count());
        let (failure, denial) = match self.shared.notes().get(key) {
            Some(note) => (
                note.failure.as_ref().map(|(error, _)| error.to_string()),
                note.denial.clone(),
            ),
            None => (None, None),
        };
        let task = record.and_then(|record| record.task.as_ref());
        let intended = record.is_some_and(|record| record.intent.is_some());
        let state = match task {
            // A request may have been sent: somewhere there may be a task that is not seen yet.
            _ if intended => "queued",
            Some(task) if is_over(task, self.shared.clock.now()) => "expired",
            Some(task) => ledger::word(task.state),
            None if denial.is_some() => "denied",
            None => "none",
        };
        let task = task.filter(|_| !intended);
        TaskView {
            key: key.clone(),
            state,
            task_id: task.map(|task| task.id.clone()).filter(|id| !id.is_empty()),
            percent: match state {
                "ready" => Some(100),
                _ => task.and_then(|task| task.percent),
            },
            expires: task.and_then(|task| task.expires),
            error: denial
                .or(failure)
                .or_else(|| task.and_then(|task| task.message.as_deref().map(one_line))),
            since: record.map(|record| record.since),
            waiting,
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

/// An opener's place in a drive.
struct Seat {
    outcome: watch::Receiver<Option<Outcome>>,
    adopt_only: bool,
}

impl Drive {
    fn seat(&self) -> Seat {
        Seat {
            outcome: self.outcome.subscribe(),
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

impl Shared {
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

    /// Says once an hour and process name that spending was denied.
    pub(super) fn log_denial(&self, key: &TaskKey, name: &str, reason: &str) {
        if lock(&self.denials).first(name, self.clock.now()) {
            tracing::info!(task = %label(key), process = %one_line(name), "denied: {reason}");
        }
    }

    fn last_failure(&self, key: &TaskKey) -> Option<Arc<Error>> {
        let notes = self.notes();
        let (error, _) = notes.get(key)?.failure.as_ref()?;
        Some(Arc::clone(error))
    }

    /// The failure of a drive that ended less than `age` ago.
    fn recent_failure(&self, key: &TaskKey, age: Duration) -> Option<Error> {
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

/// Whether a task that was ready has outlived its artifact.
fn is_over(task: &Task, now: Timestamp) -> bool {
    task.state == TaskState::Ready && task.expires.is_some_and(|expires| expires <= now)
}

fn stopping() -> Error {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::tasks::fake::{Create, Fake, HandClock, shard, task};
    use tempfile::TempDir;

    const POLL: Duration = Duration::from_secs(10);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// A provider, a state directory and a mount on them that may crash.
    struct Bench {
        fake: Arc<Fake>,
        provider: Arc<dyn Provider>,
        clock: Arc<HandClock>,
        dir: TempDir,
        options: EngineOptions,
    }

    impl Bench {
        fn new() -> Self {
            let fake = Fake::new();
            Bench {
                provider: Arc::clone(&fake) as Arc<dyn Provider>,
                fake,
                clock: HandClock::new(),
                dir: tempfile::tempdir().unwrap(),
                options: EngineOptions {
                    on_open: OnOpen::Create,
                    deny_processes: vec!["updatedb".into()],
                    recreate_expired: true,
                    max_tasks_per_day: 0,
                    task_wait: Duration::from_secs(6 * 3600),
                },
            }
        }

        /// A mount, as after a start of the process.
        fn mount(&self) -> Engine {
            let ledger = Ledger::open(self.dir.path()).unwrap();
            let clock = Arc::clone(&self.clock) as SharedClock;
            Engine::new(ledger, self.options.clone(), clock)
        }

        async fn open(&self, engine: &Engine) -> Result<Task> {
            self.open_by(engine, "cp", Wait::UntilReady).await
        }

        async fn open_by(&self, engine: &Engine, comm: &str, wait: Wait) -> Result<Task> {
            self.open_shard(engine, &shard("rs0"), comm, wait).await
        }

        async fn open_shard(
            &self,
            engine: &Engine,
            target: &ShardRef,
            comm: &str,
            wait: Wait,
        ) -> Result<Task> {
            let spender = Spender {
                comm: Some(comm.into()),
                ..Spender::default()
            };
            engine
                .ready(&self.provider, POLL, target, &spender, wait)
                .await
        }

        fn view(&self, engine: &Engine) -> TaskView {
            engine.view(&shard("rs0").key())
        }
    }

    fn kind<T: fmt::Debug>(result: Result<T>) -> Kind {
        result.unwrap_err().kind()
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_task_is_created_waited_for_and_remembered() {
        let bench = Bench::new();
        bench.fake.world().course = [TaskState::Queued, TaskState::Running].into();
        let engine = bench.mount();
        assert_eq!(bench.view(&engine).state, "none");
        let ready = bench.open(&engine).await.unwrap();
        assert_eq!((ready.id.as_str(), ready.state), ("t1", TaskState::Ready));
        assert_eq!(
            bench.fake.world().journal,
            ["find", "create", "poll", "poll", "poll"]
        );
        assert_eq!(bench.view(&engine).state, "ready");
        assert_eq!(engine.created_total(), 1);
        bench.open(&engine).await.unwrap();
        drop(engine);
        let again = bench.mount();
        bench.open(&again).await.unwrap();
        assert_eq!(
            bench.fake.count("poll"),
            3,
            "a ready task is not asked about"
        );
        assert_eq!((bench.fake.bill(), again.created_total()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn five_hundred_racing_opens_create_once() {
        let bench = Bench::new();
        let engine = bench.mount();
        let opens = (0..500).map(|_| bench.open(&engine));
        for opened in futures::future::join_all(opens).await {
            assert_eq!(opened.unwrap().id, "t1");
        }
        assert_eq!(bench.fake.world().journal, ["find", "create", "poll"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_looked_up_not_repeated() {
        let bench = Bench::new();
        bench.fake.world().creates = [Create::LostAfter].into();
        bench.fake.world().lag = 0;
        let engine = bench.mount();
        assert_eq!(bench.open(&engine).await.unwrap().id, "t1");
        assert_eq!((bench.fake.bill(), engine.created_total()), (1, 1));
        assert_eq!(bench.fake.count("create"), 1);
    }
}
