//! An instance makes one download task at a time: who waits for whom, what stands in the way, and
//! what a daemon finds that was killed meanwhile.

use std::fs;
use std::path::PathBuf;
use std::process::Child;

use jiff::SignedDuration;
use mongo_backupfs::sim::aliyun::{Account, Instance};
use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use super::*;

#[test]
fn two_backups_of_one_instance_are_converted_one_after_the_other() {
    let mut world = world(Account::new().instance(orders(3)));
    let hour = SignedDuration::from_hours(1);
    cloud(&world).adjust(|knobs| knobs.task_time = hour);
    world.mount();
    let files = files(&world, "dds-bp1orders");
    let copies: Vec<PathBuf> = (0..3)
        .map(|number| world.dir.path().join(format!("copy{number}")))
        .collect();
    let mut readers: Vec<Child> = Vec::new();
    for (file, to) in files.iter().zip(&copies) {
        readers.push(copy(file, to));
    }
    eventually("the others queue and say why", || {
        let queued = tasks(&world).into_values().filter(|task| {
            let reason = task["error"].as_str().unwrap_or_default();
            task["state"] == "queued" && reason.contains("one download task at a time")
        });
        queued.count() == 2
    });
    eventually("the status counts them", || {
        let status = fs::read(world.mountpoint.join(".backupfs/status.json")).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        status["tasks"]["waiting"] == 3
    });
    // Each begins when the one before has ended.
    for created in 1..=3 {
        eventually("the next one begins", || {
            world.sim.bill().tasks_created == created
        });
        world.sim.advance(hour);
    }
    for mut reader in readers.drain(..) {
        assert!(wait(&mut reader).expect("the copy ends").success());
    }
    for (file, copied) in files.iter().zip(&copies) {
        assert_eq!(sha256_of(copied), sha256_of(file));
    }
    copies_are_equal(&world, "dds-bp1orders");
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.calls("CreateDownload")),
        (3, 3),
        "{bill:?}"
    );
}

#[test]
fn a_reader_that_is_gone_leaves_the_queue_and_costs_nothing() {
    let mut world = world(Account::new().instance(orders(2)));
    let hour = SignedDuration::from_hours(1);
    cloud(&world).adjust(|knobs| knobs.task_time = hour);
    world.mount();
    let files = files(&world, "dds-bp1orders");
    let mut first = copy(&files[0], &world.dir.path().join("first"));
    eventually("the first task runs", || {
        world.sim.bill().tasks_created == 1
    });
    let mut second = copy(&files[1], &world.dir.path().join("second"));
    eventually("the second queues", || {
        xattr(&files[1], "state") == "queued"
    });
    second.kill().unwrap();
    wait(&mut second).expect("the reader ends");
    world.sim.advance(hour);
    assert!(wait(&mut first).expect("the copy ends").success());
    eventually("nobody waits", || {
        tasks(&world).values().all(|task| task["waiting"] == 0)
    });
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn the_task_of_somebody_else_is_waited_for() {
    let mut world = world(Account::new().instance(orders(2)));
    let set = &cloud(&world).backup_sets("dds-bp1orders")[0];
    let hour = SignedDuration::from_hours(1);
    assert!(cloud(&world).convert_elsewhere("dds-bp1orders", set, hour));
    world.mount();
    let files = files(&world, "dds-bp1orders");
    let mut reader = copy(&files[1], &world.dir.path().join("copy"));
    eventually("the wait is visible", || {
        xattr(&files[1], "state") == "queued" && xattr(&files[1], "error").contains("dt-sim00001")
    });
    world.sim.advance(hour);
    assert!(wait(&mut reader).expect("the copy ends").success());
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.calls("CreateDownload")),
        (1, 1),
        "{bill:?}"
    );
    // What somebody else converted is adopted.
    copies_are_equal(&world, "dds-bp1orders");
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn a_failed_task_is_started_again_whosever_it_is() {
    let mut world = world(Account::new().instance(orders(2)));
    world.mount();
    let files = files(&world, "dds-bp1orders");
    cloud(&world).adjust(|knobs| knobs.failures = 1);
    // The first open meets the failure of its own task.
    assert_eq!(errno(&files[0]), Some(libc::EIO));
    assert!(xattr(&files[0], "error").contains("failed"));
    assert_eq!(world.sim.bill().tasks_created, 1);
    // It blocks the other backup, until it is started again.
    assert_eq!(
        sha256_of(&files[1]),
        Content::noise(1, SIZE + 1).sha256().unwrap()
    );
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.calls("RetryDownloadTask")),
        (2, 1),
        "{bill:?}"
    );
    // A host without this one's memory finds both converted.
    world.unmount();
    fs::remove_dir_all(world.dir.path().join("state")).unwrap();
    world.mount();
    copies_are_equal(&world, "dds-bp1orders");
    assert_eq!(
        world.sim.bill().tasks_created,
        2,
        "{}",
        cloud(&world).tasks()
    );
}

#[test]
fn a_failed_task_of_another_shard_is_started_again_and_waited_for() {
    let other = |number| snapshot(number).content(Content::noise(70, SIZE));
    let cluster = Instance::sharded("dds-bp3whole", 2).backup(other(0));
    let mut world = world(Account::new().instance(cluster));
    let set = &cloud(&world).backup_sets("dds-bp3whole")[0];
    cloud(&world).adjust(|knobs| knobs.failures = 1);
    assert!(cloud(&world).convert_elsewhere("dds-bp3whole", set, SignedDuration::ZERO));
    let hour = SignedDuration::from_hours(1);
    cloud(&world).adjust(|knobs| knobs.task_time = hour);
    world.mount();
    let second = &files(&world, "dds-bp3whole")[1];
    let to = world.dir.path().join("copy");
    let mut reader = copy(second, &to);
    eventually("the failed task runs again and the wait is visible", || {
        let shown = tasks(&world).into_values().any(|task| {
            let reason = task["error"].as_str().unwrap_or_default();
            task["state"] == "queued" && reason.contains("dt-sim00001")
        });
        shown && world.sim.bill().calls("RetryDownloadTask") == 1
    });
    assert_eq!(world.sim.bill().tasks_created, 0);
    cloud(&world).adjust(|knobs| knobs.task_time = SignedDuration::ZERO);
    world.sim.advance(hour);
    assert!(wait(&mut reader).expect("the copy ends").success());
    assert_eq!(sha256_of(&to), Content::noise(70, SIZE).sha256().unwrap());
    // The one of the first shard is adopted.
    copies_are_equal(&world, "dds-bp3whole");
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.calls("RetryDownloadTask")),
        (1, 1),
        "{bill:?}"
    );
}

/// When the daemon is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// The request to create is carried out, its answer on the way.
    Created,
    /// The service has not begun.
    Queued,
    /// It has.
    Running,
    /// The task has ended, its link was not asked for.
    Finished,
    /// The link is made, the answer on the way.
    Linked,
}

#[test]
fn killed_at_any_moment_the_same_task_is_adopted() {
    const LINK: &str = "DescribeDownloadBackupSetStorageInfo";
    for moment in [
        Moment::Created,
        Moment::Queued,
        Moment::Running,
        Moment::Finished,
        Moment::Linked,
    ] {
        let mut world = world(Account::new().instance(orders(2)));
        let fault = |fault, action| {
            let rule = Rule::new(fault).on(Side::Api).path(action);
            world.sim.faults().add(rule);
        };
        match moment {
            Moment::Created => fault(Fault::HoldAnswer, "CreateDownload"),
            Moment::Finished => fault(Fault::Hang, LINK),
            Moment::Linked => fault(Fault::HoldAnswer, LINK),
            Moment::Queued | Moment::Running => cloud(&world).adjust(|knobs| {
                knobs.task_time = SignedDuration::from_hours(2);
            }),
        }
        world.mount();
        let before = files(&world, "dds-bp1orders");
        let mut readers = vec![copy(&before[0], &world.dir.path().join("copy"))];
        eventually("the task exists", || world.sim.bill().tasks_created == 1);
        if matches!(moment, Moment::Queued | Moment::Running) {
            // Of this one, not even the request was sent.
            readers.push(copy(&before[1], &world.dir.path().join("other")));
        }
        let state = |at: usize, expected: &str| {
            let what = format!("{moment:?}: file {at} is {expected}");
            eventually(&what, || xattr(&before[at], "state") == expected);
        };
        match moment {
            Moment::Created => {}
            Moment::Queued => {
                state(0, "queued");
                state(1, "queued");
            }
            Moment::Running => {
                world.sim.advance(SignedDuration::from_mins(90));
                state(0, "running");
                state(1, "queued");
            }
            Moment::Finished => state(0, "ready"),
            Moment::Linked => eventually("the link is made", || world.sim.bill().calls(LINK) > 0),
        }
        world.kill9();
        for mut reader in readers {
            wait(&mut reader).expect("the reader ends");
        }
        world.sim.faults().clear();
        world.sim.advance(SignedDuration::from_hours(2));
        cloud(&world).adjust(|knobs| knobs.task_time = SignedDuration::ZERO);
        world.mount();
        let expected = Content::noise(0, SIZE).sha256().unwrap();
        let file = &files(&world, "dds-bp1orders")[0];
        assert_eq!(sha256_of(file), expected, "{moment:?}");
        assert_eq!(world.sim.bill().tasks_created, 1, "{moment:?}");
        copies_are_equal(&world, "dds-bp1orders");
        assert_eq!(world.sim.bill().tasks_created, 2, "{moment:?}");
    }
}
