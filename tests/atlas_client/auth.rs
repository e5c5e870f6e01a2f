//! Digest nonces and access tokens: how many requests they cost, and that refusals end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use mongo_backupfs::error::Kind;

use crate::server::{Reply, Request, Server, Verifier, challenge};
use crate::{atlas, atlas_with, cluster, one_snapshot, service_account};

fn verified(verifier: Verifier) -> impl Fn(&Request, usize) -> Reply + Send + Sync {
    move |request, _| {
        verifier
            .refuse(request)
            .unwrap_or_else(|| one_snapshot(request))
    }
}

#[tokio::test]
async fn a_nonce_serves_many_calls() {
    let server = Server::start(verified(Verifier::default())).await;
    let atlas = atlas(&server.origin);
    for _ in 0..20 {
        assert_eq!(atlas.backups(&cluster()).await.unwrap().len(), 1);
    }
    assert_eq!(server.requests().len(), 21, "one challenge for 20 calls");
    let counts: Vec<String> = server.authorized().iter().map(count).collect();
    let expected: Vec<String> = (1..=20).map(|n| format!("{n:08x}")).collect();
    assert_eq!(counts, expected);
}

fn count(request: &Request) -> String {
    let header = request.header("authorization");
    let (_, after) = header.split_once("nc=").unwrap();
    after[..8].to_owned()
}

#[tokio::test]
async fn calls_at_once_share_the_first_challenge_and_use_distinct_counts() {
    let server = Server::start(verified(Verifier::default())).await;
    let (atlas, cluster) = (atlas(&server.origin), cluster());
    let lists = join_all((0..30).map(|_| atlas.backups(&cluster))).await;
    assert!(
        lists.iter().all(Result::is_ok),
        "the verifier refuses replays"
    );
    assert_eq!(server.requests().len(), 31);
}

#[tokio::test]
async fn a_nonce_that_went_stale_is_replaced_within_the_call() {
    for silent_about_stale in [false, true] {
        let server = Server::start(verified(Verifier::forgetful(3, silent_about_stale))).await;
        let atlas = atlas(&server.origin);
        for _ in 0..9 {
            atlas.backups(&cluster()).await.unwrap();
        }
        // One challenge at first, and one each time three uses were over.
        assert_eq!(server.requests().len(), 9 + 1 + 2);
        assert_eq!(
            count(&server.authorized()[4]),
            "00000001",
            "a new nonce counts anew"
        );
    }
}

#[tokio::test]
async fn calls_at_once_survive_a_nonce_that_goes_stale_under_them() {
    let server = Server::start(verified(Verifier::forgetful(25, false))).await;
    let (atlas, cluster) = (atlas(&server.origin), cluster());
    let lists = join_all((0..40).map(|_| atlas.backups(&cluster))).await;
    for list in lists {
        list.unwrap();
    }
}

#[tokio::test]
async fn nonces_that_serve_a_single_call_are_enough() {
    let issued = Mutex::new(HashSet::new());
    let server = Server::start(move |request, n| {
        let mut issued = issued.lock().unwrap();
        if issued.remove(nonce(request)) {
            return one_snapshot(request);
        }
        issued.insert(format!("nonce{n}"));
        challenge(&format!("nonce{n}"), false)
    })
    .await;
    let (atlas, cluster) = (atlas(&server.origin), cluster());
    for list in join_all((0..20).map(|_| atlas.backups(&cluster))).await {
        list.unwrap();
    }
    assert!(server.requests().len() <= 2 * 20);
}

fn nonce(request: &Request) -> &str {
    let header = request.header("authorization");
    let after = header.split_once("nonce=\"").map_or("", |(_, after)| after);
    after.split('"').next().unwrap_or_default()
}

#[tokio::test]
async fn a_server_that_calls_every_nonce_stale_ends_too() {
    let server = Server::start(|_, n| challenge(&format!("nonce{n}"), true)).await;
    let error = atlas(&server.origin).backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials);
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn wrong_keys_end_after_one_retry_even_if_each_refusal_brings_a_new_nonce() {
    let server = Server::start(|_, n| challenge(&format!("nonce{n}"), false)).await;
    let atlas = atlas(&server.origin);
    let error = atlas.backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials, "{error}");
    assert!(error.to_string().contains("`public_key`"), "{error}");
    assert_eq!(server.requests().len(), 3, "challenge, answer, last try");
    let error = atlas.backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials);
    assert_eq!(
        server.requests().len(),
        6,
        "and the same again for the next call"
    );
}

#[tokio::test]
async fn wrong_keys_end_at_once_if_the_nonce_stays() {
    let server = Server::start(|_, _| challenge("same", false)).await;
    let error = atlas(&server.origin).backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_digest_refuses_once() {
    let server =
        Server::start(|_, _| Reply::json(401, "{}").with("WWW-Authenticate", r#"Basic realm="x""#))
            .await;
    let error = atlas(&server.origin).backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials);
    assert_eq!(server.requests().len(), 1);
}

/// A service account whose tokens are numbered; `accepts` says which number still works.
async fn token_server(accepts: impl Fn(usize) -> bool + Send + Sync + 'static) -> Server {
    let issued = Arc::new(AtomicUsize::new(0));
    Server::start(move |request, _| {
        if request.path() == "/api/oauth/token" {
            assert_eq!(request.method, "POST");
            assert_eq!(request.body, "grant_type=client_credentials");
            assert_eq!(
                request.header("authorization"),
                "Basic bWRiX3NhX2lkXzE6bWRiX3NhX3NrXzE="
            );
            let n = issued.fetch_add(1, Ordering::SeqCst);
            return Reply::json(
                200,
                format!(r#"{{"access_token":"token{n}","expires_in":3600,"token_type":"Bearer"}}"#),
            );
        }
        let token = request.header("authorization").strip_prefix("Bearer token");
        match token.and_then(|n| n.parse().ok()) {
            Some(n) if accepts(n) => one_snapshot(request),
            _ => Reply::refusal(401, "UNEXPECTED_ERROR"),
        }
    })
    .await
}

fn token_requests(server: &Server) -> usize {
    server.count(|r| r.path() == "/api/oauth/token")
}

#[tokio::test]
async fn a_token_serves_many_calls() {
    let server = token_server(|_| true).await;
    let atlas = atlas_with(&server.origin, service_account(), Duration::from_secs(5));
    let cluster = cluster();
    let lists = join_all((0..10).map(|_| atlas.backups(&cluster))).await;
    assert!(lists.iter().all(Result::is_ok));
    assert_eq!(token_requests(&server), 1);
    assert_eq!(server.requests().len(), 11);
}

#[tokio::test]
async fn a_token_is_renewed_when_nine_tenths_of_its_hour_are_over() {
    let server = token_server(|_| true).await;
    let atlas = atlas_with(&server.origin, service_account(), Duration::from_secs(5));
    let pass = async |time: Duration| {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
        atlas.backups(&cluster()).await.unwrap();
        token_requests(&server)
    };
    assert_eq!(pass(Duration::ZERO).await, 1);
    assert_eq!(pass(Duration::from_secs(3200)).await, 1);
    assert_eq!(pass(Duration::from_secs(40)).await, 2);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let server = token_server(|n| n == 1).await;
    let atlas = atlas_with(&server.origin, service_account(), Duration::from_secs(5));
    atlas.backups(&cluster()).await.unwrap();
    assert_eq!(token_requests(&server), 2);

    let server = token_server(|_| false).await;
    let atlas = atlas_with(&server.origin, service_account(), Duration::from_secs(5));
    let error = atlas.backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials);
    assert_eq!(token_requests(&server), 2);
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_refused_service_account_is_asked_once() {
    for status in [400, 401] {
        let server = Server::start(move |_, _| {
            Reply::json(
                status,
                r#"{"error":"invalid_client","error_description":"Invalid credentials provided."}"#,
            )
        })
        .await;
        let atlas = atlas_with(&server.origin, service_account(), Duration::from_secs(5));
        let error = atlas.backups(&cluster()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Credentials, "{error}");
        assert!(error.to_string().contains("`client_secret`"), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn nothing_private_is_printed() {
    let server = Server::start(|_, _| challenge("same", false)).await;
    for auth in [crate::api_key(), service_account()] {
        let atlas = atlas_with(&server.origin, auth, Duration::from_secs(1));
        let error = atlas.backups(&cluster()).await.unwrap_err();
        let printed = format!("{atlas:?} {error} {error:?}");
        for secret in [crate::server::PASSWORD, crate::server::USER, "mdb_sa_sk_1"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
}
