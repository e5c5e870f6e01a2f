//! Dedicated and Flex clusters: their jobs, and the host whose links work once.

use http::header::{CONTENT_LENGTH, ETAG, RANGE, TRANSFER_ENCODING};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::atlas::{RestoreHost, UsedJob};
use super::super::{Fault, Rule, Side};
use super::{Caller, LEGACY, V2, document, http, start};
use crate::sim::Sim;

/// Has a job made of the first snapshot of `cluster`; its document when it is ready.
async fn job(caller: &Caller<'_>, cluster: &str) -> Value {
    let snapshot = &caller.sim.snapshot_ids(cluster)[0];
    let (status, job) = request(caller, cluster, snapshot).await;
    assert_eq!(status, 200, "{job}");
    job
}

async fn request(caller: &Caller<'_>, cluster: &str, snapshot: &str) -> (u16, Value) {
    let jobs = jobs(caller.sim, cluster);
    let body = format!(r#"{{"deliveryType":"download","snapshotId":"{snapshot}"}}"#);
    let (status, document) = caller.post(&jobs, &body).await;
    (status.as_u16(), document)
}

fn jobs(sim: &Sim, cluster: &str) -> String {
    let project = sim.project_id();
    format!("/groups/{project}/clusters/{cluster}/backup/restoreJobs")
}

async fn again(caller: &Caller<'_>, cluster: &str, job: &Value) -> Value {
    let id = job["id"].as_str().unwrap();
    let path = format!("{}/{id}", jobs(caller.sim, cluster));
    caller.get(&path).await.1
}

fn link(job: &Value) -> String {
    job["deliveryUrl"][0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_dedicated_cluster_s_job_has_its_hour() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    sim.adjust(|knobs| knobs.task_time = SignedDuration::from_mins(4));
    let base = format!("/groups/{}/clusters/rs0/backup", sim.project_id());
    let (_, snapshots) = caller
        .get(&format!("{base}/snapshots?itemsPerPage=1"))
        .await;
    assert_eq!(snapshots["totalCount"], 3);
    let snapshot = &snapshots["results"][0];
    assert_eq!(
        (&snapshot["status"], &snapshot["replicaSetName"]),
        (&json!("completed"), &json!("rs0"))
    );
    let snapshot = snapshot["id"].as_str().unwrap();
    let body = format!(
        r#"{{"deliveryType":"download","snapshotId":"{snapshot}","targetClusterName":"rs1","targetGroupId":"x"}}"#
    );
    let jobs = format!("{base}/restoreJobs");
    let (status, job) = caller.post(&jobs, &body).await;
    assert_eq!((status.as_u16(), &job["deliveryUrl"]), (200, &json!([])));
    let (_, refused) = caller.post(&jobs, &body).await;
    assert_eq!(
        refused["errorCode"],
        "CANNOT_DOWNLOAD_SNAPSHOT_CONCURRENTLY"
    );
    let own = format!("{jobs}/{}", job["id"].as_str().unwrap());
    sim.advance(SignedDuration::from_mins(4));
    let (_, ready) = caller.get(&own).await;
    assert!(ready["deliveryUrl"][0].is_string() && ready["expiresAt"].is_string());
    sim.advance(SignedDuration::from_hours(1));
    let (_, expired) = caller.get(&own).await;
    assert_eq!(
        (&expired["expired"], &expired["deliveryUrl"]),
        (&json!(true), &json!([]))
    );

    let (_, job) = caller.post(&jobs, &body).await;
    let own = format!("{jobs}/{}", job["id"].as_str().unwrap());
    let answer = caller
        .send("DELETE", &format!("{LEGACY}{own}"), "*/*", "")
        .await;
    assert_eq!(answer.status(), 204);
    let (_, cancelled) = caller.get(&own).await;
    assert_eq!(cancelled["cancelled"], true);
    let (_, list) = caller.get(&jobs).await;
    assert_eq!(list["results"][0]["id"], job["id"], "newest first");
    assert_eq!(
        (&list["totalCount"], sim.bill().tasks_created),
        (&json!(2), 2)
    );
}

#[tokio::test]
async fn a_link_works_once_without_ranges_or_a_length() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let first = job(&caller, "rs0").await;
    let expected = sim.artifact("rs0", &sim.snapshot_ids("rs0")[0]).unwrap();
    let request = http().get(link(&first)).header(RANGE, "bytes=0-0");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "a range is ignored");
    assert!(!answer.headers().contains_key(CONTENT_LENGTH));
    assert_eq!(answer.headers()[TRANSFER_ENCODING], "chunked");
    assert!(!answer.headers().contains_key(ETAG));
    let bytes = answer.bytes().await.unwrap();
    assert_eq!(bytes, expected.read(0..expected.size()).unwrap());
    let label = format!("{}/rs0", first["id"].as_str().unwrap());
    assert_eq!(sim.bill().deliveries[&label], 1);
    let used = again(&caller, "rs0", &first).await;
    assert_eq!(used["deliveryUrl"], json!([]));
    assert!(used["finishedAt"].is_string() && used["expired"] == false);
    for status in [404, 410] {
        sim.adjust(|knobs| knobs.restore_host.used_status = status);
        let answer = http().get(link(&first)).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    assert_eq!(sim.bill().deliveries[&label], 3);

    let second = job(&caller, "rs0").await;
    let probe = http().head(link(&second)).send().await.unwrap();
    assert_eq!(probe.status(), 405);
    let answer = http().get(link(&second)).send().await.unwrap();
    assert_eq!(answer.status(), 410, "the probe used it up");
}

#[tokio::test]
async fn a_host_may_be_kinder() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    sim.adjust(|knobs| {
        knobs.restore_host.tells_length = true;
        knobs.used_job = UsedJob::Unchanged;
        knobs.bare_delivery_url = true;
    });
    let used = job(&caller, "rs0").await;
    let url = used["deliveryUrl"].as_str().unwrap();
    let answer = http().get(url).send().await.unwrap();
    assert_eq!(answer.headers()[CONTENT_LENGTH], "1000");
    assert_eq!(
        again(&caller, "rs0", &used).await["deliveryUrl"],
        used["deliveryUrl"]
    );

    sim.adjust(|knobs| {
        knobs.restore_host = RestoreHost {
            ranges: true,
            fresh_bytes: true,
            ..RestoreHost::default()
        };
        knobs.bare_delivery_url = false;
    });
    let ranged = job(&caller, "rs0").await;
    let mut whole = Vec::new();
    for range in ["bytes=0-599", "bytes=600-"] {
        let request = http().get(link(&ranged)).header(RANGE, range);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 206);
        assert!(answer.headers().contains_key(ETAG));
        whole.extend_from_slice(&answer.bytes().await.unwrap());
    }
    let packed = sim.packed("rs0", &sim.snapshot_ids("rs0")[0], "rs0");
    assert_eq!(packed.len(), 2);
    assert_eq!(whole, packed[1].read(0..packed[1].size()).unwrap());
    assert_ne!(packed[0].sha256().unwrap(), packed[1].sha256().unwrap());
}

#[tokio::test]
async fn a_transfer_that_broke_off_may_be_restarted_where_the_host_allows_it() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let cut = || {
        Rule::new(Fault::Cut { after: 100_000 })
            .on(Side::Data)
            .times(1)
    };
    for (restarts, status) in [(false, 404), (true, 200)] {
        sim.adjust(|knobs| knobs.restore_host.restarts = restarts);
        sim.faults().add(cut());
        let job = job(&caller, "many").await;
        let answer = http().get(link(&job)).send().await.unwrap();
        assert!(answer.bytes().await.is_err(), "cut");
        let answer = http().get(link(&job)).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn a_sharded_cluster_has_members_and_a_job_a_component_for_each() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let backup = format!("/groups/{}/clusters/many/backup", sim.project_id());
    let (_, list) = caller
        .get(&format!("{backup}/snapshots/shardedClusters"))
        .await;
    let listed = &list["results"][0];
    let names: Vec<_> = listed["members"].as_array().unwrap().iter().collect();
    let names: Vec<_> = names
        .iter()
        .map(|m| m["replicaSetName"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["many-shard-0", "many-shard-1", "config"]);
    let id = listed["id"].as_str().unwrap();
    let own = format!("{backup}/snapshots/shardedCluster/{id}");
    assert_eq!(caller.get(&own).await.1["id"], *id);
    for wrong in ["snapshots", &format!("snapshots/{id}")] {
        let (status, refused) = caller.get(&format!("{backup}/{wrong}")).await;
        assert_eq!(
            (status.as_u16(), &refused["errorCode"]),
            (400, &json!("INCORRECT_BACKUP_API_ENDPOINT"))
        );
    }
    let whole = job(&caller, "many").await;
    for (at, name) in names.iter().enumerate() {
        let component = &whole["components"][at];
        assert_eq!(component["replicaSetName"], *name);
        let url = component["downloadUrl"].as_str().unwrap();
        let bytes = http().get(url).send().await.unwrap().bytes().await.unwrap();
        let expected = sim.part("many", id, name).unwrap();
        assert_eq!(bytes, expected.read(0..expected.size()).unwrap());
        let now = again(&caller, "many", &whole).await;
        assert_eq!(now["components"][at]["downloadUrl"], Value::Null, "used");
        assert_eq!(now["finishedAt"].is_string(), at == 2, "with the last");
    }
    let member = listed["members"][1]["id"].as_str().unwrap();
    assert_eq!(request(&caller, "many", member).await.0, 404);
    sim.adjust(|knobs| knobs.component_jobs = false);
    let (status, refused) = request(&caller, "many", id).await;
    assert_eq!(status, 400, "{refused}");
    let (status, alone) = request(&caller, "many", member).await;
    assert_eq!((status, &alone["components"]), (200, &Value::Null));
    assert!(link(&alone).ends_with(&format!("restore-{member}.tar.gz")));
}

#[tokio::test]
async fn twenty_jobs_may_be_at_work() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    sim.adjust(|knobs| knobs.task_time = SignedDuration::from_mins(4));
    let mut codes = Vec::new();
    for _ in 0..21 {
        let snapshot = super::Snapshot::at("2026-02-01T00:00:00Z".parse().unwrap());
        let id = format!("{:024x}", codes.len());
        let id = sim.add_snapshot("rs0", snapshot.id(&id)).unwrap();
        codes.push(request(&caller, "rs0", &id).await.1["errorCode"].clone());
    }
    assert!(codes[..20].iter().all(Value::is_null), "{codes:?}");
    assert_eq!(codes[20], "TOO_MANY_SNAPSHOT_DOWNLOADS");
}

#[tokio::test]
async fn flex_has_an_api_of_its_own() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let group = format!("/groups/{}", sim.project_id());
    let flex = format!("{group}/flexClusters/flex/backup");
    let listed = async |path: &str| document(caller.get_v2(path, "2024-11-13").await).await.1;
    let snapshots = listed(&format!("{flex}/snapshots?itemsPerPage=2")).await;
    assert_eq!(snapshots["totalCount"], 3);
    let snapshot = &snapshots["results"][0];
    assert_eq!(
        (&snapshot["status"], &snapshot["links"]),
        (&json!("COMPLETED"), &Value::Null)
    );
    assert_eq!(
        caller
            .get_v2(&format!("{flex}/snapshots"), "2023-01-01")
            .await
            .status(),
        406
    );

    sim.adjust(|knobs| knobs.task_time = SignedDuration::from_secs(60));
    let body = format!(r#"{{"snapshotId":{}}}"#, snapshot["id"]);
    let target = format!("{V2}{flex}/download");
    let accept = "application/vnd.atlas.2024-11-13+json";
    let (status, made) = document(caller.send("POST", &target, accept, &body).await).await;
    assert_eq!((status.as_u16(), &made["status"]), (200, &json!("PENDING")));
    assert_eq!(
        (&made["instanceName"], &made["clusterName"]),
        (&json!("flex"), &Value::Null)
    );
    sim.advance(SignedDuration::from_secs(60));
    let own = format!("{flex}/restoreJobs/{}", made["id"].as_str().unwrap());
    let done = listed(&own).await;
    assert_eq!(done["status"], "COMPLETED");
    let bytes = http()
        .get(done["snapshotUrl"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(bytes.bytes().await.unwrap().len(), 500);
    assert_eq!(
        listed(&format!("{flex}/restoreJobs")).await["results"][0]["id"],
        made["id"]
    );

    let code = async |path: &str, date: &str| {
        document(caller.get_v2(&format!("{group}/{path}"), date).await)
            .await
            .1["errorCode"]
            .clone()
    };
    assert_eq!(
        code("clusters/flex", "2023-01-01").await,
        "CANNOT_USE_FLEX_CLUSTER_IN_CLUSTER_API"
    );
    assert_eq!(
        code("clusters/flex/backup/snapshots", "2023-01-01").await,
        "CANNOT_USE_FLEX_CLUSTER_IN_CLUSTER_API"
    );
    assert_eq!(
        code("flexClusters/rs0", "2024-11-13").await,
        "CANNOT_USE_NON_FLEX_CLUSTER_IN_FLEX_API"
    );
}

#[tokio::test]
async fn a_deleted_cluster_is_listed_on_request_and_keeps_its_backups() {
    let sim = start().await;
    let caller = Caller::new(&sim);
    let clusters = format!("/groups/{}/clusters", sim.project_id());
    let states = async |query: &str| {
        let (_, list) = caller.get(&format!("{clusters}{query}")).await;
        let list = list["results"].as_array().unwrap().clone();
        let of = list.iter().find(|cluster| cluster["name"] == "gone");
        of.map(|cluster| cluster["stateName"].clone())
    };
    assert_eq!(states("").await, None);
    let shown = states("?includeDeletedWithRetainedBackups=true").await;
    assert_eq!(shown, Some(json!("DELETED")));
    assert_eq!(caller.get(&format!("{clusters}/gone")).await.0, 404);
    assert_eq!(
        job(&caller, "gone").await["deliveryUrl"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}
