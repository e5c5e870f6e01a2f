//! What there is: instances, their backups, and the links that listings carry. Asks only what is free.

use jiff::SignedDuration;

use super::actions::Action;
use super::client::{Page, Parameters};
use super::{Aliyun, convert, gone, shards, tasks, wire};
use crate::config::Network;
use crate::error::{Error, Kind, Result};
use crate::model::{Backup, Instance, Link, ShardRef};
use crate::providers::http::Budget;

/// Before any backup that can be listed; the service began later.
const BEGINNING: &str = "2015-01-01T00:00Z";

impl Aliyun {
    /// The instances of one region and architecture: an answer never has both.
    pub(super) async fn listed(
        &self,
        region: &str,
        architecture: &'static str,
        budget: &mut Budget,
    ) -> Result<Vec<Instance>> {
        let parameters = vec![
            ("RegionId", region.to_owned()),
            ("DBInstanceType", architecture.to_owned()),
        ];
        let action = Action::DescribeDbInstances;
        let read = |answer: wire::Instances| Page {
            items: answer.instances,
            total: answer.total_count,
        };
        let listed = self
            .client
            .list(action, &parameters, "PageNumber", budget, read)
            .await?;
        let instances = listed.iter();
        let instances = instances.filter_map(|one| convert::instance(one, region, architecture));
        Ok(instances.collect())
    }

    /// All that is known of an instance now.
    pub(super) async fn attributes(
        &self,
        of: &Instance,
        budget: &mut Budget,
    ) -> Result<wire::Instance> {
        let parameters = vec![("DBInstanceId", of.id.clone())];
        let action = Action::DescribeDbInstanceAttribute;
        let answer: wire::Instances = self.client.ask(action, &parameters, budget).await?;
        let listed = answer.instances.unwrap_or_default();
        let found = listed
            .into_iter()
            .find(|one| one.id.as_deref().is_none_or(|id| id == of.id));
        found.ok_or_else(|| {
            let words = format!("Alibaba Cloud no longer knows instance {}", of.id);
            Error::new(Kind::NotFound, words)
        })
    }

    /// Backups of a replica set, or of one shard; only the one with the id `only`, if given.
    async fn node_backups(
        &self,
        of: &Instance,
        node: Option<&str>,
        only: Option<&str>,
        budget: &mut Budget,
    ) -> Result<Vec<wire::Backup>> {
        let mut parameters = self.window(of);
        parameters.extend(node.map(|node| ("NodeId", node.to_owned())));
        parameters.extend(only.map(|id| ("BackupId", id.to_owned())));
        let action = Action::DescribeBackups;
        let read = |answer: wire::Backups| Page {
            items: answer.backups,
            total: answer.total_count,
        };
        let listed = self
            .client
            .list(action, &parameters, "PageNumber", budget, read);
        Ok(listed.await?)
    }

    /// Backups of a whole sharded cluster; only the one with the id `only`, if given.
    async fn cluster_backups(
        &self,
        of: &Instance,
        only: Option<&str>,
        budget: &mut Budget,
    ) -> Result<Vec<wire::ClusterBackup>> {
        let mut parameters = self.window(of);
        parameters.extend(only.map(|id| ("BackupId", id.to_owned())));
        let action = Action::DescribeClusterBackups;
        let read = |answer: wire::ClusterBackups| Page {
            items: answer.cluster_backups,
            total: None,
        };
        let listed = self
            .client
            .list(action, &parameters, "PageNo", budget, read);
        Ok(listed.await?)
    }

    /// The instance and a window around all of its backups, to the minute.
    fn window(&self, of: &Instance) -> Parameters {
        let now = self.client.api.now();
        let end = now
            .checked_add(SignedDuration::from_hours(24))
            .unwrap_or(now);
        vec![
            ("DBInstanceId", of.id.clone()),
            ("StartTime", BEGINNING.to_owned()),
            ("EndTime", end.strftime("%Y-%m-%dT%H:%MZ").to_string()),
        ]
    }

    pub(super) async fn all_backups(
        &self,
        of: &Instance,
        budget: &mut Budget,
    ) -> Result<Vec<Backup>> {
        let attributes = self.attributes(of, budget).await?;
        let obstacle = convert::lasting_obstacle(&attributes);
        let obstacle = obstacle.as_deref();
        let version = attributes.engine_version.as_deref();
        if !convert::is_sharded(of) {
            let shard = attributes.replica_set_name.as_deref().unwrap_or(&of.id);
            let listed = self.node_backups(of, None, None, budget).await?;
            let mut backups = Vec::new();
            for one in &listed {
                if let Some(piece) = convert::piece(one, shard, obstacle)? {
                    backups.extend(convert::backup(piece.set.clone(), vec![piece], version));
                }
            }
            return Ok(backups);
        }
        if attributes.use_cluster_backup == Some(true) {
            let mut backups = Vec::new();
            for one in self.cluster_backups(of, None, budget).await? {
                backups.extend(convert::cluster_backup(&one, obstacle, version)?);
            }
            return Ok(backups);
        }
        let mut pieces = Vec::new();
        for node in convert::nodes(&attributes) {
            for one in self.node_backups(of, Some(&node), None, budget).await? {
                pieces.extend(convert::piece(&one, &node, obstacle)?);
            }
        }
        let runs = shards::runs(pieces).into_iter();
        Ok(runs
            .filter_map(|(id, pieces)| convert::backup(id, pieces, version))
            .collect())
    }

    /// The link that a listing names for an object.
    pub(super) async fn object_link(&self, of: &ShardRef, budget: &mut Budget) -> Result<Link> {
        let set = convert::backup_set(&of.shard);
        let listed = if convert::is_whole_cluster(of) {
            let id = of.backup.id.as_str();
            let clusters = self.cluster_backups(&of.instance, Some(id), budget).await?;
            let cluster = clusters
                .into_iter()
                .find(|found| found.cluster_backup_id.as_deref() == Some(id));
            cluster.and_then(|found| found.backups).unwrap_or_default()
        } else {
            // Of a sharded cluster only the backups of all shards could be asked for together.
            let (node, only) = match convert::is_sharded(&of.instance) {
                true => (Some(of.shard.id.as_str()), None),
                false => (None, Some(set)),
            };
            self.node_backups(&of.instance, node, only, budget).await?
        };
        let backup = listed
            .into_iter()
            .find(|found| found.backup_id.as_deref() == Some(set));
        let (public, private) = match backup {
            Some(found) => (found.public_url, found.private_url),
            None => (None, None),
        };
        let url = match self.network {
            Network::Public => public.or(private),
            Network::Private => private.or(public),
        };
        let url = url.ok_or_else(gone)?;
        tasks::link(url.expose(), self.allow_http)
    }
}
