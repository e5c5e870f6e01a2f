use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::clock::Clock;
use crate::model::{Link, LinkMode, Validator};
use crate::secret::SafeUrl;
use crate::tasks::fake::{HandClock, shard, task};

fn key(name: &str) -> TaskKey {
    shard(name).key()
}

fn artifact(name: &str) -> (ArtifactKey, ArtifactRecord) {
    let key = ArtifactKey {
        task: key(name),
        file: format!("{name}.archive.gz"),
    };
    let record = ArtifactRecord {
        validator: Validator {
            etag: Some("\"abc\"".into()),
            last_modified: None,
            size: 1 << 40,
            download: None,
        },
        task_id: "t1".into(),
        source_name: Some("dump.gz".into()),
        digest: Some("crc64ecma:17".into()),
        verified: true,
    };
    (key, record)
}

fn now() -> Timestamp {
    HandClock::new().now()
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

fn open(dir: &Path) -> Ledger {
    let ledger = Ledger::open(dir).unwrap();
    assert_eq!(ledger.closed(), None);
    ledger
}

/// An intent as the first one for its key.
async fn intend(ledger: &Ledger, name: &str) -> Intention {
    let revision = revision_of(ledger.reload(&key(name)).await.as_ref());
    ledger.intend(&key(name), revision, 0, now()).await.unwrap()
}

/// A ledger with an open intent, a ready task and an artifact.
async fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    for name in ["open", "ready"] {
        assert!(matches!(intend(&ledger, name).await, Intention::Open(_)));
    }
    let mut ready = task("t1", TaskState::Ready);
    ready.expires = Some(now());
    ready.message = Some("all well".into());
    ledger.answer(&key("ready"), &ready, now()).await;
    let (artifact, record) = artifact("ready");
    ledger.remember_artifact(&artifact, record).await.unwrap();
    dir
}

/// What another start of the program would know.
fn contents(ledger: &Ledger) -> (Vec<(TaskKey, Record)>, Option<ArtifactRecord>, u64) {
    (
        ledger.tasks(),
        ledger.artifact(&artifact("ready").0),
        ledger.created_total(),
    )
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let dir = filled().await;
    let ledger = open(dir.path());
    let open = ledger.task(&key("open")).unwrap();
    assert_eq!((open.task, open.since), (None, now()));
    assert_eq!(open.intent.unwrap().at, now());
    let ready = ledger.task(&key("ready")).unwrap();
    let known = ready.task.unwrap();
    assert_eq!((known.id.as_str(), known.state), ("t1", TaskState::Ready));
    assert_eq!(
        (known.expires, known.message.as_deref()),
        (Some(now()), Some("all well"))
    );
    assert_eq!(ready.intent, None);
    let (artifact, record) = artifact("ready");
    assert_eq!(ledger.artifact(&artifact), Some(record));
    assert_eq!(ledger.created_total(), 1, "an intent is no create");
    ledger.forget_artifact(&artifact).await.unwrap();
    drop(ledger);
    assert_eq!(super::tests::open(dir.path()).artifact(&artifact), None);
}

#[tokio::test]
async fn the_main_file_alone_holds_every_commit() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    intend(&ledger, "a").await;
    let copy = tempfile::tempdir().unwrap();
    fs::copy(
        dir.path().join("ledger.sqlite3"),
        copy.path().join("ledger.sqlite3"),
    )
    .unwrap();
    assert!(open(copy.path()).task(&key("a")).unwrap().intent.is_some());
}

#[tokio::test]
async fn an_intent_is_held_while_its_process_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (open(dir.path()), open(dir.path()));
    let Intention::Open(row) = intend(&first, "a").await else {
        panic!("nobody was there before")
    };
    let intent = row.intent.unwrap();
    assert!(
        !first.is_held(&intent),
        "our own intent is not in other hands"
    );
    assert!(second.is_held(&intent));
    assert_eq!(intend(&second, "a").await, Intention::Changed);
    assert_eq!(
        first.intend(&key("a"), 0, 0, now()).await.unwrap(),
        Intention::Changed,
        "the row is not what was seen"
    );
    drop(first);
    assert!(!second.is_held(&intent));
    assert!(matches!(intend(&second, "a").await, Intention::Open(_)));
}

#[tokio::test]
async fn a_writer_learns_that_the_row_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (open(dir.path()), open(dir.path()));
    let (old, new) = (task("t1", TaskState::Expired), task("t2", TaskState::Ready));
    let Write::Done(seen) = first.keep(&key("a"), 0, &old, now()).await else {
        panic!("nobody was there before")
    };
    second.reload(&key("a")).await;
    second.keep(&key("a"), seen.revision, &new, now()).await;
    let mut late = old.clone();
    late.message = Some("late".into());
    assert_eq!(
        first.keep(&key("a"), seen.revision, &late, now()).await,
        Write::Changed
    );
    assert_eq!(first.reload(&key("a")).await.unwrap().task, Some(new));
}

#[tokio::test]
async fn only_what_must_survive_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let mut running = task("t1", TaskState::Running);
    ledger.keep(&key("a"), 0, &running, now()).await;
    running.percent = Some(42);
    let Write::Done(row) = ledger.keep(&key("a"), 1, &running, now() + hours(1)).await else {
        panic!("the row is ours")
    };
    assert_eq!((row.revision, row.changed), (1, now()));
    assert_eq!(row.checked, now() + hours(1));
    assert_eq!(ledger.reload(&key("a")).await.unwrap().task, Some(running));
}

#[tokio::test]
async fn the_daily_limit_counts_what_may_have_been_created() {
    let dir = tempfile::tempdir().unwrap();
    let limited = async |ledger: &Ledger, name: &str, at: Timestamp| {
        let revision = revision_of(ledger.reload(&key(name)).await.as_ref());
        let intention = ledger.intend(&key(name), revision, 2, at).await.unwrap();
        matches!(intention, Intention::Open(_))
    };
    let ledger = open(dir.path());
    assert!(limited(&ledger, "refused", now()).await);
    ledger.withdraw(&key("refused")).await;
    assert!(ledger.task(&key("refused")).unwrap().intent.is_none());
    assert!(limited(&ledger, "lost", now()).await);
    assert!(limited(&ledger, "made", now() + hours(1)).await);
    ledger
        .answer(&key("made"), &task("t", TaskState::Ready), now())
        .await;
    assert!(!limited(&ledger, "third", now() + hours(2)).await);
    drop(ledger);
    let ledger = open(dir.path());
    assert_eq!(ledger.created_in_day(now() + hours(23)).await, 2);
    assert!(!limited(&ledger, "third", now() + hours(23)).await);
    // Asking again for the lost one replaces it, and after a day the made one is forgotten.
    assert!(limited(&ledger, "lost", now() + hours(23)).await);
    assert!(limited(&ledger, "third", now() + hours(25)).await);
    assert_eq!(ledger.created_total(), 1);
}

#[tokio::test]
async fn a_found_task_answers_the_open_intent() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    intend(&ledger, "a").await;
    ledger
        .keep(&key("a"), 1, &task("t1", TaskState::Ready), now())
        .await;
    assert_eq!(ledger.task(&key("a")).unwrap().intent, None);
    assert_eq!(ledger.created_total(), 1);
    ledger
        .keep(&key("b"), 0, &task("t2", TaskState::Ready), now())
        .await;
    assert_eq!(
        ledger.created_total(),
        1,
        "an adopted one was made by somebody else"
    );
}

#[tokio::test]
async fn readers_reports_are_counted_per_task() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let ready = |id| task(id, TaskState::Ready);
    let state = || {
        let row = ledger.task(&key("a")).unwrap();
        (row.task.unwrap().state, row.reports)
    };
    ledger.keep(&key("a"), 0, &ready("t1"), now()).await;
    ledger.report_gone(&key("a"), "t0", now()).await;
    assert_eq!(state(), (TaskState::Ready, 0), "another task's");
    ledger.report_gone(&key("a"), "t1", now()).await;
    ledger.report_gone(&key("a"), "t1", now()).await;
    assert_eq!(state(), (TaskState::Expired, 1), "said twice of one expiry");
    ledger.keep(&key("a"), 2, &ready("t1"), now()).await;
    ledger.report_gone(&key("a"), "t1", now()).await;
    assert_eq!(state(), (TaskState::Expired, 2));
    ledger.keep(&key("a"), 4, &ready("t2"), now()).await;
    assert_eq!(state(), (TaskState::Ready, 0));
}

#[tokio::test]
async fn case_11_a_disk_that_takes_no_writes_stops_creates_only() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger
        .keep(&key("a"), 0, &task("t1", TaskState::Running), now())
        .await;
    lock(&ledger.shared.db)
        .db
        .as_ref()
        .unwrap()
        .pragma_update(None, "query_only", true)
        .unwrap();
    let refused = ledger.intend(&key("b"), 0, 0, now()).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Ledger);
    let ready = task("t1", TaskState::Ready);
    for _ in 0..2 {
        let kept = ledger.keep(&key("a"), 1, &ready, now()).await;
        assert!(matches!(kept, Write::Done(_)));
    }
    assert_eq!(ledger.reload(&key("a")).await.unwrap().task, Some(ready));
    ledger.report_gone(&key("a"), "t1", now()).await;
    let gone = ledger.task(&key("a")).unwrap().task.unwrap();
    assert_eq!(gone.state, TaskState::Expired);
    let (artifact, record) = artifact("a");
    let remembered = ledger.remember_artifact(&artifact, record.clone()).await;
    assert_eq!(remembered.unwrap_err().kind(), Kind::Ledger);
    assert_eq!(ledger.artifact(&artifact), Some(record));
}

/// The ledger is closed, says how to repair it, and still works as a memory.
async fn assert_closed(dir: &Path, what: &str) {
    let ledger = Ledger::open(dir).unwrap();
    let Some(why) = ledger.closed() else {
        panic!("{what}: taken for whole")
    };
    let file = dir.join("ledger.sqlite3");
    assert!(why.contains(file.to_str().unwrap()), "{what}: {why}");
    let refused = ledger.intend(&key("new"), 0, 0, now()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Ledger, "{what}");
    let found = task("t9", TaskState::Ready);
    ledger.keep(&key("new"), 0, &found, now()).await;
    assert_eq!(
        ledger.task(&key("new")).unwrap().task,
        Some(found),
        "{what}"
    );
}

#[tokio::test]
async fn case_11_a_cut_file_is_never_taken_for_an_empty_ledger() {
    let dir = filled().await;
    let file = dir.path().join("ledger.sqlite3");
    let whole = fs::read(&file).unwrap();
    for length in (0..whole.len())
        .step_by(512)
        .chain([1, 15, 99, 100, whole.len() - 1])
    {
        fs::write(&file, &whole[..length]).unwrap();
        assert_closed(dir.path(), &format!("cut to {length} of {}", whole.len())).await;
        assert_eq!(
            fs::read(&file).unwrap(),
            whole[..length],
            "evidence is not touched"
        );
    }
    fs::write(&file, &whole).unwrap();
    open(dir.path());
}

#[tokio::test]
async fn a_spoilt_file_is_noticed_or_harmless() {
    let dir = filled().await;
    let before = contents(&open(dir.path()));
    let file = dir.path().join("ledger.sqlite3");
    let whole = fs::read(&file).unwrap();
    let mut noticed = 0;
    for page in (0..whole.len()).step_by(512) {
        for filling in [0x00, 0xff, 0x5a] {
            let mut spoilt = whole.clone();
            spoilt[page..page + 512].fill(filling);
            if spoilt == whole {
                continue;
            }
            fs::write(&file, &spoilt).unwrap();
            let ledger = Ledger::open(dir.path()).unwrap();
            match ledger.closed() {
                Some(_) => noticed += 1,
                None => assert_eq!(contents(&ledger), before, "{filling:#x} at {page}"),
            }
            drop(ledger);
            let _ = fs::remove_file(dir.path().join("ledger.sqlite3-wal"));
            let _ = fs::remove_file(dir.path().join("ledger.sqlite3-shm"));
        }
    }
    assert!(noticed > 20, "{noticed} of {}", whole.len() / 512 * 3);
}

#[tokio::test]
async fn a_flipped_bit_in_a_row_is_noticed() {
    let dir = filled().await;
    let file = dir.path().join("ledger.sqlite3");
    let whole = fs::read(&file).unwrap();
    let find = |text: &[u8]| whole.windows(text.len()).position(|window| window == text);
    for text in ["all well", "dump.gz", "\"abc\""] {
        let at = find(text.as_bytes()).unwrap();
        let mut spoilt = whole.clone();
        spoilt[at + 1] ^= 1;
        fs::write(&file, &spoilt).unwrap();
        assert_closed(dir.path(), &format!("a bit of {text}")).await;
    }
}

#[tokio::test]
async fn what_a_damaged_file_still_tells_is_used() {
    let dir = filled().await;
    let db = Connection::open(dir.path().join("ledger.sqlite3")).unwrap();
    // A row of the later table that does not fit its checksum.
    db.execute("UPDATE artifacts SET size = 7", []).unwrap();
    drop(db);
    assert_closed(dir.path(), "artifacts").await;
    let ledger = Ledger::open(dir.path()).unwrap();
    let ready = ledger.task(&key("ready")).unwrap();
    assert_eq!(ready.task.unwrap().id, "t1");
    assert_eq!(ledger.artifact(&artifact("ready").0), None);
}

#[tokio::test]
async fn case_11_a_damaged_file_is_made_anew_from_what_it_tells() {
    let dir = filled().await;
    assert_eq!(Ledger::examine(dir.path()).unwrap(), Some(2));
    assert_eq!(Ledger::repair(dir.path()).unwrap(), None, "it is whole");
    let (tasks, _, created) = contents(&open(dir.path()));
    let file = dir.path().join("ledger.sqlite3");
    let held = open(dir.path());
    let db = Connection::open(&file).unwrap();
    db.execute("UPDATE artifacts SET size = 7", []).unwrap();
    drop(db);

    let error = Ledger::examine(dir.path()).unwrap_err();
    assert!(
        error.to_string().contains("doctor --repair-ledger"),
        "{error}"
    );
    let error = Ledger::repair(dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Environment, "{error}");
    drop(held);
    let damaged = fs::read(&file).unwrap();
    let repaired = Ledger::repair(dir.path()).unwrap().unwrap();
    assert_eq!((repaired.tasks, repaired.artifacts), (2, 0));
    assert_eq!(fs::read(&repaired.moved_to).unwrap(), damaged);
    let ledger = open(dir.path());
    assert_eq!(
        contents(&ledger),
        (tasks, None, created),
        "an open intent is not forgotten"
    );
    assert_eq!(ledger.created_in_day(now() + hours(1)).await, 2);
}

#[tokio::test]
async fn case_11_whatever_is_cut_off_a_file_it_can_be_made_anew() {
    let dir = filled().await;
    let file = dir.path().join("ledger.sqlite3");
    let whole = fs::read(&file).unwrap();
    for (number, length) in (1..).zip([0, 100, 4096, 9000, whole.len() - 1]) {
        fs::write(&file, &whole[..length]).unwrap();
        let repaired = Ledger::repair(dir.path()).unwrap().unwrap();
        assert!(repaired.tasks <= 2, "cut to {length}");
        assert!(
            repaired
                .moved_to
                .ends_with(format!("ledger.sqlite3.damaged-{number}"))
        );
        open(dir.path());
    }
}

#[tokio::test]
async fn other_files_are_not_taken_for_a_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ledger.sqlite3");
    for text in ["", "hello\n", "SQLite format 3\0"] {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        assert_closed(dir.path(), text).await;
    }
    fs::remove_file(&file).unwrap();
    Connection::open(&file)
        .and_then(|db| db.execute_batch("CREATE TABLE foreign_one (x)"))
        .unwrap();
    assert_closed(dir.path(), "a foreign database").await;
    fs::remove_file(&file).unwrap();
    fs::write(dir.path().join("ledger.sqlite3-wal"), "left behind").unwrap();
    assert_closed(dir.path(), "a log alone").await;
    assert!(!file.exists());
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let dir = filled().await;
    let db = Connection::open(dir.path().join("ledger.sqlite3")).unwrap();
    db.pragma_update(None, "user_version", schema::VERSION + 1)
        .unwrap();
    drop(db);
    assert_closed(dir.path(), "newer").await;
    let ledger = Ledger::open(dir.path()).unwrap();
    let why = ledger.closed().unwrap();
    assert!(
        why.contains("newer version") && !why.contains("move"),
        "{why}"
    );
}

#[tokio::test]
async fn reading_only_makes_nothing_and_writes_nothing() {
    let empty = tempfile::tempdir().unwrap();
    let none = Ledger::open_read_only(&empty.path().join("sub")).unwrap();
    assert!(none.is_none());
    assert!(Ledger::open_read_only(empty.path()).unwrap().is_none());
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);

    let dir = filled().await;
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = names(dir.path());
    let ledger = Ledger::open_read_only(dir.path()).unwrap().unwrap();
    assert_eq!(ledger.tasks().len(), 2);
    assert!(ledger.closed().unwrap().contains("reading only"));
    let refused = ledger.intend(&key("new"), 0, 0, now()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Ledger);
    assert_eq!(names(dir.path()), before);
    // Beside a running mount it sees what that wrote last.
    let mount = open(dir.path());
    intend(&mount, "new").await;
    let ledger = Ledger::open_read_only(dir.path()).unwrap().unwrap();
    assert!(ledger.task(&key("new")).is_some());
}

#[test]
fn the_place_is_private() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("made/deep");
    let file = dir.join("ledger.sqlite3");
    drop(open(&dir));
    assert_eq!(
        (mode(&dir), mode(&file), mode(&dir.join("owners"))),
        (0o700, 0o600, 0o700)
    );
    set(&dir, 0o755);
    set(&file, 0o644);
    drop(open(&dir));
    assert_eq!(
        (mode(&dir), mode(&file)),
        (0o700, 0o600),
        "closed to readers"
    );

    let refusal = |dir: &Path, why: &str| {
        let error = Ledger::open(dir).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains(why), "{error}");
    };
    set(&file, 0o660);
    refusal(&dir, "can be written by other users");
    set(&file, 0o600);
    let link = root.path().join("link");
    symlink(&dir, &link).unwrap();
    refusal(&link, "symbolic links are not followed");
    fs::rename(&file, dir.join("moved")).unwrap();
    symlink(dir.join("moved"), &file).unwrap();
    refusal(&dir, "symbolic links are not followed");

    // A directory that others use is not taken over.
    let shared = root.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("theirs"), "").unwrap();
    set(&shared, 0o777);
    refusal(&shared, "can be written by other users");
    assert_eq!(mode(&shared), 0o777);
    set(&shared, 0o755);
    drop(open(&shared));
    assert_eq!(mode(&shared), 0o755);
}

#[test]
fn two_processes_may_make_the_file_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| drop(open(dir.path())));
        }
    });
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("ledger.new"))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn a_link_stays_until_it_ends() {
    let dir = filled().await;
    let ledger = open(dir.path());
    let link = |name: &str, end| Link {
        url: SafeUrl::parse(&format!("https://store.example/{name}?signature=s")).unwrap(),
        headers: Vec::new(),
        expires: Some(end),
        mode: LinkMode::Ranged,
    };
    let (first, second) = (now() + hours(1), now() + hours(2));
    ledger
        .remember_link(&key("ready"), "t1", &link("first", first), now())
        .await;
    ledger
        .remember_link(&key("other"), "t2", &link("second", second), now())
        .await;
    drop(ledger);
    let ledger = open(dir.path());
    let url = |link: Option<Link>| link.map(|link| link.url.expose().to_owned());
    let of = key("ready");
    let ready = |now| ledger.link(&of, "t1", now);
    let expected = Some("https://store.example/first?signature=s".to_owned());
    assert_eq!(url(ready(now()).await), expected);
    assert!(ledger.link(&key("ready"), "t2", now()).await.is_none());
    assert!(ready(first).await.is_none(), "over");
    // The next one that is kept clears away what has ended.
    let third = link("third", now() + hours(3));
    ledger
        .remember_link(&key("third"), "t3", &third, first)
        .await;
    assert!(ready(now()).await.is_none());
    assert!(ledger.link(&key("other"), "t2", first).await.is_some());
}
