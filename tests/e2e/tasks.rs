//! At most one task per backup, through races, crashes and lost answers; nobody waits in vain.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use crate::world::{World, eventually, kill, sha256_of, wait};

const SIZE: u64 = 1 << 20;
/// Longer than any test: such a task is not ready.
const NEVER: SignedDuration = SignedDuration::from_hours(1);

fn slow_task(time: SignedDuration) -> World {
    let world = World::with_content([Content::noise(3, SIZE)]);
    world.sim.adjust(|knobs| knobs.task_time = time);
    world
}

fn cat(file: &Path) -> Child {
    let mut command = Command::new("cat");
    command
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // A shell's background job hands down an ignored SIGINT, which would rightly not interrupt.
    // SAFETY: signal(2) is async-signal-safe and touches nothing but the child's own disposition.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        })
    };
    command.spawn().unwrap()
}

fn xattr(file: &Path, name: &str) -> String {
    let output = Command::new("getfattr")
        .args(["--only-values", "-n", &format!("user.backupfs.{name}")])
        .arg(file)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_hundred_processes_open_one_file_and_create_one_task() {
    let mut world = slow_task(SignedDuration::from_secs(1));
    world.mount();
    let file = world.latest_file();
    let readers: Vec<Child> = (0..100).map(|_| cat(&file)).collect();
    for mut reader in readers {
        assert!(wait(&mut reader).expect("the reader ends").success());
    }
    assert_eq!(world.sim.bill().tasks_created, 1);
    assert_eq!(sha256_of(&file), world.latest_sha256());
    world.unmount();
}

#[test]
fn case_12_killed_between_create_and_answer_the_task_is_adopted() {
    let mut world = slow_task(SignedDuration::ZERO);
    world.sim.faults().add(
        Rule::new(Fault::HoldAnswer)
            .on(Side::Api)
            .method("POST")
            .path("backup/tenant/download"),
    );
    world.mount();
    let file = world.latest_file();
    let mut reader = cat(&file);
    eventually("the task exists", || world.sim.bill().tasks_created == 1);
    world.kill9();
    wait(&mut reader);
    world.sim.faults().clear();
    world.mount();
    assert_eq!(sha256_of(&world.latest_file()), world.latest_sha256());
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn lost_answers_of_a_create_are_looked_up_not_repeated() {
    for fault in [Fault::LoseAnswer { code: 504 }, Fault::SeverAnswer] {
        let mut world = slow_task(SignedDuration::ZERO);
        world.sim.faults().add(
            Rule::new(fault.clone())
                .on(Side::Api)
                .method("POST")
                .path("backup/tenant/download")
                .times(1),
        );
        world.mount();
        assert_eq!(
            sha256_of(&world.latest_file()),
            world.latest_sha256(),
            "{fault:?}"
        );
        assert_eq!(world.sim.bill().tasks_created, 1, "{fault:?}");
        assert_eq!(world.sim.bill().faults, 1, "{fault:?}");
    }
}

#[test]
fn signals_end_a_waiting_reader_within_a_second_and_the_mount_lives_on() {
    let mut world = slow_task(NEVER);
    world.mount();
    let file = world.latest_file();
    let mut took = Vec::new();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let mut reader = cat(&file);
        eventually("the task waits", || xattr(&file, "state") != "none");
        // Time for the reader to be inside open(2); were it not, the signal would end it anyway.
        eventually("the reader is blocked", || {
            std::fs::read_to_string(format!("/proc/{}/stat", reader.id()))
                .is_ok_and(|stat| stat.contains(") D ") || stat.contains(") S "))
        });
        let sent = Instant::now();
        kill(reader.id(), signal);
        wait(&mut reader).expect("the reader ends");
        took.push(sent.elapsed());
    }
    // One may meet a moment in which the machine stands still.
    took.sort();
    assert!(took[1] < Duration::from_secs(1), "{took:?}");
    assert_eq!(world.sim.bill().tasks_created, 1);
    world
        .sim
        .adjust(|knobs| knobs.task_time = SignedDuration::ZERO);
    world.sim.advance(NEVER + SignedDuration::from_secs(1));
    assert_eq!(sha256_of(&file), world.latest_sha256());
    assert_eq!(world.sim.bill().tasks_created, 1);
    world.unmount();
}

#[test]
fn a_nonblocking_open_starts_the_task_and_answers_eagain() {
    let mut world = slow_task(SignedDuration::from_millis(300));
    world.mount();
    let file = world.latest_file();
    let open = || {
        File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&file)
    };
    assert_eq!(open().unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    eventually("a later open succeeds", || open().is_ok());
    let mut bytes = Vec::new();
    open().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, SIZE);
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn a_task_not_ready_in_time_is_etimedout_and_goes_on() {
    let mut world = slow_task(NEVER).key("task_wait = \"300ms\"");
    world.mount();
    let file = world.latest_file();
    for _ in 0..2 {
        let error = File::open(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    }
    assert!(["queued", "running"].contains(&xattr(&file, "state").as_str()));
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn who_may_not_spend_gets_eacces_and_creates_nothing() {
    let mut world = slow_task(SignedDuration::ZERO).key("on_open = \"never\"");
    world.mount();
    let error = File::open(world.latest_file()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    world.unmount();

    world.mount_keys = vec!["deny_processes = [\"head\"]".to_owned()];
    world.mount();
    let file = world.latest_file();
    let denied = Command::new("head")
        .args(["-c1"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(!denied.status.success());
    assert!(String::from_utf8_lossy(&denied.stderr).contains("Permission denied"));
    assert_eq!(world.sim.bill().tasks_created, 0);
    assert!(
        xattr(&file, "error").contains("head"),
        "{}",
        xattr(&file, "error")
    );
}

#[test]
fn case_09_the_daily_limit_survives_a_remount() {
    let mut world = World::with_content((0..3).map(|day| Content::noise(day, 1000)))
        .key("max_tasks_per_day = 1");
    world.mount();
    let files = world.files();
    assert!(File::open(&files[0]).is_ok());
    let refused = |file: &Path| File::open(file).unwrap_err().raw_os_error();
    assert_eq!(refused(&files[1]), Some(libc::EACCES));
    world.unmount();
    world.mount();
    assert_eq!(refused(&files[2]), Some(libc::EACCES));
    assert!(File::open(&files[0]).is_ok());
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn one_event_line_and_the_reason_in_an_xattr_tell_of_a_failed_task() {
    let mut world = slow_task(SignedDuration::ZERO);
    world.sim.adjust(|knobs| knobs.may_download = false);
    world.mount();
    let file = world.latest_file();
    let error = File::open(&file).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    let reason = xattr(&file, "error");
    assert!(reason.contains("Project Owner"), "{reason}");
    let events = std::fs::read_to_string(world.mountpoint.join(".backupfs/events.log")).unwrap();
    assert!(events.contains("open"), "{events}");
    assert_eq!(world.sim.bill().tasks_created, 0);
}
