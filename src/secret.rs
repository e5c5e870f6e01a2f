//! What must never be printed: [`Secret`] for keys and tokens, [`SafeUrl`] for signed links.
//!
//! Neither type shows its content through `Debug` or `Display`; the content is reached only through
//! methods whose name says so, which makes every use visible in review.

use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use url::Url;

/// What the address of a file begins with.
const LOCAL: &str = "file:///";

/// A key, token or password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The content itself: for signing and for sending, never for printing.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An address that may carry a signature: shows scheme, host and port, nothing else.
///
/// The text is kept verbatim (a signed `%2F` must stay as it is); it is parsed only to be checked.
#[derive(Clone, PartialEq, Eq)]
pub struct SafeUrl {
    text: String,
    origin: String,
}

impl SafeUrl {
    /// Keeps `text` if it is an absolute http or https address with a host.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "is not an address")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is neither http nor https");
        }
        let host = url.host_str().ok_or("has no host")?;
        let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
        Ok(SafeUrl {
            origin: format!("{}://{host}{port}", url.scheme()),
            text: text.to_owned(),
        })
    }

    /// The file at `path` below the local directory of its account.
    pub fn of_file(path: &str) -> Self {
        let path = percent_encode(path.as_bytes(), NON_ALPHANUMERIC);
        SafeUrl {
            text: format!("{LOCAL}{path}"),
            origin: LOCAL.trim_end_matches('/').to_owned(),
        }
    }

    /// Where the file is below that directory, if this is one.
    pub fn local_path(&self) -> Option<String> {
        let path = percent_decode_str(self.text.strip_prefix(LOCAL)?);
        path.decode_utf8().ok().map(Into::into)
    }

    /// The address itself, signature included: for sending, never for printing.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The parsed address, for sending.
    pub fn url(&self) -> Url {
        Url::parse(&self.text).expect("checked by SafeUrl::parse, made by SafeUrl::of_file")
    }

    /// Whether the scheme is https.
    pub fn is_https(&self) -> bool {
        self.origin.starts_with("https://")
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/…", self.origin)
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/…", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_private_is_printed() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        let link = SafeUrl::parse("https://user:pw@host:8443/bucket/key%2Fx?sig=abc#frag").unwrap();
        assert_eq!(
            format!("{link} {link:?}"),
            "https://host:8443/… https://host:8443/…"
        );
        assert!(link.expose().contains("key%2Fx?sig=abc"));
    }

    #[test]
    fn a_file_is_named_by_its_path_whatever_that_holds() {
        for path in ["a/b.json", "a/../é %2F?#&", "", "/etc/passwd"] {
            let url = SafeUrl::of_file(path);
            assert_eq!(url.local_path().as_deref(), Some(path));
            assert_eq!(url.url().scheme(), "file");
            assert_eq!(format!("{url}"), "file:/…");
        }
        let remote = SafeUrl::parse("https://h/k").unwrap();
        assert_eq!(remote.local_path(), None);
    }

    #[test]
    fn only_http_addresses_are_kept() {
        for bad in [
            "",
            "file:///etc/passwd",
            "ftp://h/x",
            "/relative",
            "https://",
        ] {
            assert!(SafeUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
