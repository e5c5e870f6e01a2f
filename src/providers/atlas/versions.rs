//! Which resources are asked, below which path, in which API version. Pure but for one small memory.
//!
//! v2 names the version of each resource in the media type; v1.0 has its own path and plain JSON
//! (Atlas Administration API, "API resource versions"). Which of them an endpoint serves is learnt
//! per resource, because gateways and old installations serve some under one version only.
//!
//! State: [`Spoken`], one number per resource behind a lock that is held for single reads and writes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;

/// What can be asked of Atlas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Resource {
    /// The project's clusters other than Flex.
    Clusters,
    /// The project's Flex clusters.
    FlexClusters,
    /// Snapshots of a cluster.
    Snapshots(Service),
    /// Creates a download.
    Download(Service),
    /// Downloads and restores of a cluster.
    Restores(Service),
    /// One snapshot of a sharded cluster, for which the list has another name.
    ShardedSnapshot,
}

/// How a cluster is backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Service {
    /// M2 and M5.
    Shared,
    /// Their successor.
    Flex,
    /// A dedicated cluster (M10 and larger) of one replica set.
    ReplicaSet,
    /// A dedicated cluster of several.
    Sharded,
}

impl Service {
    /// The word kept in an instance's facts.
    pub(super) fn word(self) -> &'static str {
        match self {
            Service::Shared => "shared",
            Service::Flex => "flex",
            Service::ReplicaSet => "replica set",
            Service::Sharded => "sharded",
        }
    }

    /// The service of such a word.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        use Service::*;
        let mut all = [Shared, Flex, ReplicaSet, Sharded].into_iter();
        all.find(|service| service.word() == word)
    }
}

/// A version of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// The path component after `/api/atlas`.
    pub(super) version: &'static str,
    /// The media type asked for.
    pub(super) accept: &'static str,
}

const V1: Form = Form {
    version: "v1.0",
    accept: "application/json",
};
const V2_2023: Form = Form {
    version: "v2",
    accept: "application/vnd.atlas.2023-01-01+json",
};
const V2_CLUSTERS: Form = Form {
    version: "v2",
    accept: "application/vnd.atlas.2024-08-05+json",
};
const V2_FLEX: Form = Form {
    version: "v2",
    accept: "application/vnd.atlas.2024-11-13+json",
};

impl Resource {
    /// The forms to try, newest first.
    pub(super) fn forms(self) -> &'static [Form] {
        use Resource::*;
        match self {
            Clusters => &[V2_CLUSTERS, V2_2023, V1],
            FlexClusters
            | Snapshots(Service::Flex)
            | Download(Service::Flex)
            | Restores(Service::Flex) => &[V2_FLEX],
            Snapshots(_) | Download(_) | Restores(_) | ShardedSnapshot => &[V2_2023, V1],
        }
    }

    /// Whether its list comes in pages. The lists of the shared tier and of the snapshots of
    /// sharded clusters take no paging parameters.
    pub(super) fn paged(self) -> bool {
        use Resource::*;
        match self {
            Snapshots(Service::Shared | Service::Sharded) | Restores(Service::Shared) => false,
            Download(_) | ShardedSnapshot => false,
            Clusters | FlexClusters | Snapshots(_) | Restores(_) => true,
        }
    }

    /// What its list is asked for besides pages.
    pub(super) fn query(self) -> Option<(&'static str, String)> {
        let deleted = self == Resource::Clusters;
        deleted.then(|| ("includeDeletedWithRetainedBackups", "true".to_owned()))
    }

    /// Path components after `/api/atlas/<version>`.
    pub(super) fn path<'a>(self, project: &'a str, cluster: Option<&'a str>) -> Vec<&'a str> {
        use Resource::*;
        let (clusters, below): (_, &[&str]) = match self {
            Clusters => ("clusters", &[]),
            FlexClusters => ("flexClusters", &[]),
            Snapshots(Service::Shared) => ("clusters", &["backup", "tenant", "snapshots"]),
            Download(Service::Shared) => ("clusters", &["backup", "tenant", "download"]),
            Restores(Service::Shared) => ("clusters", &["backup", "tenant", "restores"]),
            Snapshots(Service::Flex) => ("flexClusters", &["backup", "snapshots"]),
            Download(Service::Flex) => ("flexClusters", &["backup", "download"]),
            Restores(Service::Flex) => ("flexClusters", &["backup", "restoreJobs"]),
            Snapshots(Service::ReplicaSet) => ("clusters", &["backup", "snapshots"]),
            Snapshots(Service::Sharded) => {
                ("clusters", &["backup", "snapshots", "shardedClusters"])
            }
            ShardedSnapshot => ("clusters", &["backup", "snapshots", "shardedCluster"]),
            Download(_) | Restores(_) => ("clusters", &["backup", "restoreJobs"]),
        };
        let mut path = vec!["groups", project, clusters];
        path.extend(cluster);
        path.extend(below);
        path
    }
}

/// Whether an answer says that the resource is not served in this form, and proves that nothing was
/// done. A 404 that names what was not found (`CLUSTER_NOT_FOUND`) comes from a served resource.
pub(super) fn not_served(status: StatusCode, error_code: Option<&str>) -> bool {
    match status {
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_ACCEPTABLE | StatusCode::GONE => true,
        StatusCode::NOT_FOUND => !error_code.is_some_and(names_what_is_missing),
        _ => false,
    }
}

fn names_what_is_missing(code: &str) -> bool {
    let named =
        code.ends_with("_NOT_FOUND") || (code.starts_with("INVALID_") && code.ends_with("_ID"));
    named && code != "RESOURCE_NOT_FOUND"
}

/// Which form each resource was last served in.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    forms: Mutex<HashMap<Resource, Form>>,
}

impl Spoken {
    /// The form known to be served, if any.
    pub(super) fn known(&self, resource: Resource) -> Option<Form> {
        let forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        forms.get(&resource).copied()
    }

    /// The forms to try: the known one first.
    pub(super) fn order(&self, resource: Resource) -> Vec<Form> {
        let known = self.known(resource);
        let others = resource.forms().iter().copied();
        known
            .into_iter()
            .chain(others.filter(|form| Some(*form) != known))
            .collect()
    }

    /// Remembers that `form` is served.
    pub(super) fn learn(&self, resource: Resource, form: Form) {
        let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        forms.insert(resource, form);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proof_of_no_effect_means_another_form() {
        for (status, code, expected) in [
            (404, None, true),
            (404, Some("RESOURCE_NOT_FOUND"), true),
            (404, Some("UNEXPECTED_ERROR"), true),
            (404, Some("CLUSTER_NOT_FOUND"), false),
            (404, Some("TENANT_RESTORE_NOT_FOUND"), false),
            (404, Some("INVALID_GROUP_ID"), false),
            (405, None, true),
            (406, None, true),
            (410, Some("VERSION_GONE"), true),
            (400, None, false),
            (401, None, false),
            (403, None, false),
            (200, None, false),
            (500, None, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(not_served(status, code), expected, "{status} {code:?}");
        }
    }

    #[test]
    fn the_form_that_was_served_comes_first() {
        let spoken = Spoken::default();
        assert_eq!(spoken.order(Resource::Clusters), [V2_CLUSTERS, V2_2023, V1]);
        spoken.learn(Resource::Clusters, V1);
        assert_eq!(spoken.order(Resource::Clusters), [V1, V2_CLUSTERS, V2_2023]);
        let download = Resource::Download(Service::Shared);
        assert_eq!(
            spoken.order(download),
            [V2_2023, V1],
            "each resource by itself"
        );
    }

    #[test]
    fn paths_are_the_documented_ones() {
        let path = |resource: Resource| resource.path("g", Some("c")).join("/");
        assert_eq!(
            Resource::Clusters.path("g", None).join("/"),
            "groups/g/clusters"
        );
        assert_eq!(
            path(Resource::Download(Service::Shared)),
            "groups/g/clusters/c/backup/tenant/download"
        );
        assert_eq!(
            path(Resource::Restores(Service::Flex)),
            "groups/g/flexClusters/c/backup/restoreJobs"
        );
        assert_eq!(
            path(Resource::Snapshots(Service::Sharded)),
            "groups/g/clusters/c/backup/snapshots/shardedClusters"
        );
        for service in [Service::ReplicaSet, Service::Sharded] {
            for resource in [Resource::Download(service), Resource::Restores(service)] {
                let jobs = "groups/g/clusters/c/backup/restoreJobs";
                assert_eq!(path(resource), jobs, "{resource:?}");
            }
        }
    }
}
