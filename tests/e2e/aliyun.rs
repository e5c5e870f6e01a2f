//! Alibaba Cloud over real mounts: the ways to the bytes, one task per instance at a time, links
//! that take what they lead to with them, and what cannot be downloaded.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::sim::aliyun::{Account, Aliyun, Backup, Instance, Knobs};
use mongo_backupfs::sim::{Content, Fault, Rule, Side, SimBuilder};

use crate::world::{World, eventually, sh, sha256_of, wait};

const ACCOUNT: &str = "aliyun-test";
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

fn world(account: Account) -> World {
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
        .backup(snapshot(1).physical(".tar.gz"));
    let whole = Instance::sharded("dds-bp3whole", 2)
        .backup(two(0))
        .backup(two(1));
    let single = Instance::sharded("dds-bp4shards", 2).shard_by_shard();
    let single = single.backup(two(2)).backup(two(3));
    let account = Account::new().instance(orders(2)).instance(local);
    let account = account.instance(whole).instance(single);
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
        assert_eq!(fs::metadata(&linked[1]).unwrap().len(), SIZE + 1);
        for instance in [
            "dds-bp1orders",
            "dds-bp2local",
            "dds-bp3whole",
            "dds-bp4shards",
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
        .instance(Instance::replica_set("dds-failed").backup(snapshot(0).failed()));
    let mut world = world(account);
    world.mount();
    for (instance, words) in [
        ("dds-single", "single-node"),
        ("dds-sealed", "encrypted"),
        ("dds-moving", "Restoring"),
        ("dds-local", "local disks"),
        ("dds-failed", "failed"),
    ] {
        let file = &files(&world, instance)[0];
        assert_eq!(errno(file), Some(libc::EOPNOTSUPP), "{instance}");
        assert!(
            xattr(file, "error").contains(words),
            "{}",
            xattr(file, "error")
        );
    }
    assert_eq!(world.sim.bill().calls("CreateDownload"), 0);
    // What passes may pass.
    cloud(&world).change("dds-moving", |instance| {
        *instance = instance.clone().status("Running");
    });
    assert!(File::open(&files(&world, "dds-moving")[0]).is_ok());
}

#[test]
fn the_policy_of_the_help_page_is_eacces_and_names_what_it_lacks() {
    let mut world = world(Account::new().instance(orders(1)));
    cloud(&world).adjust(|knobs| knobs.policy = Knobs::documented_policy());
    world.mount();
    let file = &files(&world, "dds-bp1orders")[0];
    assert_eq!(errno(file), Some(libc::EACCES));
    let reason = xattr(file, "error");
    for permission in [
        "dbs:DescribeDownloadTask",
        "dbs:DescribeDownloadBackupSetStorageInfo",
        "dbs:RetryDownloadTask",
    ] {
        assert!(reason.contains(permission), "{reason}");
    }
    assert_eq!(world.sim.bill().tasks_created, 0);
    cloud(&world).adjust(|knobs| knobs.policy = vec!["dds:*".into(), "dbs:*".into()]);
    copies_are_equal(&world, "dds-bp1orders");
}

#[test]
fn two_backups_of_one_instance_are_converted_one_after_the_other() {
    let mut world = world(Account::new().instance(orders(3)));
    cloud(&world).adjust(|knobs| knobs.task_time = SignedDuration::from_millis(700));
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
    cloud(&world).adjust(|knobs| knobs.task_time = SignedDuration::from_secs(2));
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
    let time = SignedDuration::from_millis(1500);
    assert!(cloud(&world).convert_elsewhere("dds-bp1orders", set, time));
    world.mount();
    let files = files(&world, "dds-bp1orders");
    let mut reader = copy(&files[1], &world.dir.path().join("copy"));
    eventually("the wait is visible", || {
        xattr(&files[1], "state") == "queued" && xattr(&files[1], "error").contains("dt-sim00001")
    });
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

/// Links of 5 s under a copy that takes longer. What was converted is deleted with its link.
fn a_link_ends_under_a_slow_copy(recreate: bool) -> World {
    // More than can be under way when the link ends.
    const SLOW: u64 = 128 << 20;
    let big = Backup::at(day(0)).content(Content::noise(9, SLOW));
    let account = Account::new().instance(Instance::replica_set("dds-bp1orders").backup(big));
    let key = format!("recreate_expired = {recreate}");
    let mut world = world(account).key(&key);
    let life = SignedDuration::from_secs(5);
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
fn an_ended_link_is_estale_and_a_new_open_pays_again() {
    let world = a_link_ends_under_a_slow_copy(true);
    copies_are_equal(&world, "dds-bp1orders");
    assert_eq!(world.sim.bill().tasks_created, 2);
}

#[test]
fn an_ended_link_is_not_paid_for_again_unless_allowed() {
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
fn killed_at_any_moment_the_same_task_is_adopted() {
    // Between the request and its answer, while it runs, between its end and the link.
    for moment in [
        "CreateDownload",
        "running",
        "DescribeDownloadBackupSetStorageInfo",
    ] {
        let mut world = world(Account::new().instance(orders(2)));
        match moment {
            "running" => cloud(&world).adjust(|knobs| {
                knobs.task_time = SignedDuration::from_secs(3);
            }),
            action => world
                .sim
                .faults()
                .add(Rule::new(Fault::HoldAnswer).on(Side::Api).path(action)),
        }
        world.mount();
        let before = files(&world, "dds-bp1orders");
        let to = world.dir.path().join("copy");
        let mut readers = vec![copy(&before[0], &to)];
        eventually("the task exists", || world.sim.bill().tasks_created == 1);
        match moment {
            "running" => {
                // One more is killed while it queues.
                readers.push(copy(&before[1], &world.dir.path().join("other")));
                eventually("it queues", || xattr(&before[1], "state") == "queued");
            }
            action => eventually("the answer is held", || world.sim.bill().calls(action) >= 1),
        }
        world.kill9();
        for mut reader in readers {
            wait(&mut reader).expect("the reader ends");
        }
        world.sim.faults().clear();
        world.mount();
        let expected = Content::noise(0, SIZE).sha256().unwrap();
        assert_eq!(
            sha256_of(&files(&world, "dds-bp1orders")[0]),
            expected,
            "{moment}"
        );
        assert_eq!(world.sim.bill().tasks_created, 1, "{moment}");
    }
}

#[test]
fn throttling_failures_and_cut_bodies_are_survived() {
    let mut world = world(Account::new().instance(orders(1)));
    let faults = world.sim.faults();
    let throttled = Fault::ApiError {
        status: 400,
        code: "Throttling.User".into(),
    };
    let broken = Fault::ApiError {
        status: 200,
        code: "DBS.InternalError".into(),
    };
    faults.add(Rule::new(throttled).on(Side::Api).times(2));
    faults.add(Rule::new(broken).path("DescribeDownloadTask").times(2));
    let unavailable = Fault::Status {
        code: 503,
        retry_after: None,
    };
    faults.add(Rule::new(unavailable).on(Side::Api).skip(3).times(2));
    faults.add(
        Rule::new(Fault::Cut { after: 300_000 })
            .on(Side::Data)
            .times(2),
    );
    world.mount();
    copies_are_equal(&world, "dds-bp1orders");
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn a_lost_answer_to_a_create_is_looked_for() {
    for fault in [Fault::SeverAnswer, Fault::LoseAnswer { code: 502 }] {
        let mut world = world(Account::new().instance(orders(1)));
        let lost = Rule::new(fault.clone()).on(Side::Api);
        world.sim.faults().add(lost.path("CreateDownload").times(1));
        world.mount();
        copies_are_equal(&world, "dds-bp1orders");
        assert_eq!(world.sim.bill().tasks_created, 1, "{fault:?}");
    }
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
    let state = world.dir.path().join("state").display().to_string();
    let kept = sh(&format!("cat '{state}'/* | tr -cd '[:print:]'"));
    let secret = cloud(&world).access_key_secret();
    for text in [&world.log(), &shown, &kept] {
        for canary in ["CANARYTOKEN", secret, "Signature=", "OSSAccessKeyId"] {
            assert!(!text.contains(canary), "{canary} is shown");
        }
    }
}

/// The account writes into its own bucket.
fn into_bucket(account: Account) -> World {
    let mut world = world(account.bucket("my-backups"));
    let (name, endpoint) = cloud(&world).bucket().unwrap();
    let table = format!(
        "[provider.oss]\nbucket = \"{name}\"\nregion = \"cn-hangzhou\"\nprefix = \"mongo db/\"\n\
         endpoint = \"{endpoint}\"\n"
    );
    world.provider_keys.push(table);
    world
}

#[test]
fn a_task_writes_into_the_bucket_and_what_it_wrote_is_found_again() {
    let other = |number| snapshot(number).content(Content::noise(70, SIZE));
    let whole = Instance::sharded("dds-bp3whole", 2).backup(other(0));
    let account = Account::new().instance(orders(2)).instance(whole);
    let mut world = into_bucket(account);
    world.mount();
    let root = world.mountpoint.display().to_string();
    sh(&format!("ls -lR '{root}'; getfattr -R -d '{root}'"));
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.data_requests()),
        (0, 4),
        "only lists"
    );
    for instance in ["dds-bp1orders", "dds-bp3whole"] {
        copies_are_equal(&world, instance);
    }
    let bill = world.sim.bill();
    assert_eq!((bill.tasks_created, bill.links_signed), (4, 0), "{bill:?}");
    let keys: Vec<String> = cloud(&world)
        .objects()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys.len(), 4);
    assert!(
        keys[0].starts_with("mongo db/dds-bp1orders/190700001/mgset-bp1orders/"),
        "{keys:?}"
    );
    world.unmount();

    // Neither memory nor cache: the bucket is enough, and the sizes are known before any open.
    for place in ["state", "cache"] {
        fs::remove_dir_all(world.dir.path().join(place)).unwrap();
    }
    world.sim.advance(SignedDuration::from_hours(24 * 30));
    world.mount();
    let file = &files(&world, "dds-bp1orders")[1];
    assert_eq!(file.file_name().unwrap(), "mgset-bp1orders.tar.gz");
    assert_eq!(fs::metadata(file).unwrap().len(), SIZE + 1);
    copies_are_equal(&world, "dds-bp1orders");
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.forged_link_uses),
        (4, 0),
        "{bill:?}"
    );
}

#[test]
fn a_tree_in_the_bucket_is_shown_as_one() {
    let mut world = into_bucket(Account::new().instance(orders(1)));
    cloud(&world).adjust(|knobs| knobs.tree = true);
    world.mount_keys.push("list_ttl = \"100ms\"".into());
    world.mount();
    let archive = &files(&world, "dds-bp1orders")[0];
    // That it is no single file is known only once it was written.
    assert_eq!(errno(archive), Some(libc::ESTALE));
    assert!(
        xattr(archive, "error").contains("2 files"),
        "{}",
        xattr(archive, "error")
    );
    eventually("the tree is listed", || {
        files(&world, "dds-bp1orders").len() == 2
    });
    let expected = Content::noise(0, SIZE).sha256().unwrap();
    for file in files(&world, "dds-bp1orders") {
        assert!(
            file.to_str()
                .unwrap()
                .contains("/mgset-bp1orders/shop/orders/")
        );
        assert_eq!(sha256_of(&file), expected, "{}", file.display());
    }
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn a_bucket_that_is_not_ours_is_named() {
    let mut world = into_bucket(Account::new().instance(orders(1)));
    let table = world.provider_keys.pop().unwrap();
    world
        .provider_keys
        .push(table.replace("bucket = \"my-backups\"", "bucket = \"others\""));
    world.mount();
    let error = fs::read_dir(
        fs::read_dir(world.mountpoint.join(ACCOUNT).join("dds-bp1orders"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap() != "latest")
            .unwrap()
            .join("mgset-bp1orders"),
    )
    .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    assert!(world.log().contains("oss:ListObjects"));
    assert_eq!(world.sim.bill().tasks_created, 0);
}
