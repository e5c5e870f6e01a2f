//! Where the documents are silent or contradict each other, every reading of them is served.

use std::fs;

use jiff::SignedDuration;
use mongo_backupfs::sim::tencent::{Backup, Instance, Knobs, Method};
use mongo_backupfs::sim::{Content, SimBuilder};

use super::folders::{SHARD, folder};
use super::{CLUSTER, account, replica_set, root, started, tar, world};
use crate::world::{digests, sha256_of};

/// A cluster is read whole, by one task for each shard, from a cloud that is like this.
fn is_read_from(what: &str, knobs: Knobs) {
    let contents: Vec<Content> = (0..3).map(|n| Content::noise(n, 300_000 + n)).collect();
    let backup = Backup::at(started(), contents.clone()).method(Method::Physical);
    let cluster = Instance::new(CLUSTER)
        .shards(3)
        .region("ap-beijing")
        .backup(backup);
    let single = replica_set(Content::noise(9, 1000));
    let builder = SimBuilder::new().tencent_knobs(knobs);
    let mut world = world(builder.instance(cluster).instance(single));
    let account = account(&world.sim);
    let regions = "[\"ap-beijing\", \"ap-guangzhou\"]";
    let account = account.replacen("[\"ap-guangzhou\"]", regions, 1);
    world.account = Some(account);
    world.mount();
    let expected: Vec<String> = contents.iter().map(|c| c.sha256().unwrap()).collect();
    let read = digests(&root(&world).join(CLUSTER).join("latest/"));
    assert_eq!(read.into_values().collect::<Vec<_>>(), expected, "{what}");
    assert_eq!(
        sha256_of(&tar(&world)),
        Content::noise(9, 1000).sha256().unwrap()
    );
    let bill = world.sim.bill();
    assert_eq!(bill.tasks_created, 4, "{what}: {bill:?}");
    assert_eq!(
        bill.calls("CreateBackupDownloadTask"),
        4,
        "{what}: {bill:?}"
    );
    world.unmount();
}

#[test]
fn a_list_of_backups_without_a_method_may_be_of_logical_ones() {
    let knobs = Knobs {
        lists_all_methods: false,
        ..Knobs::default()
    };
    is_read_from("only logical backups", knobs);
}

#[test]
fn a_list_of_instances_may_be_of_all_regions() {
    let knobs = Knobs {
        lists_all_regions: true,
        ..Knobs::default()
    };
    is_read_from("every region's instances", knobs);
}

#[test]
fn a_page_may_hold_less_than_asked_for() {
    let knobs = Knobs {
        most_per_page: 1,
        ..Knobs::default()
    };
    is_read_from("small pages", knobs.clone());
    let knobs = Knobs {
        offset_counts_pages: true,
        ..knobs
    };
    is_read_from("small pages by number", knobs);
}

#[test]
fn a_backup_that_was_never_downloaded_may_have_no_list_of_downloads() {
    let knobs = Knobs {
        no_downloads_is_not_found: true,
        ..Knobs::default()
    };
    is_read_from("no list", knobs);
}

#[test]
fn case_07_an_unfinished_download_may_have_an_empty_link_or_none_and_wait_for_a_retry() {
    for empty_links in [false, true] {
        let knobs = Knobs {
            empty_links,
            task_time: SignedDuration::from_millis(400),
            tasks_wait_for_retry: true,
            resign: empty_links,
            ..Knobs::default()
        };
        is_read_from("slow tasks", knobs);
    }
}

#[test]
fn case_39_a_clock_that_is_off_by_hours_does_no_harm() {
    let content = Content::noise(6, 3_000_000);
    let (builder, expected) = folder(SimBuilder::new(), 12);
    let mut world = world(builder.instance(replica_set(content.clone())));
    world.sim.advance(SignedDuration::from_hours(3));
    world.mount();
    assert_eq!(sha256_of(&tar(&world)), content.sha256().unwrap());
    let shard = root(&world).join(SHARD);
    assert_eq!(digests(&shard).len(), expected.len());
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
    let shard = root(&world).join(SHARD);
    assert_eq!(digests(&shard).len(), expected.len());
    world.unmount();
}
