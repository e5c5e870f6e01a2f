//! Tencent Cloud on a real mount: download tasks and COS folders, as users and their tools meet
//! them, and what happens when the cloud misbehaves.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::names;
use mongo_backupfs::sim::tencent::{Backup, Instance, Knobs, Method};
use mongo_backupfs::sim::{Content, Fault, Rule, Side, Sim, SimBuilder};

use crate::world::{World, eventually, sh, sha256_of};

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

fn attribute(path: &Path, name: &str) -> String {
    let path = path.display();
    sh(&format!(
        "getfattr --only-values -n user.backupfs.{name} '{path}'"
    ))
}

/// SHA-256 of every file below `dir`, by its path.
fn digests(dir: &Path) -> BTreeMap<String, String> {
    let script = format!(
        "cd '{}' && find -L . -type f -print0 | sort -z | xargs -0 -r sha256sum -z | tr '\\0' '\\n'",
        dir.display()
    );
    sh(&script)
        .lines()
        .map(|line| {
            let (digest, path) = line.split_once("  ").unwrap();
            (path.trim_start_matches("./").to_owned(), digest.to_owned())
        })
        .collect()
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

/// Names that go wrong wherever a key is escaped twice or not at all.
const ODD: [&str; 8] = [
    "sp ace+plus%25.bson.gz",
    "100% sure.bson.gz",
    "目录 备份.bson.gz",
    "é\u{301}.bson.gz",
    "a&b=c?d#e.bson.gz",
    "quote'and\"quote.bson.gz",
    "star*(1)!~.bson.gz",
    "back\\slash.bson.gz",
];

/// A folder of `count` objects, two levels deep, with its markers; and what it shows.
fn folder(builder: SimBuilder, count: u64) -> (SimBuilder, BTreeMap<String, Content>) {
    let mut expected = BTreeMap::new();
    for number in 0..count {
        let name = match ODD.get(number as usize) {
            Some(odd) => format!("1544517027220146694/odd {number}+%/{odd}"),
            None => format!("1544517027220146694/db{}/c{number:04}.bson.gz", number % 20),
        };
        let size = [0, 1, 700, 5000][number as usize % 4];
        expected.insert(name, Content::noise(number, size));
    }
    let modified: Timestamp = "2018-12-11T08:31:00Z".parse().unwrap();
    let mut builder = builder
        .object(&format!("{FOLDER}/"), Content::bytes(""), modified)
        .object(
            &format!("{FOLDER}/empty folder/"),
            Content::bytes(""),
            modified,
        );
    for (name, content) in &expected {
        builder = builder.object(&format!("{FOLDER}/{name}"), content.clone(), modified);
    }
    (builder, expected)
}

#[test]
fn a_cos_folder_of_2500_objects_is_a_directory_tree() {
    let (builder, expected) = folder(SimBuilder::new(), 2500);
    let mut world = world(builder.instance(replica_set(Content::noise(1, 1000))));
    world.mount();
    let shard = root(&world).join("cmgo-pfsumk5l/latest/cmgo-pfsumk5l_0");
    let place = shard.display();
    let listed = sh(&format!(
        "cd '{place}' && find . -type f | wc -l && ls -lR . | wc -l"
    ));
    assert!(listed.starts_with("2500\n"), "{listed}");
    let backup = fs::canonicalize(root(&world).join("cmgo-pfsumk5l/latest")).unwrap();
    assert_eq!(backup.file_name().unwrap(), "20181211T083026Z-1544517026");
    assert!(shard.join("empty folder").is_dir());
    for (name, content) in &expected {
        let path = shard.join(name);
        let metadata = fs::metadata(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(metadata.len(), content.size(), "{name}");
        assert_eq!(metadata.mtime(), 1_544_517_060, "{name}");
    }
    assert_eq!(
        attribute(&shard.join(expected.keys().next().unwrap()), "size"),
        "exact"
    );
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.data_requests()),
        (0, 0),
        "looking is free"
    );

    let copy = world.dir.path().join("copy");
    sh(&format!("cp -r '{place}' '{}'", copy.display()));
    let copied = digests(&copy);
    assert_eq!(copied.len(), expected.len());
    for (name, content) in &expected {
        assert_eq!(copied.get(name), content.sha256().ok().as_ref(), "{name}");
    }
    assert_eq!(world.sim.bill().tasks_created, 0, "folders need no task");
    assert!(expected.keys().all(|name| {
        let mut parts = name.split('/');
        parts.all(|part| names::component(part) == part)
    }));
    world.unmount();
}

#[test]
fn a_replaced_object_is_served_anew_and_a_removed_one_is_gone() {
    let key = format!("{FOLDER}/db/c.bson.gz");
    let (old, new) = (Content::noise(1, 300_000), Content::noise(2, 300_000));
    let modified = started();
    let builder = SimBuilder::new().object(&key, old.clone(), modified);
    let mut world = world(builder).key("list_ttl = \"200ms\"");
    world.mount();
    let file = root(&world).join("cmgo-pfsumk5l/latest/cmgo-pfsumk5l_0/db/c.bson.gz");
    assert_eq!(sha256_of(&file), old.sha256().unwrap());
    world.sim.tencent().put_object(&key, new.clone(), modified);
    let expected = new.sha256().unwrap();
    eventually("the new version is read", || sha256_of(&file) == expected);
    world.sim.tencent().remove_object(&key);
    eventually("it is no longer listed", || !file.exists());
    world.unmount();
}

#[test]
fn a_copy_is_whole_through_every_fault_at_once() {
    let content = Content::noise(5, 64 << 20);
    let knobs = Knobs {
        failing_tasks: 2,
        task_time: SignedDuration::from_millis(300),
        tasks_wait_for_retry: true,
        link_life: SignedDuration::from_secs(2),
        calls_per_second: 5,
        empty_links: false,
        ..Knobs::default()
    };
    let mut world = world(
        SimBuilder::new()
            .tencent_knobs(knobs)
            .instance(replica_set(content.clone())),
    );
    world.mount();
    let slow_down = Fault::ApiError {
        status: 503,
        code: "SlowDown".into(),
    };
    let faults = world.sim.faults();
    faults.add(Rule::new(slow_down).on(Side::Data).chance(0.1));
    faults.add(Rule::new(Fault::Cut { after: 8 << 20 }).on(Side::Data));
    let copy = world.dir.path().join("copy");
    sh(&format!(
        "cp '{}' '{}'",
        tar(&world).display(),
        copy.display()
    ));
    assert_eq!(sha256_of(&copy), content.sha256().unwrap());
    let bill = world.sim.bill();
    assert_eq!(bill.tasks_created, 3, "two failed, the third did it");
    assert_eq!(bill.calls("CreateBackupDownloadTask"), 3);
    world.unmount();
}

#[test]
fn a_skewed_clock_and_other_readings_of_the_documents_do_no_harm() {
    let content = Content::noise(6, 3_000_000);
    let knobs = Knobs {
        resign: false,
        offset_counts_pages: true,
        ..Knobs::default()
    };
    let (builder, expected) = folder(SimBuilder::new(), 12);
    let mut world = world(
        builder
            .tencent_knobs(knobs)
            .instance(replica_set(content.clone())),
    );
    world.sim.advance(SignedDuration::from_hours(3));
    world.mount();
    assert_eq!(sha256_of(&tar(&world)), content.sha256().unwrap());
    let shard = root(&world).join("cmgo-pfsumk5l/latest/cmgo-pfsumk5l_0");
    assert_eq!(digests(&shard).len(), expected.len());
    world.unmount();
}

#[test]
fn refusals_have_their_errno_and_text() {
    let mut world = world(
        SimBuilder::new()
            .instance(replica_set(Content::noise(1, 1000)))
            .instance(
                Instance::new(CLUSTER)
                    .shards(3)
                    .backup(Backup::at(started(), [Content::noise(2, 9)])),
            ),
    )
    .key("list_ttl = \"1h\"");
    world.mount();
    let file = tar(&world);
    let fails = |path: &Path, errno: i32, words: &[&str]| {
        let error = fs::read(path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{error}");
        let said = attribute(path, "error");
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    };
    world.sim.adjust_tencent(|knobs| knobs.may_download = false);
    fails(
        &file,
        libc::EACCES,
        &[
            "InvalidParameter.PermissionDenied",
            "mongodb:CreateBackupDownloadTask",
        ],
    );
    world.sim.adjust_tencent(|knobs| knobs.may_download = true);

    // The backup is from before the cluster grew.
    let late = root(&world).join(format!("{CLUSTER}/latest/{CLUSTER}_2/{CLUSTER}_2.tar"));
    fails(&late, libc::ENOENT, &["ReplicaNotFound", "shard"]);

    // A link that leads into a network where this machine is not.
    let denied = Fault::ApiError {
        status: 403,
        code: "AccessDenied".into(),
    };
    world.sim.faults().add(Rule::new(denied).on(Side::Data));
    let causes = ["192.168.0.0/16", "172.27.0.0/16", "sub-account", "clock"];
    fails(&file, libc::EACCES, &causes);
    world.sim.faults().clear();
    assert_eq!(fs::read(&file).unwrap().len(), 1000);
    assert_eq!(world.sim.bill().tasks_created, 1);

    // Deleted while mounted.
    let cluster = world.sim.tencent().backup_names(CLUSTER);
    assert!(world.sim.tencent().delete_backup(CLUSTER, &cluster[0]));
    let first = root(&world).join(format!("{CLUSTER}/latest/{CLUSTER}_0/{CLUSTER}_0.tar"));
    fails(&first, libc::ENOENT, &["BackupFileNotFound", "retention"]);
    world.unmount();
}

#[test]
fn a_backup_deleted_under_an_open_file_is_stale() {
    use std::io::{Read, Seek, SeekFrom};
    let mut world = world(SimBuilder::new().instance(replica_set(Content::noise(1, 90 << 20))))
        .key("memory = \"32MiB\"");
    world.mount();
    let mut file = fs::File::open(tar(&world)).unwrap();
    file.read_exact(&mut [0; 4096]).unwrap();
    let names = world.sim.tencent().backup_names(REPLICA_SET);
    assert!(world.sim.tencent().delete_backup(REPLICA_SET, &names[0]));
    file.seek(SeekFrom::Start(80 << 20)).unwrap();
    let error = file.read_exact(&mut [0; 4096]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    drop(file);
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

#[test]
fn temporary_keys_bring_their_token() {
    let (builder, expected) = folder(SimBuilder::new(), 12);
    let builder = builder
        .tencent_token("STS+TOKEN/=")
        .instance(replica_set(Content::noise(1, 9)));
    let mut world = world(builder);
    let account = world.account.take().unwrap();
    let with_token = account.replace("[provider.cos]", "token = \"STS+TOKEN/=\"\n[provider.cos]");
    world.account = Some(with_token);
    world.mount();
    assert_eq!(fs::read(tar(&world)).unwrap().len(), 9);
    let shard = root(&world).join("cmgo-pfsumk5l/latest/cmgo-pfsumk5l_0");
    assert_eq!(digests(&shard).len(), expected.len());
    world.unmount();
}
