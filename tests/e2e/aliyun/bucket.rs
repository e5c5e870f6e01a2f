//! Download tasks that write into the account's own bucket.

use std::fs;

use jiff::SignedDuration;
use mongo_backupfs::sim::Content;
use mongo_backupfs::sim::aliyun::{Account, Instance};

use super::*;

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
    world.mount();
    let archive = &files(&world, "dds-bp1orders")[0];
    // That it is no single file is known only once it was written.
    assert_eq!(errno(archive), Some(libc::ESTALE));
    assert!(world.log().contains("written as 2 files"));
    world.unmount();
    world.mount();
    assert_eq!(files(&world, "dds-bp1orders").len(), 2);
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
        .push(table.replace("my-backups", "others"));
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
