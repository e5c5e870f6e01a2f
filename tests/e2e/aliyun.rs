//! Alibaba Cloud over real mounts: the ways to the bytes, and what cannot be downloaded. Below it:
//! one task per instance at a time, links that take what they lead to with them, the own bucket, and
//! answers of every kind.

mod answers;
mod bucket;
mod ends;
mod turns;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::sim::aliyun::{Account, Aliyun, Backup, Instance};
use mongo_backupfs::sim::{Content, SimBuilder};

use crate::world::{World, eventually, sh, sha256_of, wait};

pub const ACCOUNT: &str = "aliyun-test";
const SIZE: u64 = 1 << 20;

fn day(number: i64) -> Timestamp {
    let first: Timestamp = "2026-03-01T18:00:00Z".parse().unwrap();
    first + SignedDuration::from_hours(24 * number)
}

fn snapshot(number: i64) -> Backup {
    Backup::at(day(number)).content(Content::noise(number as u64, SIZE + number as u64))
}

/// A replica set on cloud disks with so many backups.
fn orders(backups: i64) -> Instance {
    (0..backups).fold(
        Instance::replica_set("dds-bp1orders"),
        |instance, number| instance.backup(snapshot(number)),
    )
}

pub fn world(account: Account) -> World {
    let mut world = World::new(SimBuilder::new().aliyun(account));
    let cloud = world.sim.aliyun().unwrap();
    world.account = Some(format!(
        "[[provider]]\nname = \"{ACCOUNT}\"\nkind = \"aliyun\"\nregions = [\"cn-hangzhou\"]\n\
         endpoint = \"{base}\"\ndbs_endpoint = \"{base}\"\nallow_http = true\n\
         access_key_id = \"{id}\"\naccess_key_secret = \"{secret}\"\npoll_interval = \"50ms\"\n",
        base = cloud.endpoint(),
        id = cloud.access_key_id(),
        secret = cloud.access_key_secret(),
    ));
    world
}

fn cloud(world: &World) -> &Aliyun {
    world.sim.aliyun().unwrap()
}

/// All files of an instance, oldest backup first, shard by shard.
fn files(world: &World, instance: &str) -> Vec<PathBuf> {
    let root = world.mountpoint.join(ACCOUNT).join(instance);
    let mut found = Vec::new();
    let mut directories = vec![root];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.symlink_metadata().unwrap() {
                meta if meta.is_dir() => directories.push(path),
                meta if meta.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Every file of `instance` reads as the cloud's backup sets do.
fn copies_are_equal(world: &World, instance: &str) {
    let (files, sets) = (files(world, instance), cloud(world).backup_sets(instance));
    assert_eq!(files.len(), sets.len(), "{files:?}");
    for (file, set) in files.iter().zip(&sets) {
        let expected = cloud(world).content(set).unwrap().sha256().unwrap();
        assert_eq!(sha256_of(file), expected, "{}", file.display());
    }
}

fn xattr(file: &Path, name: &str) -> String {
    let output = Command::new("getfattr")
        .args(["--only-values", "-n", &format!("user.backupfs.{name}")])
        .arg(file)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn errno(file: &Path) -> Option<i32> {
    File::open(file).unwrap_err().raw_os_error()
}

fn copy(file: &Path, to: &Path) -> Child {
    let mut command = Command::new("cp");
    command.arg(file).arg(to).stderr(Stdio::inherit());
    command.spawn().unwrap()
}

/// The tasks by path below the instance, as `.backupfs/tasks.json` shows them.
fn tasks(world: &World) -> BTreeMap<String, serde_json::Value> {
    let text = fs::read(world.mountpoint.join(".backupfs/tasks.json")).unwrap();
    let tasks: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    let backup = |task: &serde_json::Value| task["backup"].as_str().unwrap().to_owned();
    tasks
        .into_iter()
        .map(|task| (backup(&task), task))
        .collect()
}

#[test]
fn every_way_leads_to_the_bytes_and_looking_costs_nothing() {
    let two = |number: i64| {
        let other = Content::noise(50 + number as u64, SIZE + 7);
        snapshot(number).content(other)
    };
    let local = Instance::replica_set("dds-bp2local")
        .on_local_disk("4.0")
        .backup(snapshot(0).physical("_qp.xb"))
        .backup(snapshot(1).physical(".tar.gz"))
        .backup(snapshot(2).logical());
    let sharded_local = Instance::sharded("dds-bp5local", 2)
        .shard_by_shard()
        .on_local_disk("4.2")
        .backup(two(4).physical("_qp.xb"));
    let whole = Instance::sharded("dds-bp3whole", 2)
        .backup(two(0))
        .backup(two(1));
    let single = Instance::sharded("dds-bp4shards", 2).shard_by_shard();
    let single = single.backup(two(2)).backup(two(3));
    let account = Account::new().instance(orders(2)).instance(local);
    let account = account.instance(whole).instance(single);
    let account = account.instance(sharded_local);
    for v4 in [false, true] {
        let mut world = world(account.clone());
        cloud(&world).adjust(|knobs| knobs.v4 = v4);
        if v4 {
            world.provider_keys.push("network = \"private\"".into());
            world.provider_keys.push("format = \"tar.zst\"".into());
        }
        world.mount();
        let root = world.mountpoint.display();
        sh(&format!(
            "ls -lR '{root}'; du -a '{root}'; getfattr -R -d '{root}'"
        ));
        let bill = world.sim.bill();
        assert_eq!(
            (bill.tasks_created, bill.data_requests()),
            (0, 0),
            "{bill:?}"
        );

        let archive = if v4 {
            "mgset-bp1orders.tar.zst"
        } else {
            "mgset-bp1orders.tar.gz"
        };
        let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(name(&files(&world, "dds-bp1orders")[0]), archive);
        let linked = files(&world, "dds-bp2local");
        assert_eq!(name(&linked[0]), "mgset-bp2local_qp.xb");
        assert_eq!(name(&linked[1]), "mgset-bp2local.tar.gz");
        assert_eq!(name(&linked[2]), "mgset-bp2local.ar");
        assert_eq!(fs::metadata(&linked[1]).unwrap().len(), SIZE + 1);
        for instance in [
            "dds-bp1orders",
            "dds-bp2local",
            "dds-bp3whole",
            "dds-bp4shards",
            "dds-bp5local",
        ] {
            copies_are_equal(&world, instance);
        }
        let bill = world.sim.bill();
        assert_eq!(
            bill.tasks_created,
            2 + 4 + 4,
            "one per shard, none for local disks"
        );
        assert_eq!(bill.calls("CreateDownload"), 10, "none was refused");
        assert_eq!(bill.forged_link_uses, 0, "{bill:?}");
        // Everything is cached: neither a task nor a link is needed again.
        world.unmount();
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
}

#[test]
fn what_cannot_be_downloaded_says_why() {
    let account = Account::new()
        .instance(
            Instance::replica_set("dds-single")
                .single_node()
                .backup(snapshot(0)),
        )
        .instance(
            Instance::replica_set("dds-sealed")
                .encrypted()
                .backup(snapshot(0)),
        )
        .instance(
            Instance::replica_set("dds-moving")
                .status("Restoring")
                .backup(snapshot(0)),
        )
        .instance(
            Instance::replica_set("dds-local")
                .on_local_disk("4.2")
                .backup(snapshot(0)),
        )
        .instance(Instance::replica_set("dds-failed").backup(snapshot(0).failed()))
        .instance(
            Instance::replica_set("dds-elsewhere")
                .in_region("cn-lanzhou")
                .backup(snapshot(0)),
        )
        .instance(Instance::replica_set("dds-series").backup(snapshot(0).with_time_series()));
    let mut world = world(account);
    let regions = world.account.take().unwrap();
    world.account = Some(regions.replace("cn-hangzhou\"]", "cn-hangzhou\", \"cn-lanzhou\"]"));
    world.mount();
    for (instance, words) in [
        ("dds-single", "single-node"),
        ("dds-sealed", "encrypted"),
        ("dds-moving", "Restoring"),
        ("dds-local", "local disks"),
        ("dds-failed", "failed"),
        ("dds-elsewhere", "not offered in its region"),
        ("dds-series", "time-series"),
    ] {
        let file = &files(&world, instance)[0];
        assert_eq!(errno(file), Some(libc::EOPNOTSUPP), "{instance}");
        assert!(
            xattr(file, "error").contains(words),
            "{}",
            xattr(file, "error")
        );
    }
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.calls("CreateDownload")),
        (0, 1),
        "what a backup holds only the service knows"
    );
    // What passes may pass.
    cloud(&world).change("dds-moving", |instance| {
        *instance = instance.clone().status("Running");
    });
    assert!(File::open(&files(&world, "dds-moving")[0]).is_ok());
}

#[test]
fn temporary_credentials_are_sent_and_nothing_private_is_shown() {
    let account = Account::new().token("CANARYTOKEN==").instance(orders(1));
    let mut world = world(account);
    let token = "security_token = \"CANARYTOKEN==\"";
    world.provider_keys.push(token.into());
    world.mount();
    copies_are_equal(&world, "dds-bp1orders");
    let mount = world.mountpoint.display().to_string();
    let shown = sh(&format!(
        "getfattr -R -d -m - '{mount}'; cat '{mount}'/.backupfs/*.json"
    ));
    world.unmount();
    let dir = world.dir.path().display();
    let kept = sh(&format!("cat '{dir}'/state/* | tr -cd '[:print:]'"));
    let cached = sh(&format!(
        "find '{dir}/cache' -type f -exec cat {{}} + | tr -cd '[:print:]'"
    ));
    let secret = cloud(&world).access_key_secret();
    for text in [&world.log(), &shown, &cached, &kept] {
        for canary in ["CANARYTOKEN", secret] {
            assert!(!text.contains(canary), "{canary} is shown");
        }
    }
    for text in [&world.log(), &shown, &cached] {
        for canary in ["Signature=", "OSSAccessKeyId"] {
            assert!(!text.contains(canary), "{canary} is shown");
        }
    }
    let open = sh(&format!("find '{dir}/state' -type f -perm /077"));
    assert_eq!(open, "", "the ledger knows links, and nobody else may");
}
