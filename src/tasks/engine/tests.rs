use std::future::Future;
use std::path::Path;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::*;
use crate::clock::Clock;
use crate::model::LinkMode;
use crate::secret::SafeUrl;
use crate::tasks::fake::{Create, Fake, HandClock, shard};

const POLL: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A provider and a state directory, on which mounts come and go.
struct Bench {
    fake: Arc<Fake>,
    clock: Arc<HandClock>,
    dir: TempDir,
    options: EngineOptions,
}

impl Bench {
    fn new() -> Self {
        Bench {
            fake: Fake::new(),
            clock: HandClock::new(),
            dir: tempfile::tempdir().unwrap(),
            options: EngineOptions {
                on_open: OnOpen::Create,
                deny_processes: vec!["updatedb".into()],
                spend_uids: Vec::new(),
                recreate_expired: true,
                max_tasks_per_day: 0,
                task_wait: 6 * HOUR,
            },
        }
    }

    fn mount(&self) -> Mount {
        self.mount_on(self.dir.path())
    }

    fn mount_on(&self, state_dir: &Path) -> Mount {
        let ledger = Ledger::open(state_dir).unwrap();
        let clock = Arc::clone(&self.clock) as SharedClock;
        Mount {
            engine: Engine::new(ledger, self.options.clone(), clock),
            provider: Arc::clone(&self.fake) as Arc<dyn Provider>,
        }
    }
}

/// One start of the program.
#[derive(Clone)]
struct Mount {
    engine: Engine,
    provider: Arc<dyn Provider>,
}

impl Mount {
    async fn open(&self) -> Result<Task> {
        self.open_as("cp", Wait::UntilReady).await
    }

    async fn open_as(&self, comm: &str, wait: Wait) -> Result<Task> {
        self.open_shard("rs0", comm, wait).await
    }

    async fn open_shard(&self, name: &str, comm: &str, wait: Wait) -> Result<Task> {
        let spender = Spender {
            comm: Some(comm.into()),
            ..Spender::default()
        };
        let target = shard(name);
        self.engine
            .ready(&self.provider, POLL, &target, &spender, wait)
            .await
    }

    /// An opener of its own.
    fn spawn(&self) -> tokio::task::JoinHandle<Result<Task>> {
        let mount = self.clone();
        tokio::spawn(async move { mount.open().await })
    }

    fn view(&self) -> TaskView {
        self.engine.view(&shard("rs0").key())
    }
}

fn kind(result: Result<Task>) -> Kind {
    result.unwrap_err().kind()
}

/// Waits for `condition`; the test's time stands still but for this.
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("the condition never came true");
}

/// Runs `life` as a process of its own that is killed when it returns.
fn process<T>(life: impl Future<Output = T>) -> T {
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(life)
}

#[tokio::test(start_paused = true)]
async fn a_missing_task_is_created_waited_for_and_remembered() {
    let bench = Bench::new();
    bench.fake.world().course = [TaskState::Queued, TaskState::Running].into();
    let mount = bench.mount();
    assert_eq!(mount.view().state, "none");
    let ready = mount.open().await.unwrap();
    assert_eq!((ready.id.as_str(), ready.state), ("t1", TaskState::Ready));
    assert_eq!(
        bench.fake.world().journal,
        ["find", "create", "poll", "poll", "poll"]
    );
    let view = mount.view();
    assert_eq!((view.state, view.percent), ("ready", Some(100)));
    assert_eq!((view.error, view.waiting), (None, 0));
    mount.open().await.unwrap();
    drop(mount);
    let again = bench.mount();
    again.open().await.unwrap();
    assert_eq!(
        bench.fake.count("poll"),
        3,
        "a ready task is not asked about"
    );
    assert_eq!((bench.fake.bill(), again.engine.created_total()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_existing_task_is_adopted() {
    let bench = Bench::new();
    bench.fake.put(&shard("rs0"), "theirs", TaskState::Running);
    let mount = bench.mount();
    assert_eq!(mount.open().await.unwrap().id, "theirs");
    assert_eq!((bench.fake.bill(), mount.engine.created_total()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn case_01_five_hundred_racing_opens_share_one_create() {
    let bench = Bench::new();
    let mount = bench.mount();
    for opened in futures::future::join_all((0..500).map(|_| mount.open())).await {
        assert_eq!(opened.unwrap().id, "t1");
    }
    assert_eq!(bench.fake.world().journal, ["find", "create", "poll"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_hundred_openers_on_many_threads_share_one_create() {
    let bench = Bench::new();
    bench.fake.world().born = Some(TaskState::Ready);
    let mounts = [bench.mount(), bench.mount()];
    let openers: Vec<_> = (0..500).map(|i| mounts[i % 2].spawn()).collect();
    for opener in openers {
        assert_eq!(opener.await.unwrap().unwrap().id, "t1");
    }
    assert_eq!(bench.fake.bill(), 1);
}

/// Kills a process that opens the file as soon as `moment` has come.
fn crash(bench: &Bench, moment: impl Fn(&Fake) -> bool) {
    process(async {
        let mount = bench.mount();
        let _opener = mount.spawn();
        until(|| moment(&bench.fake)).await;
    });
}

#[test]
fn case_02_a_crash_at_any_point_is_paid_once() {
    type Moment = fn(&Fake) -> bool;
    // (creates wait before or after their effect, the moment of the kill, the bill at that moment)
    let points: [(&str, usize, usize, Moment, usize); 6] = [
        ("look under way", 9, 9, |fake| fake.count("find") == 1, 0),
        (
            "request sent, no effect",
            0,
            9,
            |fake| fake.count("create") == 1,
            0,
        ),
        ("effect, no answer", 9, 0, |fake| fake.bill() == 1, 1),
        ("answer recorded", 9, 9, |fake| fake.count("poll") == 1, 1),
        ("polling", 9, 9, |fake| fake.count("poll") == 2, 1),
        ("ready", 9, 9, |fake| fake.count("poll") == 3, 1),
    ];
    for (name, before, after, moment, bill) in points {
        let bench = Bench::new();
        bench.fake.world().course = [TaskState::Queued, TaskState::Running].into();
        bench.fake.gate(before, after);
        crash(&bench, moment);
        assert!(bench.fake.bill() >= bill, "{name}");
        bench.fake.gate(9, 9);
        let mount = bench.mount();
        let ready = process(mount.open()).unwrap();
        assert_eq!((ready.id.as_str(), bench.fake.bill()), ("t1", 1), "{name}");
        assert_eq!(mount.engine.created_total(), 1, "{name}");
    }
}

#[test]
fn repeated_crashes_in_a_row_are_paid_once() {
    let bench = Bench::new();
    bench.fake.world().lag = 3;
    bench.fake.gate(9, 0);
    crash(&bench, |fake| fake.bill() == 1);
    for looks in 2..5 {
        crash(&bench, |fake| fake.count("find") == looks);
    }
    bench.fake.gate(9, 9);
    let mount = bench.mount();
    assert_eq!(process(mount.open()).unwrap().id, "t1");
    assert_eq!((bench.fake.bill(), bench.fake.count("create")), (1, 1));
}

#[test]
fn case_02_a_crash_that_a_blind_provider_cannot_resolve_is_left_to_the_operator() {
    for (before, after, bill) in [(0, 9, 0), (9, 0, 1)] {
        let bench = Bench::new();
        bench.fake.world().blind = true;
        bench.fake.gate(before, after);
        crash(&bench, |fake| {
            fake.count("create") == 1 && fake.bill() == bill
        });
        bench.fake.gate(9, 9);
        let mount = bench.mount();
        for _ in 0..2 {
            let error = process(mount.open()).unwrap_err();
            assert_eq!(error.kind(), Kind::NotReady);
            assert!(error.to_string().contains("operator"), "{error}");
        }
        assert_eq!((bench.fake.bill(), bench.fake.count("create")), (bill, 1));
        let view = mount.view();
        assert_eq!(view.state, "queued");
        assert!(view.error.unwrap().contains("operator"));
    }
}

#[tokio::test(start_paused = true)]
async fn case_03_a_lost_answer_is_looked_up_not_repeated() {
    for lag in [0, 1, 4] {
        let bench = Bench::new();
        bench.fake.world().creates = [Create::LostAfter].into();
        bench.fake.world().lag = lag + 1;
        let mount = bench.mount();
        assert_eq!(mount.open().await.unwrap().id, "t1", "lag {lag}");
        assert_eq!((bench.fake.bill(), bench.fake.count("create")), (1, 1));
        assert_eq!(mount.engine.created_total(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_surely_lost_is_sent_again() {
    let bench = Bench::new();
    bench.fake.world().creates = [Create::LostBefore].into();
    let mount = bench.mount();
    let start = Instant::now();
    assert_eq!(mount.open().await.unwrap().id, "t1");
    assert!(
        start.elapsed() >= Duration::from_secs(10),
        "not before a lagging list can tell"
    );
    assert_eq!((bench.fake.bill(), bench.fake.count("create")), (1, 2));
    assert_eq!(mount.engine.created_total(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_lost_for_ever_end_the_open() {
    let bench = Bench::new();
    bench.fake.world().creates = [Create::LostBefore; 4].into();
    let mount = bench.mount();
    assert_eq!(kind(mount.open().await), Kind::OutcomeUnknown);
    assert_eq!(bench.fake.count("create"), 2);
    assert_eq!(kind(mount.open().await), Kind::OutcomeUnknown);
    assert_eq!(mount.open().await.unwrap().id, "t1");
}

#[tokio::test(start_paused = true)]
async fn a_panic_after_the_effect_is_a_lost_answer() {
    let bench = Bench::new();
    bench.fake.world().creates = [Create::Panic].into();
    assert_eq!(bench.mount().open().await.unwrap().id, "t1");
    assert_eq!((bench.fake.bill(), bench.fake.count("create")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn two_mounts_of_one_ledger_create_once() {
    let bench = Bench::new();
    bench.fake.gate(0, 9);
    let (first, second) = (bench.mount(), bench.mount());
    let one = first.spawn();
    until(|| bench.fake.count("create") == 1).await;
    let two = second.spawn();
    // The second looks, sees the other's intent and waits, however often it looks.
    until(|| bench.fake.count("find") >= 8).await;
    bench.fake.gate(9, 9);
    assert_eq!(one.await.unwrap().unwrap().id, "t1");
    assert_eq!(two.await.unwrap().unwrap().id, "t1");
    assert_eq!(bench.fake.count("create"), 1);
}

#[tokio::test(start_paused = true)]
async fn two_blind_mounts_of_one_ledger_create_once() {
    let bench = Bench::new();
    bench.fake.world().blind = true;
    bench.fake.gate(9, 0);
    let (first, second) = (bench.mount(), bench.mount());
    let one = first.spawn();
    until(|| bench.fake.bill() == 1).await;
    let two = second.spawn();
    until(|| bench.fake.count("find") >= 4).await;
    bench.fake.gate(9, 9);
    assert_eq!(one.await.unwrap().unwrap().id, "t1");
    assert_eq!(two.await.unwrap().unwrap().id, "t1");
    assert_eq!(bench.fake.count("create"), 1);
}

#[tokio::test(start_paused = true)]
async fn another_host_adopts_what_the_first_created() {
    let bench = Bench::new();
    bench.mount().open().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = bench.mount_on(elsewhere.path());
    assert_eq!(other.open().await.unwrap().id, "t1");
    assert_eq!((bench.fake.bill(), other.engine.created_total()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_denied_process_looks_but_does_not_spend() {
    let bench = Bench::new();
    let mount = bench.mount();
    let error = mount
        .open_as("updatedb", Wait::UntilReady)
        .await
        .unwrap_err();
    assert_eq!(error.errno(), libc::EACCES);
    assert!(error.to_string().contains("updatedb"));
    assert_eq!(bench.fake.world().journal.len(), 0);
    assert_eq!(mount.view().state, "denied");
    assert_eq!(mount.engine.views().len(), 1);
    // It may not wait for a task of others either.
    bench.fake.gate(0, 9);
    let other = mount.spawn();
    until(|| bench.fake.count("create") == 1).await;
    assert_eq!(mount.view().state, "queued");
    assert_eq!(
        kind(mount.open_as("updatedb", Wait::No).await),
        Kind::Denied
    );
    bench.fake.gate(9, 9);
    other.await.unwrap().unwrap();
    // Served what is ready, it costs nothing.
    mount.open_as("updatedb", Wait::UntilReady).await.unwrap();
    // Not even once that has expired.
    bench.fake.set(TaskState::Expired);
    mount.engine.report_expired(&shard("rs0").key(), "t1").await;
    assert_eq!(
        kind(mount.open_as("updatedb", Wait::UntilReady).await),
        Kind::Denied
    );
    assert_eq!(bench.fake.bill(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_who_may_spend_is_not_held_back_by_one_who_may_not() {
    let bench = Bench::new();
    let mount = bench.mount();
    mount.open().await.unwrap();
    bench.clock.pass(HOUR);
    bench.fake.set(TaskState::Expired);
    // The ready task has to be verified: `updatedb` starts that, `cp` joins.
    let denied = mount.open_as("updatedb", Wait::UntilReady);
    let (denied, allowed) = tokio::join!(denied, mount.open());
    assert_eq!(kind(denied), Kind::Denied);
    assert_eq!(allowed.unwrap().id, "t2");
}

#[tokio::test(start_paused = true)]
async fn on_open_adopt_uses_only_what_exists_and_never_uses_nothing() {
    let mut bench = Bench::new();
    bench.options.on_open = OnOpen::Adopt;
    let mount = bench.mount();
    let error = mount.open().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("on_open"), "{error}");
    assert_eq!(mount.view().state, "denied");
    bench.fake.put(&shard("rs0"), "theirs", TaskState::Running);
    assert_eq!(mount.open().await.unwrap().id, "theirs");
    assert_eq!(mount.view().error, None);
    bench.options.on_open = OnOpen::Never;
    let calls = bench.fake.world().journal.len();
    assert_eq!(kind(bench.mount().open().await), Kind::Denied);
    assert_eq!(bench.fake.world().journal.len(), calls);
    assert_eq!(bench.fake.bill(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_daily_limit_survives_a_remount() {
    let mut bench = Bench::new();
    bench.options.max_tasks_per_day = 2;
    let open =
        async |mount: &Mount, name: &str| mount.open_shard(name, "cp", Wait::UntilReady).await;
    let mount = bench.mount();
    open(&mount, "rs0").await.unwrap();
    bench.clock.pass(HOUR);
    open(&mount, "rs1").await.unwrap();
    for mount in [mount, bench.mount()] {
        let error = open(&mount, "rs2").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.to_string().contains("max_tasks_per_day"), "{error}");
        open(&mount, "rs0").await.unwrap();
    }
    bench.clock.pass(23 * HOUR);
    open(&bench.mount(), "rs2").await.unwrap();
    assert_eq!(bench.fake.bill(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_09_racing_opens_of_many_shards_keep_the_daily_limit() {
    let mut bench = Bench::new();
    bench.options.max_tasks_per_day = 3;
    let mounts = [bench.mount(), bench.mount()];
    let names: Vec<String> = (0..20).map(|i| format!("rs{i}")).collect();
    let opens = names
        .iter()
        .enumerate()
        .map(|(i, name)| mounts[i % 2].open_shard(name, "cp", Wait::UntilReady));
    let opened = futures::future::join_all(opens).await;
    assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 3);
    assert_eq!(bench.fake.bill(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_opener_that_does_not_wait_starts_the_task() {
    let bench = Bench::new();
    let mount = bench.mount();
    let error = mount.open_as("cp", Wait::No).await.unwrap_err();
    assert_eq!(error.errno(), libc::EAGAIN);
    until(|| mount.view().state == "queued" && bench.fake.bill() == 1).await;
    // Nobody waits: the task is not polled, but the next such open adopts it.
    sleep(HOUR).await;
    assert_eq!(bench.fake.count("poll"), 0);
    assert_eq!(kind(mount.open_as("cp", Wait::No).await), Kind::NotReady);
    until(|| mount.view().state == "ready").await;
    assert_eq!(mount.open_as("cp", Wait::No).await.unwrap().id, "t1");
    assert_eq!(bench.fake.world().journal, ["find", "create", "poll"]);
}

#[tokio::test(start_paused = true)]
async fn an_opener_that_does_not_wait_learns_of_a_failure() {
    let bench = Bench::new();
    bench.fake.world().finds = [Kind::Credentials].into();
    let mount = bench.mount();
    assert_eq!(kind(mount.open_as("cp", Wait::No).await), Kind::NotReady);
    until(|| mount.view().error.is_some()).await;
    assert_eq!(kind(mount.open_as("cp", Wait::No).await), Kind::Credentials);
    sleep(POLL).await;
    assert_eq!(kind(mount.open_as("cp", Wait::No).await), Kind::NotReady);
    until(|| bench.fake.bill() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn case_05_work_goes_on_without_its_opener_but_polling_does_not() {
    let bench = Bench::new();
    bench.fake.gate(0, 9);
    let mount = bench.mount();
    let opener = mount.spawn();
    until(|| bench.fake.count("create") == 1).await;
    assert_eq!(mount.view().waiting, 1);
    opener.abort();
    until(|| mount.view().waiting == 0).await;
    bench.fake.gate(9, 9);
    until(|| mount.engine.created_total() == 1).await;
    sleep(HOUR).await;
    assert_eq!(bench.fake.count("poll"), 0);
    assert_eq!(mount.view().state, "queued");
    assert_eq!(mount.open().await.unwrap().id, "t1");
    assert_eq!(bench.fake.bill(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_after_task_wait_and_the_task_goes_on() {
    let bench = Bench::new();
    bench.fake.world().course = vec![TaskState::Running; 500].into();
    bench.fake.world().percent = Some(42);
    let mount = bench.mount();
    let start = Instant::now();
    let error = mount.open().await.unwrap_err();
    assert_eq!(error.errno(), libc::ETIMEDOUT);
    let words = error.to_string();
    assert!(
        words.contains("running") && words.contains("42 %"),
        "{words}"
    );
    assert_eq!(start.elapsed(), 6 * HOUR);
    let polls = bench.fake.count("poll");
    assert!(
        (150..200).contains(&polls),
        "{polls} polls back off to two minutes"
    );
    sleep(HOUR).await;
    assert!(bench.fake.count("poll") <= polls + 1, "nobody waits");
    bench.fake.world().course.clear();
    assert_eq!(mount.open().await.unwrap().id, "t1");
    assert_eq!(bench.fake.bill(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_opener_is_not_kept_waiting_for_a_slow_poll() {
    let bench = Bench::new();
    bench.fake.world().course = vec![TaskState::Running; 500].into();
    let mount = bench.mount();
    let first = mount.spawn();
    sleep(HOUR).await;
    bench.fake.world().course.clear();
    let start = Instant::now();
    mount.open().await.unwrap();
    assert!(start.elapsed() <= POLL, "{:?}", start.elapsed());
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn case_10_an_instance_that_is_busy_is_waited_for() {
    let bench = Bench::new();
    bench.fake.world().creates =
        [Create::Refuse(Kind::Busy), Create::Refuse(Kind::Throttled)].into();
    let mount = bench.mount();
    assert_eq!(mount.open().await.unwrap().id, "t1");
    assert_eq!((bench.fake.bill(), mount.engine.created_total()), (1, 1));

    let bench = Bench::new();
    bench.fake.world().creates = vec![Create::Refuse(Kind::Busy); 1000].into();
    let mount = bench.mount();
    let error = mount.open().await.unwrap_err();
    assert_eq!(error.errno(), libc::EBUSY);
    assert!(bench.fake.count("create") < 200, "no storm");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_open_and_leaves_no_doubt() {
    for refusal in [
        Kind::Credentials,
        Kind::NotFound,
        Kind::Unsupported,
        Kind::Unreachable,
    ] {
        let bench = Bench::new();
        bench.fake.world().blind = true;
        bench.fake.world().creates = [Create::Refuse(refusal)].into();
        let mount = bench.mount();
        assert_eq!(kind(mount.open().await), refusal);
        let view = mount.view();
        assert_eq!(view.state, "none");
        assert!(view.error.unwrap().contains("create refused"));
        assert_eq!(mount.open().await.unwrap().id, "t1");
        assert_eq!((bench.fake.bill(), mount.view().error), (1, None));
    }
}

#[tokio::test(start_paused = true)]
async fn passing_failures_of_polls_are_outlasted_and_final_ones_told() {
    let bench = Bench::new();
    let mount = bench.mount();
    bench.fake.world().polls = [Kind::Unreachable, Kind::Unavailable, Kind::Throttled].into();
    let opener = mount.spawn();
    until(|| bench.fake.count("poll") == 1).await;
    assert!(mount.view().error.unwrap().contains("poll failed"));
    opener.await.unwrap().unwrap();
    assert_eq!((bench.fake.count("poll"), mount.view().error), (4, None));

    let bench = Bench::new();
    let mount = bench.mount();
    bench.fake.world().polls = [Kind::Credentials].into();
    assert_eq!(mount.open().await.unwrap_err().errno(), libc::EACCES);
    assert_eq!(mount.open().await.unwrap().id, "t1");
    assert_eq!(bench.fake.bill(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_creates_nothing() {
    let bench = Bench::new();
    bench.fake.world().finds = [Kind::Unreachable].into();
    let mount = bench.mount();
    assert_eq!(kind(mount.open().await), Kind::Unreachable);
    assert_eq!(bench.fake.world().journal, ["find"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_drive_is_told_and_not_sticky() {
    let bench = Bench::new();
    bench.fake.world().find_panics = true;
    let mount = bench.mount();
    let (one, two) = tokio::join!(mount.open(), mount.open());
    assert_eq!((kind(one), kind(two)), (Kind::Internal, Kind::Internal));
    assert_eq!(mount.open().await.unwrap().id, "t1");
}

#[tokio::test(start_paused = true)]
async fn case_06_a_failed_task_is_told_and_cools_down() {
    let bench = Bench::new();
    bench.fake.world().course = [TaskState::Running, TaskState::Failed].into();
    bench.fake.world().message = Some("out of disk".into());
    let mount = bench.mount();
    let error = mount.open().await.unwrap_err();
    assert_eq!((error.kind(), error.errno()), (Kind::TaskFailed, libc::EIO));
    assert!(error.to_string().contains("out of disk"), "{error}");
    assert_eq!(mount.view().state, "failed");
    let calls = bench.fake.world().journal.len();
    for mount in [mount, bench.mount()] {
        bench.clock.pass(2 * MINUTE);
        assert_eq!(kind(mount.open().await), Kind::TaskFailed);
        assert!(mount.view().error.unwrap().contains("out of disk"));
    }
    assert_eq!(bench.fake.world().journal.len(), calls, "told from memory");
    bench.clock.pass(2 * MINUTE);
    assert_eq!(bench.mount().open().await.unwrap().id, "t2");
    assert_eq!(bench.fake.bill(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_expired_task_is_replaced_by_a_new_open_if_allowed() {
    let mut bench = Bench::new();
    let mount = bench.mount();
    bench.fake.world().life = Some(HOUR);
    bench.fake.world().now = Some(bench.clock.now());
    mount.open().await.unwrap();
    let expires = mount.view().expires.unwrap();
    assert_eq!(expires, bench.clock.now() + HOUR);
    bench.clock.pass(HOUR / 2);
    mount.open().await.unwrap();
    assert_eq!(
        bench.fake.count("poll"),
        1,
        "before its expiry nothing is asked"
    );
    bench.clock.pass(HOUR);
    assert_eq!(mount.view().state, "expired");
    // Prolonged by the provider: it is asked before anything is created.
    bench.fake.world().tasks[0].1.expires = Some(bench.clock.now() + HOUR);
    assert_eq!(mount.open().await.unwrap().id, "t1");
    bench.clock.pass(2 * HOUR);
    bench.fake.set(TaskState::Expired);
    bench.options.recreate_expired = false;
    let error = bench.mount().open().await.unwrap_err();
    assert_eq!(error.errno(), libc::EACCES);
    assert!(error.to_string().contains("recreate_expired"), "{error}");
    assert_eq!(mount.open().await.unwrap().id, "t2");
    assert_eq!(bench.fake.bill(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_expires_or_vanishes_under_its_openers_ends_their_wait() {
    for vanish in [false, true] {
        let bench = Bench::new();
        bench.fake.world().course = [TaskState::Running; 3].into();
        let mount = bench.mount();
        let opener = mount.spawn();
        until(|| bench.fake.count("poll") == 1).await;
        if vanish {
            bench.fake.world().tasks.clear();
        } else {
            bench.fake.set(TaskState::Expired);
        }
        let error = opener.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.errno()), (Kind::Expired, libc::EIO));
        assert_eq!(bench.fake.bill(), 1, "not within this open");
        assert_eq!(mount.open().await.unwrap().id, "t2");
    }
}

#[tokio::test(start_paused = true)]
async fn an_artifact_found_gone_is_replaced_once_that_is_sure() {
    let bench = Bench::new();
    let mount = bench.mount();
    let key = shard("rs0").key();
    let ready = mount.open().await.unwrap();
    mount.engine.report_expired(&key, "another").await;
    assert_eq!(mount.view().state, "ready");
    mount.engine.report_expired(&key, &ready.id).await;
    assert_eq!(mount.view().state, "expired");
    // The provider insists; it is believed once.
    assert_eq!(mount.open().await.unwrap().id, "t1");
    mount.engine.report_expired(&key, &ready.id).await;
    assert_eq!(mount.open().await.unwrap().id, "t2");
    assert_eq!(bench.fake.bill(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_ready_task_without_an_expiry_is_verified_now_and_then() {
    let bench = Bench::new();
    let mount = bench.mount();
    mount.open().await.unwrap();
    bench.clock.pass(9 * MINUTE);
    mount.open().await.unwrap();
    assert_eq!(bench.fake.count("poll"), 1);
    bench.clock.pass(9 * MINUTE);
    mount.open().await.unwrap();
    mount.open().await.unwrap();
    assert_eq!(bench.fake.count("poll"), 2);
    // A provider that cannot be asked does not take it away.
    bench.clock.pass(HOUR);
    bench.fake.world().polls = [Kind::Unreachable].into();
    assert_eq!(mount.open().await.unwrap().id, "t1");
}

#[tokio::test(start_paused = true)]
async fn case_11_a_damaged_ledger_adopts_but_creates_nothing() {
    let bench = Bench::new();
    bench.mount().open().await.unwrap();
    let file = bench.dir.path().join("ledger.sqlite3");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let mount = bench.mount();
    assert_eq!(mount.open().await.unwrap().id, "t1");
    let error = mount
        .open_shard("rs1", "cp", Wait::UntilReady)
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.errno()), (Kind::Ledger, libc::EIO));
    let words = error.to_string();
    assert!(
        words.contains("ledger.sqlite3") && words.contains("adopted"),
        "{words}"
    );
    assert_eq!(bench.fake.bill(), 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_waits_but_not_a_request_that_was_sent() {
    let bench = Bench::new();
    bench.fake.gate(9, 0);
    let mount = bench.mount();
    let opener = mount.spawn();
    until(|| bench.fake.bill() == 1).await;
    mount.engine.stop();
    assert_eq!(kind(opener.await.unwrap()), Kind::Stopping);
    assert_eq!(kind(mount.open().await), Kind::Stopping);
    bench.fake.gate(9, 9);
    mount.engine.settled().await;
    assert_eq!(mount.engine.created_total(), 1, "its answer was recorded");
    drop(mount);
    assert_eq!(bench.mount().open().await.unwrap().id, "t1");
    assert_eq!(bench.fake.world().journal, ["find", "create", "poll"]);
}

#[tokio::test(start_paused = true)]
async fn no_link_is_kept_or_shown() {
    let bench = Bench::new();
    bench.fake.world().born = Some(TaskState::Failed);
    bench.fake.world().message =
        Some("see https://u:p@host/canary?sig=canary or\nx://canary for more".into());
    let mount = bench.mount();
    let error = mount.open().await.unwrap_err().to_string();
    assert!(
        error.contains("see https://host/… or … for more"),
        "{error}"
    );
    let view = format!("{:?}", mount.engine.views());
    let ledger = std::fs::read(bench.dir.path().join("ledger.sqlite3")).unwrap();
    let log = std::fs::read(bench.dir.path().join("ledger.sqlite3-wal")).unwrap();
    for text in [error.as_bytes(), view.as_bytes(), &ledger, &log] {
        assert!(!text.windows(6).any(|window| window == b"canary"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_an_estimate_from_progress_or_the_past() {
    let mut bench = Bench::new();
    bench.options.task_wait = MINUTE;
    bench.fake.world().course = vec![TaskState::Running; 1000].into();
    let mount = bench.mount();
    mount.open().await.unwrap_err();
    assert_eq!(mount.view().estimate, None, "nothing is known");
    let asked = mount.view().since.unwrap();
    bench.clock.pass(10 * MINUTE);
    bench.fake.world().tasks[0].1.percent = Some(50);
    let error = mount.open().await.unwrap_err();
    let ready = asked + jiff::SignedDuration::from_mins(20);
    assert_eq!(mount.view().estimate, Some(ready));
    assert!(error.to_string().contains("expected ready at"), "{error}");

    bench.clock.pass(2 * MINUTE);
    bench.fake.world().course.clear();
    mount.open().await.unwrap();
    assert_eq!(mount.view().estimate, None, "it is ready");
    // It took twelve minutes, and so may the next one of its instance.
    bench.fake.world().course = vec![TaskState::Running; 1000].into();
    mount
        .open_shard("rs1", "cp", Wait::UntilReady)
        .await
        .unwrap_err();
    let next = mount.engine.view(&shard("rs1").key());
    let takes = next.estimate.unwrap().duration_since(next.since.unwrap());
    assert_eq!(takes, jiff::SignedDuration::from_mins(12));
}

#[tokio::test(start_paused = true)]
async fn case_12_views_list_every_task_in_order() {
    let bench = Bench::new();
    let mount = bench.mount();
    for name in ["b", "a"] {
        mount
            .open_shard(name, "cp", Wait::UntilReady)
            .await
            .unwrap();
    }
    let denied = mount.open_shard("aa", "updatedb", Wait::UntilReady).await;
    assert_eq!(kind(denied), Kind::Denied);
    let views = mount.engine.views();
    let shown: Vec<_> = views
        .iter()
        .map(|v| (v.key.shard.as_str(), v.state))
        .collect();
    assert_eq!(shown, [("a", "ready"), ("aa", "denied"), ("b", "ready")]);
    assert_eq!(views[0].since, Some(bench.clock.now()));
}

/// Opens the shard `name` in a task of its own.
fn open_aside(mount: &Mount, name: &'static str) -> tokio::task::JoinHandle<Result<Task>> {
    let mount = mount.clone();
    tokio::spawn(async move { mount.open_shard(name, "cp", Wait::UntilReady).await })
}

#[tokio::test(start_paused = true)]
async fn tasks_of_one_lane_are_made_one_after_the_other() {
    let bench = Bench::new();
    bench.fake.world().lane = Some("db".into());
    bench.fake.world().course = vec![TaskState::Running; 5].into();
    let mount = bench.mount();
    let first = open_aside(&mount, "a");
    until(|| bench.fake.bill() == 1).await;
    let view = |name| mount.engine.view(&shard(name).key());
    let second = open_aside(&mount, "b");
    until(|| view("b").state == "queued").await;
    let others = [second, open_aside(&mount, "c")];
    until(|| view("c").state == "queued").await;
    let (b, c) = (view("b").error.unwrap(), view("c").error.unwrap());
    assert!(b.contains("1 before it"), "{b}");
    assert!(
        c.contains("2 before it") && c.contains("cloud/db/b1/a"),
        "{c}"
    );
    assert_eq!(mount.engine.views().len(), 3);
    assert_eq!(bench.fake.bill(), 1);
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    let world = bench.fake.world();
    let made: Vec<&str> = world.tasks.iter().map(|(key, _)| &*key.shard).collect();
    assert_eq!(made, ["a", "b", "c"], "first come, first served");
    let creates = world.journal.iter().enumerate();
    let creates: Vec<usize> = creates
        .filter(|(_, call)| **call == "create")
        .map(|(at, _)| at)
        .collect();
    // The first task was polled to its end before the second was asked for.
    let polls = world.journal[creates[0]..creates[1]].iter();
    assert_eq!(polls.filter(|call| **call == "poll").count(), 6);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_lane() {
    let bench = Bench::new();
    bench.fake.world().lane = Some("db".into());
    bench.fake.world().course = vec![TaskState::Running; 4].into();
    let mount = bench.mount();
    let first = open_aside(&mount, "a");
    until(|| bench.fake.bill() == 1).await;
    let second = open_aside(&mount, "b");
    let view = |name| mount.engine.view(&shard(name).key());
    until(|| view("b").state == "queued").await;
    let third = open_aside(&mount, "c");
    until(|| view("c").state == "queued").await;
    second.abort();
    first.await.unwrap().unwrap();
    third.await.unwrap().unwrap();
    let world = bench.fake.world();
    let made: Vec<&str> = world.tasks.iter().map(|(key, _)| &*key.shard).collect();
    assert_eq!(made, ["a", "c"], "nothing is made for who is gone");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_ends_its_artifact_is_remembered() {
    let bench = Bench::new();
    let mount = bench.mount();
    let task = mount.open().await.unwrap();
    let key = shard("rs0").key();
    let end = bench.clock.now() + HOUR;
    let link = Link {
        url: SafeUrl::parse("https://store.example/k?signature=s").unwrap(),
        headers: Vec::new(),
        expires: Some(end),
        mode: LinkMode::Ranged,
    };
    mount.engine.remember_link(&key, "another", &link).await;
    assert_eq!(mount.view().expires, None);
    mount.engine.remember_link(&key, &task.id, &link).await;
    drop(mount);
    let again = bench.mount();
    assert_eq!(again.view().expires, Some(end));
    let remembered = again.engine.remembered_link(&key, &task.id).await.unwrap();
    assert_eq!(remembered.url, link.url);
    assert_eq!(remembered.expires, link.expires);
    assert!(
        again
            .engine
            .remembered_link(&key, "another")
            .await
            .is_none()
    );
    let polls = bench.fake.count("poll");
    again.open().await.unwrap();
    assert_eq!(bench.fake.count("poll"), polls, "believed until then");
    bench.clock.pass(2 * HOUR);
    assert_eq!(again.view().state, "expired");
    assert!(again.engine.remembered_link(&key, &task.id).await.is_none());
}
