//! UCloud as a client of its own sees it: every form of a request, the documentation's example, and
//! links that are exact about verb and time.

use jiff::SignedDuration;
use serde_json::json;
use sha1::Sha1;

use super::super::ucloud::{Account, Backup, Instance};
use super::*;

const PUBLIC: &str = "ucloudsomeone@example.com1296235120854146120";
const PRIVATE: &str = "46f09bb9fab4f12dfc160dae12273d5332b5debe";
/// The example of "Get Instance Backup Download Link", in its order.
const EXAMPLE: [(&str, &str); 9] = [
    ("Action", "DescribeUMongoDBBackupURL"),
    ("Region", "cn-zj"),
    ("Zone", "cn-zj-01"),
    ("ProjectId", "DatUQmzF"),
    ("ClusterId", "cDNCLXDU"),
    ("BackupId", "reAlkmik"),
    ("ValidTime", "1"),
    ("PackageId", "3"),
    ("Category", "NmFaVOQi"),
];

/// The account of the example.
async fn example() -> Sim {
    let started: Timestamp = "2026-01-05T14:00:00Z".parse().unwrap();
    let backup = Backup::at(started, [artifact()]).id("reAlkmik");
    let cluster = Instance::replica_set("cDNCLXDU").zone("cn-zj", "cn-zj-01");
    let account = Account::new()
        .keys(PUBLIC, PRIVATE)
        .project("DatUQmzF")
        .instance(cluster.backup(backup));
    Sim::start(SimBuilder::new().ucloud(account)).await.unwrap()
}

/// Names and values with the key and the signature, which the documentation tells how to make.
fn signed(pairs: &[(&str, &str)], private: &str) -> Vec<(String, String)> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut whole: Vec<_> = pairs.iter().map(own).collect();
    whole.push(own(&("PublicKey", PUBLIC)));
    let mut sorted = whole.clone();
    sorted.sort();
    let mut text: String = sorted
        .iter()
        .map(|(name, value)| format!("{name}{value}"))
        .collect();
    text.push_str(private);
    whole.push(("Signature".to_owned(), hex(&Sha1::digest(text))));
    whole
}

fn query(pairs: &[(String, String)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

#[tokio::test]
async fn the_documented_example_is_answered_in_every_form() {
    let sim = example().await;
    let base = sim.ucloud().unwrap().endpoint();
    let parameters = signed(&EXAMPLE, PRIVATE);
    let mut body: Value = json!({});
    for (name, value) in &parameters {
        body[name] = match name.as_str() {
            "ValidTime" | "PackageId" => value.parse::<i64>().unwrap().into(),
            _ => value.as_str().into(),
        };
    }
    let form = (CONTENT_TYPE, "application/x-www-form-urlencoded");
    let requests = [
        http().get(format!("{base}/?{}", query(&parameters))),
        http()
            .post(base)
            .header(form.0, form.1)
            .body(query(&parameters)),
        http()
            .post(format!("{base}/?Action=DescribeUMongoDBBackupURL"))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string()),
    ];
    for request in requests {
        let answer = request.send().await.unwrap();
        assert!(answer.headers().contains_key("x-ucloud-request-uuid"));
        let (status, document) = document(answer).await;
        assert_eq!(
            (status.as_u16(), &document["RetCode"]),
            (200, &json!(0)),
            "{document}"
        );
        assert_eq!(document["Action"], "DescribeUMongoDBBackupURLResponse");
        let link = document["InternetAddress"].as_str().unwrap();
        assert!(
            link.contains("Signature=") && link.ends_with('='),
            "raw: {link}"
        );
    }
}

#[tokio::test]
async fn refusals_come_with_200_and_a_code() {
    let sim = example().await;
    let base = sim.ucloud().unwrap().endpoint();
    let without = |name: &str, pairs: Vec<(String, String)>| {
        let kept = pairs.into_iter().filter(|(known, _)| known != name);
        kept.collect::<Vec<_>>()
    };
    let right = signed(&EXAMPLE, PRIVATE);
    let unknown = signed(&[("Action", "DeleteEverything")], PRIVATE);
    let elsewhere = signed(
        &[("Action", "GetRegion"), ("ProjectId", "org-other")],
        PRIVATE,
    );
    for (parameters, code) in [
        (without("Action", right.clone()), 160),
        (unknown, 161),
        (without("Signature", right.clone()), 170),
        (signed(&EXAMPLE, "another"), 171),
        (without("Zone", right.clone()), 171),
        (without("PublicKey", right), 172),
        (elsewhere, 292),
    ] {
        let answer = http().get(format!("{base}/?{}", query(&parameters)));
        let (status, document) = document(answer.send().await.unwrap()).await;
        assert_eq!(
            (status.as_u16(), &document["RetCode"]),
            (200, &json!(code)),
            "{document}"
        );
        assert!(document["Message"].is_string());
    }
}

#[tokio::test]
async fn a_link_is_for_its_verb_and_its_time_and_answers_every_range() {
    let sim = example().await;
    let base = sim.ucloud().unwrap().endpoint();
    // Long enough for a slow machine.
    let lasting = EXAMPLE.map(|(name, value)| match name {
        "ValidTime" => (name, "600"),
        _ => (name, value),
    });
    let parameters = query(&signed(&lasting, PRIVATE));
    let answer = http()
        .get(format!("{base}/?{parameters}"))
        .send()
        .await
        .unwrap();
    let (_, answer) = document(answer).await;
    let link = answer["IntranetAddress"].as_str().unwrap().to_owned();
    let code = |answer: Response| async { document(answer).await.1["RetCode"].clone() };

    let whole = http().get(&link).send().await.unwrap();
    let whole = whole.bytes().await.unwrap();
    assert_eq!(whole, artifact().read(0..u64::MAX).unwrap());
    let head = http().head(&link).send().await.unwrap();
    assert_eq!(head.status(), 403);
    let forged = link.replace("reAlkmik", "another");
    let forged = http().get(forged).send().await.unwrap();
    assert_eq!(forged.status(), 403);
    assert_eq!(code(forged).await, -148_643);

    let part = http()
        .get(&link)
        .header("range", "bytes=10-19")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 10-19/300000");
    // A range behind the end: the whole file, and nothing that says so.
    let past = http()
        .get(&link)
        .header("range", "bytes=300000-")
        .send()
        .await
        .unwrap();
    assert_eq!(past.status(), 206);
    assert!(!past.headers().contains_key("content-range"));
    assert_eq!(past.bytes().await.unwrap().len(), 300_000);

    sim.advance(SignedDuration::from_secs(601));
    let late = http().get(&link).send().await.unwrap();
    assert_eq!(late.status(), 403);
    assert_eq!(code(late).await, -148_660);
    let bill = sim.bill();
    assert_eq!((bill.expired_link_uses, bill.forged_link_uses), (1, 2));
}
