//! The proxies that the environment names, as the HTTP clients read them.

use std::ffi::OsStr;

use url::Url;

use super::{Finding, reach};

const SUBJECT: &str = "proxy";
const DEFAULT_PORT: u16 = 80;

/// Whether the proxies that `environment` names can be reached; none is no finding.
pub async fn proxies<'a>(environment: impl Fn(&str) -> Option<&'a OsStr>) -> Vec<Finding> {
    let mut found = Vec::new();
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        let value = environment(name).filter(|value| !value.is_empty());
        if let Some(value) = value {
            found.push(proxy(name, value).await);
        }
    }
    found
}

async fn proxy(name: &str, value: &OsStr) -> Finding {
    let cure = format!(
        "correct {name}, or unset it; NO_PROXY names the hosts that are reached without it"
    );
    let text = value.to_str().unwrap_or_default();
    let text = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let url = Url::parse(&text).ok();
    let Some((host, port)) = url.as_ref().and_then(|url| {
        let port = url.port_or_known_default().unwrap_or(DEFAULT_PORT);
        Some((url.host_str()?, port))
    }) else {
        // The value may hold a password.
        return Finding::failure(SUBJECT, format!("{name} is no address"), cure);
    };
    let place = format!("{host}:{port}");
    match reach(&place).await {
        Ok(()) => Finding::ok(SUBJECT, format!("{place} ({name}) accepts connections")),
        Err(failure) => Finding::failure(SUBJECT, format!("{place} ({name}) {failure}"), cure),
    }
}
