//! One API call and its answer, as plain data. Neither prints a query, a header or a body: those may
//! hold signatures, tokens and signed links.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use url::Url;

use crate::error::{Error, Kind, Result, one_line};

/// Whether a call may be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Sending it twice does no harm.
    Idempotent,
    /// It creates something: never sent again once it may have been carried out.
    Creates,
}

/// A request, before and after signing.
#[derive(Clone)]
pub struct Call {
    /// The verb.
    pub method: Method,
    /// The whole address.
    pub url: Url,
    /// Headers to send.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
    /// Whether it may be sent twice.
    pub effect: Effect,
}

impl Call {
    /// A GET.
    pub fn get(url: Url) -> Self {
        Call {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            effect: Effect::Idempotent,
        }
    }

    /// A POST of `body`.
    pub fn post(url: Url, effect: Effect, content_type: &'static str, body: String) -> Self {
        let mut call = Call {
            method: Method::POST,
            body: Bytes::from(body),
            effect,
            ..Call::get(url)
        };
        call.headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        call
    }

    /// The same with `Accept: media`.
    #[must_use]
    pub fn accept(mut self, media: &'static str) -> Self {
        self.headers
            .insert(header::ACCEPT, HeaderValue::from_static(media));
        self
    }

    /// Sets the Authorization header and marks it private.
    pub fn authorize(&mut self, value: &str) -> Result<()> {
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            Error::new(
                Kind::Config,
                "a key or secret holds a character that cannot be sent: check that it was copied whole and without a line break",
            )
        })?;
        value.set_sensitive(true);
        self.headers.insert(header::AUTHORIZATION, value);
        Ok(())
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.origin(), self.url.path())
    }
}

/// A complete answer of any status.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; that of a refusal may be cut or empty.
    pub body: Bytes,
    /// Scheme, host and port of who answered.
    pub origin: Arc<str>,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON. [`Kind::Protocol`] says what was found instead, without quoting it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let origin = &self.origin;
            let what = if self.body.trim_ascii().is_empty() {
                "an empty answer".to_owned()
            } else if self.body.trim_ascii_start().starts_with(b"<") {
                "a web page".to_owned()
            } else if let Some(encoding) = self.header(header::CONTENT_ENCODING) {
                format!("an answer in content encoding {encoding}, which was not asked for,")
            } else if error.is_data() {
                // serde's own words would quote the value, which may be a signed link.
                return Error::new(
                    Kind::Protocol,
                    format!(
                        "{origin} answered JSON of another shape than documented (line {}, column {})",
                        error.line(),
                        error.column()
                    ),
                );
            } else {
                format!(
                    "no JSON (line {}, column {})",
                    error.line(),
                    error.column()
                )
            };
            Error::new(
                Kind::Protocol,
                format!("{origin} answered {what} where JSON belongs: check `endpoint`, and whether a proxy or a login page stands in between"),
            )
        })
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} from {}, {} bytes",
            self.status,
            self.origin,
            self.body.len()
        )
    }
}

/// A cloud's refusal on one line: its message, then its code and the id of the request.
pub fn refusal_words(message: &str, code: &str, request_id: &str) -> String {
    let message = one_line(message);
    let said = match message.trim_end_matches(['.', '。']) {
        "" => String::new(),
        said => format!("{said} "),
    };
    let id = match request_id {
        "" => String::new(),
        id => format!(", request {}", one_line(id)),
    };
    format!("{said}({}{id})", one_line(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            origin: "https://api.example".into(),
        }
    }

    #[test]
    fn case_30_what_is_not_json_is_named_and_never_quoted() {
        let shape = answer(r#"{"a":"https://link?sig=CANARY"}"#)
            .json::<std::collections::BTreeMap<String, u64>>()
            .unwrap_err();
        assert_eq!(shape.kind(), Kind::Protocol);
        assert!(!shape.to_string().contains("CANARY"), "{shape}");
        for (body, word) in [
            ("<!DOCTYPE html><p>Sign in</p>", "a web page"),
            ("  \n", "an empty answer"),
            ("CANARY", "no JSON"),
        ] {
            let error = answer(body).json::<serde_json::Value>().unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert!(!error.to_string().contains("CANARY"));
        }
    }

    #[test]
    fn case_30_bottomless_json_is_refused() {
        let deep = "[".repeat(1_000_000);
        let error = answer(&deep).json::<serde_json::Value>().unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol);
    }

    #[test]
    fn case_30_keys_twice_and_numbers_without_bounds_are_another_shape() {
        #[derive(Debug, serde::Deserialize)]
        struct Job {
            #[serde(rename = "percent")]
            _percent: Option<u8>,
        }
        for body in [
            r#"{"percent":1,"percent":100}"#,
            r#"{"percent":256}"#,
            r#"{"percent":-1}"#,
            r#"{"percent":1e999}"#,
            r#"{"percent":"100%"}"#,
            r#"{"percent":{}}"#,
        ] {
            let error = answer(body).json::<Job>().unwrap_err();
            assert_eq!(error.kind(), Kind::Protocol, "{body}");
        }
    }

    #[test]
    fn nothing_private_is_printed() {
        let url = Url::parse("https://api.example/v2/groups?Signature=CANARY").unwrap();
        let mut call = Call::post(url, Effect::Creates, "text/plain", "CANARY".into());
        call.authorize("Bearer CANARY").unwrap();
        let printed = format!("{call:?} {:?} {:?}", answer("CANARY"), call.headers);
        assert!(!printed.contains("CANARY"), "{printed}");
        let error = call.authorize("Bearer CANARY\n").unwrap_err();
        assert!(!error.to_string().contains("CANARY"), "{error}");
    }
}
