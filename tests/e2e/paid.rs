//! Paid once, whatever happens, at every cloud that is paid: through races, kills at any moment and
//! lost answers, and never by a process that only looks around.

pub mod clouds;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use jiff::SignedDuration;
use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use self::clouds::Cloud;
use crate::world::{Host, World, attribute, eventually, sh, sha256_of, wait};

fn contents(count: u64) -> Vec<Content> {
    (0..count).map(|n| Content::noise(n, 200_000 + n)).collect()
}

fn reader(file: &Path) -> Child {
    Command::new("cat")
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// `file` reads as `content`.
fn is_whole(file: &Path, content: &Content, what: &str) {
    assert_eq!(sha256_of(file), content.sha256().unwrap(), "{what}");
}

#[test]
fn case_01_five_hundred_racing_opens_of_fifty_processes_are_one_task() {
    // Ten threads each open the file and read at an offset of their own.
    const RACER: &str = r#"
import os, sys, threading
results = []
def race(number):
    fd = os.open(sys.argv[1], os.O_RDONLY)
    results.append(len(os.pread(fd, 1000, number * 19000)))
    os.close(fd)
threads = [threading.Thread(target=race, args=(n,)) for n in range(10)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert results == [1000] * 10, results
"#;
    for cloud in Cloud::ALL {
        let contents = contents(1);
        let mut world = cloud.world(&contents);
        cloud.task_time(&world, SignedDuration::from_secs(2));
        world.mount();
        let file = cloud.files(&world).remove(0);
        let racers: Vec<Child> = (0..50)
            .map(|_| {
                let mut racer = Command::new("python3");
                racer.args(["-S", "-E", "-c", RACER]).arg(&file);
                racer.spawn().unwrap()
            })
            .collect();
        for mut racer in racers {
            assert!(wait(&mut racer).expect("it ends").success(), "{cloud:?}");
        }
        assert_eq!(world.sim.bill().tasks_created, 1, "{cloud:?}");
        is_whole(&file, &contents[0], &format!("{cloud:?}"));
        world.unmount();
    }
}

/// Kills for each cloud; `KILL_POINTS` in the environment asks for more.
const KILL_POINTS: u64 = 8;

#[test]
fn case_02_killed_at_any_moment_of_a_task_it_is_paid_once() {
    let points = std::env::var("KILL_POINTS").map_or(KILL_POINTS, |text| text.parse().unwrap());
    for cloud in Cloud::ALL {
        let contents = contents(points + 1);
        let mut world = cloud.world(&contents);
        cloud.task_time(&world, SignedDuration::from_millis(200));
        // No answer comes at once: moments in the middle of every call are met too.
        let slow = Rule::new(Fault::Latency { ms: 20 }).on(Side::Api);
        world.sim.faults().add(slow);
        world.mount();
        let files = cloud.files(&world);
        let started = Instant::now();
        is_whole(&files[0], &contents[0], "the first");
        let whole = started.elapsed();
        for point in 1..=points {
            let number = usize::try_from(point).unwrap();
            let what = format!("{cloud:?}, killed at {point}/{points} of {whole:?}");
            let mut opener = reader(&files[number]);
            thread::sleep(whole.mul_f64(point as f64 / points as f64));
            world.kill9();
            wait(&mut opener);
            world.mount();
            is_whole(&files[number], &contents[number], &what);
            assert_eq!(world.sim.bill().tasks_created, point + 1, "{what}");
        }
        world.unmount();
    }
}

#[test]
fn case_03_lost_answers_to_a_create_are_looked_up_and_not_repeated() {
    for cloud in Cloud::ALL {
        let faults = [
            Fault::LoseAnswer { code: 504 },
            Fault::LoseAnswer { code: 500 },
            Fault::SeverAnswer,
        ];
        let contents = contents(faults.len() as u64);
        let mut world = cloud.world(&contents);
        world.mount();
        let files = cloud.files(&world);
        for (number, fault) in faults.into_iter().enumerate() {
            let what = format!("{cloud:?}, {fault:?}");
            world.sim.faults().add(cloud.on_create(fault).times(1));
            is_whole(&files[number], &contents[number], &what);
            let bill = world.sim.bill();
            let expected = number as u64 + 1;
            assert_eq!(
                (bill.tasks_created, bill.faults),
                (expected, expected),
                "{what}"
            );
            world.sim.faults().clear();
        }
    }
}

#[test]
fn case_04_two_mounts_and_two_hosts_adopt_each_others_tasks() {
    let seconds: [fn(&World) -> Host; 2] = [World::another_mount, World::another_host];
    for (cloud, another) in Cloud::ALL
        .into_iter()
        .flat_map(|cloud| seconds.map(|way| (cloud, way)))
    {
        let contents = contents(1);
        let mut world = cloud.world(&contents);
        let hour = SignedDuration::from_hours(1);
        cloud.task_time(&world, hour);
        world.mount();
        let file = cloud.files(&world).remove(0);
        let mut first = reader(&file);
        eventually("the first task exists", || {
            world.sim.bill().tasks_created == 1
        });
        let other = another(&world);
        let there = other
            .mountpoint
            .join(file.strip_prefix(&world.mountpoint).unwrap());
        let mut second = reader(&there);
        eventually("it waits for that task", || {
            ["queued", "running"].contains(&attribute(&there, "state").as_str())
        });
        world.sim.advance(hour);
        for reader in [&mut first, &mut second] {
            assert!(wait(reader).expect("it ends").success(), "{cloud:?}");
        }
        is_whole(&there, &contents[0], "the other host's");
        assert_eq!(world.sim.bill().tasks_created, 1, "{cloud:?}");
    }
}

/// A copy of head(1) that goes by another name.
fn disguised(world: &World, name: &str) -> PathBuf {
    let place = world.dir.path().join(name);
    let head = sh("readlink -f \"$(command -v head)\"");
    fs::copy(head.trim(), &place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    place
}

#[test]
fn case_08_who_only_looks_around_spends_nothing_and_is_told_once() {
    let names = [
        "updatedb",
        "plocate-build",
        "tracker-miner-f",
        "baloo_file",
        "tumblerd",
    ];
    for cloud in Cloud::ALL {
        let contents = contents(3);
        let mut world = cloud.world(&contents);
        world.mount();
        for name in names {
            let program = disguised(&world, name);
            let looked = Command::new("find")
                .arg(&world.mountpoint)
                .args(["-type", "f", "-exec"])
                .arg(&program)
                .args(["-c1", "{}", ";"])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&looked.stderr);
            assert_eq!(
                said.matches("Permission denied").count(),
                3,
                "{cloud:?}: {said}"
            );
            assert!(looked.stdout.is_empty());
            let file = cloud.files(&world).remove(0);
            assert!(attribute(&file, "error").contains(name));
            assert_eq!(attribute(&file, "state"), "denied");
        }
        let bill = world.sim.bill();
        assert_eq!(
            (bill.tasks_created, bill.data_requests()),
            (0, 0),
            "{cloud:?}"
        );
        let log = world.log();
        for name in names {
            let named = format!("`{name}` is in deny_processes");
            let told = |line: &&str| line.contains(" INFO ") || line.contains(" WARN ");
            let lines = log
                .lines()
                .filter(told)
                .filter(|line| line.contains(&named));
            assert_eq!(lines.count(), 1, "{cloud:?}, {name}: {log}");
        }
        world.unmount();
    }
}

#[test]
fn users_that_are_not_named_spend_nothing() {
    for cloud in Cloud::ALL {
        let contents = contents(1);
        let mut world = cloud.world(&contents).key("spend_uids = [65534]");
        world.mount();
        let file = cloud.files(&world).remove(0);
        let error = fs::read(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{cloud:?}");
        let why = attribute(&file, "error");
        assert!(why.contains("is not in spend_uids"), "{cloud:?}: {why}");
        assert_eq!(world.sim.bill().tasks_created, 0, "{cloud:?}");
        world.unmount();
        world.mount_keys = vec![format!("spend_uids = [{}]", rustix::process::getuid())];
        world.mount();
        is_whole(&file, &contents[0], &format!("{cloud:?}"));
    }
}

#[test]
fn case_05_a_task_of_many_hours_is_waited_for_in_turns() {
    for cloud in Cloud::ALL {
        let contents = contents(1);
        let mut world = cloud.world(&contents).key("task_wait = \"500ms\"");
        // Not longer than the shortest life of what a task makes, which is four hours at Atlas.
        let (hour, turns) = (SignedDuration::from_hours(1), 3);
        cloud.task_time(&world, hour * turns);
        world.mount();
        let file = cloud.files(&world).remove(0);
        for _ in 0..turns {
            let error = fs::read(&file).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT), "{cloud:?}");
            let why = attribute(&file, "error");
            assert!(why.contains("task_wait"), "{cloud:?}: {why}");
            world.sim.advance(hour);
        }
        // What had to be asked seldom is asked at once again for a new opener.
        eventually("it is ready", || fs::File::open(&file).is_ok());
        is_whole(&file, &contents[0], &format!("{cloud:?}"));
        assert_eq!(world.sim.bill().tasks_created, 1, "{cloud:?}");
        world.unmount();
    }
}
