//! Single values of a `[[provider]]` that have rules of their own.

use toml::de::DeValue;
use url::Url;

use crate::config::document::Entry;
use crate::config::{Environment, secrets};
use crate::error::Result;
use crate::secret::Secret;

/// A base address without slashes at the end of its path; or what is wrong with it, without
/// repeating it: it may hold a password.
pub(super) fn base_address(text: &str, allow_http: bool) -> Result<Url, &'static str> {
    let mut url =
        Url::parse(text).map_err(|_| "expected an address such as `https://host[:port]`")?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => return Err("plain http needs `allow_http = true` for this provider"),
        _ => return Err("expected an https address"),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the address has no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the address must not hold a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the address must end with its path: no `?` or `#`");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// A bucket or region: it becomes part of a host name.
pub(super) fn host_part(entry: &Entry<'_, '_>) -> Result<String> {
    let text = entry.filled_text()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !text.chars().all(fits) {
        return Err(entry.error("expected only letters, digits, `-`, `.` and `_`"));
    }
    Ok(text.to_owned())
}

/// The layout of a bucket.
pub(super) fn layout(entry: &Entry<'_, '_>) -> Result<String> {
    let layout = entry.filled_text()?;
    let mut rest = layout.to_owned();
    for (part, needed) in [("{instance}", true), ("{backup}", true), ("{shard}", false)] {
        match rest.matches(part).count() {
            0 if !needed => {}
            1 => rest = rest.replacen(part, "", 1),
            _ => {
                return Err(entry.error(
                    "expected `{instance}` and `{backup}` once each, and `{shard}` at most once",
                ));
            }
        }
    }
    if rest.contains(['{', '}']) {
        return Err(entry.error("only `{instance}`, `{backup}` and `{shard}` are known"));
    }
    Ok(layout.to_owned())
}

/// An option of a store. All of them are kept as secrets; one whose name says that it is one must
/// not stand as plain text in a file that others can read.
pub(super) fn bucket_option(entry: &Entry<'_, '_>, environment: &Environment) -> Result<Secret> {
    const PRIVATE: [&str; 6] = ["secret", "token", "password", "credential", "key", "sas"];
    let text = match entry.value() {
        DeValue::String(text) if !PRIVATE.iter().any(|word| entry.key().contains(word)) => {
            text.to_string()
        }
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Integer(value) => value.to_string(),
        _ => return secrets::resolve(entry, environment),
    };
    Ok(Secret::new(text))
}
