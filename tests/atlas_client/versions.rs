//! API versions, pages and tiers: the same tree whatever the endpoint serves.

use mongo_backupfs::error::Kind;
use mongo_backupfs::model::Found;

use crate::server::{Reply, Request, Server};
use crate::{GROUP, atlas, cluster, instance, one_snapshot, shard, snapshot};

const V2_CLUSTERS: &str = "application/vnd.atlas.2024-08-05+json";
const V2: &str = "application/vnd.atlas.2023-01-01+json";

/// The clusters of a project, in the shape of the API version they are asked in.
fn clusters(request: &Request) -> Vec<String> {
    let tenant = |name: &str, size: &str, provider: &str| {
        if request.path().starts_with("/api/atlas/v2/") && request.header("accept") == V2_CLUSTERS {
            format!(
                r#"{{"name":"{name}","createDate":"2026-01-01T00:00:00Z","adaptiveCapacity":null,"replicationSpecs":[{{"regionConfigs":[{{"providerName":"{provider}","electableSpecs":{{"instanceSize":"{size}"}}}}]}}]}}"#
            )
        } else {
            format!(
                r#"{{"name":"{name}","createDate":"2026-01-01T00:00:00Z","providerSettings":{{"providerName":"{provider}","instanceSizeName":"{size}"}}}}"#
            )
        }
    };
    vec![
        tenant("free", "M0", "TENANT"),
        tenant("small", "M2", "TENANT"),
        tenant("larger", "M5", "TENANT"),
        tenant("big", "M10", "AWS"),
    ]
}

fn project(request: &Request) -> Reply {
    match request.path().rsplit('/').next() {
        Some("clusters") => Reply::list(&clusters(request)),
        _ => one_snapshot(request),
    }
}

fn v1_only(request: &Request) -> Reply {
    if request.path().starts_with("/api/atlas/v1.0/") {
        assert_eq!(request.header("accept"), "application/json");
        project(request)
    } else {
        Reply::json(404, "<html>not here</html>")
    }
}

#[tokio::test]
async fn either_version_alone_gives_the_same_tree() {
    let v1 = Server::start(|request, _| v1_only(request)).await;
    let v2 = Server::start(|request, _| {
        if request.path().starts_with("/api/atlas/v2/") {
            project(request)
        } else {
            Reply::refusal(404, "RESOURCE_NOT_FOUND")
        }
    })
    .await;
    let old_v2 = Server::start(|request, _| match request.header("accept") {
        V2 => project(request),
        _ => Reply::refusal(406, "UNEXPECTED_ERROR"),
    })
    .await;
    for server in [v1, v2, old_v2] {
        let atlas = atlas(&server.origin);
        let listed = atlas.instances().await.unwrap();
        let names: Vec<&str> = listed.iter().map(|i| i.id.as_str()).collect();
        assert_eq!(names, ["big", "free", "larger", "small"]);
        assert_eq!(
            listed[0].created.unwrap().to_string(),
            "2026-01-01T00:00:00Z"
        );
        let before = server.requests().len();
        assert!(
            atlas.backups(&listed[1]).await.unwrap().is_empty(),
            "M0 has none"
        );
        assert_eq!(server.requests().len(), before, "and is not asked");
        let backups = atlas.backups(&listed[3]).await.unwrap();
        assert_eq!(backups[0].id, "s1");
        assert_eq!(backups[0].shards[0].id, "small");
    }
}

#[tokio::test]
async fn the_version_served_is_remembered_per_resource() {
    let server = Server::start(|request, _| v1_only(request)).await;
    let atlas = atlas(&server.origin);
    for _ in 0..5 {
        atlas.backups(&cluster()).await.unwrap();
    }
    assert_eq!(server.requests().len(), 6, "v2 is tried once");
}

#[tokio::test]
async fn a_download_served_in_v1_alone_is_requested_there_and_once() {
    let server = Server::start(|request, _| {
        let v1 = request.path().starts_with("/api/atlas/v1.0/");
        match (request.method.as_str(), v1) {
            ("POST", true) => Reply::json(200, r#"{"id":"r1","status":"PENDING"}"#),
            ("GET", false) => one_snapshot(request),
            _ => Reply::refusal(405, "METHOD_NOT_ALLOWED"),
        }
    })
    .await;
    let atlas = atlas(&server.origin);
    atlas.backups(&cluster()).await.unwrap();
    assert_eq!(atlas.create_task(&shard()).await.unwrap().id, "r1");
    let posts: Vec<Request> = server
        .requests()
        .into_iter()
        .filter(|r| r.method == "POST")
        .collect();
    assert_eq!(posts.len(), 2);
    assert_eq!(
        posts[1].target,
        format!("/api/atlas/v1.0/groups/{GROUP}/clusters/c0/backup/tenant/download")
    );
    assert_eq!(posts[1].body, r#"{"snapshotId":"s1"}"#);
    assert_eq!(posts[1].header("content-type"), "application/json");
}

#[tokio::test]
async fn three_pages_make_one_list() {
    let server = Server::start(|request, _| {
        if !request.path().ends_with("/clusters") {
            return Reply::refusal(404, "RESOURCE_NOT_FOUND");
        }
        assert_eq!(request.query("itemsPerPage"), Some("500"));
        let page: usize = request.query("pageNum").unwrap().parse().unwrap();
        // The server gives pages of two, whatever was asked.
        let names: Vec<String> = (0..5)
            .skip((page - 1) * 2)
            .take(2)
            .map(|n| format!(r#"{{"name":"c{n}"}}"#))
            .collect();
        let next = if page < 3 {
            r#",{"rel":"next","href":"http://192.0.2.1/steal"}"#
        } else {
            ""
        };
        Reply::json(
            200,
            format!(
                r#"{{"links":[{{"rel":"self","href":"x"}}{next}],"results":[{}],"totalCount":5}}"#,
                names.join(",")
            ),
        )
    })
    .await;
    let listed = atlas(&server.origin).instances().await.unwrap();
    assert_eq!(listed.len(), 5);
    assert_eq!(server.count(|r| r.path().ends_with("/clusters")), 3);
}

#[tokio::test]
async fn an_incomplete_list_is_an_error() {
    for body in [
        r#"{"results":[{"name":"a"}],"totalCount":2}"#,
        r#"{"links":[{"rel":"next"}],"results":[{"name":"a"}]}"#,
        r#"{"totalCount":0}"#,
        "[]",
        "null",
    ] {
        let server = Server::start(move |_, _| Reply::json(200, body)).await;
        let error = atlas(&server.origin).instances().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol, "{body}: {error}");
        assert!(server.requests().len() <= 2);
    }
}

#[tokio::test]
async fn a_project_without_clusters_is_empty() {
    let server = Server::start(|_, _| Reply::list(&[])).await;
    assert!(atlas(&server.origin).instances().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_wrong_project_says_which_setting_to_check() {
    let server = Server::start(|_, _| Reply::refusal(404, "GROUP_NOT_FOUND")).await;
    let error = atlas(&server.origin).instances().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("`project_id`"), "{error}");
    assert_eq!(server.requests().len(), 1, "a named 404 is an answer");
}

#[tokio::test]
async fn the_retired_tier_is_named() {
    for (status, code) in [(404, "RESOURCE_NOT_FOUND"), (410, "VERSION_GONE")] {
        let server = Server::start(move |_, _| Reply::refusal(status, code)).await;
        let atlas = atlas(&server.origin);
        let listing = atlas.backups(&cluster()).await.unwrap_err();
        assert_eq!(listing.kind(), Kind::Protocol);
        assert!(listing.to_string().contains("Flex"), "{listing}");
        assert_eq!(atlas.find_task(&shard()).await.unwrap(), Found::CannotTell);
        let create = atlas.create_task(&shard()).await.unwrap_err();
        assert_eq!(create.kind(), Kind::Unsupported, "{create}");
    }
}

#[tokio::test]
async fn a_project_that_may_have_no_flex_clusters_has_the_others() {
    let server = Server::start(|request, _| match request.path().rsplit('/').next() {
        Some("clusters") => Reply::list(&clusters(request)),
        _ => Reply::refusal(403, "FEATURE_UNSUPPORTED"),
    })
    .await;
    assert_eq!(atlas(&server.origin).instances().await.unwrap().len(), 4);
}

#[tokio::test]
async fn flex_clusters_are_listed_with_their_snapshots() {
    let server = Server::start(|request, _| {
        let flex = request.header("accept") == "application/vnd.atlas.2024-11-13+json";
        match request.path().rsplit('/').next() {
            Some("clusters") => Reply::list(&clusters(request)),
            Some("flexClusters") if flex => Reply::list(&[
                r#"{"name":"c0","createDate":"2026-02-01T00:00:00Z","providerSettings":{"providerName":"FLEX"}}"#.to_owned(),
            ]),
            Some("snapshots") if flex => Reply::list(&[snapshot("f1"), snapshot("f2")]),
            _ => Reply::refusal(404, "RESOURCE_NOT_FOUND"),
        }
    })
    .await;
    let atlas = atlas(&server.origin);
    let listed = atlas.instances().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|i| i.id.as_str()).collect();
    assert_eq!(names, ["big", "c0", "free", "larger", "small"]);
    assert_eq!(listed[1].facts, instance("flex").facts);
    assert_eq!(atlas.backups(&listed[1]).await.unwrap().len(), 2);
    let last = server.requests().pop().unwrap();
    assert_eq!(
        last.path(),
        format!("/api/atlas/v2/groups/{GROUP}/flexClusters/c0/backup/snapshots")
    );
}
