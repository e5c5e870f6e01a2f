//! The Administration API: keys, versions, pages, downloads, errors, limits, control paths.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::super::atlas::{Knobs, Limit, TenantApi};
use super::*;

/// What a refused call says: status, code and the header that repeats it.
async fn refusal(answer: Response) -> (u16, String) {
    let repeated = answer.headers().get("x-error-code").cloned();
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
    let (status, document) = document(answer).await;
    let code = document["errorCode"].as_str().unwrap().to_owned();
    assert_eq!(document["error"], status.as_u16());
    assert!(document["parameters"].is_array());
    assert_eq!(repeated.unwrap(), code);
    (status.as_u16(), code)
}

#[tokio::test]
async fn a_request_without_proof_gets_the_recorded_challenge() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let first = caller.request("POST", "/any/path").send().await.unwrap();
    assert_eq!(first.status(), 401);
    assert_eq!(first.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(first.headers()["content-length"], "142");
    assert!(!first.headers().contains_key("ratelimit-limit"));
    let nonce = nonce_of(&first);
    assert_eq!(nonce.len(), 32);
    assert_eq!(
        first.headers()[WWW_AUTHENTICATE].to_str().unwrap(),
        format!(
            "Digest realm=\"MMS Public API\", domain=\"\", nonce=\"{nonce}\", algorithm=MD5, \
             qop=\"auth\", stale=false"
        )
    );
    assert_ne!(caller.nonce().await, nonce);
    assert_eq!(sim.bill().calls.len(), 0);
    assert_eq!(sim.bill().api_requests["POST 401"], 1);
}

#[tokio::test]
async fn a_wrong_key_or_address_is_refused() {
    let sim = start().await;
    let mut caller = Caller::new(&sim);
    let target = format!("{V2}/groups");
    let nonce = caller.nonce().await;
    let good = caller.proof("GET", &target, &nonce, 1);
    let another = caller.proof("GET", &format!("{target}?pretty=true"), &nonce, 2);
    caller.password.push('x');
    let wrong = caller.proof("GET", &target, &nonce, 3);
    for (proof, status) in [(good, 406), (another, 401), (wrong, 401)] {
        let request = caller.request("GET", &target).header(AUTHORIZATION, proof);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "406 is past the check");
        if status == 401 {
            let challenge = answer.headers()[WWW_AUTHENTICATE].to_str().unwrap();
            assert!(challenge.ends_with("stale=false"), "{challenge}");
        }
    }
}

#[tokio::test]
async fn nonces_go_stale_and_counts_may_be_used_up() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let target = format!("{LEGACY}/groups");
    let nonce = caller.nonce().await;
    let ask = async |nc| {
        let proof = caller.proof("GET", &target, &nonce, nc);
        let request = caller.request("GET", &target).header(AUTHORIZATION, proof);
        let answer = request.send().await.unwrap();
        let challenge = answer.headers().get(WWW_AUTHENTICATE).cloned();
        let stale = challenge.map(|c| c.to_str().unwrap().ends_with("stale=true"));
        (answer.status().as_u16(), stale)
    };
    assert_eq!(ask(1).await, (200, None));
    assert_eq!(ask(1).await, (200, None), "tolerant by default");
    assert_eq!(ask(7).await, (200, None), "a count may begin anywhere");
    sim.adjust(|knobs| knobs.refuse_reused_counts = true);
    assert_eq!(ask(8).await, (200, None));
    assert_eq!(ask(8).await, (401, Some(true)));
    sim.adjust(|knobs| knobs.nonce_life = Some(SignedDuration::from_mins(5)));
    assert_eq!(ask(9).await, (200, None));
    sim.advance(SignedDuration::from_mins(5));
    assert_eq!(ask(10).await, (401, Some(true)));
    sim.forget_sessions();
    assert_eq!(ask(11).await, (401, Some(false)));
}

#[tokio::test]
async fn a_service_account_gets_a_token() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let ask = async |secret: &str, form: &'static str| {
        let request = caller.request("POST", "/api/oauth/token");
        let request = request.basic_auth(sim.client_id(), Some(secret)).header(
            CONTENT_TYPE,
            "application/x-www-form-urlencoded;charset=UTF-8",
        );
        document(request.body(form).send().await.unwrap()).await
    };
    let form = "grant_type=client_credentials";
    let (status, refused) = ask("wrong", form).await;
    assert_eq!(
        (status.as_u16(), &refused["error"]),
        (401, &json!("invalid_client"))
    );
    let (status, refused) = ask(sim.client_secret(), "grant_type=password").await;
    assert_eq!(
        (status.as_u16(), &refused["error"]),
        (400, &json!("unsupported_grant_type"))
    );
    let (status, token) = ask(sim.client_secret(), form).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&token["expires_in"], &token["token_type"]),
        (&json!(3600), &json!("Bearer"))
    );
    let token = token["access_token"].as_str().unwrap();
    let groups = async || {
        let request = caller.request("GET", &format!("{LEGACY}/groups"));
        request.bearer_auth(token).send().await.unwrap().status()
    };
    assert_eq!(groups().await, 200);
    sim.advance(SignedDuration::from_hours(1));
    assert_eq!(groups().await, 401);
}

#[tokio::test]
async fn a_download_from_the_list_of_projects_to_the_last_byte() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let (_, groups) = caller.get("/groups").await;
    assert_eq!(groups["results"][0]["name"], "Shop (EU) & co");
    let project = groups["results"][0]["id"].as_str().unwrap();
    let (_, clusters) = caller.get(&format!("/groups/{project}/clusters")).await;
    assert_eq!(clusters["totalCount"], 4);
    let settings = &clusters["results"][0]["providerSettings"];
    assert_eq!(
        (&settings["providerName"], &settings["instanceSizeName"]),
        (&json!("TENANT"), &json!("M2"))
    );
    let (_, snapshots) = caller.get(&caller.tenant("snapshots")).await;
    let snapshot = &snapshots["results"][0];
    assert_eq!(snapshot["status"], "COMPLETED");
    assert_eq!(snapshot["startTime"], "2026-01-05T14:00:00Z");
    assert_eq!(snapshot["finishTime"], "2026-01-05T14:00:31Z");
    assert_eq!(snapshots["results"][1]["finishTime"], Value::Null);
    assert_eq!(sim.bill().tasks_created, 0);

    let (status, restore) = caller.download(snapshot["id"].as_str().unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(restore["status"], "COMPLETED");
    assert_eq!(restore["deliveryType"], "DOWNLOAD");
    assert_eq!(restore["snapshotFinishedDate"], "2026-01-05T14:00:31Z");
    let instant = |name: &str| {
        restore[name]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .unwrap()
    };
    let life = instant("expirationDate").duration_since(instant("restoreScheduledDate"));
    assert_eq!(life, SignedDuration::from_hours(4));
    let link = restore["snapshotUrl"].as_str().unwrap();
    let bytes = http()
        .get(link)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_eq!(bytes, artifact().read(0..300_000).unwrap());

    let bill = sim.bill();
    assert_eq!(bill.tasks_created, 1);
    for kind in ["groups", "clusters", "tenant_snapshots", "tenant_download"] {
        assert_eq!(bill.calls(kind), 1, "{kind}");
    }
    assert_eq!((bill.data_requests(), bill.bytes_served), (1, 300_000));
    assert_eq!((bill.links_signed, bill.link_refreshes), (1, 0));
}

#[tokio::test]
async fn a_task_takes_its_time_and_its_links_are_renewed() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    sim.adjust(|knobs| {
        knobs.task_time = SignedDuration::from_mins(3);
        knobs.link_life = Some(SignedDuration::from_mins(10));
    });
    let snapshot = &sim.snapshot_ids("M2AWS")[0];
    let (_, restore) = caller.download(snapshot).await;
    assert_eq!(restore["status"], "PENDING");
    assert_eq!(
        (&restore["snapshotUrl"], &restore["restoreFinishedDate"]),
        (&Value::Null, &Value::Null)
    );
    let (status, refused) = caller.download(snapshot).await;
    assert_eq!(status, 400);
    assert_eq!(
        refused["errorCode"],
        "CANNOT_DOWNLOAD_SNAPSHOT_CONCURRENTLY"
    );
    assert_eq!(sim.bill().tasks_created, 1);

    let own = caller.tenant(&format!("restores/{}", restore["id"].as_str().unwrap()));
    let ask = async |minutes| {
        sim.advance(SignedDuration::from_mins(minutes));
        let (_, restore) = caller.get(&own).await;
        let link = restore["snapshotUrl"].as_str().map(str::to_owned);
        (restore["status"].as_str().unwrap().to_owned(), link)
    };
    assert_eq!(ask(1).await, ("QUEUED".into(), None));
    assert_eq!(ask(1).await, ("RUNNING".into(), None));
    let (status, first) = ask(1).await;
    let first = first.unwrap();
    assert_eq!(status, "COMPLETED");
    assert_eq!(sim.bill().link_refreshes, 0);
    let fetch = async |link: &str| http().get(link).send().await.unwrap().status();
    assert_eq!(fetch(&first).await, 200);

    let (_, second) = ask(10).await;
    let second = second.unwrap();
    assert_eq!(
        (fetch(&first).await.as_u16(), fetch(&second).await.as_u16()),
        (403, 200)
    );
    assert_eq!(
        (sim.bill().link_refreshes, sim.bill().expired_link_uses),
        (1, 1)
    );

    sim.adjust(|knobs| knobs.resign = false);
    assert_eq!(ask(5).await.1.as_ref(), Some(&second));
    sim.adjust(|knobs| knobs.resign = true);
    let (status, last) = ask(240).await;
    assert_eq!(status, "COMPLETED");
    assert_eq!(
        last,
        Some(second),
        "nothing is signed after the download's end"
    );
    assert_eq!(sim.bill().link_refreshes, 1);

    let (_, list) = caller.get(&caller.tenant("restores")).await;
    assert_eq!(list["results"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_download_may_fail() {
    let sim = start().await;
    let (_, restore) = Caller::new(&sim).download(FAILING).await;
    assert_eq!(
        (&restore["status"], &restore["snapshotUrl"]),
        (&json!("FAILED"), &Value::Null)
    );
    assert!(restore["restoreFinishedDate"].is_string());
}

#[tokio::test]
async fn v2_answers_in_the_version_asked_for() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let path = format!("/groups/{}/clusters/M2AWS", sim.project_id());
    let shape = async |date: &str| {
        let answer = caller.get_v2(&path, date).await;
        assert_eq!(answer.status(), 200);
        let headers = answer.headers();
        let media = headers[CONTENT_TYPE].to_str().unwrap().to_owned();
        let deprecated = headers.contains_key("deprecation") && headers.contains_key("sunset");
        (media, deprecated, document(answer).await.1)
    };
    let media = |date| format!("application/vnd.atlas.{date}+json;charset=utf-8");

    let (named, deprecated, first) = shape("2023-01-01").await;
    assert_eq!((named, deprecated), (media("2023-01-01"), true));
    assert_eq!(first["providerSettings"]["backingProviderName"], "AWS");
    assert_eq!(first["numShards"], 1);
    let (named, deprecated, second) = shape("2024-05-30").await;
    assert_eq!((named, deprecated), (media("2023-02-01"), true));
    let region = &second["replicationSpecs"][0]["regionConfigs"][0];
    assert_eq!(region["electableSpecs"]["instanceSize"], "M2");
    assert_eq!(second["replicationSpecs"][0]["numShards"], 1);
    assert_eq!(second["providerSettings"], Value::Null);
    let (named, deprecated, third) = shape("2025-03-12").await;
    assert_eq!((named, deprecated), (media("2024-08-05"), false));
    let spec = &third["replicationSpecs"][0];
    assert_eq!(spec["numShards"], Value::Null);
    let region = &spec["regionConfigs"][0];
    assert_eq!(
        (
            &region["providerName"],
            &region["electableSpecs"]["diskSizeGB"]
        ),
        (&json!("TENANT"), &json!(2.0))
    );
    for answer in [&first, &second, &third] {
        for common in [
            "id",
            "name",
            "groupId",
            "clusterType",
            "stateName",
            "mongoDBVersion",
        ] {
            assert!(answer[common].is_string(), "{common}");
        }
    }

    let target = format!("{V2}{path}");
    for accept in [
        "*/*",
        "application/json",
        "application/vnd.atlas.2022-01-01+json",
    ] {
        let answer = caller.send("GET", &target, accept, "").await;
        assert_eq!(refusal(answer).await.0, 406, "{accept}");
    }
    let flex = format!("/groups/{}/flexClusters", sim.project_id());
    assert_eq!(caller.get_v2(&flex, "2023-01-01").await.status(), 406);
    let (_, flex) = document(caller.get_v2(&flex, "2024-11-13").await).await;
    assert_eq!(flex["results"][0]["name"], "flex");
}

#[tokio::test]
async fn either_edition_and_the_tenant_endpoints_can_be_switched_off() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let snapshots = caller.tenant("snapshots");
    let dated = "2023-01-01";
    assert_eq!(caller.get_v2(&snapshots, dated).await.status(), 200);
    sim.adjust(|knobs| knobs.tenant_api = TenantApi::Gone);
    let gone = refusal(caller.get_v2(&snapshots, dated).await).await;
    assert_eq!(gone, (410, "VERSION_GONE".into()));
    sim.adjust(|knobs| knobs.tenant_api = TenantApi::NotFound);
    let unknown = refusal(caller.get_v2(&snapshots, dated).await).await;
    assert_eq!(unknown, (404, "RESOURCE_NOT_FOUND".into()));
    assert_eq!(caller.get_v2("/groups", dated).await.status(), 200);
    sim.adjust(|knobs| knobs.v2 = false);
    assert_eq!(caller.get_v2("/groups", dated).await.status(), 404);
    assert_eq!(caller.get("/groups").await.0, 200);
    sim.adjust(|knobs| knobs.v1 = false);
    assert_eq!(caller.get("/groups").await.0, 404);
}

#[tokio::test]
async fn lists_come_in_pages_envelopes_and_prettily() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let path = format!("/groups/{}/clusters", sim.project_id());
    let (_, first) = caller
        .get(&format!("{path}?pageNum=1&itemsPerPage=2"))
        .await;
    assert_eq!(first["results"].as_array().unwrap().len(), 2);
    let next = &first["links"][1];
    let expected = format!(
        "{}{LEGACY}{path}?includeCount=true&itemsPerPage=2&pageNum=2",
        sim.base_url()
    );
    assert_eq!(next, &json!({"href": expected, "rel": "next"}));
    let (_, last) = caller
        .get(&format!(
            "{path}?pageNum=2&itemsPerPage=2&includeCount=false&envelope=true"
        ))
        .await;
    assert_eq!(last["results"][0]["name"], "rs0");
    assert_eq!(
        (&last["totalCount"], &last["status"]),
        (&Value::Null, &json!(200))
    );
    let (status, _) = caller.get(&format!("{path}?itemsPerPage=501")).await;
    assert_eq!(status, 400);

    let (_, one) = caller.get(&format!("{path}/rs0?envelope=true")).await;
    assert_eq!(
        (&one["status"], &one["content"]["name"]),
        (&json!(200), &json!("rs0"))
    );
    let target = format!("{LEGACY}{path}/rs0?pretty=true");
    let text = caller
        .send("GET", &target, "*/*", "")
        .await
        .text()
        .await
        .unwrap();
    assert!(text.starts_with("{\n  \""), "{text}");
}

#[tokio::test]
async fn errors_have_their_documented_codes() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let group = sim.project_id();
    let id = "000000000000000000000000";
    let tenant = |rest: &str| caller.tenant(rest);
    for (path, status, code) in [
        ("/nothing".into(), 404, "RESOURCE_NOT_FOUND"),
        (format!("/groups/{id}"), 404, "GROUP_NOT_FOUND"),
        ("/groups/short/clusters".into(), 404, "INVALID_GROUP_ID"),
        (
            format!("/groups/{group}/clusters/x"),
            404,
            "CLUSTER_NOT_FOUND",
        ),
        (
            tenant(&format!("snapshots/{id}")),
            404,
            "TENANT_SNAPSHOT_NOT_FOUND",
        ),
        (
            tenant(&format!("restores/{id}")),
            404,
            "TENANT_RESTORE_NOT_FOUND",
        ),
        (
            format!("/groups/{group}/clusters/sandbox/backup/tenant/snapshots"),
            403,
            "FEATURE_UNSUPPORTED",
        ),
        (
            format!("/groups/{group}/clusters/rs0/backup/tenant/snapshots"),
            403,
            "FEATURE_UNSUPPORTED",
        ),
        (
            format!("/groups/{group}/clusters/M2AWS/backup/snapshots"),
            403,
            "FEATURE_UNSUPPORTED",
        ),
        (
            format!("/groups/{group}/clusters/rs0/backup/snapshots/{id}"),
            404,
            "SNAPSHOT_NOT_FOUND",
        ),
        (
            format!("/groups/{group}/clusters/rs0/backup/restoreJobs/{id}"),
            404,
            "RESTORE_JOB_NOT_FOUND",
        ),
    ] {
        let answer = caller
            .send("GET", &format!("{LEGACY}{path}"), "*/*", "")
            .await;
        assert_eq!(refusal(answer).await, (status, code.into()), "{path}");
    }
    let download = format!("{LEGACY}{}", tenant("download"));
    let running = format!(r#"{{"snapshotId":"{RUNNING}"}}"#);
    for (body, status, code) in [
        ("", 400, "MALFORMED_JSON"),
        ("[]", 400, "MALFORMED_JSON"),
        ("{}", 400, "MISSING_ATTRIBUTE"),
        (r#"{"snapshotId":7}"#, 400, "INVALID_ATTRIBUTE"),
        (
            r#"{"snapshotId":"x","force":true}"#,
            400,
            "INVALID_ATTRIBUTE",
        ),
        (r#"{"snapshotId":"x"}"#, 404, "TENANT_SNAPSHOT_NOT_FOUND"),
        (&running, 409, "CANNOT_DOWNLOAD_INCOMPLETE_SNAPSHOT"),
    ] {
        let answer = caller.send("POST", &download, "*/*", body).await;
        assert_eq!(refusal(answer).await, (status, code.into()), "{body}");
    }
    sim.adjust(|knobs| knobs.may_download = false);
    let (status, refused) = caller.download(FAILING).await;
    assert_eq!(
        (status.as_u16(), &refused["errorCode"]),
        (401, &json!("USER_UNAUTHORIZED"))
    );
    assert_eq!(sim.bill().tasks_created, 0);

    let (_, missing) = caller.get(&format!("/groups/{group}/clusters/x")).await;
    assert_eq!(missing["parameters"], json!(["x", group]));
    assert_eq!(
        missing["detail"],
        format!("No cluster named x exists in group {group}.")
    );
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_back() {
    let limit = Limit {
        capacity: 2,
        refill: 1,
    };
    let mut knobs = Knobs::default();
    knobs.limits.groups = limit;
    let sim = Sim::start(clouds().knobs(knobs)).await.unwrap();
    let caller = Caller::new(&sim);
    for left in ["1", "0"] {
        let answer = caller.get_v2("/groups", "2023-01-01").await;
        assert_eq!(answer.headers()["ratelimit-limit"], "2");
        assert_eq!(answer.headers()["ratelimit-remaining"], left);
    }
    let answer = caller.get_v2("/groups", "2023-01-01").await;
    let wait: u64 = answer.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(
        answer.headers()["x-error-code"],
        "RATE_LIMITED_TOKEN_BUCKET"
    );
    let (status, refused) = document(answer).await;
    assert_eq!(status, 429);
    assert_eq!(
        refused["parameters"],
        json!(["/api/atlas/v2/groups", wait, 2, 1, 60])
    );
    let other = format!("/groups/{}/clusters", sim.project_id());
    assert_eq!(caller.get(&other).await.0, 200, "another bucket");
    sim.advance(SignedDuration::from_secs(60));
    assert_eq!(caller.get("/groups").await.0, 200);
    assert_eq!(caller.get("/groups").await.0, 429);
    sim.adjust(|knobs| knobs.limits.groups.capacity = 5);
    assert_eq!(
        caller.get("/groups").await.0,
        200,
        "another size starts full"
    );
}

#[tokio::test]
async fn everything_the_key_sees_is_listed_at_the_root() {
    let sim = start().await;
    let (_, all) = Caller::new(&sim).get("/clusters").await;
    let clusters = all["results"][0]["clusters"].as_array().unwrap();
    let names: Vec<_> = clusters
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["M2AWS", "sandbox", "rs0", "flex", "many"]);
}

#[tokio::test]
async fn names_may_be_anything() {
    let cluster = Cluster::new("a b/c%2F..é\"", Tier::M2).snapshot(
        Snapshot::at(Timestamp::UNIX_EPOCH)
            .id("../?#%")
            .content(Content::bytes("kept")),
    );
    let builder = SimBuilder::new().project(Project::new("p").cluster(cluster));
    let sim = Sim::start(builder).await.unwrap();
    let caller = Caller::new(&sim);
    let path = format!(
        "/groups/{}/clusters/a%20b%2Fc%252F..%C3%A9%22/backup/tenant",
        sim.project_id()
    );
    let (_, one) = caller
        .get(&format!("{path}/snapshots/..%2F%3F%23%25"))
        .await;
    assert_eq!(one["id"], "../?#%");
    let download = format!("{path}/download");
    let (_, restore) = caller.post(&download, r#"{"snapshotId":"../?#%"}"#).await;
    let link = restore["snapshotUrl"].as_str().unwrap();
    let bytes = http().get(link).send().await.unwrap().bytes().await;
    assert_eq!(bytes.unwrap(), "kept");
}

#[tokio::test]
async fn snapshots_may_appear_later() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let content = Content::bytes("new");
    let snapshot = Snapshot::at(Timestamp::now()).content(content.clone());
    let id = sim.add_snapshot("M2AWS", snapshot.clone()).unwrap();
    assert_eq!(sim.add_snapshot("unknown", snapshot), None);
    let (_, listed) = caller.get(&caller.tenant("snapshots")).await;
    assert_eq!(listed["results"][3]["id"], id);
    assert_eq!(sim.artifact_sha256("M2AWS", &id), content.sha256().ok());
}

#[tokio::test]
async fn another_process_can_take_control() {
    let sim = start().await;
    let at = |path: &str| format!("{}/_sim/{path}", sim.base_url());
    let post = async |path: &str, body: Value| {
        let request = http().post(at(path)).body(body.to_string());
        let request = request.header(CONTENT_TYPE, "application/json");
        request.send().await.unwrap().status().as_u16()
    };
    let get = async |path: &str| document(http().get(at(path)).send().await.unwrap()).await.1;

    let rule = json!({"fault": {"kind": "status", "code": 500}, "path": "/groups", "times": 1});
    assert_eq!(post("faults", json!([rule, rule])).await, 200);
    assert_eq!(post("faults", rule).await, 200);
    assert_eq!(
        post("faults", json!({"fault": {"kind": "unheard of"}})).await,
        422
    );
    assert_eq!(get("faults").await.as_array().unwrap().len(), 3);
    let refused = http().get(format!("{}{V2}/groups", sim.base_url()));
    assert_eq!(refused.send().await.unwrap().status(), 500);
    http().delete(at("faults")).send().await.unwrap();
    assert_eq!(get("faults").await, json!([]));

    assert_eq!(
        post("knobs", json!({"task_time": 1500, "tenant_api": "gone"})).await,
        200
    );
    assert_eq!(post("knobs", json!({"no_such": 1})).await, 400);
    assert_eq!(get("knobs").await["task_time"], 1500);

    let before = sim.artifact_sha256("M2AWS", FAILING).unwrap();
    let new = json!({"cluster": "M2AWS", "snapshot": FAILING, "seed": 1, "size": 10});
    assert_eq!(post("artifacts", new).await, 200);
    assert_ne!(sim.artifact_sha256("M2AWS", FAILING).unwrap(), before);

    assert_eq!(post("clock", json!({"seconds": 86_400})).await, 200);
    let shown = http()
        .get(at("clock"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        shown.parse::<Timestamp>().unwrap() > Timestamp::now() + SignedDuration::from_hours(23)
    );
    assert_eq!(get("bill").await["faults"], 1);
    http().delete(at("bill")).send().await.unwrap();
    assert_eq!(get("bill").await["faults"], 0);
}

#[tokio::test]
async fn keys_are_drawn_when_not_given() {
    let sims = [
        Sim::start(SimBuilder::new()).await.unwrap(),
        Sim::start(SimBuilder::new()).await.unwrap(),
    ];
    for sim in &sims {
        assert_eq!(sim.public_key().len(), 8);
        assert_eq!(sim.private_key().len(), 36);
        assert!(!format!("{sim:?}").contains(sim.private_key()));
        let (status, groups) = Caller::new(sim).get("/groups").await;
        assert_eq!((status.as_u16(), &groups["results"]), (200, &json!([])));
    }
    assert_ne!(sims[0].private_key(), sims[1].private_key());
    let described = start().await.describe();
    assert_eq!(described["public_key"], "abcdefgh");
    assert_eq!(described["snapshots"]["rs0"].as_array().unwrap().len(), 3);
    assert_eq!(described["snapshots"]["sandbox"], json!([]));
}

#[tokio::test]
async fn it_stops_when_dropped() {
    let sim = start().await;
    let client = http();
    let url = format!("{}{V2}/groups", sim.base_url());
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
    drop(sim);
    let closed = async {
        while client.get(&url).send().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), closed).await;
    assert!(waited.is_ok(), "the listener closes with its task");
}
