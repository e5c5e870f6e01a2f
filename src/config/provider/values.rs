//! Single values of a `[[provider]]` that have rules of their own.

use url::Url;

use crate::config::document::Entry;
use crate::error::Result;

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

/// Whether `text` of `entry`, a bucket or region, can become part of a host name.
pub(super) fn host_part(entry: &Entry<'_, '_>, text: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match text.chars().all(fits) {
        true => Ok(()),
        false => Err(entry.error("expected only letters, digits, `-`, `.` and `_`")),
    }
}
