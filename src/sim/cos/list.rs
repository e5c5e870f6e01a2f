//! "GET Bucket (List Objects)", version 1: prefix, delimiter, marker and pages. Pure.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use jiff::Timestamp;

use super::super::object::Object;
use super::Refusal;
use super::sign::escape;

/// Most entries of a page.
const MOST: usize = 1000;

/// The page that `parameters` ask for of all `objects`, which are ordered by key.
pub(super) fn page<'a>(
    bucket: &str,
    parameters: &[(String, String)],
    objects: impl Iterator<Item = (&'a str, &'a Object)>,
) -> Result<Response, Refusal> {
    let parameter = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let (prefix, delimiter, marker) = (
        parameter("prefix"),
        parameter("delimiter"),
        parameter("marker"),
    );
    let most = match parameter("max-keys") {
        "" => MOST,
        digits => digits
            .parse()
            .ok()
            .filter(|most| *most <= MOST)
            .ok_or(Refusal::BAD_ARGUMENT)?,
    };
    let encode = parameter("encoding-type") == "url";
    let shown = |text: &str| match encode {
        true => escape(text).replace("%2F", "/"),
        false => text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;"),
    };

    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut truncated = false;
    for (key, object) in objects {
        let Some(rest) = key.strip_prefix(prefix) else {
            continue;
        };
        let cut = match delimiter.is_empty() {
            true => None,
            false => rest
                .find(delimiter)
                .map(|at| prefix.len() + at + delimiter.len()),
        };
        let name = &key[..cut.unwrap_or(key.len())];
        if name <= marker || entries.last().is_some_and(|last| last.name == name) {
            continue;
        }
        if entries.len() == most {
            truncated = true;
            break;
        }
        entries.push(Entry {
            name,
            object: cut.is_none().then_some(object),
        });
    }

    let mut text = String::from("<?xml version='1.0' encoding='utf-8' ?>\n<ListBucketResult>");
    let mut tag = |name: &str, value: &str| text.push_str(&format!("<{name}>{value}</{name}>"));
    tag("Name", bucket);
    if encode {
        tag("EncodingType", "url");
    }
    tag("Prefix", &shown(prefix));
    tag("Marker", &shown(marker));
    tag("MaxKeys", &most.to_string());
    if !delimiter.is_empty() {
        tag("Delimiter", &shown(delimiter));
    }
    tag("IsTruncated", if truncated { "true" } else { "false" });
    if let Some(last) = entries.last().filter(|_| truncated) {
        tag("NextMarker", &shown(last.name));
    }
    for entry in &entries {
        let name = shown(entry.name);
        match entry.object {
            None => tag("CommonPrefixes", &format!("<Prefix>{name}</Prefix>")),
            Some(object) => tag(
                "Contents",
                &format!(
                    "<Key>{name}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size><Owner><ID>1250000000</ID><DisplayName>1250000000</DisplayName></Owner><StorageClass>STANDARD</StorageClass>",
                    written(object.modified),
                    object.etag.replace('"', "&quot;"),
                    object.content.size()
                ),
            ),
        }
    }
    text.push_str("</ListBucketResult>\n");
    Ok(([(CONTENT_TYPE, "application/xml")], text).into_response())
}

struct Entry<'a> {
    name: &'a str,
    /// `None` for a common prefix.
    object: Option<&'a Object>,
}

/// `2020-12-10T03:37:30.000Z`.
fn written(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}
