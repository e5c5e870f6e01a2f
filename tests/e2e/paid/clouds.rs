//! The clouds that are paid for a download, each with one instance whose backups lie a day apart.

use std::fs;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::sim::{Content, Fault, Rule, Side, SimBuilder, aliyun, tencent};

use crate::world::{CLUSTER, PROVIDER, World, one_cluster, only_file};

const TENCENT: &str = "cmgo-replica1";
const ALIYUN: &str = "dds-bp1orders";

/// A cloud whose backups must be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Snapshots of the shared tier: lists its downloads, any number at a time.
    Atlas,
    /// Logical backups: lists its downloads, any number at a time.
    Tencent,
    /// Snapshots on cloud disks: lists its tasks, one of an instance at a time.
    Aliyun,
}

impl Cloud {
    pub const ALL: [Cloud; 3] = [Cloud::Atlas, Cloud::Tencent, Cloud::Aliyun];

    /// A world of this cloud alone, with one backup of each of `contents`; not mounted.
    pub fn world(self, contents: &[Content]) -> World {
        let contents = contents.iter().cloned();
        let first: Timestamp = "2026-03-01T18:00:00Z".parse().unwrap();
        let days = (0..).map(|day| first + SignedDuration::from_hours(24 * day));
        let backups = days.zip(contents.clone());
        match self {
            Cloud::Atlas => World::new(one_cluster(contents)),
            Cloud::Tencent => {
                let instance = backups
                    .fold(tencent::Instance::new(TENCENT), |all, (at, content)| {
                        all.backup(tencent::Backup::at(at, [content]))
                    });
                let mut world = World::new(SimBuilder::new().instance(instance));
                world.account = Some(crate::tencent::account(&world.sim));
                world
            }
            Cloud::Aliyun => {
                let empty = aliyun::Instance::replica_set(ALIYUN);
                let instance = backups.fold(empty, |all, (at, content)| {
                    all.backup(aliyun::Backup::at(at).content(content))
                });
                crate::aliyun::world(aliyun::Account::new().instance(instance))
            }
        }
    }

    /// The only file of each backup, oldest first.
    pub fn files(self, world: &World) -> Vec<PathBuf> {
        let instance = match self {
            Cloud::Atlas => world.mountpoint.join(PROVIDER).join(CLUSTER),
            Cloud::Tencent => world.mountpoint.join("tencent").join(TENCENT),
            Cloud::Aliyun => world.mountpoint.join(crate::aliyun::ACCOUNT).join(ALIYUN),
        };
        let mut backups: Vec<PathBuf> = fs::read_dir(instance)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap() != "latest")
            .collect();
        backups.sort();
        backups.iter().map(|backup| only_file(backup)).collect()
    }

    /// Tasks that are asked for from now on take this long.
    pub fn task_time(self, world: &World, time: SignedDuration) {
        match self {
            Cloud::Atlas => world.sim.adjust(|knobs| knobs.task_time = time),
            Cloud::Tencent => world.sim.adjust_tencent(|knobs| knobs.task_time = time),
            Cloud::Aliyun => {
                let cloud = world.sim.aliyun().unwrap();
                cloud.adjust(|knobs| knobs.task_time = time);
            }
        }
    }

    /// `fault`, for the requests that are paid for.
    pub fn on_create(self, fault: Fault) -> Rule {
        let path = match self {
            Cloud::Atlas => "backup/tenant/download",
            Cloud::Tencent => "CreateBackupDownloadTask",
            Cloud::Aliyun => "CreateDownload",
        };
        Rule::new(fault).on(Side::Api).method("POST").path(path)
    }
}
