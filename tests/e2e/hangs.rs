//! A network that hangs holds up those who need it and nobody else, and those not for longer than a
//! signal takes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use crate::paid::clouds::Cloud;
use crate::world::{eventually, kill, wait};

const TTL: Duration = Duration::from_millis(100);

/// Reads a file in a thread that is not the first of its process.
const THREAD: &str = "import sys, threading
reader = threading.Thread(target=lambda: open(sys.argv[1], \"rb\").read())
reader.start()
reader.join()";

fn hang(side: Side) -> Rule {
    Rule::new(Fault::Hang).on(side)
}

/// Runs `script` until it hangs, then ends it with SIGTERM; how long that took.
fn ended(what: &str, script: &str) -> Duration {
    let mut child: Child = Command::new("bash")
        .args(["-c", &format!("exec {script}")])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Blocked in one system call: a process that computes is on a processor now and then.
    let calls = format!("/proc/{}/syscall", child.id());
    let call = || fs::read_to_string(&calls).unwrap_or_default();
    eventually(what, || {
        let before = call();
        thread::sleep(Duration::from_millis(150));
        !before.is_empty() && before != "running\n" && before == call()
    });
    let sent = Instant::now();
    kill(child.id(), libc::SIGTERM);
    let status = wait(&mut child).unwrap_or_else(|| panic!("{what}: it ends"));
    assert!(!status.success(), "{what}: it was to hang");
    sent.elapsed()
}

/// `look` takes less than a tenth of a second; a few times it may take a second, as the machine has
/// other things to do.
fn is_told_at_once(what: &str, look: impl Fn()) {
    let mut times = Vec::new();
    while times.len() < 10 {
        // Each time what is known is too old to be told without asking.
        thread::sleep(2 * TTL);
        let begun = Instant::now();
        look();
        let took = begun.elapsed();
        times.push(took);
        assert!(took < Duration::from_secs(2), "{what}: {times:?}");
        if took < Duration::from_millis(100) {
            return;
        }
    }
    panic!("{what}: {times:?}");
}

fn is_seen(path: &Path) {
    assert!(fs::metadata(path).is_ok(), "{}", path.display());
}

#[test]
fn whoever_waits_for_the_network_ends_with_a_signal_and_the_others_do_not_wait() {
    for cloud in Cloud::ALL {
        let contents = [Content::noise(1, 3 << 20), Content::noise(2, 3 << 20)];
        let ttl = format!("list_ttl = \"{}ms\"", TTL.as_millis());
        let mut world = cloud.world(&contents).key(&ttl);
        world.mount();
        let files = cloud.files(&world);
        // One is open already; of its bytes most are still missing.
        fs::File::open(&files[0]).unwrap();

        for side in [Side::Api, Side::Data] {
            world.sim.faults().add(hang(side));
        }
        let account = files[0].ancestors().nth(4).unwrap();
        let mut took = Vec::new();
        for (what, script) in [
            ("a read", format!("tail -c 100000 '{}'", files[0].display())),
            ("an open", format!("head -c 1 '{}'", files[1].display())),
            ("a name", format!("stat '{}/unknown'", account.display())),
            (
                "a thread",
                format!("python3 -c '{THREAD}' '{}'", files[1].display()),
            ),
        ] {
            took.push((ended(what, &script), what));
        }
        // All but the worst: one may meet a moment in which the machine stands still.
        took.sort();
        assert!(took[2].0 < Duration::from_secs(1), "{cloud:?}: {took:?}");

        let root = &world.mountpoint;
        is_told_at_once("ls", || assert_eq!(fs::read_dir(root).unwrap().count(), 1));
        is_told_at_once("df", || assert!(rustix::fs::statvfs(root).is_ok()));
        for (what, path) in [
            ("file", &*files[1]),
            ("open file", &files[0]),
            ("account", account),
        ] {
            is_told_at_once(what, || is_seen(path));
        }
        world.sim.faults().clear();
        world.unmount();
    }
}

#[test]
fn a_reader_in_another_pid_namespace_ends_with_a_signal() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root makes such a namespace.
    }
    let contents = [Content::noise(1, 1000)];
    let mut world = Cloud::Atlas.world(&contents);
    world.mount();
    let file = Cloud::Atlas.files(&world).remove(0);
    world.sim.faults().add(hang(Side::Api));
    let mut parent = Command::new("unshare")
        .args(["--pid", "--fork", "--", "cat"])
        .arg(&file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let children = format!("/proc/{0}/task/{0}/children", parent.id());
    let reader = || -> Option<u32> {
        let children = fs::read_to_string(&children).ok()?;
        let reader: u32 = children.trim().parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{reader}/comm")).ok()?;
        (name == "cat\n").then_some(reader)
    };
    eventually("it waits", || {
        let status =
            reader().and_then(|reader| fs::read_to_string(format!("/proc/{reader}/stat")).ok());
        status.is_some_and(|stat| stat.contains(") D ") || stat.contains(") S "))
    });
    // The first process of a namespace heeds no other signal.
    let sent = Instant::now();
    kill(reader().unwrap(), libc::SIGKILL);
    wait(&mut parent).expect("it ends");
    assert!(
        sent.elapsed() < Duration::from_secs(5),
        "{:?}",
        sent.elapsed()
    );
    world.sim.faults().clear();
    world.unmount();
}

#[test]
fn a_first_listing_that_hangs_ends_with_a_signal() {
    for cloud in Cloud::ALL {
        let mut world = cloud.world(&[Content::noise(1, 1000)]);
        world.sim.faults().add(hang(Side::Api));
        world.mount();
        let account = fs::read_dir(&world.mountpoint).unwrap().next().unwrap();
        let account = account.unwrap().path();
        let list = format!("ls '{}'", account.display());
        let mut took: Vec<_> = (0..3).map(|_| ended("a listing", &list)).collect();
        took.sort();
        assert!(took[1] < Duration::from_secs(1), "{cloud:?}: {took:?}");
        world.sim.faults().clear();
        world.unmount();
    }
}
