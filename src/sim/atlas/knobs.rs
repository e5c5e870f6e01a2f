//! How the simulated Atlas behaves where the real one differs between accounts and times, or where
//! nobody outside knows; the defaults are what is documented.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::super::durations::{millis, optional_millis};
use super::limits::Limits;

/// The settings. As JSON, durations are whole milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Whether the legacy API (`/api/atlas/v1.0`) is served.
    pub v1: bool,
    /// Whether the versioned API (`/api/atlas/v2`) is served.
    pub v2: bool,
    /// What becomes of the shared tier's backup endpoints.
    pub tenant_api: TenantApi,
    /// Whether the keys may ask for downloads (Project Owner) or only look (Project Read Only).
    pub may_download: bool,
    /// From the request of a download to its link.
    #[serde(with = "millis")]
    pub task_time: SignedDuration,
    /// From the request of a shared tier download to its `expirationDate`.
    #[serde(with = "millis")]
    pub download_life: SignedDuration,
    /// From the readiness of a dedicated cluster's download to its `expiresAt`.
    #[serde(with = "millis")]
    pub delivery_life: SignedDuration,
    /// Whether one job downloads all members of a sharded cluster's snapshot; otherwise each needs
    /// one of its own, by the member's id.
    pub component_jobs: bool,
    /// What a job shows once its link was used.
    pub used_job: UsedJob,
    /// Whether `deliveryUrl` is a bare string in place of an array.
    pub bare_delivery_url: bool,
    /// How the host behaves that dedicated clusters' links lead to.
    pub restore_host: RestoreHost,
    /// How long one signed link lives; never longer than its download, which is the default.
    #[serde(with = "optional_millis")]
    pub link_life: Option<SignedDuration>,
    /// Whether asking for a download again signs its link anew; otherwise the first link stays.
    pub resign: bool,
    /// After this long a nonce is stale; by default never.
    #[serde(with = "optional_millis")]
    pub nonce_life: Option<SignedDuration>,
    /// Whether a nonce count may be used only once.
    pub refuse_reused_counts: bool,
    /// The life of a service account's token.
    #[serde(with = "millis")]
    pub token_life: SignedDuration,
    /// The token buckets of the rate limits.
    pub limits: Limits,
}

/// What a job shows once its links were used, of which nothing is documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsedJob {
    /// No link, and `finishedAt`.
    Finished,
    /// No link.
    Emptied,
    /// The link, as before.
    Unchanged,
}

/// The host that dedicated clusters' links lead to. By default a link works once: any request
/// uses it up; `Range` is ignored and the length not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestoreHost {
    /// Whether answers carry `Content-Length` in place of chunks.
    pub tells_length: bool,
    /// Whether a link works as often as one likes, with ranges, lengths and ETags.
    pub ranges: bool,
    /// Whether a link whose transfer broke off works again, from the beginning.
    pub restarts: bool,
    /// The status for a link that was used, or is over: 404 or 410.
    pub used_status: u16,
    /// Whether each job packs the archive anew, with other bytes than the job before.
    pub fresh_bytes: bool,
}

impl Default for RestoreHost {
    fn default() -> Self {
        RestoreHost {
            tells_length: false,
            ranges: false,
            restarts: false,
            used_status: 404,
            fresh_bytes: false,
        }
    }
}

/// What the shared tier's backup endpoints answer. They were retired in January 2026.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantApi {
    /// As documented before.
    Served,
    /// 404, as for any unknown path.
    NotFound,
    /// 410 `VERSION_GONE`.
    Gone,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            v1: true,
            v2: true,
            tenant_api: TenantApi::Served,
            may_download: true,
            task_time: SignedDuration::ZERO,
            download_life: SignedDuration::from_hours(4),
            delivery_life: SignedDuration::from_hours(1),
            component_jobs: true,
            used_job: UsedJob::Finished,
            bare_delivery_url: false,
            restore_host: RestoreHost::default(),
            link_life: None,
            resign: true,
            nonce_life: None,
            refuse_reused_counts: false,
            token_life: SignedDuration::from_hours(1),
            limits: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_are_written_as_json() {
        let text = r#"{"tenant_api":"gone","task_time":1500,"link_life":2000,"resign":false}"#;
        let knobs: Knobs = serde_json::from_str(text).unwrap();
        assert_eq!(knobs.tenant_api, TenantApi::Gone);
        assert_eq!(knobs.task_time, SignedDuration::from_millis(1500));
        assert_eq!(knobs.link_life, Some(SignedDuration::from_secs(2)));
        assert_eq!(knobs.download_life, SignedDuration::from_hours(4));
        let again = serde_json::to_value(&knobs).unwrap();
        assert_eq!(again["task_time"], 1500);
        assert_eq!(again["nonce_life"], serde_json::Value::Null);
        assert!(serde_json::from_str::<Knobs>(r#"{"v3":true}"#).is_err());
    }
}
