//! Links that work once only, on a real mount: MongoDB Atlas's dedicated clusters, whose restore host
//! sends each archive once.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mongo_backupfs::sim::atlas::{Cluster, Project, RestoreHost, Snapshot, Tier, UsedJob};
use mongo_backupfs::sim::{Content, Fault, Rule, Side, SimBuilder};

use crate::world::{PROVIDER, World, attribute, eventually, sh, sha256, sha256_of};

const SET: &str = "rs0";
const SHARDED: &str = "many";
/// Several blocks and a piece.
const SIZE: u64 = 3_000_001;

fn content() -> Content {
    Content::noise(7, SIZE)
}

fn bytes() -> Vec<u8> {
    content().read(0..SIZE).unwrap().to_vec()
}

/// A replica set and a sharded cluster with a snapshot each; not mounted.
fn world(host: RestoreHost) -> World {
    let at = "2026-11-21T04:00:00Z".parse().unwrap();
    let parts = (0..3).map(|part| Content::noise(70 + part, 900_000 + part));
    let project = Project::new("Shop")
        .cluster(Cluster::new(SET, Tier::M10).snapshot(Snapshot::at(at).content(content())))
        .cluster(
            Cluster::new(SHARDED, Tier::M10)
                .sharded(2)
                .snapshot(Snapshot::at(at).contents(parts)),
        );
    let world = World::new(SimBuilder::new().project(project));
    world.sim.adjust(|knobs| knobs.restore_host = host);
    world
}

fn telling_length() -> RestoreHost {
    RestoreHost {
        tells_length: true,
        ..RestoreHost::default()
    }
}

fn archive(world: &World, cluster: &str, replica_set: &str) -> PathBuf {
    let cluster = world.mountpoint.join(PROVIDER).join(cluster);
    let backup = cluster.join("latest").canonicalize().unwrap();
    backup.join(format!("{replica_set}/{replica_set}.tar.gz"))
}

fn file(world: &World) -> PathBuf {
    archive(world, SET, SET)
}

/// How often each link was asked for something.
fn deliveries(world: &World) -> Vec<u64> {
    world.sim.bill().deliveries.into_values().collect()
}

fn slowly(world: &World, bytes_per_second: u64) {
    let fault = Fault::Throttle { bytes_per_second };
    world.sim.faults().add(Rule::new(fault).on(Side::Data));
}

/// Breaks the next transfer off after so many bytes.
fn cut(world: &World, after: u64) {
    let fault = Fault::Cut { after };
    world
        .sim
        .faults()
        .add(Rule::new(fault).on(Side::Data).times(1));
}

fn cp(world: &World, from: &Path) -> (Output, PathBuf) {
    let to = world.dir.path().join("copy");
    let _ = fs::remove_file(&to);
    let output = Command::new("cp").arg(from).arg(&to).output().unwrap();
    (output, to)
}

fn nonblocking(file: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK).open(file)
}

#[test]
fn dedicated_and_sharded_copies_are_equal_and_cost_one_data_get_each() {
    for host in [RestoreHost::default(), telling_length()] {
        let mut world = world(host);
        world.mount();
        assert_eq!(sha256_of(&file(&world)), sha256(&bytes()));
        let id = &world.sim.snapshot_ids(SHARDED)[0];
        for set in ["config", "many-shard-0", "many-shard-1"] {
            let part = world.sim.part(SHARDED, id, set).unwrap();
            let size = part.size();
            let expected = sha256(&part.read(0..size).unwrap());
            assert_eq!(sha256_of(&archive(&world, SHARDED, set)), expected, "{set}");
        }
        assert_eq!(deliveries(&world), [1, 1, 1, 1], "{:?}", world.sim.bill());
        assert_eq!(world.sim.bill().tasks_created, 2);
        // Again, and after a remount: nobody is asked.
        world.unmount();
        world.sim.reset_bill();
        world.mount();
        assert_eq!(sha256_of(&file(&world)), sha256(&bytes()));
        assert_eq!(attribute(&file(&world), "cached"), SIZE.to_string());
        assert_eq!(deliveries(&world), [] as [u64; 0]);
    }
}

#[test]
fn ten_processes_at_different_offsets_of_one_spooling_file_cost_one_data_get() {
    for (host, used) in [
        (RestoreHost::default(), UsedJob::Finished),
        (telling_length(), UsedJob::Emptied),
        (telling_length(), UsedJob::Unchanged),
    ] {
        let mut world = world(host);
        world.sim.adjust(|knobs| knobs.used_job = used);
        slowly(&world, 3_000_000);
        world.mount();
        let (file, expected) = (file(&world), bytes());
        let readers: Vec<_> = (0..10_u64)
            .map(|number| {
                let start = (9 - number) * SIZE / 10;
                let reader = Command::new("tail")
                    .args(["-c", &format!("+{}", start + 1)])
                    .arg(&file)
                    .stdout(Stdio::piped())
                    .spawn();
                (start, reader.unwrap())
            })
            .collect();
        for (start, reader) in readers {
            let read = reader.wait_with_output().unwrap();
            assert!(read.status.success(), "{:?}", world.log());
            assert!(read.stdout == expected[start as usize..], "from {start}");
        }
        assert_eq!(deliveries(&world), [1]);
        assert_eq!(world.sim.bill().tasks_created, 1);
    }
}

#[test]
fn a_body_cut_at_half_is_copied_whole_in_the_end() {
    for length in [false, true] {
        for (restarts, ranges) in [(true, false), (false, false), (false, true)] {
            let mut world = world(RestoreHost {
                tells_length: length,
                restarts,
                ranges,
                ..RestoreHost::default()
            });
            cut(&world, SIZE / 2);
            world.mount();
            let (copied, copy) = cp(&world, &file(&world));
            assert!(copied.status.success(), "{copied:?}\n{}", world.log());
            assert_eq!(sha256_of(&copy), sha256(&bytes()));
            let tasks = if restarts || ranges { 1 } else { 2 };
            assert_eq!(world.sim.bill().tasks_created, tasks, "{length} {restarts}");
        }
    }
}

#[test]
fn two_downloads_of_other_bytes_are_never_mixed() {
    for length in [false, true] {
        let mut world = world(RestoreHost {
            tells_length: length,
            fresh_bytes: true,
            ..RestoreHost::default()
        });
        cut(&world, SIZE / 2);
        world.mount();
        let file = file(&world);
        let mut open = length.then(|| File::open(&file).unwrap());
        let read = open.as_mut().map(|open| {
            let mut all = Vec::new();
            (open.read_to_end(&mut all), all)
        });
        let (copied, copy) = cp(&world, &file);
        assert!(copied.status.success(), "{copied:?}\n{}", world.log());
        let id = &world.sim.snapshot_ids(SET)[0];
        let packed = world.sim.packed(SET, id, SET);
        let packed: Vec<Vec<u8>> = packed
            .iter()
            .map(|content| content.read(0..content.size()).unwrap().to_vec())
            .collect();
        assert_eq!(packed.len(), 2);
        assert_ne!(packed[0], packed[1]);
        assert_eq!(sha256_of(&copy), sha256(&packed[1]));
        if let (Some((result, all)), Some(mut open)) = (read, open) {
            let stale = Some(libc::ESTALE);
            assert_eq!(result.unwrap_err().raw_os_error(), stale);
            assert!(packed[0].starts_with(&all), "only of the first");
            open.seek(SeekFrom::Start(SIZE - 1)).unwrap();
            let after = open.read(&mut [0; 1]);
            assert_eq!(after.unwrap_err().raw_os_error(), stale);
        }
    }
}

#[test]
fn a_job_that_ends_while_spooling_is_made_again_only_by_policy() {
    for length in [false, true] {
        let host = RestoreHost {
            tells_length: length,
            used_status: 410,
            ..RestoreHost::default()
        };
        let mut world = world(host).key("recreate_expired = false");
        cut(&world, SIZE / 2);
        world.mount();
        let (copied, _) = cp(&world, &file(&world));
        assert!(!copied.status.success());
        assert!(!attribute(&file(&world), "error").is_empty());
        File::open(file(&world)).unwrap_err();
        assert_eq!(world.sim.bill().tasks_created, 1);
        assert_eq!(deliveries(&world).len(), 1);
    }
}

#[test]
fn a_file_of_unknown_length_is_copied_exactly_and_a_second_pass_copies_nothing() {
    let mut world = world(RestoreHost::default());
    world.mount();
    let file = file(&world);
    let before = fs::metadata(&file).unwrap();
    assert_eq!(
        (before.len(), attribute(&file, "size").as_str()),
        (0, "unknown")
    );
    let to = world.dir.path().join("to");
    let rsync = |extra: &str| {
        sh(&format!(
            "rsync -a --stats {extra} '{}' '{}/'",
            file.display(),
            to.display()
        ))
    };
    // What it is is known once it was open.
    drop(File::open(&file).unwrap());
    rsync("");
    let copy = to.join("rs0.tar.gz");
    assert_eq!(sha256_of(&copy), sha256(&bytes()));
    let after = fs::metadata(&file).unwrap();
    assert_eq!(after.len(), SIZE);
    assert_eq!(attribute(&file, "size"), "exact");
    assert_eq!(after.mtime(), before.mtime());
    assert_eq!(fs::metadata(&copy).unwrap().mtime(), after.mtime());
    let (copied, copy) = cp(&world, &file);
    assert!(copied.status.success(), "{copied:?}");
    assert_eq!(sha256_of(&copy), sha256(&bytes()));

    world.sim.reset_bill();
    let second = rsync("");
    assert!(
        second.contains("Number of regular files transferred: 0"),
        "{second}"
    );
    let bill = world.sim.bill();
    assert_eq!((bill.tasks_created, deliveries(&world).len()), (0, 0));
}

#[test]
fn a_killed_mount_goes_on_or_begins_anew_and_what_is_whole_stays() {
    for length in [false, true] {
        let mut world = world(RestoreHost {
            tells_length: length,
            restarts: true,
            ..RestoreHost::default()
        });
        slowly(&world, 2_000_000);
        world.mount();
        let mut reader = Command::new("cat")
            .arg(file(&world))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("a part has come", || {
            attribute(&file(&world), "cached").parse::<u64>().unwrap() > SIZE / 3
        });
        world.kill9();
        assert!(!crate::world::wait(&mut reader).unwrap().success());
        world.sim.faults().clear();
        world.mount();
        assert_eq!(sha256_of(&file(&world)), sha256(&bytes()));
        let tasks = world.sim.bill().tasks_created;
        assert!(tasks <= 2, "{tasks}");
        // What is in the cache for long enough is durable.
        world.unmount();
        world.mount();
        world.kill9();
        world.sim.reset_bill();
        world.mount();
        assert_eq!(sha256_of(&file(&world)), sha256(&bytes()));
        assert_eq!(world.sim.bill().data_requests(), 0);
        assert_eq!(world.sim.bill().tasks_created, 0);
    }
}

#[test]
fn an_opener_that_leaves_does_not_end_the_spool() {
    let mut world = world(RestoreHost::default());
    slowly(&world, 1_500_000);
    world.mount();
    let file = file(&world);
    let mut reader = Command::new("cat")
        .arg(&file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("a part has come", || {
        attribute(&file, "cached").parse::<u64>().unwrap() > 0
    });
    let again = nonblocking(&file).unwrap_err();
    assert_eq!(again.raw_os_error(), Some(libc::EAGAIN));
    crate::world::kill(reader.id(), libc::SIGTERM);
    assert!(!crate::world::wait(&mut reader).unwrap().success());
    assert_eq!(attribute(&file, "size"), "unknown", "it was not the end");
    assert_eq!(sha256_of(&file), sha256(&bytes()));
    assert_eq!(deliveries(&world), [1]);
}

#[test]
fn a_cache_too_small_is_said_and_costs_one_task_only() {
    for host in [RestoreHost::default(), telling_length()] {
        let mut world = world(host).key("cache_size = \"2MiB\"");
        world.mount();
        let file = file(&world);
        for _ in 0..3 {
            let error = File::open(&file).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            let reason = attribute(&file, "error");
            assert!(reason.contains("cache_size is too small"), "{reason}");
        }
        assert_eq!(world.sim.bill().tasks_created, 1);
        assert_eq!(deliveries(&world), [1]);
    }
}
