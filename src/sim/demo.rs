//! The small world that `demo` and the conformance script look at.

use jiff::{SignedDuration, Timestamp};

use super::aliyun;
use super::atlas::{Cluster, Project, Snapshot, Status, Tier};
use super::tencent::{Backup, Instance, Method};
use super::ucloud;
use super::{Content, SimBuilder, dump};

/// Where the folder of an older Tencent backup lies in the bucket.
const FOLDER: &str = "cmongo_backup/cmgo-archive1_0/snapshot/1544517026";

/// One Atlas project: a shared M2 and M5 and a Flex cluster with up to a week of daily snapshots
/// each, a free M0 without, a dedicated replica set, a cluster of two shards, and one that was
/// deleted. The last snapshot is of this morning; every artifact is a genuine
/// `.tgz` of a database dump. One Tencent account: a replica set and a cluster of three shards,
/// and a folder of a third instance in COS, with a name that needs care. One Alibaba Cloud account:
/// a replica set and a cluster of two shards on cloud disks, and a replica set on local disks. One
/// UCloud account: a replica set with logs of operations, and a cluster of two shards.
pub fn demo_clouds() -> SimBuilder {
    let now = Timestamp::now();
    let midnight = now.as_second() - now.as_second().rem_euclid(86_400);
    let at = |hours: i64| {
        let today =
            Timestamp::from_second(midnight).unwrap_or(now) + SignedDuration::from_hours(hours);
        // Not in the future, whatever the time of day.
        if today > now {
            today - SignedDuration::from_hours(24)
        } else {
            today
        }
    };
    let builder = SimBuilder::new()
        .aliyun(alibaba(&at))
        .ucloud(umongodb(&at))
        .project(atlas(&at, now));
    let ago = |days: i64, hours: i64| at(hours) - SignedDuration::from_hours(24 * days);
    let shards = |seed: u64| (0..3).map(move |shard| Content::packed_dump(seed + shard));
    let builder = builder
        .instance(
            Instance::new("cmgo-shop0001")
                .backup(Backup::at(ago(1, 1), [Content::packed_dump(400)]))
                .backup(Backup::at(ago(0, 1), [Content::packed_dump(401)]).manual()),
        )
        .instance(
            Instance::new("cmgo-ledger01")
                .shards(3)
                .backup(Backup::at(ago(0, 5), shards(410)).method(Method::Physical)),
        );
    let written = Timestamp::from_second(1_544_517_060).unwrap_or(now);
    let note = Content::bytes("Read me before you restore.\n");
    let mut builder = builder.object(&format!("{FOLDER}/read me +100%.txt"), note, written);
    for (name, data) in dump::folder(420) {
        builder = builder.object(&format!("{FOLDER}/{name}"), Content::bytes(data), written);
    }
    builder
}

/// The Atlas project, at `now`.
fn atlas(at: &dyn Fn(i64) -> Timestamp, now: Timestamp) -> Project {
    let daily = |name: &str, tier, count, hour, seed| {
        Cluster::new(name, tier).daily(count, at(hour), move |day| Content::dump(seed + day))
    };
    let running = Snapshot::at(now).status(Status::Running);
    let parts = (0..3).map(|part| Content::dump(330 + part));
    Project::new("Web shop (production)")
        .cluster(daily("orders", Tier::M2, 7, 2, 100).snapshot(running))
        .cluster(daily("catalogue", Tier::M5, 5, 3, 200).version("8.0.4"))
        .cluster(daily("reviews", Tier::Flex, 2, 3, 250))
        .cluster(Cluster::new("sandbox", Tier::M0))
        .cluster(daily("ledger", Tier::M10, 3, 4, 300))
        .cluster(
            Cluster::new("visits", Tier::M10)
                .sharded(2)
                .snapshot(Snapshot::at(at(5)).contents(parts)),
        )
        .cluster(daily("legacy", Tier::M10, 1, 6, 340).deleted())
}

/// The Alibaba Cloud account; `at` is the last time that it was so many hours after midnight.
fn alibaba(at: &dyn Fn(i64) -> Timestamp) -> aliyun::Account {
    use aliyun::{Backup, Instance};
    let invoices = (0..3).fold(Instance::replica_set("dds-bp1invoices"), |invoices, day| {
        let started = at(5) - SignedDuration::from_hours(24 * (2 - day));
        let content = Content::dump(400 + day as u64);
        invoices.backup(Backup::at(started).content(content))
    });
    let events = Backup::at(at(6))
        .content(Content::dump(500))
        .content(Content::dump(501));
    let archive = Backup::at(at(7)).content(Content::noise(600, 3 << 20));
    let archive = archive.physical("_qp.xb");
    aliyun::Account::new()
        .bucket("mongodb-archive")
        .instance(invoices)
        .instance(Instance::sharded("dds-bp2events", 2).backup(events))
        .instance(
            Instance::replica_set("dds-bp3archive")
                .on_local_disk("4.2")
                .backup(archive),
        )
}

/// The UCloud account.
fn umongodb(at: &dyn Fn(i64) -> Timestamp) -> ucloud::Account {
    use ucloud::{Backup, Instance};
    let yesterday = at(8) - SignedDuration::from_hours(24);
    let parts = (0..3).map(|part| Content::dump_archive(720 + part));
    ucloud::Account::new()
        .instance(
            Instance::replica_set("umongodb-stock")
                .backup(
                    Backup::at(yesterday, [Content::dump_archive(700)])
                        .oplog(Content::dump(701))
                        .oplog(Content::dump(702)),
                )
                .backup(Backup::at(at(8), [Content::dump_archive(710)]).manual()),
        )
        .instance(Instance::sharded("umongodb-visits").backup(Backup::at(at(9), parts)))
}
