//! Links that end, and what goes with them.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use jiff::SignedDuration;
use mongo_backupfs::sim::aliyun::{Account, AnotherLink, Instance, Knobs};
use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use super::*;

/// The link ends under a copy that takes longer. What was converted is deleted with its link.
fn a_link_ends_under_a_slow_copy(recreate: bool) -> World {
    // More than can be under way when the link ends.
    const SLOW: u64 = 128 << 20;
    let big = Backup::at(day(0)).content(Content::noise(9, SLOW));
    let account = Account::new().instance(Instance::replica_set("dds-bp1orders").backup(big));
    let key = format!("recreate_expired = {recreate}");
    let mut world = world(account).key(&key);
    let life = SignedDuration::from_hours(1);
    cloud(&world).adjust(|knobs| knobs.link_life = Some(life));
    let slow = Fault::Throttle {
        bytes_per_second: 100_000,
    };
    // The size and the first bytes come at once, however busy the machine is.
    let slow = Rule::new(slow).on(Side::Data).skip(2);
    world.sim.faults().add(slow);
    world.mount();
    let path = &files(&world, "dds-bp1orders")[0];
    let file = File::open(path).unwrap();
    assert!(!xattr(path, "expires").is_empty());
    let expected = Content::noise(9, SLOW);
    let mut piece = vec![0; 128 << 10];
    let mut offset = 0;
    let error = loop {
        match file.read_at(&mut piece, offset) {
            Ok(read) => {
                assert!(read > 0, "the copy must not end");
                let range = offset..offset + read as u64;
                assert_eq!(piece[..read], expected.read(range).unwrap()[..]);
                if offset == 0 {
                    world.sim.advance(life);
                }
                offset += read as u64;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    assert!(offset > 0);
    // What was read stays readable.
    let again = file.read_at(&mut piece, 0).unwrap();
    assert!(again > 0 && again as u64 <= offset, "{again} of {offset}");
    assert_eq!(piece[..again], expected.read(0..again as u64).unwrap()[..]);
    world.sim.faults().clear();
    let unlimited = |knobs: &mut Knobs| knobs.link_life = None;
    cloud(&world).adjust(unlimited);
    world
}

#[test]
fn case_38_an_ended_link_is_estale_and_a_new_open_pays_again() {
    let world = a_link_ends_under_a_slow_copy(true);
    copies_are_equal(&world, "dds-bp1orders");
    assert_eq!(world.sim.bill().tasks_created, 2);
}

#[test]
fn case_38_an_ended_link_is_not_paid_for_again_unless_allowed() {
    let mut world = a_link_ends_under_a_slow_copy(false);
    let refused = |world: &World| errno(&files(world, "dds-bp1orders")[0]);
    assert_eq!(refused(&world), Some(libc::EACCES));
    world.unmount();
    world.mount();
    assert_eq!(refused(&world), Some(libc::EACCES));
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn a_task_not_linked_within_three_days_is_made_again() {
    let mut world = world(Account::new().instance(orders(1)));
    cloud(&world).adjust(|knobs| knobs.task_time = SignedDuration::from_hours(1));
    world.mount();
    let mut reader = copy(
        &files(&world, "dds-bp1orders")[0],
        &world.dir.path().join("copy"),
    );
    eventually("the task runs", || world.sim.bill().tasks_created == 1);
    world.kill9();
    wait(&mut reader);
    world.sim.advance(SignedDuration::from_hours(1 + 3 * 24));
    cloud(&world).adjust(|knobs| knobs.task_time = SignedDuration::ZERO);
    world.mount();
    copies_are_equal(&world, "dds-bp1orders");
    assert_eq!(world.sim.bill().tasks_created, 2);
}

#[test]
fn what_was_copied_whole_stays_readable_after_the_end() {
    let mut world = world(Account::new().instance(orders(1))).key("recreate_expired = false");
    world.mount();
    copies_are_equal(&world, "dds-bp1orders");
    world.unmount();
    world.sim.advance(SignedDuration::from_hours(10 * 24));
    world.sim.reset_bill();
    world.mount();
    copies_are_equal(&world, "dds-bp1orders");
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.data_requests()),
        (0, 0),
        "{bill:?}"
    );
}

/// More than anybody reads ahead.
const LONG: u64 = 256 << 20;

fn long() -> Content {
    Content::noise(9, LONG)
}

fn account_with_a_long_file() -> Account {
    let backup = Backup::at(day(0)).content(long());
    Account::new().instance(Instance::replica_set("dds-bp1orders").backup(backup))
}

/// The only file of the mounted account, open.
fn open_long(world: &World) -> File {
    File::open(&files(world, "dds-bp1orders")[0]).unwrap()
}

/// Reads at places of a long file that no other number leads to.
fn read_places(file: &File, places: Range<u64>) -> io::Result<()> {
    let mut piece = [0; 4096];
    for place in places {
        let at = place * 37_000_003 % (LONG - 4096);
        file.read_exact_at(&mut piece, at)?;
        assert_eq!(piece[..], long().read(at..at + 4096).unwrap()[..]);
    }
    Ok(())
}

fn links(world: &World) -> u64 {
    let action = "DescribeDownloadBackupSetStorageInfo";
    world.sim.bill().calls(action)
}

#[test]
fn the_link_is_asked_for_once_and_remembered() {
    let mut world = world(account_with_a_long_file()).key("memory = \"32MiB\"");
    cloud(&world).adjust(|knobs| knobs.another_link = AnotherLink::Refused);
    world.mount();
    read_places(&open_long(&world), 0..3).unwrap();
    read_places(&open_long(&world), 3..6).unwrap();
    world.unmount();
    world.mount();
    read_places(&open_long(&world), 6..9).unwrap();
    world.kill9();
    world.mount();
    read_places(&open_long(&world), 9..12).unwrap();
    assert_eq!((links(&world), world.sim.bill().tasks_created), (1, 1));
}

/// An open file that is read by a second link, which another host asked for after half an hour; the
/// first one, of an hour, has ended by now.
fn linked_again(another: AnotherLink) -> (World, File) {
    let mut world = world(account_with_a_long_file()).key("memory = \"32MiB\"");
    cloud(&world).adjust(|knobs| {
        knobs.link_life = Some(SignedDuration::from_hours(1));
        knobs.another_link = another;
    });
    world.mount();
    read_places(&open_long(&world), 0..2).unwrap();
    world.unmount();
    fs::remove_dir_all(world.dir.path().join("state")).unwrap();
    world.sim.advance(SignedDuration::from_mins(30));
    world.mount();
    let file = open_long(&world);
    read_places(&file, 2..4).unwrap();
    assert_eq!((links(&world), world.sim.bill().tasks_created), (2, 1));
    world.sim.advance(SignedDuration::from_mins(45));
    (world, file)
}

#[test]
fn another_link_may_prolong_the_life_of_a_file() {
    let (world, file) = linked_again(AnotherLink::Prolongs);
    read_places(&file, 1000..1010).unwrap();
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn another_link_may_promise_more_than_it_keeps() {
    let (world, file) = linked_again(AnotherLink::Deceives);
    let error = read_places(&file, 1000..2000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    read_places(&open_long(&world), 1000..1010).unwrap();
    assert_eq!(world.sim.bill().tasks_created, 2);
}

#[test]
fn case_07_a_link_that_comes_late_is_waited_for() {
    let mut world = world(Account::new().instance(orders(1)));
    cloud(&world).adjust(|knobs| knobs.late_links = 2);
    world.mount();
    copies_are_equal(&world, "dds-bp1orders");
    assert_eq!((links(&world), world.sim.bill().tasks_created), (3, 1));
}

#[test]
fn links_of_local_disks_are_renewed_for_ever() {
    let backup = Backup::at(day(0)).content(long()).physical("_qp.xb");
    let local = Instance::replica_set("dds-bp1orders").on_local_disk("4.0");
    let mut world = world(Account::new().instance(local.backup(backup)));
    world.mount_keys.push("memory = \"32MiB\"".into());
    world.mount();
    let file = open_long(&world);
    for round in 0..3 {
        read_places(&file, round * 10..round * 10 + 2).unwrap();
        world.sim.advance(SignedDuration::from_hours(3));
    }
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.forged_link_uses),
        (0, 0),
        "{bill:?}"
    );
}
