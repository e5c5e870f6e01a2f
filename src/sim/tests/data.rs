//! The object store: links, ranges, conditions, replaced artifacts.

use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName};
use jiff::SignedDuration;

use super::*;

const SIZE: u64 = 300_000;
const TAKEN: &str = "Mon, 05 Jan 2026 14:00:31 GMT";

async fn get(link: &str, headers: &[(HeaderName, &str)]) -> Response {
    let mut request = http().get(link);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    request.send().await.unwrap()
}

/// The code of an S3 error document, its message, and the status.
async fn refusal(answer: Response) -> (u16, String, String) {
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/xml");
    let text = answer.text().await.unwrap();
    let between = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>")).unwrap();
        rest.split_once(&format!("</{tag}>")).unwrap().0.to_owned()
    };
    (status, between("Code"), between("Message"))
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn ranges_are_exact() {
    let sim = start().await;
    let link = Caller::new(&sim).link().await;
    let whole = artifact().read(0..SIZE).unwrap();
    for (range, status, expected, named) in [
        (None, 200, 0..SIZE, None),
        (Some("bytes=0-0"), 206, 0..1, Some("bytes 0-0/300000")),
        (Some("bytes=7-99"), 206, 7..100, Some("bytes 7-99/300000")),
        (
            Some("bytes=299999-"),
            206,
            299_999..SIZE,
            Some("bytes 299999-299999/300000"),
        ),
        (
            Some("bytes=150000-900000"),
            206,
            150_000..SIZE,
            Some("bytes 150000-299999/300000"),
        ),
        (
            Some("bytes=-10"),
            206,
            299_990..SIZE,
            Some("bytes 299990-299999/300000"),
        ),
        (Some("bytes=0-1,5-6"), 200, 0..SIZE, None),
        (Some("bytes=6-5"), 200, 0..SIZE, None),
    ] {
        let headers: Vec<_> = range.map(|value| (RANGE, value)).into_iter().collect();
        let answer = get(&link, &headers).await;
        assert_eq!(answer.status().as_u16(), status, "{range:?}");
        let length = (expected.end - expected.start).to_string();
        assert_eq!(answer.headers()[CONTENT_LENGTH], *length, "{range:?}");
        assert_eq!(answer.headers()[ACCEPT_RANGES], "bytes");
        assert_eq!(header(answer.headers(), &LAST_MODIFIED), Some(TAKEN));
        assert_eq!(header(answer.headers(), &CONTENT_RANGE), named);
        let bytes = answer.bytes().await.unwrap();
        assert_eq!(
            bytes,
            whole[expected.start as usize..expected.end as usize],
            "{range:?}"
        );
    }
    let beyond = get(&link, &[(RANGE, "bytes=300000-")]).await;
    assert_eq!(
        header(beyond.headers(), &CONTENT_RANGE),
        Some("bytes */300000")
    );
    let (status, code, _) = refusal(beyond).await;
    assert_eq!((status, code.as_str()), (416, "InvalidRange"));
    assert_eq!(sim.bill().data_requests["GET 206"], 5);
    assert_eq!(sim.bill().data_requests["GET 416"], 1);
}

#[tokio::test]
async fn conditions_are_kept() {
    let sim = start().await;
    let link = Caller::new(&sim).link().await;
    let etag = get(&link, &[]).await.headers()[ETAG]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        etag.starts_with('"') && etag.ends_with('"') && etag.len() == 34,
        "{etag}"
    );
    let listed = format!("\"x\", {etag}");
    let weak = format!("W/{etag}");
    let later = "Mon, 05 Jan 2026 14:00:32 GMT";
    let earlier = "Mon, 05 Jan 2026 14:00:30 GMT";
    let part = (RANGE, "bytes=0-9");
    for (condition, status) in [
        ((IF_MATCH, etag.as_str()), 206),
        ((IF_MATCH, &listed), 206),
        ((IF_MATCH, "*"), 206),
        ((IF_MATCH, "\"x\""), 412),
        ((IF_MATCH, &weak), 412),
        ((IF_NONE_MATCH, &etag), 304),
        ((IF_NONE_MATCH, "\"x\""), 206),
        ((IF_MODIFIED_SINCE, TAKEN), 304),
        ((IF_MODIFIED_SINCE, earlier), 206),
        ((IF_UNMODIFIED_SINCE, TAKEN), 206),
        ((IF_UNMODIFIED_SINCE, later), 206),
        ((IF_UNMODIFIED_SINCE, earlier), 412),
        ((IF_RANGE, &etag), 206),
        ((IF_RANGE, TAKEN), 206),
        ((IF_RANGE, "\"x\""), 200),
        ((IF_RANGE, later), 200),
    ] {
        let (name, value) = condition.clone();
        let answer = get(&link, &[part.clone(), (name, value)]).await;
        assert_eq!(answer.status().as_u16(), status, "{condition:?}");
    }
}

#[tokio::test]
async fn a_link_is_good_for_one_method_one_object_and_its_time() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let link = caller.link().await;
    assert_ne!(caller.link().await, link, "no two links are equal");
    let head = http().head(&link).send().await.unwrap();
    assert_eq!(head.status(), 403, "the method is signed");

    let twice = get(&link, &[(AUTHORIZATION, "Bearer token")]).await;
    let (status, code, _) = refusal(twice).await;
    assert_eq!((status, code.as_str()), (400, "InvalidArgument"));

    let (address, query) = link.split_once('?').unwrap();
    let unsigned = refusal(get(address, &[]).await).await;
    assert_eq!(
        unsigned,
        (403, "AccessDenied".into(), "Access Denied".into())
    );
    let (rest, signature) = link.rsplit_once('=').unwrap();
    let flipped = match signature.strip_prefix('0') {
        Some(tail) => format!("1{tail}"),
        None => format!("0{}", &signature[1..]),
    };
    let forged = format!("{rest}={flipped}");
    let moved = format!("{address}x?{query}");
    let prolonged = link.replace("expires=1", "expires=2");
    for bad in [forged, moved, prolonged] {
        let (status, code, _) = refusal(get(&bad, &[]).await).await;
        assert_eq!(
            (status, code.as_str()),
            (403, "SignatureDoesNotMatch"),
            "{bad}"
        );
    }
    assert_eq!(sim.bill().forged_link_uses, 4);

    sim.advance(SignedDuration::from_hours(4) - SignedDuration::from_secs(30));
    assert_eq!(get(&link, &[]).await.status(), 200);
    sim.advance(SignedDuration::from_secs(30));
    let expired = refusal(get(&link, &[]).await).await;
    assert_eq!(
        expired,
        (403, "AccessDenied".into(), "Request has expired".into())
    );
    assert_eq!(sim.bill().expired_link_uses, 1);
}

#[tokio::test]
async fn a_replaced_artifact_is_another_version() {
    let sim = start().await;
    let link = Caller::new(&sim).link().await;
    let etag = get(&link, &[]).await.headers()[ETAG]
        .to_str()
        .unwrap()
        .to_owned();
    let id = &sim.snapshot_ids("M2AWS")[0];
    assert!(sim.replace_artifact("M2AWS", id, artifact()));
    assert!(!sim.replace_artifact("M2AWS", "unknown", artifact()));
    let (status, code, _) = refusal(get(&link, &[(IF_MATCH, &etag)]).await).await;
    assert_eq!((status, code.as_str()), (412, "PreconditionFailed"));
    let fresh = get(&link, &[]).await;
    assert_ne!(fresh.headers()[ETAG], *etag, "even with the same bytes");
    assert!(sim.remove_artifact("M2AWS", id));
    let (status, code, _) = refusal(get(&link, &[]).await).await;
    assert_eq!((status, code.as_str()), (404, "NoSuchKey"));
}

#[tokio::test]
async fn the_clouds_tell_their_own_time() {
    let sim = start().await;
    let link = Caller::new(&sim).link().await;
    sim.advance(SignedDuration::from_hours(-3));
    let answer = get(&link, &[]).await;
    let date = answer.headers()["date"].to_str().unwrap();
    let date = jiff::fmt::rfc2822::parse(date).unwrap().timestamp();
    let behind = Timestamp::now().duration_since(date);
    assert!((10_795..10_860).contains(&behind.as_secs()), "{behind}");
}

#[tokio::test]
async fn artifacts_may_be_huge_empty_or_files() {
    let huge = Content::noise(9, 1 << 50);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a real backup").unwrap();
    let at = |second: i64| Snapshot::at(Timestamp::from_second(1_767_000_000 + second).unwrap());
    let cluster = Cluster::new("M2AWS", Tier::M2)
        .snapshot(at(0).content(huge.clone()))
        .snapshot(at(1).content(Content::bytes("")))
        .snapshot(at(2).content(Content::file(file.path()).unwrap()));
    let builder = SimBuilder::new().project(Project::new("p").cluster(cluster));
    let sim = Sim::start(builder).await.unwrap();
    let caller = Caller::new(&sim);
    let mut links = Vec::new();
    for id in sim.snapshot_ids("M2AWS") {
        let (_, restore) = caller.download(&id).await;
        links.push(restore["snapshotUrl"].as_str().unwrap().to_owned());
    }
    let far = (1u64 << 50) - 100_000;
    let answer = get(&links[0], &[(RANGE, &format!("bytes={far}-"))]).await;
    assert_eq!(
        answer.bytes().await.unwrap(),
        huge.read(far..1 << 50).unwrap()
    );
    let empty = get(&links[1], &[(RANGE, "bytes=0-0")]).await;
    assert_eq!(header(empty.headers(), &CONTENT_RANGE), Some("bytes */0"));
    assert_eq!(empty.status(), 416);
    let empty = get(&links[1], &[]).await;
    assert_eq!(
        (empty.status().as_u16(), empty.bytes().await.unwrap().len()),
        (200, 0)
    );
    assert_eq!(
        get(&links[2], &[]).await.text().await.unwrap(),
        "a real backup"
    );
}

#[tokio::test]
async fn links_may_lead_to_another_server() {
    let elsewhere = start().await;
    let own = Caller::new(&elsewhere).link().await;
    let base = &own[..own.find("/atlas-snapshots/").unwrap()];

    let sim = Sim::start(clouds().links_to(&format!("{base}/")))
        .await
        .unwrap();
    let link = Caller::new(&sim).link().await;
    let path = |link: &str| link.split('?').next().map(str::to_owned);
    assert_eq!(path(&link), path(&own), "same server, same path");
    // That server has keys of its own.
    assert_eq!(refusal(get(&link, &[]).await).await.0, 403);
}
