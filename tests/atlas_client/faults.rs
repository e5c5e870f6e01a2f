//! Broken, slow, hostile and missing servers: what is retried, what is not, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
use mongo_backupfs::clock::SystemClock;
use mongo_backupfs::error::Kind;
use mongo_backupfs::providers;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::authority::Authority;
use crate::server::{Reply, Server, Verifier};
use crate::{api_key, atlas, atlas_with, cluster, config, one_snapshot, shard, snapshot};

#[tokio::test]
async fn case_32_a_create_that_breaks_off_is_sent_once_and_its_outcome_is_unknown() {
    for broken in [
        Reply::Cut,
        Reply::Half,
        Reply::json(500, "{}"),
        Reply::json(503, "{}").with("Retry-After", "0"),
        Reply::json(200, "<html>Sign in</html>"),
        Reply::json(200, "{}"),
        Reply::json(200, ""),
    ] {
        let (verifier, answer) = (Verifier::default(), broken.clone());
        let server = Server::start(move |request, _| {
            verifier.refuse(request).unwrap_or_else(|| answer.clone())
        })
        .await;
        let error = atlas(&server.origin)
            .create_task(&shard())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::OutcomeUnknown, "{broken:?}: {error}");
        assert_eq!(server.authorized().len(), 1, "{broken:?}");
    }
}

#[tokio::test]
async fn a_create_that_was_told_to_wait_is_sent_again() {
    let server = Server::start(|_, n| match n {
        0 => Reply::refusal(429, "RATE_LIMITED_TOKEN_BUCKET").with("Retry-After", "0"),
        _ => Reply::json(200, r#"{"id":"r1","status":"PENDING"}"#),
    })
    .await;
    let task = atlas(&server.origin).create_task(&shard()).await.unwrap();
    assert_eq!(task.id, "r1");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_listing_survives_passing_failures() {
    for broken in [
        Reply::Cut,
        Reply::Half,
        Reply::json(500, "{}"),
        Reply::json(502, "<html>"),
        Reply::json(503, "").with("Retry-After", "0"),
        Reply::refusal(429, "RATE_LIMITED").with("Retry-After", "garbage"),
    ] {
        let answer = broken.clone();
        let server = Server::start(move |request, n| match n {
            0 => answer.clone(),
            _ => one_snapshot(request),
        })
        .await;
        let backups = atlas(&server.origin).backups(&cluster()).await;
        assert_eq!(backups.unwrap().len(), 1, "{broken:?}");
        assert_eq!(server.requests().len(), 2, "{broken:?}");
    }
}

#[tokio::test]
async fn retries_end_with_their_budget() {
    let server = Server::start(|_, _| Reply::json(503, "{}")).await;
    let atlas = atlas_with(&server.origin, api_key(), Duration::from_secs(1));
    let begun = Instant::now();
    let error = atlas.backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("503"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn case_10_slow_down_pauses_the_whole_account() {
    let server = Server::start(|request, n| match n {
        0 => Reply::refusal(429, "RATE_LIMITED_TOKEN_BUCKET").with("Retry-After", "1"),
        _ => one_snapshot(request),
    })
    .await;
    let (atlas, cluster) = (atlas(&server.origin), cluster());
    let begun = Instant::now();
    let later = async {
        while server.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        // By now the answer is on its way; a call made after it must wait as well.
        tokio::time::sleep(Duration::from_millis(200)).await;
        atlas.backups(&cluster).await
    };
    let (first, second) = join(atlas.backups(&cluster), later).await;
    assert!(first.is_ok() && second.is_ok());
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_wait_beyond_the_budget_is_reported_at_once() {
    let server = Server::start(|_, _| {
        Reply::refusal(429, "RATE_LIMITED_TOKEN_BUCKET").with("Retry-After", "86400")
    })
    .await;
    let atlas = atlas(&server.origin);
    let begun = Instant::now();
    let error = atlas.backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Throttled);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(86_400)));
    let again = atlas.backups(&cluster()).await.unwrap_err();
    assert_eq!(again.kind(), Kind::Throttled);
    assert_eq!(server.requests().len(), 1, "nobody asks during the pause");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn case_30_a_login_page_is_not_a_listing() {
    let server =
        Server::start(|_, _| Reply::json(200, "<!DOCTYPE html><title>Sign in</title>")).await;
    let error = atlas(&server.origin).backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(error.to_string().contains("a web page"), "{error}");
    assert!(error.to_string().contains(&server.origin), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn redirects_are_refused_and_their_target_is_not_printed() {
    let server = Server::start(|_, _| {
        Reply::json(302, "").with("Location", "https://login.example/sso?token=CANARY")
    })
    .await;
    let atlas = atlas(&server.origin);
    let error = atlas.backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(
        error.to_string().contains("https://login.example"),
        "{error}"
    );
    assert!(!error.to_string().contains("CANARY"), "{error}");
    let create = atlas.create_task(&shard()).await.unwrap_err();
    assert_eq!(create.kind(), Kind::TaskFailed, "a redirect has no effect");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn case_30_oversize_answers_are_refused_and_oversize_refusals_cut() {
    let server = Server::start(|request, _| {
        if request.method == "POST" {
            let detail = "x".repeat(1 << 20);
            return Reply::json(403, format!(r#"{{"detail":"{detail}"}}"#));
        }
        Reply::list(&[snapshot(&"x".repeat(17 << 20))])
    })
    .await;
    let atlas = atlas(&server.origin);
    let error = atlas.backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(error.to_string().contains("16 MiB"), "{error}");
    let refusal = atlas.create_task(&shard()).await.unwrap_err();
    assert_eq!(refusal.kind(), Kind::Credentials);
    assert!(refusal.to_string().len() < 1000);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn case_34_a_host_that_is_not_there_is_named_soon() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let atlas = atlas_with(&origin, api_key(), Duration::from_secs(120));
    let begun = Instant::now();
    let error = atlas.instances().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    let words = error.to_string();
    assert!(
        words.contains(&origin) && words.contains("refused"),
        "{words}"
    );
    assert!(words.contains("`endpoint`"), "{words}");
    assert!(begun.elapsed() < Duration::from_secs(6));
    let hasty = atlas_with(&origin, api_key(), Duration::from_millis(1));
    let create = hasty.create_task(&shard()).await.unwrap_err();
    assert_eq!(create.kind(), Kind::Unreachable, "it was surely not sent");
}

#[tokio::test]
async fn case_34_a_host_name_that_does_not_exist_is_named() {
    let atlas = atlas_with(
        "http://nowhere.invalid",
        api_key(),
        Duration::from_millis(1),
    );
    let error = atlas.instances().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.to_string().contains("nowhere.invalid"), "{error}");
}

#[tokio::test]
async fn case_31_plain_http_is_refused_unless_allowed() {
    let server = Server::start(|request, _| one_snapshot(request)).await;
    let mut config = config(&server.origin, api_key(), Duration::from_secs(1));
    config.allow_http = false;
    let atlas = providers::build(&config, Arc::new(SystemClock)).unwrap();
    let error = atlas.backups(&cluster()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("allow_http"), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn case_31_a_private_authority_is_trusted_only_when_named() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, trusted.pem()).unwrap();
    for (authority, ca_file, trusts) in [
        (&trusted, Some(ca_file.clone()), true),
        (&trusted, None, false),
        (&other, Some(ca_file.clone()), false),
    ] {
        let tls = authority.acceptor("localhost", 4000, &[]);
        let server = Server::start_tls(tls, |request, _| one_snapshot(request)).await;
        let mut config = config(&server.origin, api_key(), Duration::from_millis(1));
        (config.allow_http, config.ca_file) = (false, ca_file);
        let atlas = providers::build(&config, Arc::new(SystemClock)).unwrap();
        match atlas.backups(&cluster()).await {
            Ok(backups) => assert!(trusts && backups.len() == 1),
            Err(error) => {
                assert!(!trusts, "{error}");
                assert_eq!(error.kind(), Kind::Unreachable);
                let words = error.to_string();
                assert!(words.contains("certificate"), "{words}");
                assert!(words.contains("`ca_file`"), "{words}");
                assert!(server.requests().is_empty());
            }
        }
    }
}
