//! Documents of projects and clusters, in each of their documented versions. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::clock::iso_seconds;
use super::answer::link;
use super::call::{FIRST, SECOND};
use super::estate::{Cluster, Project, Topology};

/// When everything in the account was created.
const CREATED: Timestamp = Timestamp::constant(1_700_000_000, 0);
/// The organization of every project.
const ORG: &str = "5d03a6a02a9c4336c3d98d40";

/// `Group`. `root` is the address of the API that was asked.
pub(super) fn group(project: &Project, root: &str) -> Value {
    let own = format!("{root}/groups/{}", project.id);
    json!({
        "id": project.id,
        "name": project.name,
        "orgId": ORG,
        "created": iso_seconds(CREATED),
        "clusterCount": project.clusters.len(),
        "tags": [],
        "withDefaultAlertsSettings": true,
        "links": [link(&own, "self")],
    })
}

/// `OrgGroup`: a project with the clusters the key sees.
pub(super) fn org_group(project: &Project) -> Value {
    let clusters: Vec<Value> = project
        .clusters
        .iter()
        .filter(|cluster| !cluster.deleted)
        .map(|cluster| {
            json!({
                "clusterId": cluster.id,
                "name": cluster.name,
                "type": match cluster.topology {
                    Topology::ReplicaSet => "REPLICA_SET",
                    _ => "SHARDED_CLUSTER",
                },
                "availability": "available",
                "backupEnabled": cluster.tier.has_backups(),
                "dataSizeBytes": 1_000_000,
                "nodeCount": 3,
                "sslEnabled": true,
                "authEnabled": true,
                "alertCount": 0,
                "versions": [cluster.version],
            })
        })
        .collect();
    json!({
        "groupId": project.id,
        "groupName": project.name,
        "orgId": ORG,
        "orgName": "Simulated",
        "planType": "Atlas",
        "tags": [],
        "clusters": clusters,
    })
}

/// A cluster in the shape of `version`.
pub(super) fn cluster(project: &Project, cluster: &Cluster, version: &str, root: &str) -> Value {
    let own = format!("{root}/groups/{}/clusters/{}", project.id, cluster.name);
    let host = format!("{}.sim00.mongodb.net", cluster.name.to_ascii_lowercase());
    let major: Vec<&str> = cluster.version.split('.').take(2).collect();
    let mut document = json!({
        "id": cluster.id,
        "name": cluster.name,
        "groupId": project.id,
        "clusterType": cluster.topology.word(),
        "mongoDBVersion": cluster.version,
        "mongoDBMajorVersion": major.join("."),
        "stateName": if cluster.deleted { "DELETED" } else { "IDLE" },
        "paused": false,
        "createDate": iso_seconds(CREATED),
        "connectionStrings": {
            "standard": format!("mongodb://{host}:27017/?ssl=true&authSource=admin"),
            "standardSrv": format!("mongodb+srv://{host}"),
        },
        "encryptionAtRestProvider": "NONE",
        "backupEnabled": cluster.tier.has_backups(),
        "pitEnabled": false,
        "rootCertType": "ISRGROOTX1",
        "terminationProtectionEnabled": false,
        "versionReleaseSystem": "LTS",
        "labels": [],
        "tags": [],
        "links": [link(&own, "self")],
        // Recorded but not documented.
        "adaptiveCapacity": null,
    });
    let backups = cluster.tier.has_backups();
    let shards = cluster.topology.shards();
    let added = match version {
        FIRST => json!({
            "providerSettings": provider_settings(cluster),
            "numShards": shards,
            "replicationFactor": 3,
            "replicationSpec": {"US_EAST_1": {"electableNodes": 3, "priority": 7}},
            "replicationSpecs": [],
            "autoScaling": {"diskGBEnabled": false},
            "biConnector": {"enabled": false, "readPreference": "secondary"},
            "providerBackupEnabled": backups,
            "backupEnabled": false,
            "diskSizeGB": cluster.tier.disk_gb(),
            "mongoURI": format!("mongodb://{host}:27017"),
            "mongoURIUpdated": iso_seconds(CREATED),
            "mongoURIWithOptions": format!("mongodb://{host}:27017/?ssl=true&authSource=admin"),
            "srvAddress": format!("mongodb+srv://{host}"),
        }),
        SECOND => json!({
            "diskSizeGB": cluster.tier.disk_gb(),
            "replicationSpecs": [replication_spec(cluster, json!({"numShards": shards}), json!({}))],
        }),
        _ => {
            let disk = json!({"diskSizeGB": cluster.tier.disk_gb()});
            let spec = replication_spec(cluster, json!({}), disk);
            json!({
                "configServerType": "DEDICATED",
                "effectiveReplicationSpecs": vec![spec.clone(); shards],
                "replicationSpecs": vec![spec; shards],
            })
        }
    };
    merge(&mut document, added);
    document
}

/// `FlexClusterDescription`.
pub(super) fn flex(project: &Project, cluster: &Cluster, root: &str) -> Value {
    let own = format!("{root}/groups/{}/flexClusters/{}", project.id, cluster.name);
    let host = format!("{}.sim00.mongodb.net", cluster.name.to_ascii_lowercase());
    json!({
        "id": cluster.id,
        "name": cluster.name,
        "groupId": project.id,
        "clusterType": "REPLICASET",
        "mongoDBVersion": cluster.version,
        "stateName": "IDLE",
        "createDate": iso_seconds(CREATED),
        "backupSettings": {"enabled": true},
        "providerSettings": {
            "backingProviderName": "AWS",
            "diskSizeGB": cluster.tier.disk_gb(),
            "providerName": "FLEX",
            "regionName": "US_EAST_1",
        },
        "connectionStrings": {"standardSrv": format!("mongodb+srv://{host}")},
        "terminationProtectionEnabled": false,
        "versionReleaseSystem": "LTS",
        "tags": [],
        "links": [link(&own, "self")],
    })
}

fn provider_settings(cluster: &Cluster) -> Value {
    let mut settings = json!({
        "providerName": provider(cluster),
        "instanceSizeName": cluster.tier.name(),
        "regionName": "US_EAST_1",
    });
    if cluster.tier.is_shared() {
        settings["backingProviderName"] = "AWS".into();
    }
    settings
}

/// One shard of the cluster; `spec` and `nodes` are added to it and to its nodes.
fn replication_spec(cluster: &Cluster, spec: Value, nodes: Value) -> Value {
    let mut electable = json!({"instanceSize": cluster.tier.name(), "nodeCount": 3});
    merge(&mut electable, nodes);
    let mut region = json!({
        "providerName": provider(cluster),
        "regionName": "US_EAST_1",
        "priority": 7,
        "electableSpecs": electable,
    });
    if cluster.tier.is_shared() {
        region["backingProviderName"] = "AWS".into();
    }
    let mut document = json!({
        "id": cluster.id,
        "zoneName": "Zone 1",
        "regionConfigs": [region],
    });
    merge(&mut document, spec);
    document
}

fn provider(cluster: &Cluster) -> &'static str {
    match cluster.tier.is_shared() {
        true => "TENANT",
        false => "AWS",
    }
}

/// Adds the members of object `added` to object `document`.
fn merge(document: &mut Value, added: Value) {
    if let (Value::Object(document), Value::Object(added)) = (document, added) {
        document.extend(added);
    }
}
