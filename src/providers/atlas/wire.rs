//! What Atlas sends, as documented, read leniently: unknown fields are ignored, and a field that is
//! null, missing or of another type is simply absent. What must be there is checked by the reader.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::secret::Secret;

/// `T`, or `None` whatever else is found.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).ok())
}

/// A number, also as text.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

/// A link: a string, or an array whose first string counts; empty is absent.
pub(super) fn link<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    let text = match Value::deserialize(from)? {
        Value::String(text) => Some(text),
        Value::Array(items) => items.into_iter().find_map(|item| match item {
            Value::String(text) => Some(text),
            _ => None,
        }),
        _ => None,
    };
    Ok(text.filter(|t| !t.trim().is_empty()).map(Secret::new))
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

/// A list answer. `results` is not optional: an answer without it is no list, not an empty one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page<T> {
    pub(super) results: Vec<T>,
    #[serde(default, deserialize_with = "number")]
    pub(super) total_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    links: Option<Vec<Rel>>,
}

#[derive(Deserialize)]
struct Rel {
    rel: String,
}

impl<T> Page<T> {
    /// Whether another page follows, where the links say so. Their addresses are not used: they
    /// name a host of the server's choosing.
    pub(super) fn announces_next(&self) -> Option<bool> {
        let links = self.links.as_ref().filter(|links| !links.is_empty())?;
        Some(links.iter().any(|link| link.rel == "next"))
    }
}

/// A cluster in any of its three documented shapes (2023-01-01, 2023-02-01, 2024-08-05), or a Flex
/// cluster.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cluster {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) id: Option<String>,
    pub(super) name: String,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) cluster_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) state_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) create_date: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) provider_settings: Option<ProviderSettings>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) replication_specs: Option<Vec<ReplicationSpec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProviderSettings {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) provider_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) instance_size_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplicationSpec {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) region_configs: Option<Vec<RegionConfig>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RegionConfig {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) provider_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) electable_specs: Option<HardwareSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HardwareSpec {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) instance_size: Option<String>,
}

/// A snapshot of a shared or Flex cluster.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    pub(super) id: String,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) status: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) scheduled_time: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) start_time: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) finish_time: Option<String>,
    #[serde(default, rename = "mongoDBVersion", deserialize_with = "lenient")]
    pub(super) mongodb_version: Option<String>,
}

/// A download or restore of a shared or Flex cluster. Its link is private, hence no derived Debug.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restore {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) snapshot_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) delivery_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) status: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) restore_scheduled_date: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) expiration_date: Option<String>,
    #[serde(default, alias = "deliveryUrl", deserialize_with = "link")]
    pub(super) snapshot_url: Option<Secret>,
}

impl fmt::Debug for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restore")
            .field("id", &self.id)
            .field("status", &self.status)
            .field("linked", &self.snapshot_url.is_some())
            .finish_non_exhaustive()
    }
}

/// The body of a create.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DownloadRequest<'a> {
    pub(super) snapshot_id: &'a str,
}

/// The body of a refusal, by the API or by the token endpoint.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Refusal {
    #[serde(deserialize_with = "lenient")]
    pub(super) error_code: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) detail: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) reason: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) parameters: Option<Vec<Value>>,
    /// A status for the API, a word for the token endpoint (RFC 6749, 5.2).
    pub(super) error: Value,
    #[serde(rename = "error_description", deserialize_with = "lenient")]
    pub(super) error_description: Option<String>,
}

/// An access token (RFC 6749, 5.1).
#[derive(Deserialize)]
pub(super) struct TokenGrant {
    #[serde(deserialize_with = "secret")]
    pub(super) access_token: Secret,
    /// Seconds.
    #[serde(default, deserialize_with = "number")]
    pub(super) expires_in: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_come_as_string_or_array_and_empty_is_absent() {
        let url = |json: &str| {
            let restore: Restore = serde_json::from_str(json).unwrap();
            restore.snapshot_url.map(|url| url.expose().to_owned())
        };
        assert_eq!(
            url(r#"{"snapshotUrl":"https://h/x"}"#).unwrap(),
            "https://h/x"
        );
        assert_eq!(
            url(r#"{"deliveryUrl":["https://h/y"]}"#).unwrap(),
            "https://h/y"
        );
        for none in [
            r#"{"snapshotUrl":null}"#,
            r#"{"snapshotUrl":""}"#,
            r#"{"deliveryUrl":[]}"#,
            r#"{"snapshotUrl":{"a":1}}"#,
            "{}",
        ] {
            assert_eq!(url(none), None, "{none}");
        }
    }

    #[test]
    fn odd_fields_are_absent_and_unknown_ones_ignored() {
        let cluster: Cluster = serde_json::from_str(
            r#"{"name":"c","createDate":7,"providerSettings":"x","replicationSpecs":null,"adaptiveCapacity":null}"#,
        )
        .unwrap();
        assert!(cluster.create_date.is_none() && cluster.provider_settings.is_none());
        let refusal: Refusal =
            serde_json::from_str(r#"{"error":401,"errorCode":null,"parameters":["a",5]}"#).unwrap();
        assert!(refusal.error_code.is_none());
        assert_eq!(refusal.parameters.unwrap().len(), 2);
    }

    #[test]
    fn a_list_without_results_is_no_list() {
        for none in ["{}", r#"{"results":null}"#, "[]", "null"] {
            assert!(
                serde_json::from_str::<Page<Cluster>>(none).is_err(),
                "{none}"
            );
        }
    }

    #[test]
    fn pages_tell_whether_another_follows() {
        let next = |links: &str| {
            let page: Page<Value> =
                serde_json::from_str(&format!(r#"{{"results":[],"links":{links}}}"#)).unwrap();
            page.announces_next()
        };
        assert_eq!(next(r#"[{"rel":"self","href":"x"}]"#), Some(false));
        assert_eq!(next(r#"[{"rel":"self"},{"rel":"next"}]"#), Some(true));
        assert_eq!(next("[]"), None);
        assert_eq!(next("null"), None);
    }

    #[test]
    fn a_restore_does_not_print_its_link() {
        let restore: Restore =
            serde_json::from_str(r#"{"id":"r","snapshotUrl":"https://h/CANARY"}"#).unwrap();
        assert!(!format!("{restore:?}").contains("CANARY"));
    }
}
