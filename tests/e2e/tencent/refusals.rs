//! What the cloud refuses: the errno, and the reason in `.error`, in `events.log` and once in the log.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use jiff::SignedDuration;
use mongo_backupfs::sim::tencent::{Backup, Instance, Knobs};
use mongo_backupfs::sim::{Content, Fault, Rule, Side, SimBuilder};

use super::{CLUSTER, REPLICA_SET, replica_set, root, started, tar, world};
use crate::world::{World, attribute, eventually};

/// Reading `path` fails, however often, for a reason that is told everywhere but said only once.
fn fails(world: &World, path: &Path, errno: i32, words: &[&str]) {
    let events = || {
        let place = world.mountpoint.join(".backupfs/events.log");
        let text = fs::read_to_string(place).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = events().len();
    for _ in 0..3 {
        let error = fs::read(path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{error}");
    }
    let said = attribute(path, "error");
    let events = &events()[before..];
    let [event] = events else {
        panic!("one event: {events:?}");
    };
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
        assert!(event.contains(word), "no {word:?} in: {event}");
    }
    let shard = path
        .parent()
        .unwrap()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap();
    let logged = world.log();
    let logged = logged.lines().filter(|line| {
        let loud = line.contains(" WARN ") || line.contains(" ERROR ");
        loud && line.contains(shard) && words.iter().all(|word| line.contains(word))
    });
    assert_eq!(logged.count(), 1, "{}", world.log());
}

/// A cluster of three shards whose only backup is from when it had one.
fn grown() -> Instance {
    let backup = Backup::at(started(), [Content::noise(2, 9)]);
    Instance::new(CLUSTER).shards(3).backup(backup)
}

fn shard(world: &World, number: usize) -> std::path::PathBuf {
    let name = format!("{CLUSTER}_{number}");
    let latest = root(world).join(CLUSTER).join("latest");
    latest.join(&name).join(format!("{name}.tar"))
}

#[test]
fn a_denied_permission_is_named() {
    let mut world = world(SimBuilder::new().instance(replica_set(Content::noise(1, 1000))));
    world.sim.adjust_tencent(|knobs| knobs.may_download = false);
    world.mount();
    let file = tar(&world);
    fails(
        &world,
        &file,
        libc::EACCES,
        &[
            "InvalidParameter.PermissionDenied",
            "mongodb:CreateBackupDownloadTask",
        ],
    );
    assert_eq!(world.sim.bill().tasks_created, 0);
    world.sim.adjust_tencent(|knobs| knobs.may_download = true);
    assert_eq!(fs::read(&file).unwrap().len(), 1000);
    world.unmount();
}

#[test]
fn a_shard_that_an_old_backup_lacks_is_not_there() {
    for code in [
        "InvalidParameterValue.ReplicaNotFound",
        "InvalidParameterValue.BackupFileNotFound",
    ] {
        let knobs = Knobs {
            lacking_shard_code: code.into(),
            ..Knobs::default()
        };
        let mut world = world(SimBuilder::new().tencent_knobs(knobs).instance(grown()));
        world.mount();
        fails(&world, &shard(&world, 2), libc::ENOENT, &[code, "shard"]);
        assert_eq!(fs::read(shard(&world, 0)).unwrap().len(), 9);
        assert_eq!(world.sim.bill().tasks_created, 1);
        world.unmount();
    }
}

/// As it is from outside Tencent's network, or for a sub-account.
#[test]
fn a_link_that_is_refused_names_the_likely_causes() {
    let mut world = world(SimBuilder::new().instance(replica_set(Content::noise(1, 1000))));
    world.mount();
    let file = tar(&world);
    let denied = Fault::ApiError {
        status: 403,
        code: "AccessDenied".into(),
    };
    world.sim.faults().add(Rule::new(denied).on(Side::Data));
    let causes = ["192.168.0.0/16", "172.27.0.0/16", "sub-account", "clock"];
    fails(&world, &file, libc::EACCES, &causes);
    world.sim.faults().clear();
    assert_eq!(fs::read(&file).unwrap().len(), 1000);
    assert_eq!(world.sim.bill().tasks_created, 1);
    world.unmount();
}

#[test]
fn a_backup_deleted_while_mounted_is_gone() {
    let older = Backup::at(
        started() - SignedDuration::from_hours(24),
        [Content::noise(3, 30)],
    );
    let instance = replica_set(Content::noise(1, 1000)).backup(older);
    let mut world = world(SimBuilder::new().instance(instance)).key("list_ttl = \"1h\"");
    world.mount();
    let file = tar(&world);
    let newest = fs::canonicalize(&file).unwrap();
    let names = world.sim.tencent().backup_names(REPLICA_SET);
    assert!(world.sim.tencent().delete_backup(REPLICA_SET, &names[0]));
    let words = ["BackupFileNotFound", "deleted", "retention"];
    fails(&world, &newest, libc::ENOENT, &words);
    assert_eq!(world.sim.bill().tasks_created, 0);
    world.unmount();

    // Listed anew it is gone, and another one is the latest.
    world.mount();
    assert!(!newest.exists());
    assert_eq!(fs::read(&file).unwrap().len(), 30);
    world.unmount();
}

#[test]
fn a_backup_deleted_under_an_open_file_is_stale() {
    let mut world = world(SimBuilder::new().instance(replica_set(Content::noise(1, 90 << 20))))
        .key("memory = \"32MiB\"");
    world.mount();
    let path = tar(&world);
    let mut file = File::open(&path).unwrap();
    file.read_exact(&mut [0; 4096]).unwrap();
    let names = world.sim.tencent().backup_names(REPLICA_SET);
    assert!(world.sim.tencent().delete_backup(REPLICA_SET, &names[0]));
    file.seek(SeekFrom::Start(80 << 20)).unwrap();
    let error = file.read_exact(&mut [0; 4096]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    eventually("the reason is told", || {
        attribute(&path, "error").contains("BackupFileNotFound")
    });
    drop(file);
    world.unmount();
}
