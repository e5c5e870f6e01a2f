//! Every fault as a client meets it.

use std::time::{Duration, Instant};

use futures::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, LOCATION, RANGE, RETRY_AFTER};

use super::super::{Fault, Rule, Side};
use super::*;

/// A data request of the first hundred bytes under `fault`.
async fn part(fault: Fault) -> reqwest::Result<Response> {
    let sim = start().await;
    let link = Caller::new(&sim).link().await;
    sim.faults().add(Rule::new(fault).on(Side::Data).times(1));
    let request = http().get(&link).header(RANGE, "bytes=0-99");
    let met = request.try_clone().unwrap().send().await;
    let met = match met {
        // The body has to come before the simulation ends.
        Ok(answer) => buffered(answer).await,
        Err(error) => Err(error),
    };
    assert_eq!(sim.bill().faults, 1);
    assert_eq!(request.send().await.unwrap().status(), 206, "only once");
    met
}

/// The same answer with its body in memory.
async fn buffered(answer: Response) -> reqwest::Result<Response> {
    let mut whole = http::Response::builder().status(answer.status());
    *whole.headers_mut().unwrap() = answer.headers().clone();
    let body = answer.bytes().await?;
    Ok(whole.body(body).unwrap().into())
}

fn text(answer: &Response, name: http::HeaderName) -> &str {
    answer.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn answers_instead_of_the_data() {
    let answer = part(Fault::Status {
        code: 503,
        retry_after: Some("7".into()),
    });
    let answer = answer.await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), text(&answer, RETRY_AFTER)),
        (503, "7")
    );
    assert_eq!(text(&answer, CONTENT_LENGTH), "27");
    let answer = part(Fault::Redirect {
        code: 302,
        location: "http://169.254.169.254/latest".into(),
    });
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 302);
    assert_eq!(text(&answer, LOCATION), "http://169.254.169.254/latest");
    let answer = part(Fault::LoginPage).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), text(&answer, CONTENT_TYPE)),
        (200, "text/html; charset=utf-8")
    );
}

#[tokio::test]
async fn wrong_data() {
    let expected = artifact().read(0..100).unwrap();
    let answer = part(Fault::IgnoreRange).await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.bytes().await.unwrap().len()
        ),
        (200, 300_000)
    );

    let answer = part(Fault::ShiftRange { by: 5 }).await.unwrap();
    assert_eq!(text(&answer, CONTENT_RANGE), "bytes 5-104/300000");
    assert_eq!(answer.bytes().await.unwrap(), expected);

    let answer = part(Fault::ShortBody { by: 1 }).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), text(&answer, CONTENT_LENGTH)),
        (206, "99")
    );
    assert_eq!(answer.bytes().await.unwrap(), expected[..99]);

    let answer = part(Fault::LongBody { by: 2 }).await.unwrap();
    assert_eq!(text(&answer, CONTENT_RANGE), "bytes 0-99/300000");
    let bytes = answer.bytes().await.unwrap();
    assert_eq!((&bytes[..100], &bytes[100..]), (&expected[..], &[0, 0][..]));

    let answer = part(Fault::Header {
        name: "Content-Encoding".into(),
        value: "gzip".into(),
    });
    assert_eq!(answer.await.unwrap().headers()["content-encoding"], "gzip");
    let answer = part(Fault::Header {
        name: "etag".into(),
        value: String::new(),
    });
    assert!(!answer.await.unwrap().headers().contains_key(ETAG));
}

#[tokio::test]
async fn an_ignored_condition() {
    let sim = start().await;
    let link = Caller::new(&sim).link().await;
    let request = http().get(&link).header(IF_MATCH, "\"mine\"");
    let ask = async || request.try_clone().unwrap().send().await.unwrap();
    assert_eq!(ask().await.status(), 412);
    let etag = "\"theirs\"".to_owned();
    sim.faults().add(Fault::OtherEtag { etag });
    let answer = ask().await;
    assert_eq!(
        (answer.status().as_u16(), text(&answer, ETAG)),
        (200, "\"theirs\"")
    );
}

#[tokio::test]
async fn connections_that_break() {
    assert!(part(Fault::Sever).await.is_err());
    assert!(part(Fault::SeverAnswer).await.is_err());
    assert!(part(Fault::Cut { after: 0 }).await.is_err());

    let sim = start().await;
    let link = Caller::new(&sim).link().await;
    sim.faults().add(Fault::Cut { after: 150_000 });
    let mut body = http().get(&link).send().await.unwrap().bytes_stream();
    let mut received = Vec::new();
    let broken = loop {
        match body.next().await {
            Some(Ok(piece)) => received.extend_from_slice(&piece),
            end => break end,
        }
    };
    assert!(matches!(broken, Some(Err(_))), "{broken:?}");
    assert!(
        (141_808..=150_000).contains(&received.len()),
        "{}",
        received.len()
    );
    assert_eq!(received, artifact().read(0..received.len() as u64).unwrap());
    assert_eq!(sim.bill().bytes_served, 150_000);
}

#[tokio::test]
async fn slow_and_silent_hosts() {
    let started = Instant::now();
    part(Fault::Latency { ms: 120 }).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(120));

    let started = Instant::now();
    let answer = part(Fault::Throttle {
        bytes_per_second: 1000,
    });
    assert_eq!(answer.await.unwrap().bytes().await.unwrap().len(), 100);
    assert!(started.elapsed() >= Duration::from_millis(100));

    let sim = start().await;
    let link = Caller::new(&sim).link().await;
    sim.faults().add(Fault::Hang);
    let silence = http().get(&link).send();
    let waited = tokio::time::timeout(Duration::from_millis(100), silence).await;
    assert!(waited.is_err(), "no answer at all");
    assert_eq!(sim.bill().data_requests["GET hung"], 1);
    sim.faults().clear();
    assert_eq!(http().get(&link).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_has_its_effect() {
    for (fault, outcome) in [
        (Fault::LoseAnswer { code: 504 }, "POST 504"),
        (Fault::SeverAnswer, "POST cut"),
        (Fault::HoldAnswer, "POST hung"),
    ] {
        let sim = start().await;
        let caller = Caller::new(&sim);
        sim.faults()
            .add(Rule::new(fault).on(Side::Api).method("POST").times(1));
        let target = format!("{LEGACY}{}", caller.tenant("download"));
        let nonce = caller.nonce().await;
        let body = format!(r#"{{"snapshotId":"{}"}}"#, sim.snapshot_ids("M2AWS")[0]);
        let answer = caller
            .request("POST", &target)
            .header(AUTHORIZATION, caller.proof("POST", &target, &nonce, 1))
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .send();
        let held = async {
            while !sim.bill().api_requests.contains_key("POST hung") {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = answer => match outcome {
                "POST 504" => assert_eq!(answer.unwrap().status(), 504),
                _ => assert!(answer.is_err()),
            },
            () = held => assert_eq!(outcome, "POST hung"),
        }
        let bill = sim.bill();
        assert_eq!((bill.tasks_created, bill.api_requests[outcome]), (1, 1));
        let (_, restores) = caller.get(&caller.tenant("restores")).await;
        assert_eq!(restores["totalCount"], 1);
    }
}

#[tokio::test]
async fn a_challenge_uses_up_no_lost_answer() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let fault = Fault::LoseAnswer { code: 504 };
    sim.faults().add(Rule::new(fault).times(1));
    caller.nonce().await;
    assert_eq!(sim.bill().faults, 0);
    let target = format!("{LEGACY}/groups");
    let answer = caller.send("GET", &target, "*/*", "").await;
    assert_eq!(answer.status(), 504);
}

#[tokio::test]
async fn trouble_with_the_key() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let target = format!("{LEGACY}/groups");
    let ask = async || {
        let answer = caller.send("GET", &target, "*/*", "").await;
        let challenge = answer.headers().get(WWW_AUTHENTICATE).cloned();
        let stale = challenge.map(|c| c.to_str().unwrap().ends_with("stale=true"));
        (answer.status().as_u16(), stale)
    };
    sim.faults()
        .add(Rule::new(Fault::StaleNonce).path("v1.0").times(1));
    assert_eq!(ask().await, (401, Some(true)));
    assert_eq!(ask().await, (200, None));
    sim.faults().add(Fault::Unauthorized);
    assert_eq!(ask().await, (401, Some(false)));
    assert_eq!(ask().await, (401, Some(false)), "for ever");
}

#[tokio::test]
async fn errors_of_the_cloud_and_a_lost_page() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let path = format!("/groups/{}/clusters", sim.project_id());
    sim.faults().add(
        Rule::new(Fault::Status {
            code: 500,
            retry_after: None,
        })
        .path("pageNum=2"),
    );
    let page = async |number| {
        let target = format!("{LEGACY}{path}?itemsPerPage=1&pageNum={number}");
        caller.send("GET", &target, "*/*", "").await.status()
    };
    assert_eq!((page(1).await.as_u16(), page(2).await.as_u16()), (200, 500));

    sim.faults().clear();
    let code = "IP_ADDRESS_NOT_ON_ACCESS_LIST".to_owned();
    sim.faults().add(Fault::ApiError { status: 403, code });
    let (status, refused) = caller.get(&path).await;
    assert_eq!(status, 403);
    assert_eq!(refused["errorCode"], "IP_ADDRESS_NOT_ON_ACCESS_LIST");
}
