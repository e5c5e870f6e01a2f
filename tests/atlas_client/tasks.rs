//! The life of a download: found or created, polled, linked, gone.

use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::error::Kind;
use mongo_backupfs::model::{Found, LinkMode, Origin, RemoteFile, Size, Task, TaskState};
use mongo_backupfs::providers::Provider;

use crate::server::{Reply, Request, Server, Verifier};
use crate::{atlas, instance, shard, shard_of};

fn in_hours(hours: i64) -> String {
    let at = Timestamp::now() + SignedDuration::from_hours(hours);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn restore(status: &str, more: &str) -> String {
    format!(
        r#"{{"id":"r1","snapshotId":"s1","deliveryType":"DOWNLOAD","status":"{status}","links":[]{more}}}"#
    )
}

fn completed(hours: i64) -> String {
    let expires = in_hours(hours);
    restore(
        "COMPLETED",
        &format!(
            r#","snapshotUrl":"http://data.example/s1.tgz?Signature=CANARY%2F","expirationDate":"{expires}""#
        ),
    )
}

fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        state: TaskState::Queued,
        percent: None,
        expires: None,
        message: None,
    }
}

async fn file(atlas: &dyn Provider) -> RemoteFile {
    atlas.files(&shard()).await.unwrap().remove(0)
}

/// A server where `GET …/restores/r1` answers `item`, and the list is empty.
async fn polled(item: impl Fn() -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request, _| match request.path().rsplit('/').next() {
        Some("restores") => Reply::list(&[]),
        Some("r1") => item(),
        _ => Reply::refusal(404, "RESOURCE_NOT_FOUND"),
    })
    .await
}

#[tokio::test]
async fn a_download_is_created_polled_and_linked() {
    for (service, path) in [
        ("shared", "clusters/c0/backup/tenant/"),
        ("flex", "flexClusters/c0/backup/"),
    ] {
        let verifier = Verifier::default();
        let server = Server::start(move |request: &Request, _| {
            if let Some(refusal) = verifier.refuse(request) {
                return refusal;
            }
            let (_, resource) = request.path().split_once(path).unwrap();
            match (request.method.as_str(), resource) {
                ("GET", "restores" | "restoreJobs") => Reply::list(&[]),
                ("POST", "download") => Reply::json(200, restore("PENDING", "")),
                ("GET", "restores/r1" | "restoreJobs/r1") => Reply::json(200, completed(4)),
                other => panic!("{other:?}"),
            }
        })
        .await;
        let atlas = atlas(&server.origin);
        let shard = shard_of(instance(service));

        let file = file(&*atlas).await;
        assert_eq!(file.path, "c0.tgz");
        assert_eq!((file.size, file.origin), (Size::Unknown, Origin::Task));
        assert!(
            server.requests().is_empty(),
            "files are known without asking"
        );

        assert_eq!(atlas.find_task(&shard).await.unwrap(), Found::Nothing);
        let created = atlas.create_task(&shard).await.unwrap();
        assert_eq!(
            (created.id.as_str(), created.state),
            ("r1", TaskState::Queued)
        );
        let polled = atlas.poll_task(&shard, &created).await.unwrap();
        assert_eq!(
            (polled.state, polled.percent),
            (TaskState::Ready, Some(100))
        );
        let link = atlas.link(&shard, &file, Some(&polled)).await.unwrap();
        assert_eq!(
            link.url.expose(),
            "http://data.example/s1.tgz?Signature=CANARY%2F"
        );
        assert_eq!(link.expires, polled.expires);
        assert_eq!(link.mode, LinkMode::Ranged);
        assert!(
            link.headers.is_empty(),
            "no API credentials for the data host"
        );
        assert!(!format!("{link:?} {polled:?}").contains("CANARY"));
        assert_eq!(server.count(|r| r.method == "POST"), 1);
    }
}

#[tokio::test]
async fn a_live_download_is_adopted() {
    let server = Server::start(|_, _| {
        Reply::list(&[completed(4), restore("FAILED", "").replace("r1", "r0")])
    })
    .await;
    let Found::Task(task) = atlas(&server.origin).find_task(&shard()).await.unwrap() else {
        panic!("not found");
    };
    assert_eq!((task.id.as_str(), task.state), ("r1", TaskState::Ready));
}

#[tokio::test]
async fn expiry_goes_by_the_clouds_clock() {
    // The cloud's clock is two hours ahead: what expires in one hour by ours is over.
    let server = Server::start(|_, _| {
        let date = (Timestamp::now() + SignedDuration::from_hours(2))
            .strftime("%a, %d %b %Y %H:%M:%S GMT")
            .to_string();
        Reply::list(&[completed(1)]).with("Date", date)
    })
    .await;
    let Found::Task(task) = atlas(&server.origin).find_task(&shard()).await.unwrap() else {
        panic!("not found");
    };
    assert_eq!(task.state, TaskState::Expired);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_never_means_nothing() {
    for reply in [
        Reply::json(200, "<html>Sign in</html>"),
        Reply::json(200, "{}"),
        Reply::refusal(403, "USER_UNAUTHORIZED"),
    ] {
        let server = Server::start(move |_, _| reply.clone()).await;
        let error = atlas(&server.origin).find_task(&shard()).await.unwrap_err();
        assert!(
            matches!(error.kind(), Kind::Protocol | Kind::Credentials),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_list_answered_by_no_such_restore_is_empty() {
    let server = Server::start(|_, _| Reply::refusal(404, "TENANT_RESTORE_NOT_FOUND")).await;
    let found = atlas(&server.origin).find_task(&shard()).await.unwrap();
    assert_eq!(found, Found::Nothing);
}

#[tokio::test]
async fn unfinished_and_odd_answers_mean_keep_polling() {
    for body in [
        restore("PENDING", ""),
        restore("RUNNING", r#","snapshotUrl":null,"expirationDate":null"#),
        restore("COMPLETED", ""),
        restore("COMPLETED", r#","snapshotUrl":"""#),
        "{}".to_owned(),
        "null".to_owned(),
        String::new(),
    ] {
        let answer = body.clone();
        let server = polled(move || Reply::json(200, answer.clone())).await;
        let atlas = atlas(&server.origin);
        let polled = atlas.poll_task(&shard(), &task("r1")).await.unwrap();
        assert!(
            matches!(polled.state, TaskState::Queued | TaskState::Running),
            "{body}"
        );
        assert_eq!(polled.id, "r1");
        let link = atlas
            .link(&shard(), &file(&*atlas).await, Some(&polled))
            .await;
        assert_eq!(link.unwrap_err().kind(), Kind::NotReady, "{body}");
    }
}

#[tokio::test]
async fn an_overdue_link_is_still_given() {
    let server = polled(|| Reply::json(200, completed(-1))).await;
    let atlas = atlas(&server.origin);
    let polled = atlas.poll_task(&shard(), &task("r1")).await.unwrap();
    assert_eq!(
        polled.state,
        TaskState::Ready,
        "only its use proves it gone"
    );
    assert!(polled.expires.unwrap() < Timestamp::now());
    let link = atlas
        .link(&shard(), &file(&*atlas).await, Some(&polled))
        .await;
    assert_eq!(link.unwrap().expires, polled.expires);
}

#[tokio::test]
async fn a_download_that_is_not_known_is_no_end_of_one() {
    for code in ["TENANT_RESTORE_NOT_FOUND", "RESOURCE_NOT_FOUND"] {
        let server = polled(move || Reply::refusal(404, code)).await;
        let atlas = atlas(&server.origin);
        let polled = atlas.poll_task(&shard(), &task("r1")).await;
        assert_eq!(polled.unwrap_err().kind(), Kind::NotFound, "{code}");
        let link = atlas
            .link(&shard(), &file(&*atlas).await, Some(&task("r1")))
            .await;
        assert_eq!(link.unwrap_err().kind(), Kind::Expired, "{code}");
    }
    // Nothing can be concluded from an endpoint that does not know downloads at all.
    let server = Server::start(|_, _| Reply::refusal(404, "RESOURCE_NOT_FOUND")).await;
    let error = atlas(&server.origin)
        .poll_task(&shard(), &task("r1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
}

#[tokio::test]
async fn a_failed_download_says_so() {
    let server = polled(|| Reply::json(200, restore("FAILED", ""))).await;
    let atlas = atlas(&server.origin);
    let polled = atlas.poll_task(&shard(), &task("r1")).await.unwrap();
    assert_eq!(polled.state, TaskState::Failed);
    assert!(polled.message.as_deref().unwrap().contains("FAILED"));
    let link = atlas
        .link(&shard(), &file(&*atlas).await, Some(&polled))
        .await;
    assert_eq!(link.unwrap_err().kind(), Kind::TaskFailed);
}

#[tokio::test]
async fn refusals_of_a_create_keep_their_meaning() {
    for (status, code, kind) in [
        (400, "CANNOT_DOWNLOAD_SNAPSHOT_CONCURRENTLY", Kind::Busy),
        (400, "TOO_MANY_SNAPSHOT_DOWNLOADS", Kind::Busy),
        (402, "ACCOUNT_SUSPENDED", Kind::Credentials),
        (403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", Kind::Credentials),
        (404, "CLUSTER_NOT_FOUND", Kind::NotFound),
        (404, "TENANT_SNAPSHOT_NOT_FOUND", Kind::NotFound),
        (400, "SOMETHING_NEW", Kind::TaskFailed),
    ] {
        let server = Server::start(move |_, _| Reply::refusal(status, code)).await;
        let error = atlas(&server.origin)
            .create_task(&shard())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(server.requests().len(), 1, "{code}");
    }
}
