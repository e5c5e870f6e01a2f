//! The control paths under `/_sim`, for scripts and other processes: the bill, faults, knobs, the
//! clock and the artifacts. What is posted cannot name files of this machine.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::atlas::{Atlas, Knobs};
use super::bill::Bill;
use super::content::Content;
use super::faults::Rule;
use super::tencent::{self, Tencent};
use super::ucloud::{self, Ucloud};
use super::{Site, clock};
use crate::clock::Clock;

#[derive(Debug, Clone)]
struct Control {
    atlas: Atlas,
    tencent: Tencent,
    site: Site,
}

/// The paths.
pub(super) fn router(atlas: Atlas, tencent: Tencent, site: Site) -> Router {
    Router::new()
        .route("/bill", get(bill).delete(new_bill))
        .route("/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/knobs", get(knobs).post(set_knobs))
        .route("/clock", get(time).post(advance))
        .route("/artifacts", post(replace_artifact))
        .route("/tencent/knobs", get(tencent_knobs).post(set_tencent_knobs))
        .with_state(Control {
            atlas,
            tencent,
            site,
        })
}

/// The paths of UCloud's host: its knobs.
pub(super) fn ucloud(cloud: Ucloud) -> Router {
    Router::new()
        .route("/knobs", get(ucloud_knobs).post(set_ucloud_knobs))
        .with_state(cloud)
}

async fn ucloud_knobs(State(cloud): State<Ucloud>) -> Json<ucloud::Knobs> {
    Json(cloud.knobs())
}

async fn set_ucloud_knobs(
    State(cloud): State<Ucloud>,
    Json(change): Json<serde_json::Map<String, Value>>,
) -> Result<(), (StatusCode, String)> {
    let knobs = changed(cloud.knobs(), change)?;
    cloud.adjust(|current| *current = knobs);
    Ok(())
}

async fn bill(State(control): State<Control>) -> Json<Bill> {
    Json(control.site.meter.bill().clone())
}

async fn new_bill(State(control): State<Control>) {
    *control.site.meter.bill() = Bill::default();
}

async fn faults(State(control): State<Control>) -> Json<Vec<Rule>> {
    Json(control.site.faults.rules())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rules {
    Many(Vec<Rule>),
    One(Rule),
}

async fn add_faults(State(control): State<Control>, Json(rules): Json<Rules>) {
    match rules {
        Rules::One(rule) => control.site.faults.add(rule),
        Rules::Many(rules) => rules.into_iter().for_each(|r| control.site.faults.add(r)),
    }
}

async fn clear_faults(State(control): State<Control>) {
    control.site.faults.clear();
}

async fn knobs(State(control): State<Control>) -> Json<Knobs> {
    Json(control.atlas.knobs())
}

/// Changes the knobs that the posted object names.
async fn set_knobs(
    State(control): State<Control>,
    Json(change): Json<serde_json::Map<String, Value>>,
) -> Result<(), (StatusCode, String)> {
    let knobs = changed(control.atlas.knobs(), change)?;
    control.atlas.adjust(|current| *current = knobs);
    Ok(())
}

async fn tencent_knobs(State(control): State<Control>) -> Json<tencent::Knobs> {
    Json(control.tencent.knobs())
}

/// The same for Tencent Cloud.
async fn set_tencent_knobs(
    State(control): State<Control>,
    Json(change): Json<serde_json::Map<String, Value>>,
) -> Result<(), (StatusCode, String)> {
    let knobs = changed(control.tencent.knobs(), change)?;
    control.tencent.adjust(|current| *current = knobs);
    Ok(())
}

/// `knobs` with the members of `change` in place of their own.
fn changed<T: Serialize + DeserializeOwned>(
    knobs: T,
    change: serde_json::Map<String, Value>,
) -> Result<T, (StatusCode, String)> {
    let bad = |error: serde_json::Error| (StatusCode::BAD_REQUEST, error.to_string());
    let mut knobs = serde_json::to_value(knobs).map_err(bad)?;
    if let Value::Object(knobs) = &mut knobs {
        knobs.extend(change);
    }
    serde_json::from_value(knobs).map_err(bad)
}

async fn time(State(control): State<Control>) -> String {
    clock::iso_seconds(control.site.clock.now())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    seconds: i64,
}

async fn advance(State(control): State<Control>, Json(by): Json<Advance>) {
    let by = SignedDuration::from_secs(by.seconds);
    control.site.clock.advance(by);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replacement {
    cluster: String,
    snapshot: String,
    /// The seed of the new bytes.
    seed: u64,
    /// How many there are.
    size: u64,
}

async fn replace_artifact(
    State(control): State<Control>,
    Json(new): Json<Replacement>,
) -> Result<(), StatusCode> {
    let content = Content::noise(new.seed, new.size);
    match control
        .atlas
        .replace_artifact(&new.cluster, &new.snapshot, Some(content))
    {
        true => Ok(()),
        false => Err(StatusCode::NOT_FOUND),
    }
}
