//! UCloud on a real mount: links made on demand, batches of shards, logs of operations, and every
//! reading of what its documents leave open.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::sim::ucloud::{
    Account, Addresses, Backup, EmptyList, Instance, Oplogs, ShortLife, Style, Ucloud,
};
use mongo_backupfs::sim::{Content, Fault, Rule, Side, Sim, SimBuilder};

use crate::world::{World, attribute, digests, eventually, sh, sha256_of};

const SET: &str = "umongodb-set";
const CLUSTER: &str = "umongodb-cluster";
pub const PLACE: &str = "ucloud";

fn started() -> Timestamp {
    "2026-11-05T17:02:03Z".parse().unwrap()
}

fn later(hours: i64) -> Timestamp {
    started() + SignedDuration::from_hours(hours)
}

/// A mount of the account alone; `keys` are further lines of its configuration.
fn world(account: Account, keys: &[&str]) -> World {
    let mut world = World::new(SimBuilder::new().ucloud(account));
    world.account = Some(self::account(&world.sim, keys));
    world
}

/// The same as a table of a configuration.
pub fn account(sim: &Sim, keys: &[&str]) -> String {
    let cloud = sim.ucloud().unwrap();
    format!(
        "[[provider]]\nname = \"{PLACE}\"\nkind = \"ucloud\"\nregions = [\"cn-bj2\"]\n\
         endpoint = \"{}\"\npublic_key = \"{}\"\nprivate_key = \"{}\"\nallow_http = true\n\
         retry_budget = \"20s\"\n{}\n",
        cloud.endpoint(),
        cloud.public_key(),
        cloud.private_key(),
        keys.join("\n"),
    )
}

fn cloud(world: &World) -> &Ucloud {
    world.sim.ucloud().unwrap()
}

/// A replica set with one backup of `content`.
fn replica_set(content: Content) -> Account {
    Account::new().instance(Instance::replica_set(SET).backup(Backup::at(started(), [content])))
}

fn root(world: &World) -> PathBuf {
    world.mountpoint.join(PLACE)
}

/// The file of the replica set's newest backup.
fn archive(world: &World) -> PathBuf {
    root(world).join(SET).join("latest/rs/rs.archive.gz")
}

#[test]
fn replica_set_and_shards_of_a_batch_are_copied_whole() {
    let single = Content::noise(9, 20_000_000);
    let parts: Vec<Content> = (0..3).map(|n| Content::noise(n, 3_000_000 + n)).collect();
    let logs = [Content::noise(20, 70_000), Content::noise(21, 1)];
    let backup = Backup::at(started(), [single.clone()]);
    let backup = backup.oplog(logs[0].clone()).oplog(logs[1].clone());
    let account = Account::new()
        .instance(Instance::replica_set(SET).backup(backup))
        .instance(Instance::sharded(CLUSTER).backup(Backup::at(later(1), parts.clone())))
        .instance(Instance::replica_set("umongodb-elsewhere").zone("cn-bj2", "cn-bj2-04"))
        .instance(Instance::replica_set("umongodb-abroad").zone("hk", "hk-02"));
    let mut world = world(account, &["zones = [\"cn-bj2-05\"]"]);
    world.mount();
    let place = root(&world);
    let place = place.display();
    let tree = sh(&format!(
        "cd '{place}' && ls -lR > /dev/null && du -a . > /dev/null && find . | sort"
    ));
    let (set, cluster) = (format!("./{SET}"), format!("./{CLUSTER}"));
    let (one, two) = (
        format!("{set}/20261105T170203Z-umongodb-bk-00010"),
        format!("{cluster}/20261105T180203Z-batch-0002"),
    );
    let (shard, other) = (format!("{CLUSTER}-shard0"), format!("{CLUSTER}-shard1"));
    let expected = [
        ".".to_owned(),
        cluster.clone(),
        two.clone(),
        format!("{two}/config"),
        format!("{two}/config/config.archive.gz"),
        format!("{two}/{shard}"),
        format!("{two}/{shard}/{shard}.archive.gz"),
        format!("{two}/{other}"),
        format!("{two}/{other}/{other}.archive.gz"),
        format!("{cluster}/latest"),
        set.clone(),
        one.clone(),
        format!("{one}/rs"),
        format!("{one}/rs/oplog-100.gz"),
        format!("{one}/rs/oplog-101.gz"),
        format!("{one}/rs/rs.archive.gz"),
        format!("{set}/latest"),
    ];
    assert_eq!(tree.lines().collect::<Vec<_>>(), expected);
    let bill = world.sim.bill();
    assert_eq!(
        (
            bill.data_requests(),
            bill.calls("DescribeUMongoDBBackupURL")
        ),
        (0, 0),
        "looking is free"
    );

    let copies = world.dir.path().join("copies");
    sh(&format!(
        "mkdir '{0}' && cp -r '{place}/{SET}/latest/rs' '{0}/set' && rsync -a '{place}/{CLUSTER}/' '{0}/cluster/'",
        copies.display()
    ));
    let sha = |content: &Content| content.sha256().unwrap();
    let copied = digests(&copies.join("set"));
    let wanted = [
        ("oplog-100.gz".to_owned(), sha(&logs[0])),
        ("oplog-101.gz".to_owned(), sha(&logs[1])),
        ("rs.archive.gz".to_owned(), sha(&single)),
    ];
    assert_eq!(copied, BTreeMap::from(wanted));
    let copied = digests(&copies.join("cluster/20261105T180203Z-batch-0002"));
    let wanted = [
        ("config/config.archive.gz".to_owned(), sha(&parts[2])),
        (format!("{shard}/{shard}.archive.gz"), sha(&parts[0])),
        (format!("{other}/{other}.archive.gz"), sha(&parts[1])),
    ];
    assert_eq!(copied, BTreeMap::from(wanted));
    let bill = world.sim.bill();
    // The first open of a file whose size was unknown is repeated by the kernel once it is known.
    let links = bill.calls("DescribeUMongoDBBackupURL");
    assert!((6..=12).contains(&links), "{bill:?}");
    assert_eq!(bill.tasks_created, 0);
    assert_eq!(bill.forged_link_uses, 0);

    let file = archive(&world);
    let finished = (started() + SignedDuration::from_secs(90)).as_second();
    assert_eq!(fs::metadata(&file).unwrap().mtime(), finished);
    assert_eq!(attribute(&file, "source-name"), "umongodb-bk-00010.tgz");
    assert_eq!(attribute(&file, "state"), "ready");
    world.unmount();
    world.mount();
    let again = sh(&format!(
        "rsync -ai '{place}/{CLUSTER}/' '{}/cluster/'",
        copies.display()
    ));
    assert_eq!(again, "", "a second rsync copies nothing");
    world.unmount();
}

#[test]
fn links_that_live_two_seconds_bring_a_whole_copy() {
    // More than can be under way at once, at a rate that takes longer than a link lives.
    let content = Content::noise(5, 64 << 20);
    let mut world =
        world(replica_set(content.clone()), &["valid_time = \"2s\""]).key("memory = \"32MiB\"");
    world.mount();
    let faults = world.sim.faults();
    let slow = Fault::Throttle {
        bytes_per_second: 1 << 20,
    };
    faults.add(Rule::new(slow).on(Side::Data));
    faults.add(
        Rule::new(Fault::Cut { after: 1 << 20 })
            .on(Side::Data)
            .chance(0.5),
    );
    let copy = world.dir.path().join("copy");
    sh(&format!(
        "cp -f '{}' '{}'",
        archive(&world).display(),
        copy.display()
    ));
    assert_eq!(sha256_of(&copy), content.sha256().unwrap());
    let bill = world.sim.bill();
    assert!(bill.calls("DescribeUMongoDBBackupURL") > 1, "{bill:?}");
    world.unmount();
}

/// Every way in which an expired link may be refused, met in the middle of a file.
#[test]
fn an_expired_link_is_renewed_however_its_store_says_so() {
    let content = Content::noise(6, 90 << 20);
    let mut world = world(replica_set(content.clone()), &[]).key("memory = \"32MiB\"");
    world.mount();
    let mut file = File::open(archive(&world)).unwrap();
    let ways = [
        (Style::Us3, 403),
        (Style::Us3, 401),
        (Style::Us3, 400),
        (Style::Us3, 200),
        (Style::S3, 403),
        (Style::S3, 403),
    ];
    // Far apart and in no order, so that nothing is read ahead.
    let places = [16, 70, 33, 5, 52, 84];
    for ((style, status), place) in ways.into_iter().zip(places) {
        cloud(&world).adjust(|knobs| {
            knobs.expired_status = status;
            knobs.style = style;
        });
        world.sim.advance(SignedDuration::from_hours(5));
        let at = place << 20;
        file.seek(SeekFrom::Start(at)).unwrap();
        let mut piece = [0; 4096];
        file.read_exact(&mut piece).unwrap();
        let expected = content.read(at..at + 4096).unwrap();
        assert_eq!(&piece[..], &expected[..], "{style:?} {status}");
    }
    let bill = world.sim.bill();
    assert!(bill.link_refreshes >= 6, "{bill:?}");
    drop(file);
    world.unmount();
}

#[test]
fn every_reading_of_the_documents_is_understood() {
    let content = Content::noise(7, 300_000);
    let account = || {
        let backup = Backup::at(started(), [content.clone()]).oplog(Content::noise(8, 5000));
        let running = Backup::at(later(1), [Content::noise(9, 10)]).running();
        let set = Instance::replica_set(SET).backup(backup).backup(running);
        let empty = Instance::replica_set("umongodb-new");
        Account::new().instance(set).instance(empty)
    };
    type Change = fn(&mut mongo_backupfs::sim::ucloud::Knobs);
    let readings: [(Change, &[&str], usize); 9] = [
        (|knobs| knobs.numbers_as_text = true, &[], 2),
        (|knobs| knobs.bare_rows = true, &[], 2),
        (|knobs| knobs.done = "Archived".into(), &[], 2),
        (|knobs| knobs.oplogs = Oplogs::Backups, &[], 2),
        (|knobs| knobs.style = Style::S3, &["valid_time = \"1h\""], 2),
        (
            |knobs| {
                knobs.escaped_signature = true;
                knobs.addresses = Addresses::Intranet;
            },
            &["network = \"intranet\"", "project_id = \"org-sim\""],
            2,
        ),
        (
            |knobs| {
                knobs.empty_list = EmptyList::Null;
                knobs.oplogs = Oplogs::Nowhere;
                knobs.addresses = Addresses::Internet;
            },
            &[],
            1,
        ),
        (
            |knobs| {
                knobs.empty_list = EmptyList::Missing;
                knobs.denied = vec!["ListUMongoDBLogPackage".into()];
            },
            &[],
            1,
        ),
        (
            |knobs| {
                knobs.least_life = SignedDuration::from_hours(4);
                knobs.short_life = ShortLife::Refused;
                knobs.whole_for_no_range = false;
            },
            &["valid_time = \"10m\""],
            2,
        ),
    ];
    for (number, (change, keys, files)) in readings.into_iter().enumerate() {
        let mut world = world(account(), keys);
        cloud(&world).adjust(change);
        world.mount();
        let shard = archive(&world);
        let shard = shard.parent().unwrap();
        let listed = fs::read_dir(shard).unwrap().count();
        assert_eq!(listed, files, "reading {number}");
        let backups = fs::read_dir(root(&world).join(SET)).unwrap().count();
        assert_eq!(backups, 2, "reading {number}: the finished one, and latest");
        let none = fs::read_dir(root(&world).join("umongodb-new")).unwrap();
        assert_eq!(none.count(), 0, "reading {number}");
        let copied = digests(shard);
        assert_eq!(copied.len(), files, "reading {number}");
        let whole = &copied["rs.archive.gz"];
        assert_eq!(*whole, content.sha256().unwrap(), "reading {number}");
        world.unmount();
    }
}

#[test]
fn an_empty_file_and_ranges_past_the_end_are_no_trouble() {
    let mut world = world(replica_set(Content::bytes("")), &[]);
    world.mount();
    assert_eq!(fs::read(archive(&world)).unwrap(), b"");
    world.unmount();
}

#[test]
fn throttling_and_passing_troubles_are_waited_out() {
    let content = Content::noise(3, 100_000);
    let mut world = world(replica_set(content.clone()), &[]);
    let faults = world.sim.faults().clone();
    let code = |code: &str| Fault::ApiError {
        status: 200,
        code: code.into(),
    };
    let unavailable = Fault::Status {
        code: 503,
        retry_after: None,
    };
    let troubles = [
        code("153"),
        code("150"),
        unavailable,
        code("130"),
        Fault::Sever,
        code("110"),
    ];
    for (requests, trouble) in (0..).zip(troubles) {
        faults.add(Rule::new(trouble).on(Side::Api).skip(requests).times(1));
    }
    world.mount();
    assert_eq!(sha256_of(&archive(&world)), content.sha256().unwrap());
    faults.add(Rule::new(code("153")).on(Side::Api).times(2));
    world.unmount();
    world.mount();
    assert_eq!(fs::read_dir(root(&world)).unwrap().count(), 1);
    assert!(world.sim.bill().faults >= 7);
    world.unmount();
}

/// Reading `path` fails with `errno`; its reason has `words`.
fn fails(path: &Path, errno: i32, words: &[&str]) {
    let error = fs::read(path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(errno), "{error}");
    let said = attribute(path, "error");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[test]
fn refusals_have_their_errno_and_text() {
    let noise = |seed| Content::noise(seed, 1000);
    let set = Instance::replica_set(SET)
        .backup(Backup::at(started(), [noise(1)]))
        .backup(Backup::at(later(1), [noise(2)]).snapshot().manual());
    let shards = Backup::at(started(), [noise(3), noise(4)]);
    let cluster = Instance::sharded(CLUSTER).backup(shards);
    let mut world =
        world(Account::new().instance(set).instance(cluster), &[]).key("list_ttl = \"1h\"");
    world.mount();
    let snapshot = archive(&world);
    let latest = root(&world).join(SET).join("latest");
    assert_eq!(attribute(&latest, "method"), "snapshot");
    let old = root(&world)
        .join(SET)
        .join("20261105T170203Z-umongodb-bk-00010");
    let old = old.join("rs/rs.archive.gz");
    let config = root(&world)
        .join(CLUSTER)
        .join("latest/config/config.archive.gz");
    assert!(old.exists() && config.exists());
    fails(&snapshot, libc::EOPNOTSUPP, &["RetCode 8003", "snapshots"]);

    cloud(&world).adjust(|knobs| knobs.sharded_links = false);
    fails(&config, libc::EOPNOTSUPP, &["RetCode 8003", "sharded"]);
    cloud(&world).adjust(|knobs| {
        knobs.sharded_links = true;
        knobs.addresses = Addresses::Neither;
    });
    fails(&config, libc::EOPNOTSUPP, &["without a link", "sharded"]);
    fails(&old, libc::EIO, &["without a link"]);
    cloud(&world).adjust(|knobs| knobs.addresses = Addresses::Intranet);
    fails(&old, libc::EOPNOTSUPP, &["network = \"intranet\""]);
    cloud(&world).adjust(|knobs| knobs.addresses = Addresses::Both);
    assert_eq!(
        fs::read(&config).unwrap().len(),
        1000,
        "a refusal is not for ever"
    );

    for (code, errno, words) in [
        ("171", libc::EACCES, "private_key"),
        ("172", libc::EACCES, "public_key"),
        ("174", libc::EACCES, "token"),
        ("292", libc::EACCES, "project_id"),
        ("293", libc::EACCES, "zones"),
        ("294", libc::EACCES, "address"),
        ("295", libc::EACCES, "lock"),
        ("299", libc::EACCES, "DescribeUMongoDBBackupURL"),
        ("161", libc::EIO, "endpoint"),
    ] {
        let fault = Fault::ApiError {
            status: 200,
            code: code.into(),
        };
        world.sim.faults().add(Rule::new(fault).on(Side::Api));
        fails(&old, errno, &[&format!("RetCode {code}"), words]);
        world.sim.faults().clear();
    }
    world
        .sim
        .faults()
        .add(Rule::new(Fault::LoginPage).on(Side::Api));
    fails(&old, libc::EIO, &["a web page"]);
    world.sim.faults().clear();

    // A link that the store turns down each time.
    let denied = Fault::ApiError {
        status: 403,
        code: "-148643".into(),
    };
    world.sim.faults().add(Rule::new(denied).on(Side::Data));
    fails(&old, libc::EACCES, &["-148643", "intranet"]);
    world.sim.faults().clear();
    assert_eq!(fs::read(&old).unwrap().len(), 1000);

    // Deleted while mounted: the listing that is served still has it.
    assert!(cloud(&world).delete_backup(CLUSTER, 0));
    let shard = format!("{CLUSTER}-shard0");
    let shard = root(&world).join(format!("{CLUSTER}/latest/{shard}/{shard}.archive.gz"));
    fails(&shard, libc::ENOENT, &["RetCode 8002", "retention"]);
    world.unmount();
}

#[test]
fn a_backup_deleted_under_an_open_file_is_stale() {
    let mut world = world(replica_set(Content::noise(1, 90 << 20)), &[]).key("memory = \"32MiB\"");
    world.mount();
    let mut file = File::open(archive(&world)).unwrap();
    file.read_exact(&mut [0; 4096]).unwrap();
    assert!(cloud(&world).delete_backup(SET, 0));
    file.seek(SeekFrom::Start(80 << 20)).unwrap();
    let error = file.read_exact(&mut [0; 4096]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    drop(file);
    world.unmount();
}

#[test]
fn a_wrong_key_is_refused_at_the_listing_and_a_running_backup_comes_later() {
    let running = Backup::at(started(), [Content::noise(1, 1000)]).running();
    let account = Account::new().instance(Instance::replica_set(SET).backup(running));
    let mut world = world(account, &[]).key("list_ttl = \"200ms\"");
    let right = world.account.clone().unwrap();
    let key = cloud(&world).private_key().to_owned();
    world.account = Some(right.replace(&key, "another"));
    world.mount();
    let error = fs::read_dir(root(&world)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    assert!(world.log().contains("RetCode 171"), "{}", world.log());
    world.unmount();
    world.account = Some(right);
    world.mount();
    let instance = root(&world).join(SET);
    assert_eq!(fs::read_dir(&instance).unwrap().count(), 0);
    cloud(&world).finish_backup(SET, 0);
    eventually("the backup is listed", || {
        fs::read_dir(&instance).unwrap().count() == 2
    });
    assert_eq!(fs::read(archive(&world)).unwrap().len(), 1000);
    let log = world.log();
    assert!(!log.contains(&key) && !log.contains("Signature="));
    world.unmount();
}
