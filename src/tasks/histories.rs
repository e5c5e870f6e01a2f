//! Random histories against a model of what was paid for.
//!
//! A history is a list of [`Step`]s: openers come and leave, mounts crash and start again, requests
//! and answers are lost, tasks fail and expire, clocks jump, a second mount works on the same ledger
//! or, as another host, on its own. After every step the model of [`Histories::check`] must hold;
//! at the end, with all trouble over, every file that somebody wanted must open or say why not.
//!
//! The time of each mount stands still but for the steps that let it run, so that a history is the
//! same each time; proptest keeps those that failed in `proptest-regressions`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::clock::SharedClock;
use crate::config::OnOpen;
use crate::error::{Kind, Result};
use crate::model::{Found, Instance, Link, RemoteFile, ShardRef, Task, TaskState};
use crate::providers::Provider;
use crate::tasks::engine::{Engine, EngineOptions, Wait};
use crate::tasks::fake::{Create, Fake, HandClock, shard};
use crate::tasks::ledger::Ledger;
use crate::tasks::policy::Spender;

const POLL: Duration = Duration::from_secs(10);
/// Longer than the rest that a failed task is given.
const REST: SignedDuration = SignedDuration::from_mins(10);
const SHARDS: [&str; 2] = ["rs0", "rs1"];

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// Somebody opens a file on a mount, which starts if it does not run.
    Open {
        mount: usize,
        shard: usize,
        who: Who,
    },
    /// The oldest opener of a mount leaves.
    Leave { mount: usize },
    /// A mount runs for so many seconds.
    Run { mount: usize, seconds: u64 },
    /// A mount is killed.
    Crash { mount: usize },
    /// What the next create does, and how many looks do not show the task it makes.
    Next { create: Create, hidden: usize },
    /// Creates are held up before or after their effect, or no longer.
    Hold { before: bool, after: bool },
    /// The next look, or poll, fails.
    Fail { look: bool, kind: Kind },
    /// What the next polls say of tasks that are under way.
    Course(Vec<TaskState>),
    /// A live task ends at the provider.
    End { shard: usize, state: TaskState },
    /// A reader found the artifact of a shard gone, which it is.
    Gone { mount: usize, shard: usize },
    /// The clock jumps by so many minutes.
    Jump { minutes: i64 },
}

/// Who opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Copier,
    /// Does not wait.
    Impatient,
    /// May look, but not spend.
    Indexer,
}

/// What is fixed for a whole history.
#[derive(Debug, Clone, Copy)]
struct Setting {
    /// Whether the two mounts have ledgers of their own, as two hosts have.
    hosts: bool,
    /// Whether the provider cannot list its tasks.
    blind: bool,
    /// Whether an instance makes one task at a time.
    lane: bool,
    recreate_expired: bool,
}

/// One mount, running or not; a time of its own that stands still but for [`Step::Run`].
struct Mount {
    state_dir: PathBuf,
    life: Option<(Runtime, Engine)>,
    openers: Vec<JoinHandle<Result<Task>>>,
}

impl Mount {
    /// Runs for `time`, and for a moment more: so that nothing is left half done that takes no time.
    fn run(&self, time: Duration) {
        if let Some((runtime, _)) = &self.life {
            let pause = time + Duration::from_millis(1);
            runtime.block_on(async { tokio::time::sleep(pause).await });
        }
    }

    fn crash(&mut self) {
        self.openers.clear();
        self.life = None;
    }
}

/// Puts an empty ledger into `state_dir`, unless one is there: a copy costs less than to make one.
fn empty_ledger(state_dir: &Path) {
    static EMPTY: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        drop(Ledger::open(dir.path()).unwrap());
        fs::read(dir.path().join("ledger.sqlite3")).unwrap()
    });
    if fs::DirBuilder::new().mode(0o700).create(state_dir).is_ok() {
        let place = state_dir.join("ledger.sqlite3");
        fs::write(&place, &*EMPTY).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

struct Histories {
    setting: Setting,
    fake: Arc<Fake>,
    provider: Arc<dyn Provider>,
    clock: Arc<HandClock>,
    mounts: [Mount; 2],
    /// Shards that somebody opened who may spend.
    wanted: BTreeSet<usize>,
    _dir: TempDir,
}

impl Histories {
    fn new(setting: Setting, wrap: fn(Arc<Fake>) -> Arc<dyn Provider>) -> Self {
        // Durability is not what is tested here, and memory is faster than any disk.
        let place = ["/dev/shm", "/tmp"]
            .into_iter()
            .find(|p| PathBuf::from(p).is_dir());
        let dir = tempfile::tempdir_in(place.unwrap_or(".")).unwrap();
        let fake = Fake::new();
        fake.world().blind = setting.blind;
        fake.world().lane = setting.lane.then(|| "db".to_owned());
        let mount = |name: &str| {
            let state_dir = dir.path().join(name);
            empty_ledger(&state_dir);
            Mount {
                state_dir,
                life: None,
                openers: Vec::new(),
            }
        };
        Histories {
            setting,
            provider: wrap(Arc::clone(&fake)),
            fake,
            clock: HandClock::new(),
            mounts: [mount("a"), mount(if setting.hosts { "b" } else { "a" })],
            wanted: BTreeSet::new(),
            _dir: dir,
        }
    }

    /// The engine of a mount, started if it does not run.
    fn engine(&mut self, mount: usize) -> Engine {
        let options = EngineOptions {
            on_open: OnOpen::Create,
            deny_processes: vec!["updatedb".into()],
            spend_uids: Vec::new(),
            recreate_expired: self.setting.recreate_expired,
            max_tasks_per_day: 0,
            task_wait: Duration::from_secs(3600),
        };
        let clock = Arc::clone(&self.clock) as SharedClock;
        let mount = &mut self.mounts[mount];
        let (_, engine) = mount.life.get_or_insert_with(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            let ledger = Ledger::open(&mount.state_dir).unwrap();
            (runtime, Engine::new(ledger, options, clock))
        });
        engine.clone()
    }

    fn open(&mut self, mount: usize, number: usize, who: Who) -> JoinHandle<Result<Task>> {
        let engine = self.engine(mount);
        let provider = Arc::clone(&self.provider);
        let (comm, wait) = match who {
            Who::Copier => ("cp", Wait::UntilReady),
            Who::Impatient => ("cp", Wait::No),
            Who::Indexer => ("updatedb", Wait::UntilReady),
        };
        if who != Who::Indexer {
            self.wanted.insert(number);
        }
        let opener = async move {
            let spender = Spender {
                comm: Some(comm.into()),
                ..Spender::default()
            };
            let target = shard(SHARDS[number]);
            engine.ready(&provider, POLL, &target, &spender, wait).await
        };
        let (runtime, _) = self.mounts[mount]
            .life
            .as_ref()
            .expect("it was just started");
        runtime.spawn(opener)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Open { mount, shard, who } => {
                let opener = self.open(*mount, *shard, *who);
                self.mounts[*mount].openers.push(opener);
                // Two hosts that look for a task at the same moment cannot know of each other.
                if self.setting.hosts {
                    self.mounts[*mount].run(Duration::ZERO);
                }
            }
            Step::Leave { mount } => {
                let openers = &mut self.mounts[*mount].openers;
                if !openers.is_empty() {
                    openers.remove(0).abort();
                }
            }
            Step::Run { mount, seconds } => self.mounts[*mount].run(Duration::from_secs(*seconds)),
            Step::Crash { mount } => self.mounts[*mount].crash(),
            Step::Next { create, hidden } => {
                let mut world = self.fake.world();
                world.creates.push_back(*create);
                // A list that lags behind hides a task from a host that never knew of it.
                let hidden = if self.setting.hosts { 0 } else { *hidden };
                world.births.push_back(hidden);
            }
            Step::Hold { before, after } => {
                // Nobody can see a request that has had no effect yet.
                let before = *before && !self.setting.hosts;
                let permits = |held| if held { 0 } else { 1000 };
                self.fake.gate(permits(before), permits(*after));
            }
            Step::Fail { look, kind } => {
                let mut world = self.fake.world();
                let calls = if *look {
                    &mut world.finds
                } else {
                    &mut world.polls
                };
                calls.push_back(*kind);
            }
            Step::Course(states) => self.fake.world().course = states.iter().copied().collect(),
            Step::End {
                shard: number,
                state,
            } => self.end(*number, *state),
            Step::Gone {
                mount,
                shard: number,
            } => {
                // Only what was ready has readers who could miss it.
                let newest = self.newest(*number);
                let read = newest.filter(|task| task.state == TaskState::Ready);
                self.end(*number, TaskState::Expired);
                if let (Some(task), true) = (read, self.mounts[*mount].life.is_some()) {
                    let engine = self.engine(*mount);
                    let key = shard(SHARDS[*number]).key();
                    let (runtime, _) = self.mounts[*mount].life.as_ref().expect("it runs");
                    runtime.block_on(engine.report_expired(&key, &task.id));
                }
            }
            Step::Jump { minutes } => self.clock.jump(SignedDuration::from_mins(*minutes)),
        }
    }

    /// The newest task of a shard at the provider.
    fn newest(&self, number: usize) -> Option<Task> {
        let key = shard(SHARDS[number]).key();
        let world = self.fake.world();
        let mine = world.tasks.iter().rev().find(|(of, _)| *of == key);
        mine.map(|(_, task)| task.clone())
    }

    fn end(&self, number: usize, state: TaskState) {
        let key = shard(SHARDS[number]).key();
        let mut world = self.fake.world();
        let live = |task: &Task| !matches!(task.state, TaskState::Expired | TaskState::Failed);
        let mine = world.tasks.iter_mut().rev().find(|(of, _)| *of == key);
        if let Some((_, task)) = mine.filter(|(_, task)| live(task)) {
            task.state = state;
        }
    }

    /// The model of what was paid for.
    fn check(&self) -> Result<(), TestCaseError> {
        let world = self.fake.world();
        prop_assert_eq!(
            world.doubles,
            0,
            "paid beside a live task: {:?}",
            world.tasks
        );
        for (number, name) in SHARDS.iter().enumerate() {
            let key = shard(name).key();
            let of = || world.tasks.iter().filter(|(of, _)| *of == key);
            let paid = of().count();
            if !self.wanted.contains(&number) {
                prop_assert_eq!(paid, 0, "nobody who may spend wanted {}", name);
            }
            let expired = of().filter(|(_, task)| task.state == TaskState::Expired);
            // The newest may have expired without having been replaced.
            if !self.setting.recreate_expired && expired.count() > 0 {
                let replaced = of()
                    .position(|(_, task)| task.state == TaskState::Expired)
                    .is_some_and(|first| first + 1 < paid);
                prop_assert!(!replaced, "an expired task was replaced: {:?}", world.tasks);
            }
        }
        Ok(())
    }

    /// Opens a file on the first mount and waits for it.
    fn open_now(&mut self, number: usize) -> Result<Task> {
        let opener = self.open(0, number, Who::Copier);
        let (runtime, _) = self.mounts[0].life.as_ref().expect("it was just started");
        runtime.block_on(opener).expect("no panic")
    }

    /// All trouble ends; then every file that was wanted opens, or says why it cannot.
    fn conclude(&mut self) -> Result<(), TestCaseError> {
        for mount in &mut self.mounts {
            mount.crash();
        }
        {
            let mut world = self.fake.world();
            world.creates.clear();
            world.finds.clear();
            world.polls.clear();
            world.course.clear();
        }
        self.fake.gate(1000, 1000);
        self.clock.jump(REST);
        for number in self.wanted.clone() {
            let mut opened = self.open_now(number);
            if matches!(&opened, Err(error) if error.kind() == Kind::TaskFailed) {
                // Whoever learns of a failure is told; a later open is free to ask anew.
                self.clock.jump(REST);
                opened = self.open_now(number);
            }
            match opened {
                Ok(task) => prop_assert_eq!(Some(task.id), self.newest(number).map(|t| t.id)),
                Err(error) => {
                    let ended = self.newest(number).map(|task| task.state);
                    let explained = match error.kind() {
                        // Without a list, a lost answer is for the operator to decide.
                        Kind::NotReady => self.setting.blind,
                        Kind::Denied | Kind::Expired => {
                            !self.setting.recreate_expired && ended == Some(TaskState::Expired)
                        }
                        _ => false,
                    };
                    prop_assert!(
                        explained,
                        "{:?} with a task {:?}: {}",
                        error.kind(),
                        ended,
                        error
                    );
                }
            }
            self.check()?;
        }
        Ok(())
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mount = 0..2_usize;
    let number = 0..SHARDS.len();
    let who =
        prop_oneof![6 => Just(Who::Copier), 2 => Just(Who::Impatient), 1 => Just(Who::Indexer)];
    let create = prop_oneof![
        2 => Just(Create::Answer),
        3 => Just(Create::LostAfter),
        2 => Just(Create::LostBefore),
        1 => Just(Create::Panic),
        2 => prop_oneof![Just(Kind::Busy), Just(Kind::Throttled), Just(Kind::Unreachable), Just(Kind::Denied)]
            .prop_map(Create::Refuse),
    ];
    let passing = prop_oneof![
        Just(Kind::Unavailable),
        Just(Kind::Unreachable),
        Just(Kind::Credentials)
    ];
    let under_way = prop_oneof![3 => Just(TaskState::Running), 2 => Just(TaskState::Queued), 1 => Just(TaskState::Failed)];
    let ended = prop_oneof![Just(TaskState::Expired), Just(TaskState::Failed)];
    let step = prop_oneof![
        8 => (mount.clone(), number.clone(), who).prop_map(|(mount, shard, who)| Step::Open { mount, shard, who }),
        2 => mount.clone().prop_map(|mount| Step::Leave { mount }),
        8 => (mount.clone(), prop_oneof![Just(0), 1..12_u64, 12..300_u64])
            .prop_map(|(mount, seconds)| Step::Run { mount, seconds }),
        4 => mount.clone().prop_map(|mount| Step::Crash { mount }),
        4 => (create, 0..3_usize).prop_map(|(create, hidden)| Step::Next { create, hidden }),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(before, after)| Step::Hold { before, after }),
        2 => (any::<bool>(), passing).prop_map(|(look, kind)| Step::Fail { look, kind }),
        2 => prop::collection::vec(under_way, 0..4).prop_map(Step::Course),
        2 => (number.clone(), ended).prop_map(|(shard, state)| Step::End { shard, state }),
        1 => (mount, number).prop_map(|(mount, shard)| Step::Gone { mount, shard }),
        1 => (-600..600_i64).prop_map(|minutes| Step::Jump { minutes }),
    ];
    prop::collection::vec(step, 1..16)
}

/// Runs one history to its end.
fn live(
    setting: Setting,
    steps: &[Step],
    wrap: fn(Arc<Fake>) -> Arc<dyn Provider>,
) -> Result<(), TestCaseError> {
    let mut histories = Histories::new(setting, wrap);
    for step in steps {
        histories.step(step);
        histories.check()?;
    }
    histories.conclude()
}

/// Histories on two mounts of one ledger and on two hosts, so many of each.
const HISTORIES: u32 = 5000;

fn setting(hosts: bool) -> impl Strategy<Value = Setting> {
    // Hosts that cannot see each other's tasks cannot adopt them.
    let blind = prop::bool::weighted(if hosts { 0.0 } else { 0.3 });
    (blind, any::<bool>(), prop::bool::weighted(0.8)).prop_map(
        move |(blind, lane, recreate_expired)| Setting {
            hosts,
            blind,
            lane,
            recreate_expired,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(HISTORIES))]

    #[test]
    fn no_history_of_two_mounts_pays_twice(setting in setting(false), steps in steps()) {
        live(setting, &steps, |fake| fake)?;
    }

    #[test]
    fn case_04_no_history_of_two_hosts_pays_twice(setting in setting(true), steps in steps()) {
        live(setting, &steps, |fake| fake)?;
    }
}

/// A client with the mistake that all this is about: it sends a create again whose answer was lost.
#[derive(Debug)]
struct Insistent(Arc<Fake>);

#[async_trait::async_trait]
impl Provider for Insistent {
    async fn instances(&self) -> Result<Vec<Instance>> {
        self.0.instances().await
    }

    async fn backups(&self, of: &Instance) -> Result<Vec<crate::model::Backup>> {
        self.0.backups(of).await
    }

    async fn files(&self, of: &ShardRef) -> Result<Vec<RemoteFile>> {
        self.0.files(of).await
    }

    async fn find_task(&self, of: &ShardRef) -> Result<Found> {
        self.0.find_task(of).await
    }

    async fn create_task(&self, of: &ShardRef) -> Result<Task> {
        match self.0.create_task(of).await {
            Err(error) if error.kind() == Kind::OutcomeUnknown => self.0.create_task(of).await,
            answer => answer,
        }
    }

    async fn poll_task(&self, of: &ShardRef, task: &Task) -> Result<Task> {
        self.0.poll_task(of, task).await
    }

    async fn link(&self, of: &ShardRef, file: &RemoteFile, task: Option<&Task>) -> Result<Link> {
        self.0.link(of, file, task).await
    }
}

#[test]
fn a_planted_double_create_is_found() {
    let config = ProptestConfig {
        cases: 500,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    };
    let found = TestRunner::new(config).run(&(setting(false), steps()), |(setting, steps)| {
        live(setting, &steps, |fake| Arc::new(Insistent(fake)))
    });
    let found = found.expect_err("the model does not see it").to_string();
    assert!(found.contains("paid beside a live task"), "{found}");
}
