//! The JSON body of a request, read as strictly as the real service does. Pure.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::answer::ApiError;
use super::service::header;

/// The members of a request's JSON body.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads them; both the vendored and the plain media type are taken.
    pub(super) fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Fields, ApiError> {
        let media = header(headers, CONTENT_TYPE).unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim();
        let is_json = media == "application/json"
            || (media.starts_with("application/vnd.atlas.") && media.ends_with("+json"));
        if !is_json {
            let detail = "Unsupported media type.".to_owned();
            return Err(ApiError::new(
                415,
                "UNSUPPORTED_MEDIA_TYPE",
                detail,
                Vec::new(),
            ));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            _ => {
                let detail = "Received JSON is malformed.".to_owned();
                Err(ApiError::new(400, "MALFORMED_JSON", detail, Vec::new()))
            }
        }
    }

    /// Refuses fields that are not among `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(ApiError::attribute("INVALID_ATTRIBUTE", unknown)),
            None => Ok(()),
        }
    }

    /// The text of a field that must be there.
    pub(super) fn text(&self, name: &str) -> Result<&str, ApiError> {
        match self.0.get(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(ApiError::attribute("INVALID_ATTRIBUTE", name)),
            None => Err(ApiError::attribute("MISSING_ATTRIBUTE", name)),
        }
    }
}
