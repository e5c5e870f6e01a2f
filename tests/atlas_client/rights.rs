//! What Atlas refuses to a key says what to do about it, and is asked once.

use mongo_backupfs::error::Kind;

use crate::server::{Reply, Server};
use crate::{atlas, instance, shard_of};

/// HTTP status, error code, and what the cure must name.
const REFUSALS: [(u16, &str, Kind, &str); 9] = [
    (
        403,
        "IP_ADDRESS_NOT_ON_ACCESS_LIST",
        Kind::Credentials,
        "add 203.0.113.7 to the API access list",
    ),
    (
        403,
        "ORG_REQUIRES_ACCESS_LIST",
        Kind::Credentials,
        "API access list",
    ),
    (
        403,
        "ATLAS_NETWORK_PERMISSIONS_SIZE_EXCEEDED",
        Kind::Credentials,
        "shorten the project's IP access list",
    ),
    (
        401,
        "USER_UNAUTHORIZED",
        Kind::Credentials,
        "Project Backup Export Operator",
    ),
    (
        401,
        "NOT_IN_GROUP",
        Kind::Credentials,
        "Project Backup Manager",
    ),
    (403, "ACCESS_FORBIDDEN", Kind::Credentials, "Project Owner"),
    (
        400,
        "CANNOT_DOWNLOAD_SNAPSHOT_WITH_ENCRYPTION",
        Kind::Unsupported,
        "No",
    ),
    (
        400,
        "TOO_MANY_SNAPSHOT_DOWNLOADS",
        Kind::Busy,
        "wait until other downloads",
    ),
    (
        400,
        "CANNOT_DOWNLOAD_SNAPSHOT_CONCURRENTLY",
        Kind::Busy,
        "under way",
    ),
];

#[tokio::test]
async fn a_refusal_names_its_cure_and_is_final() {
    for service in ["flex", "replica set", "sharded"] {
        for (status, code, kind, cure) in REFUSALS {
            let server = Server::start(move |_, _| {
                Reply::json(
                    status,
                    format!(
                        r#"{{"error":{status},"errorCode":"{code}","detail":"No.","parameters":["203.0.113.7"]}}"#
                    ),
                )
            })
            .await;
            let atlas = atlas(&server.origin);
            let shard = shard_of(instance(service));
            let error = atlas.create_task(&shard).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{service}: {error}");
            assert!(error.to_string().contains(cure), "{service}: {error}");
            assert!(error.to_string().contains(code), "{service}: {error}");
            assert_eq!(server.requests().len(), 1, "{service}: {code}");
        }
    }
}
