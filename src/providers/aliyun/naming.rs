//! How download tasks name what they convert.
//!
//! For a replica set that is documented. For a shard it is not: the parameter for the instance may
//! have to be the shard's id or the whole cluster's, with a backup set to match. Where the service
//! takes the cluster's, all shards of a backup have one task. The shard's is tried first; whichever
//! was understood is kept for the instance.
//!
//! State: what was understood, behind one lock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::client::Parameters;
use super::convert;
use crate::model::ShardRef;

/// A way to name the origin of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// A replica set by its own id.
    Instance,
    /// A shard by its id, beside that of its cluster.
    Shard,
    /// A shard by the id of its cluster.
    Cluster,
}

impl Naming {
    /// The parameters for the place.
    pub(super) fn place(self, of: &ShardRef) -> Parameters {
        let (instance, cluster) = match self {
            Naming::Instance => (&of.instance.id, None),
            Naming::Shard => (&of.shard.id, Some(&of.instance.id)),
            Naming::Cluster => (&of.instance.id, Some(&of.instance.id)),
        };
        let mut parameters = vec![
            ("RegionCode", convert::region(&of.instance)),
            ("InstanceName", instance.clone()),
        ];
        parameters.extend(cluster.map(|cluster| ("ClusterName", cluster.clone())));
        parameters
    }

    /// The backup set.
    pub(super) fn set(self, of: &ShardRef) -> String {
        let own = convert::backup_set(&of.shard);
        let set = match self {
            Naming::Cluster => convert::cluster_set(of).unwrap_or(own),
            Naming::Instance | Naming::Shard => own,
        };
        set.to_owned()
    }
}

/// What is known of each sharded cluster.
#[derive(Debug, Default)]
pub(super) struct Namings(Mutex<HashMap<String, Naming>>);

impl Namings {
    /// The ways to try for `of`, in this order.
    pub(super) fn of(&self, of: &ShardRef) -> Vec<Naming> {
        if !convert::is_sharded(&of.instance) {
            return vec![Naming::Instance];
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&of.instance.id) {
            Some(naming) => vec![*naming],
            None => vec![Naming::Shard, Naming::Cluster],
        }
    }

    /// The service understood `naming`.
    pub(super) fn learn(&self, of: &ShardRef, naming: Naming) {
        if naming != Naming::Instance {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(of.instance.id.clone(), naming);
        }
    }
}
