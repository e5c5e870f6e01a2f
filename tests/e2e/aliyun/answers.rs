//! Refusals, troubles and oddities of the services' answers.

use std::time::{Duration, Instant};

use mongo_backupfs::sim::aliyun::{Account, Instance, Knobs};
use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use super::*;

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
fn each_missing_permission_is_eacces_and_named() {
    for missing in [
        "dbs:DescribeDownloadSupport",
        "dbs:DescribeDownloadTask",
        "dbs:CreateDownload",
        "dbs:DescribeDownloadBackupSetStorageInfo",
    ] {
        let mut world = world(Account::new().instance(orders(1)));
        let granted = ACTIONS.iter().filter(|action| **action != missing);
        let granted: Vec<String> = granted.map(|action| action.to_string()).collect();
        cloud(&world).adjust(|knobs| knobs.policy = granted);
        world.mount();
        let file = &files(&world, "dds-bp1orders")[0];
        assert_eq!(errno(file), Some(libc::EACCES), "{missing}");
        let reason = xattr(file, "error");
        assert!(reason.contains(missing), "{missing}: {reason}");
    }
    // A listing that was never served.
    let mut world = world(Account::new().instance(orders(1)));
    cloud(&world).adjust(|knobs| knobs.policy = vec!["dbs:*".into()]);
    world.mount();
    let error = fs::read_dir(world.mountpoint.join(ACCOUNT)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    assert!(world.log().contains("dds:DescribeDBInstances"));
}

const ACTIONS: [&str; 6] = [
    "dds:Describe*",
    "dbs:DescribeDownloadSupport",
    "dbs:DescribeDownloadTask",
    "dbs:CreateDownload",
    "dbs:RetryDownloadTask",
    "dbs:DescribeDownloadBackupSetStorageInfo",
];

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
fn throttling_is_waited_out_in_milliseconds() {
    let mut world = world(Account::new().instance(orders(1)));
    world.mount();
    let wait = Duration::from_millis(900);
    let file = &files(&world, "dds-bp1orders")[0];
    cloud(&world).adjust(|knobs| knobs.throttled = (2, wait.try_into().unwrap()));
    let begun = Instant::now();
    assert!(File::open(file).is_ok());
    let took = begun.elapsed();
    // As seconds they would have exceeded the budget of 120 s.
    assert!(took >= wait, "not waited for: {took:?}");
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn no_call_is_made_more_often_than_the_service_bears() {
    const PER_SECOND: f64 = 5.0;
    let account = (0..15).fold(Account::new(), |account, number| {
        let id = format!("dds-bp{number:02}");
        account.instance(Instance::replica_set(&id).backup(snapshot(0)))
    });
    let mut world = world(account);
    let begun = Instant::now();
    world.mount();
    sh(&format!("find '{}' -type f", world.mountpoint.display()));
    let took = begun.elapsed().as_secs_f64();
    let calls = world.sim.bill().calls("DescribeBackups");
    let most = (1.0 + took) * PER_SECOND;
    assert!(
        (15.0..=most).contains(&(calls as f64)),
        "{calls} in {took} s"
    );
}

#[test]
fn a_tenth_of_the_data_refused_and_the_rest_cut_short_is_a_whole_copy() {
    const LARGE: u64 = 40 << 20;
    let large = Backup::at(day(0)).content(Content::noise(9, LARGE));
    let local = Backup::at(day(0)).content(Content::noise(8, LARGE));
    let account = Account::new()
        .instance(Instance::replica_set("dds-bp1orders").backup(large))
        .instance(
            Instance::replica_set("dds-bp2local")
                .on_local_disk("4.2")
                .backup(local.physical(".tar.gz")),
        );
    let mut world = world(account);
    world.mount();
    let names = ["dds-bp1orders", "dds-bp2local"];
    let opened: Vec<PathBuf> = names
        .iter()
        .map(|name| files(&world, name).remove(0))
        .collect();
    let unavailable = Fault::Status {
        code: 503,
        retry_after: None,
    };
    let faults = world.sim.faults();
    faults.add(Rule::new(unavailable).on(Side::Data).chance(0.1));
    let cut = Fault::Cut { after: 1 << 20 };
    faults.add(Rule::new(cut).on(Side::Data).chance(0.3));
    for (path, seed) in opened.iter().zip([9, 8]) {
        let expected = Content::noise(seed, LARGE).sha256().unwrap();
        assert_eq!(sha256_of(path), expected, "{}", path.display());
    }
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn damaged_bytes_are_an_error_and_never_a_copy() {
    let local = Instance::replica_set("dds-bp2local").on_local_disk("4.2");
    let local = local.backup(snapshot(0).physical("_qp.xb"));
    let mut world = world(Account::new().instance(orders(1)).instance(local));
    cloud(&world).adjust(|knobs| knobs.wrong_checksums = true);
    world.mount();
    for instance in ["dds-bp1orders", "dds-bp2local"] {
        let file = &files(&world, instance)[0];
        let error = fs::read(file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{instance}: {error}");
        assert!(xattr(file, "error").contains("CRC-64"), "{instance}");
    }
    cloud(&world).adjust(|knobs| knobs.wrong_checksums = false);
    for instance in ["dds-bp1orders", "dds-bp2local"] {
        copies_are_equal(&world, instance);
        let file = &files(&world, instance)[0];
        eventually("the digest is known to be right", || {
            xattr(file, "digest").ends_with(" verified")
        });
        assert!(xattr(file, "digest").starts_with("crc64ecma:"));
    }
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn what_is_odd_but_has_been_seen_does_no_harm() {
    let other = |number| snapshot(number).content(Content::noise(70, SIZE));
    let local = Instance::replica_set("dds-bp2local").on_local_disk("4.0");
    let local = local.backup(snapshot(0).physical("_qp.xb"));
    let account = Account::new()
        .instance(orders(2))
        .instance(local)
        .instance(Instance::replica_set("dds-bp3empty"))
        .instance(Instance::sharded("dds-bp4whole", 2).backup(other(0)))
        .instance(
            Instance::sharded("dds-bp5shards", 2)
                .shard_by_shard()
                .backup(other(1)),
        );
    let mut world = world(account);
    cloud(&world).adjust(|knobs| {
        knobs.odd = true;
        knobs.failures = 0;
    });
    world.mount();
    for instance in [
        "dds-bp1orders",
        "dds-bp2local",
        "dds-bp3empty",
        "dds-bp4whole",
        "dds-bp5shards",
    ] {
        copies_are_equal(&world, instance);
    }
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.calls("CreateDownload")),
        (6, 6),
        "{bill:?}"
    );
    // Without memory all of them are found again.
    world.unmount();
    fs::remove_dir_all(world.dir.path().join("state")).unwrap();
    world.mount();
    copies_are_equal(&world, "dds-bp4whole");
    assert_eq!(world.sim.bill().tasks_created, 6);
}

#[test]
fn a_service_that_wants_the_clusters_id_gets_it() {
    let other = |number| snapshot(number).content(Content::noise(70, SIZE));
    let whole = Instance::sharded("dds-bp4whole", 2).backup(other(0));
    let single = Instance::sharded("dds-bp5shards", 2).shard_by_shard();
    let account = Account::new().instance(whole);
    let mut world = world(account.instance(single.backup(other(1))));
    cloud(&world).adjust(|knobs| knobs.by_cluster = true);
    world.mount();
    for round in 0..2 {
        // One archive of the whole cluster stands for each of its shards.
        let archive = Content::noise(0, SIZE).sha256().unwrap();
        for file in files(&world, "dds-bp4whole") {
            assert_eq!(sha256_of(&file), archive, "{}", file.display());
        }
        copies_are_equal(&world, "dds-bp5shards");
        assert_eq!(world.sim.bill().tasks_created, 3, "round {round}");
        // Without memory the tasks are found again.
        world.unmount();
        for place in ["state", "cache"] {
            fs::remove_dir_all(world.dir.path().join(place)).unwrap();
        }
        world.mount();
    }
}

#[test]
fn a_listed_size_that_is_another_one_and_an_empty_file_do_no_harm() {
    let local = Instance::replica_set("dds-bp2local").on_local_disk("4.2");
    let empty = Backup::at(day(2)).content(Content::noise(2, 0)).logical();
    let local = local
        .backup(snapshot(0).physical("_qp.xb").declared(SIZE / 2))
        .backup(snapshot(1).physical("_qp.xb").declared(SIZE * 2))
        .backup(empty);
    let mut world = world(Account::new().instance(local));
    world.mount();
    for (file, to) in files(&world, "dds-bp2local").iter().zip(["a", "b", "c"]) {
        let to = world.dir.path().join(to);
        assert!(wait(&mut copy(file, &to)).expect("the copy ends").success());
        assert_eq!(sha256_of(&to), sha256_of(file));
    }
    copies_are_equal(&world, "dds-bp2local");
}
