//! Tencent Cloud on a real mount: download tasks as users and their tools meet them. COS folders,
//! what is tolerated, what is refused and what goes wrong have files of their own.

mod faults;
mod folders;
mod readings;
mod refusals;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::sim::tencent::{Backup, Instance, Knobs, Method};
use mongo_backupfs::sim::{Content, Sim, SimBuilder};

use crate::world::{World, attribute, digests, eventually, sh, sha256_of};

const REPLICA_SET: &str = "cmgo-replica1";
const CLUSTER: &str = "cmgo-sharded1";
/// The folder of the console's own example.
pub const FOLDER: &str = "cmongo_backup/cmgo-pfsumk5l_0/snapshot/1544517026";

fn started() -> Timestamp {
    "2026-11-05T17:02:03Z".parse().unwrap()
}

/// A mount of the Tencent account alone.
fn world(builder: SimBuilder) -> World {
    let mut world = World::new(builder);
    world.account = Some(account(&world.sim));
    world
}

pub fn account(sim: &Sim) -> String {
    let cloud = sim.tencent();
    format!(
        "[[provider]]\nname = \"tencent\"\nkind = \"tencent\"\nregions = [\"ap-guangzhou\"]\n\
         endpoint = \"{}\"\nsecret_id = \"{id}\"\nsecret_key = \"{key}\"\nallow_http = true\n\
         poll_interval = \"50ms\"\nretry_budget = \"20s\"\n[provider.cos]\nbucket = \"{bucket}\"\n\
         region = \"ap-guangzhou\"\nendpoint = \"{}\"\n",
        cloud.base_url(),
        cloud.bucket_url(),
        id = cloud.secret_id(),
        key = cloud.secret_key(),
        bucket = cloud.bucket(),
    )
}

fn root(world: &World) -> PathBuf {
    world.mountpoint.join("tencent")
}

/// A replica set with one backup of `content`.
fn replica_set(content: Content) -> Instance {
    Instance::new(REPLICA_SET).backup(Backup::at(started(), [content]))
}

/// The only file of the replica set's newest backup.
fn tar(world: &World) -> PathBuf {
    let shard = format!("{REPLICA_SET}_0");
    let latest = root(world).join(REPLICA_SET).join("latest");
    latest.join(&shard).join(format!("{shard}.tar"))
}

#[test]
fn replica_set_and_cluster_are_copied_whole() {
    let contents: Vec<Content> = (0..3).map(|n| Content::noise(n, 3_000_000 + n)).collect();
    let single = Content::noise(9, 20_000_000);
    let mut world = world(
        SimBuilder::new()
            .instance(replica_set(single.clone()))
            .instance(
                Instance::new(CLUSTER)
                    .shards(3)
                    .backup(Backup::at(started(), contents.clone()).method(Method::Physical)),
            ),
    );
    world.mount();
    let root = root(&world);
    let place = root.display();
    let tree = sh(&format!(
        "cd '{place}' && ls -lR > /dev/null && du -a . > /dev/null && find . | sort"
    ));
    sh(&format!(
        "rsync -an '{place}/' /nonexistent-target-of-a-dry-run/ > /dev/null"
    ));
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.data_requests()),
        (0, 0),
        "{bill:?}"
    );
    assert_eq!(
        tree.lines().collect::<Vec<_>>(),
        [
            ".",
            "./cmgo-replica1",
            "./cmgo-replica1/20261105T170203Z-1000",
            "./cmgo-replica1/20261105T170203Z-1000/cmgo-replica1_0",
            "./cmgo-replica1/20261105T170203Z-1000/cmgo-replica1_0/cmgo-replica1_0.tar",
            "./cmgo-replica1/latest",
            "./cmgo-sharded1",
            "./cmgo-sharded1/20261105T170203Z-1000",
            "./cmgo-sharded1/20261105T170203Z-1000/cmgo-sharded1_0",
            "./cmgo-sharded1/20261105T170203Z-1000/cmgo-sharded1_0/cmgo-sharded1_0.tar",
            "./cmgo-sharded1/20261105T170203Z-1000/cmgo-sharded1_1",
            "./cmgo-sharded1/20261105T170203Z-1000/cmgo-sharded1_1/cmgo-sharded1_1.tar",
            "./cmgo-sharded1/20261105T170203Z-1000/cmgo-sharded1_2",
            "./cmgo-sharded1/20261105T170203Z-1000/cmgo-sharded1_2/cmgo-sharded1_2.tar",
            "./cmgo-sharded1/latest",
        ]
    );

    let copies = world.dir.path().join("copies");
    sh(&format!(
        "mkdir '{0}' && cp -r '{place}/{REPLICA_SET}/latest/' '{0}/single' && \
         rsync -a '{place}/{CLUSTER}/' '{0}/cluster/'",
        copies.display()
    ));
    let single = single.sha256().unwrap();
    let expected: Vec<String> = contents.iter().map(|c| c.sha256().unwrap()).collect();
    let copied = digests(&copies.join("single"));
    assert_eq!(copied.into_values().collect::<Vec<_>>(), [single]);
    let backup = copies.join("cluster/20261105T170203Z-1000");
    assert_eq!(digests(&backup).into_values().collect::<Vec<_>>(), expected);
    assert_eq!(world.sim.bill().tasks_created, 4, "one task for each shard");

    // The finish time, in UTC, to the second; the same after a remount.
    let finished = (started() + SignedDuration::from_secs(6)).as_second();
    let times = |world: &World| {
        let file = tar(world);
        let shard = file.parent().unwrap();
        [&file, shard, shard.parent().unwrap()].map(|path| fs::metadata(path).unwrap().mtime())
    };
    assert_eq!(times(&world), [finished; 3]);
    assert_eq!(attribute(&tar(&world), "size"), "exact");
    world.unmount();
    world.mount();
    assert_eq!(times(&world), [finished; 3]);
    let again = sh(&format!(
        "rsync -ai '{place}/{CLUSTER}/' '{}/cluster/'",
        copies.display()
    ));
    assert_eq!(again, "", "a second rsync copies nothing");
    assert_eq!(world.sim.bill().tasks_created, 4);
    world.unmount();
}

#[test]
fn methods_are_merged_and_what_cannot_be_downloaded_says_why() {
    let later = |hours| started() + SignedDuration::from_hours(hours);
    let knobs = Knobs {
        lists_all_methods: false,
        ..Knobs::default()
    };
    let mut world = world(
        SimBuilder::new().tencent_knobs(knobs).instance(
            replica_set(Content::noise(1, 1000))
                .backup(Backup::at(later(1), [Content::noise(2, 1000)]).method(Method::Physical))
                .backup(
                    Backup::at(later(2), [Content::noise(3, 1000)])
                        .method(Method::Snapshot)
                        .manual()
                        .not_downloadable("UnsupportedOperation"),
                )
                .backup(Backup::at(later(3), [Content::noise(4, 1000)]).in_progress()),
        ),
    );
    world.mount();
    let instance = root(&world).join(REPLICA_SET);
    let methods: Vec<String> = fs::read_dir(&instance)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap() != "latest")
        .map(|path| attribute(&path, "method"))
        .collect();
    assert_eq!(methods, ["logical", "physical", "snapshot"]);
    let snapshot = tar(&world);
    let latest = instance.join("latest");
    assert_eq!(attribute(&latest, "type"), "manual");
    let error = fs::read(&snapshot).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
    let words = attribute(&snapshot, "error");
    assert!(words.contains("UnsupportedOperation"), "{words}");
    assert_eq!(world.sim.bill().tasks_created, 0);
    world.unmount();
}

#[test]
fn damaged_bytes_are_an_error_and_never_a_copy() {
    let content = Content::noise(8, 5_000_000);
    let knobs = Knobs {
        right_digests: false,
        ..Knobs::default()
    };
    let builder = SimBuilder::new().tencent_knobs(knobs);
    let mut world = world(builder.instance(replica_set(content.clone())));
    world.mount();
    let file = tar(&world);
    for _ in 0..2 {
        let error = fs::read(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
        assert!(attribute(&file, "error").contains("CRC-64"));
    }
    world.sim.adjust_tencent(|knobs| knobs.right_digests = true);
    assert_eq!(sha256_of(&file), content.sha256().unwrap());
    eventually("the digest is known to be right", || {
        attribute(&file, "digest").ends_with(" verified")
    });
    assert!(attribute(&file, "digest").starts_with("crc64ecma:"));
    let status = fs::read_to_string(world.mountpoint.join(".backupfs/status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["activity"]["digests_verified"], 1, "{status}");
    assert_eq!(status["activity"]["digest_mismatches"], 2, "{status}");
    world.unmount();
    world.mount();
    assert!(
        attribute(&file, "digest").ends_with(" verified"),
        "remembered"
    );
    world.unmount();
}

#[test]
fn a_file_that_was_read_in_pieces_is_checked_when_it_is_opened_whole() {
    use std::os::unix::fs::FileExt;
    let content = Content::noise(9, 3_000_000);
    let mut world = world(SimBuilder::new().instance(replica_set(content.clone())));
    world.mount();
    let path = tar(&world);
    let mut half = vec![0; 1_500_000];
    for start in [1_500_000, 0] {
        let file = fs::File::open(&path).unwrap();
        file.read_exact_at(&mut half, start).unwrap();
    }
    eventually("all of it is cached", || {
        attribute(&path, "cached") == "3000000"
    });
    assert!(attribute(&path, "digest").ends_with(" unverified"));
    world.unmount();
    world.mount();
    assert_eq!(sha256_of(&path), content.sha256().unwrap());
    eventually("it is checked", || {
        attribute(&path, "digest").ends_with(" verified")
    });
    world.unmount();
}
