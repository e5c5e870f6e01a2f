//! The simulated clouds as a client sees them: real HTTP requests against a started [`Sim`].

mod api;
mod cloud;
mod data;
mod faults;
mod ucloud;

use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use jiff::Timestamp;
use md5::{Digest, Md5};
use reqwest::{Client, Method, Response};
use serde_json::Value;

use super::atlas::{Cluster, Project, Snapshot, Status, Tier};
use super::{Content, Sim, SimBuilder, hex};

const LEGACY: &str = "/api/atlas/v1.0";
const V2: &str = "/api/atlas/v2";

/// The bytes of the first snapshot of `M2AWS`.
fn artifact() -> Content {
    Content::noise(42, 300_000)
}

/// A project with one cluster of every kind.
fn clouds() -> SimBuilder {
    let newest: Timestamp = "2026-01-05T14:00:00Z".parse().unwrap();
    SimBuilder::new()
        .keys("abcdefgh", "11111111-2222-3333-4444-555555555555")
        .project(
            Project::new("Shop (EU) & co")
                .id("32b6e34b3d91647abb20e7b8")
                .cluster(
                    Cluster::new("M2AWS", Tier::M2)
                        .snapshot(Snapshot::at(newest).content(artifact()))
                        .snapshot(Snapshot::at(newest).status(Status::Running).id(RUNNING))
                        .snapshot(Snapshot::at(newest).download_fails().id(FAILING)),
                )
                .cluster(Cluster::new("sandbox", Tier::M0))
                .cluster(
                    Cluster::new("rs0", Tier::M10).daily(3, newest, |n| Content::noise(n, 1000)),
                )
                .cluster(
                    Cluster::new("flex", Tier::Flex).daily(3, newest, |n| Content::noise(n, 500)),
                )
                .cluster(Cluster::new("many", Tier::M10).sharded(2).snapshot(
                    Snapshot::at(newest).contents((0..3).map(|n| Content::noise(n, 300_000))),
                ))
                .cluster(
                    Cluster::new("gone", Tier::M10)
                        .deleted()
                        .daily(1, newest, |n| Content::noise(n, 10)),
                ),
        )
}

const RUNNING: &str = "5d03a6a12a9c4336c3d98d52";
const FAILING: &str = "5d03a6a12a9c4336c3d98d53";

async fn start() -> Sim {
    Sim::start(clouds()).await.unwrap()
}

fn http() -> Client {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// A plain Digest client: every call is a challenge and its answer.
struct Caller<'a> {
    sim: &'a Sim,
    http: Client,
    password: String,
}

impl<'a> Caller<'a> {
    fn new(sim: &'a Sim) -> Self {
        Caller {
            sim,
            http: http(),
            password: sim.private_key().to_owned(),
        }
    }

    fn request(&self, method: &str, target: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{target}", self.sim.base_url());
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, url)
    }

    /// A nonce, by asking without proof.
    async fn nonce(&self) -> String {
        let target = format!("{V2}/groups");
        let answer = self.request("GET", &target).send().await.unwrap();
        nonce_of(&answer)
    }

    /// The `Authorization` value for a request with a nonce of its own choice.
    fn proof(&self, method: &str, target: &str, nonce: &str, nc: u32) -> String {
        let user = self.sim.public_key();
        let md5 = |text: String| hex(&Md5::digest(text));
        let ha1 = md5(format!("{user}:MMS Public API:{}", self.password));
        let ha2 = md5(format!("{method}:{target}"));
        let response = md5(format!("{ha1}:{nonce}:{nc:08x}:c0ffee:auth:{ha2}"));
        format!(
            "Digest username=\"{user}\", realm=\"MMS Public API\", nonce=\"{nonce}\", \
             uri=\"{target}\", response=\"{response}\", qop=auth, nc={nc:08x}, cnonce=\"c0ffee\""
        )
    }

    /// One call with a fresh nonce.
    async fn send(&self, method: &str, target: &str, accept: &str, body: &str) -> Response {
        let nonce = self.nonce().await;
        self.request(method, target)
            .header(AUTHORIZATION, self.proof(method, target, &nonce, 1))
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_owned())
            .send()
            .await
            .unwrap()
    }

    /// `GET` of the legacy API: status and document.
    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let target = format!("{LEGACY}{path}");
        document(self.send("GET", &target, "application/json", "").await).await
    }

    /// `GET` of the versioned API.
    async fn get_v2(&self, path: &str, date: &str) -> Response {
        let accept = format!("application/vnd.atlas.{date}+json");
        self.send("GET", &format!("{V2}{path}"), &accept, "").await
    }

    /// `POST` of the legacy API.
    async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        let target = format!("{LEGACY}{path}");
        document(self.send("POST", &target, "application/json", body).await).await
    }

    /// Asks for a download of a snapshot of `M2AWS`.
    async fn download(&self, snapshot: &str) -> (StatusCode, Value) {
        let body = format!(r#"{{"snapshotId":"{snapshot}"}}"#);
        self.post(&self.tenant("download"), &body).await
    }

    /// A signed link to the first snapshot of `M2AWS`.
    async fn link(&self) -> String {
        let (status, restore) = self.download(&self.sim.snapshot_ids("M2AWS")[0]).await;
        assert_eq!(status, 200, "{restore}");
        restore["snapshotUrl"].as_str().unwrap().to_owned()
    }

    /// A path below the backups of `M2AWS`.
    fn tenant(&self, rest: &str) -> String {
        let project = self.sim.project_id();
        format!("/groups/{project}/clusters/M2AWS/backup/tenant/{rest}")
    }
}

fn nonce_of(answer: &Response) -> String {
    assert_eq!(answer.status(), 401);
    let challenge = answer.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    let (_, rest) = challenge.split_once("nonce=\"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

async fn document(answer: Response) -> (StatusCode, Value) {
    let status = answer.status();
    let bytes = answer.bytes().await.unwrap();
    let document = match bytes.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&bytes).unwrap(),
    };
    (status, document)
}
