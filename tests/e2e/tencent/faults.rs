//! What goes wrong on the way of a download, each alone and all together: the copy is whole, the
//! reader sees no error, and no task too many is created.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::SignedDuration;
use mongo_backupfs::sim::tencent::{Backup, Instance, Knobs};
use mongo_backupfs::sim::{Content, Fault, Rule, Side, SimBuilder};

use super::{CLUSTER, replica_set, root, started, tar, world};
use crate::world::{World, attribute, digests, sh, sha256_of};

/// Long enough for a body to be cut several times.
const SIZE: u64 = (64 << 20) + 4097;

fn trouble(knobs: Knobs) -> (World, Content) {
    let content = Content::noise(5, SIZE);
    let builder = SimBuilder::new().tencent_knobs(knobs);
    let world = world(builder.instance(replica_set(content.clone())));
    (world, content)
}

/// `cp` copies the newest backup whole, by as many tasks as are given.
fn is_copied(world: &World, content: &Content, tasks: u64) {
    let copy = world.dir.path().join("copy");
    sh(&format!(
        "cp -f '{}' '{}'",
        tar(world).display(),
        copy.display()
    ));
    assert_eq!(sha256_of(&copy), content.sha256().unwrap());
    assert_eq!(attribute(&tar(world), "state"), "ready");
    is_billed(world, tasks);
}

/// So many tasks were created, each asked for once. Every range was asked for by GET, at the very
/// address that was given, and of one version.
fn is_billed(world: &World, tasks: u64) {
    let bill = world.sim.bill();
    assert_eq!(bill.tasks_created, tasks, "{bill:?}");
    assert_eq!(bill.calls("CreateBackupDownloadTask"), tasks, "{bill:?}");
    assert_eq!(
        (bill.forged_link_uses, bill.unpinned_ranges),
        (0, 0),
        "{bill:?}"
    );
    let mut requests = bill.data_requests.keys();
    assert!(requests.all(|request| request.starts_with("GET ")));
}

fn slow_down() -> Rule {
    let refusal = Fault::ApiError {
        status: 503,
        code: "SlowDown".into(),
    };
    Rule::new(refusal).on(Side::Data).chance(0.1)
}

/// Bodies end after 8 MiB. Shorter ones than that are cut in their middle.
fn cuts() -> [Rule; 2] {
    let cut = |after| Rule::new(Fault::Cut { after }).on(Side::Data);
    [cut(8 << 20), cut(100_000).skip(1).times(8)]
}

fn failing_twice() -> Knobs {
    Knobs {
        failing_tasks: 2,
        task_time: SignedDuration::from_millis(300),
        ..Knobs::default()
    }
}

#[test]
fn tasks_that_fail_twice_are_followed_by_one_that_succeeds() {
    let (mut world, content) = trouble(failing_twice());
    world.mount();
    is_copied(&world, &content, 3);
    world.unmount();
    world.mount();
    is_copied(&world, &content, 3);
    world.unmount();
}

#[test]
fn case_06_a_task_that_fails_too_often_is_an_error_that_says_so() {
    let knobs = Knobs {
        failing_tasks: 100,
        ..failing_twice()
    };
    let (mut world, _) = trouble(knobs);
    world.mount();
    let error = File::open(tar(&world)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    assert_eq!(attribute(&tar(&world), "state"), "failed");
    let words = attribute(&tar(&world), "error");
    assert!(words.contains("packing the backup failed"), "{words}");
    is_billed(&world, 4);
    world.unmount();
}

#[test]
fn links_of_two_seconds_are_renewed_under_an_open_file() {
    let knobs = Knobs {
        link_life: SignedDuration::from_secs(2),
        ..Knobs::default()
    };
    let (world, content) = trouble(knobs);
    let mut world = world.key("memory = \"32MiB\"");
    world.mount();
    let file = File::open(tar(&world)).unwrap();
    let mut piece = vec![0; 4096];
    // So far apart that nothing is read ahead from one to the next.
    for step in (0..6u64).rev() {
        world.sim.advance(SignedDuration::from_secs(3));
        let at = step * (11 << 20);
        file.read_exact_at(&mut piece, at).unwrap();
        assert_eq!(piece, content.read(at..at + 4096).unwrap());
    }
    let bill = world.sim.bill();
    assert!(bill.link_refreshes >= 6, "{bill:?}");
    is_copied(&world, &content, 1);
    world.unmount();
}

#[test]
fn a_store_that_asks_a_tenth_of_requests_to_slow_down_is_read_whole() {
    let (mut world, content) = trouble(Knobs::default());
    world.mount();
    world.sim.faults().add(slow_down());
    is_copied(&world, &content, 1);
    world.unmount();
}

#[test]
fn bodies_that_are_cut_every_8_mib_are_put_together() {
    let (mut world, content) = trouble(Knobs::default());
    world.mount();
    for cut in cuts() {
        world.sim.faults().add(cut);
    }
    is_copied(&world, &content, 1);
    assert!(world.sim.bill().faults > 8);
    world.unmount();
}

/// Eight backups are wanted at once.
#[test]
fn five_calls_a_second_are_enough_for_a_crowd() {
    let knobs = Knobs {
        calls_per_second: 5,
        task_time: SignedDuration::from_millis(300),
        ..Knobs::default()
    };
    let contents: Vec<Content> = (0..8).map(|n| Content::noise(n, 100_000 + n)).collect();
    let cluster = Instance::new(CLUSTER)
        .shards(8)
        .backup(Backup::at(started(), contents.clone()));
    let mut world = world(SimBuilder::new().tencent_knobs(knobs).instance(cluster));
    // The default: a machine that stalls sends its calls in bursts, and is asked to wait for long.
    let patient =
        |account: String| account.replace("retry_budget = \"20s\"", "retry_budget = \"120s\"");
    world.account = world.account.take().map(patient);
    // However fast the calls come, some are too many.
    let too_many = Fault::ApiError {
        status: 200,
        code: "RequestLimitExceeded".into(),
    };
    let calls = Rule::new(too_many)
        .method("POST")
        .path("BackupDownloadTask");
    world.sim.faults().add(calls.times(4));
    world.mount();
    let copy = world.dir.path().join("copy");
    let latest = root(&world).join(CLUSTER).join("latest");
    sh(&format!(
        "mkdir '{1}' && cd '{0}/' && ls | xargs -P 8 -I shard cp -r shard '{1}'",
        latest.display(),
        copy.display()
    ));
    let expected: Vec<String> = contents.iter().map(|c| c.sha256().unwrap()).collect();
    assert_eq!(digests(&copy).into_values().collect::<Vec<_>>(), expected);
    assert_eq!(world.sim.bill().faults, 4);
    is_billed(&world, 8);
    world.unmount();
}

#[test]
fn a_copy_is_whole_through_every_fault_at_once() {
    let knobs = Knobs {
        tasks_wait_for_retry: true,
        link_life: SignedDuration::from_secs(2),
        calls_per_second: 5,
        empty_links: false,
        ..failing_twice()
    };
    let (mut world, content) = trouble(knobs);
    world.mount();
    let faults = world.sim.faults();
    faults.add(slow_down());
    for cut in cuts() {
        faults.add(cut);
    }
    is_copied(&world, &content, 3);
    world.unmount();
}

#[test]
fn what_a_store_forgot_is_packed_again_for_the_next_open() {
    let life = SignedDuration::from_hours(24);
    let knobs = Knobs {
        resign: false,
        packed_life: Some(life),
        link_life: life,
        ..Knobs::default()
    };
    let (mut world, content) = trouble(knobs);
    world.mount();
    let first = |path: &Path| {
        let mut piece = vec![0; 4096];
        File::open(path).unwrap().read_exact_at(&mut piece, 0)
    };
    first(&tar(&world)).unwrap();
    is_billed(&world, 1);
    world.sim.advance(life + SignedDuration::from_hours(1));
    is_copied(&world, &content, 2);
    world.unmount();
}
