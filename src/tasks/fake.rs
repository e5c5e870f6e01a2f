//! A scripted provider with a journal of its calls and a bill, for the tests of the engine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::model::{
    Backup, Facts, Found, Instance, Link, RemoteFile, Shard, ShardRef, Task, TaskKey, TaskState,
};
use crate::providers::Provider;

/// What the next create does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Create {
    /// Is carried out and answered.
    Answer,
    /// Is carried out; the answer is lost.
    LostAfter,
    /// Is not carried out; the answer is lost.
    LostBefore,
    /// Is refused.
    Refuse(Kind),
    /// Is carried out, then panics.
    Panic,
}

/// Everything that happens at the provider.
#[derive(Debug, Default)]
pub(super) struct World {
    /// Its tasks, oldest first.
    pub(super) tasks: Vec<(TaskKey, Task)>,
    /// Calls in order.
    pub(super) journal: Vec<&'static str>,
    /// Creates carried out.
    pub(super) bill: usize,
    /// Those of them that found a live task of the same shard: money for nothing.
    pub(super) doubles: usize,
    /// It cannot list tasks.
    pub(super) blind: bool,
    /// So many looks do not show the newest task.
    pub(super) lag: usize,
    /// How many looks the next created tasks are not shown to.
    pub(super) births: VecDeque<usize>,
    /// What the next creates do; then they are answered.
    pub(super) creates: VecDeque<Create>,
    /// The next look panics.
    pub(super) find_panics: bool,
    /// How the next looks fail.
    pub(super) finds: VecDeque<Kind>,
    /// How the next polls fail.
    pub(super) polls: VecDeque<Kind>,
    /// The state a new task has.
    pub(super) born: Option<TaskState>,
    /// What a new task's polls say, one after the other; then `Ready`.
    pub(super) course: VecDeque<TaskState>,
    /// The particulars of new tasks.
    pub(super) percent: Option<u8>,
    pub(super) message: Option<String>,
    /// How long new artifacts are kept after `now`.
    pub(super) life: Option<Duration>,
    pub(super) now: Option<Timestamp>,
    /// What makes one task at a time.
    pub(super) lane: Option<String>,
}

impl World {
    /// Whether a task of `key` is under way or ready.
    pub(super) fn lives(&self, key: &TaskKey) -> bool {
        self.tasks
            .iter()
            .any(|(of, task)| of == key && is_alive(task))
    }
}

fn is_alive(task: &Task) -> bool {
    !matches!(task.state, TaskState::Expired | TaskState::Failed)
}

/// The provider.
#[derive(Debug)]
pub(super) struct Fake {
    world: Mutex<World>,
    /// Creates pass here before and after they are carried out.
    before: Semaphore,
    after: Semaphore,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Fake {
            world: Mutex::default(),
            before: Semaphore::new(1000),
            after: Semaphore::new(1000),
        })
    }

    /// Lets so many more creates pass before and after they are carried out.
    pub(super) fn gate(&self, before: usize, after: usize) {
        for (gate, permits) in [(&self.before, before), (&self.after, after)] {
            gate.forget_permits(usize::MAX);
            gate.add_permits(permits);
        }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn bill(&self) -> usize {
        self.world().bill
    }

    pub(super) fn count(&self, call: &str) -> usize {
        self.world().journal.iter().filter(|c| **c == call).count()
    }

    /// Sets the state of the newest task.
    pub(super) fn set(&self, state: TaskState) {
        self.world().tasks.last_mut().unwrap().1.state = state;
    }

    /// A task made by somebody else.
    pub(super) fn put(&self, of: &ShardRef, id: &str, state: TaskState) {
        self.world().tasks.push((of.key(), task(id, state)));
    }
}

#[async_trait]
impl Provider for Fake {
    async fn instances(&self) -> Result<Vec<Instance>> {
        Ok(Vec::new())
    }

    async fn backups(&self, _of: &Instance) -> Result<Vec<Backup>> {
        Ok(Vec::new())
    }

    async fn files(&self, _of: &ShardRef) -> Result<Vec<RemoteFile>> {
        Ok(Vec::new())
    }

    async fn find_task(&self, of: &ShardRef) -> Result<Found> {
        let mut world = self.world();
        world.journal.push("find");
        if std::mem::take(&mut world.find_panics) {
            drop(world);
            panic!("scripted");
        }
        if let Some(kind) = world.finds.pop_front() {
            return Err(Error::new(kind, "find failed"));
        }
        if world.blind {
            return Ok(Found::CannotTell);
        }
        let hidden = usize::from(world.lag > 0);
        world.lag = world.lag.saturating_sub(1);
        let mut mine: Vec<&Task> = world
            .tasks
            .iter()
            .filter(|(key, _)| *key == of.key())
            .map(|(_, task)| task)
            .collect();
        mine.truncate(mine.len().saturating_sub(hidden));
        let best = mine.iter().rev().find(|task| is_alive(task));
        let best = best.or(mine.last());
        Ok(best.map_or(Found::Nothing, |task| Found::Task((*task).clone())))
    }

    async fn create_task(&self, of: &ShardRef) -> Result<Task> {
        self.world().journal.push("create");
        self.before.acquire().await.unwrap().forget();
        let how = self.world().creates.pop_front().unwrap_or(Create::Answer);
        let made = match how {
            Create::Refuse(kind) => return Err(Error::new(kind, "create refused")),
            Create::LostBefore => return Err(Error::new(Kind::OutcomeUnknown, "cut before")),
            Create::Answer | Create::LostAfter | Create::Panic => {
                let mut world = self.world();
                world.doubles += usize::from(world.lives(&of.key()));
                world.lag = world.births.pop_front().unwrap_or(world.lag);
                world.bill += 1;
                let made = Task {
                    percent: world.percent,
                    message: world.message.clone(),
                    expires: world.now.zip(world.life).map(|(now, life)| now + life),
                    ..task(
                        &format!("t{}", world.bill),
                        world.born.unwrap_or(TaskState::Queued),
                    )
                };
                world.tasks.push((of.key(), made.clone()));
                made
            }
        };
        self.after.acquire().await.unwrap().forget();
        match how {
            Create::LostAfter => Err(Error::new(Kind::OutcomeUnknown, "504 after effect")),
            Create::Panic => panic!("scripted"),
            _ => Ok(made),
        }
    }

    async fn poll_task(&self, of: &ShardRef, task: &Task) -> Result<Task> {
        let mut world = self.world();
        world.journal.push("poll");
        if let Some(kind) = world.polls.pop_front() {
            return Err(Error::new(kind, "poll failed"));
        }
        let next = world.course.pop_front();
        let known = world
            .tasks
            .iter_mut()
            .find(|(key, known)| *key == of.key() && known.id == task.id);
        let Some((_, known)) = known else {
            return Err(Error::new(Kind::NotFound, "no such task"));
        };
        if matches!(known.state, TaskState::Queued | TaskState::Running) {
            known.state = next.unwrap_or(TaskState::Ready);
        }
        Ok(known.clone())
    }

    async fn link(&self, _: &ShardRef, _: &RemoteFile, _: Option<&Task>) -> Result<Link> {
        Err(Error::new(Kind::Unsupported, "not part of these tests"))
    }

    fn lane(&self, _: &ShardRef) -> Option<String> {
        self.world().lane.clone()
    }
}

/// A task without particulars.
pub(super) fn task(id: &str, state: TaskState) -> Task {
    Task {
        id: id.into(),
        state,
        percent: None,
        expires: None,
        message: None,
    }
}

/// The shard that the tests open; `name` tells several apart.
pub(super) fn shard(name: &str) -> ShardRef {
    let time = Timestamp::from_second(1_700_000_000).unwrap();
    ShardRef {
        provider: "cloud".into(),
        instance: Arc::new(Instance {
            id: "db".into(),
            created: None,
            facts: Facts::new(),
        }),
        backup: Arc::new(Backup {
            id: "b1".into(),
            started: time,
            finished: time,
            status: "done".into(),
            successful: true,
            method: None,
            version: None,
            trigger: None,
            not_downloadable: None,
            shards: Vec::new(),
            facts: Facts::new(),
        }),
        shard: Shard {
            id: name.into(),
            facts: Facts::new(),
        },
    }
}

/// A clock that only tests move.
#[derive(Debug)]
pub(super) struct HandClock(Mutex<Timestamp>);

impl HandClock {
    pub(super) fn new() -> Arc<Self> {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        Arc::new(HandClock(Mutex::new(start)))
    }

    pub(super) fn pass(&self, time: Duration) {
        self.jump(SignedDuration::try_from(time).unwrap());
    }

    /// Forwards or backwards.
    pub(super) fn jump(&self, by: SignedDuration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}
