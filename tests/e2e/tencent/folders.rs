//! Backups kept as folders in COS, as directory trees on a real mount.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use jiff::Timestamp;
use mongo_backupfs::sim::{Content, Fault, Rule, Side, SimBuilder, many_objects};

use super::{FOLDER, replica_set, root, started, tar, world};
use crate::world::{attribute, digests, eventually, sh, sha256_of};

/// Where the folder is shown.
pub(super) const SHARD: &str = "cmgo-pfsumk5l/latest/cmgo-pfsumk5l_0";

fn written() -> Timestamp {
    "2018-12-11T08:31:00Z".parse().unwrap()
}

/// A folder of `count` objects, with the markers of two empty ones; and what it shows.
pub(super) fn folder(builder: SimBuilder, count: u64) -> (SimBuilder, BTreeMap<String, Content>) {
    let expected: BTreeMap<String, Content> = many_objects(count).collect();
    let markers = [format!("{FOLDER}/"), format!("{FOLDER}/empty folder/")];
    let builder = markers.iter().fold(builder, |builder, key| {
        builder.object(key, Content::bytes(""), written())
    });
    let builder = expected.iter().fold(builder, |builder, (name, content)| {
        builder.object(&format!("{FOLDER}/{name}"), content.clone(), written())
    });
    (builder, expected)
}

#[test]
fn a_cos_folder_of_2500_objects_is_a_directory_tree() {
    let (builder, expected) = folder(SimBuilder::new(), 2500);
    let mut world = world(builder.instance(replica_set(Content::noise(1, 1000))));
    world.mount();
    let shard = root(&world).join(SHARD);
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
    let bill = world.sim.bill();
    assert_eq!(bill.tasks_created, 0, "folders need no task");
    assert_eq!((bill.forged_link_uses, bill.unpinned_ranges), (0, 0));
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
    let file = root(&world).join(SHARD).join("db/c.bson.gz");
    assert_eq!(sha256_of(&file), old.sha256().unwrap());
    world.sim.tencent().put_object(&key, new.clone(), modified);
    let expected = new.sha256().unwrap();
    eventually("the new version is read", || sha256_of(&file) == expected);
    world.sim.tencent().remove_object(&key);
    eventually("it is no longer listed", || !file.exists());
    world.unmount();
}

#[test]
fn case_49_names_that_no_file_can_have_are_escaped() {
    let builder =
        [".hidden", "a%2Fb", "a//b", "tab\t.gz"]
            .iter()
            .fold(SimBuilder::new(), |builder, name| {
                let key = format!("{FOLDER}/{name}");
                builder.object(&key, Content::bytes(*name), written())
            });
    let mut world = world(builder);
    world.mount();
    let shard = root(&world).join(SHARD);
    for (shown, text) in [
        ("%2Ehidden", ".hidden"),
        ("a%252Fb", "a%2Fb"),
        ("a/%empty/b", "a//b"),
        ("tab%09.gz", "tab\t.gz"),
    ] {
        assert_eq!(fs::read_to_string(shard.join(shown)).unwrap(), text);
    }
    world.unmount();
}

#[test]
fn one_instance_has_backups_from_both_sources() {
    let key = "cmongo_backup/cmgo-replica1_0/snapshot/1544517026/db/c.bson.gz";
    let kept = Content::noise(1, 3000);
    let builder = SimBuilder::new().object(key, kept.clone(), written());
    let packed = Content::noise(2, 2000);
    let mut world = world(builder.instance(replica_set(packed.clone())));
    world.mount();
    let instance = root(&world).join("cmgo-replica1");
    let names = sh(&format!("ls '{}'", instance.display()));
    assert_eq!(
        names,
        "20181211T083026Z-1544517026\n20261105T170203Z-1000\nlatest\n"
    );
    let latest = fs::read_link(instance.join("latest")).unwrap();
    assert_eq!(latest.to_str(), Some("20261105T170203Z-1000"));
    let object = instance.join("20181211T083026Z-1544517026/cmgo-replica1_0/db/c.bson.gz");
    assert_eq!(sha256_of(&object), kept.sha256().unwrap());
    assert_eq!(world.sim.bill().tasks_created, 0);
    assert_eq!(sha256_of(&tar(&world)), packed.sha256().unwrap());
    assert_eq!(world.sim.bill().tasks_created, 1);
    world.unmount();
}

#[test]
fn a_store_that_asks_to_slow_down_is_listed_and_copied_whole() {
    let (builder, expected) = folder(SimBuilder::new(), 300);
    let mut world = world(builder);
    let slow_down = || Fault::ApiError {
        status: 503,
        code: "SlowDown".into(),
    };
    let faults = world.sim.faults();
    faults.add(Rule::new(slow_down()).path("encoding-type=url").times(1));
    faults.add(Rule::new(slow_down()).on(Side::Data).chance(0.1));
    world.mount();
    let copy = world.dir.path().join("copy");
    let shard = root(&world).join(SHARD);
    sh(&format!("cp -r '{}' '{}'", shard.display(), copy.display()));
    let copied = digests(&copy);
    assert_eq!(copied.len(), expected.len());
    for (name, content) in &expected {
        assert_eq!(copied.get(name), content.sha256().ok().as_ref(), "{name}");
    }
    let refused = world.sim.bill().data_requests.get("GET 503").copied();
    assert!(refused.is_some_and(|refused| refused > 10), "{refused:?}");
    world.unmount();
}
