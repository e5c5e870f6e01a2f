//! From keys to addresses: each key is escaped exactly once. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

/// What is escaped in a value: everything but RFC 3986's unreserved characters.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// The same in a key, whose slashes stay.
const KEY: &AsciiSet = &VALUE.remove(b'/');

/// `text` with everything escaped but unreserved characters.
pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, VALUE).to_string()
}

/// `key` with everything escaped but unreserved characters and slashes.
pub(super) fn escaped_key(key: &str) -> String {
    utf8_percent_encode(key, KEY).to_string()
}

/// The address of the object at `key`: `<base>/<key>`. `None` if there is no such address.
pub(super) fn of_key(base: &Url, key: &str) -> Option<Url> {
    // In an address `.` and `..` mean other folders: such a key keeps its slashes escaped, which a
    // store decodes before it looks (and before it checks a signature).
    let dots = key.split('/').any(|part| matches!(part, "." | ".."));
    let key = match dots {
        true => escaped(key),
        false => escaped_key(key),
    };
    let base = base.as_str().trim_end_matches('/');
    let text = format!("{base}/{key}");
    // What the parser would change would be another key.
    Url::parse(&text).ok().filter(|url| url.as_str() == text)
}

/// The address of the bucket itself.
pub(super) fn of_bucket(base: &Url) -> Url {
    let mut url = base.clone();
    let path = format!("{}/", base.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// The path of `url` as a store sees it.
pub(super) fn decoded_path(url: &Url) -> String {
    percent_decode_str(url.path())
        .decode_utf8_lossy()
        .into_owned()
}

/// The Host header that a request to `url` carries.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// `pairs` in the order of their names.
pub(super) fn sorted(pairs: &[(impl AsRef<str>, impl AsRef<str>)]) -> Vec<(&str, &str)> {
    let mut pairs: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()))
        .collect();
    pairs.sort_unstable();
    pairs
}

/// `pairs` as a query.
pub(super) fn query<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name.as_ref()), escaped(value.as_ref())))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base() -> Url {
        "https://b-1250000000.cos.ap-guangzhou.myqcloud.com"
            .parse()
            .unwrap()
    }

    #[test]
    fn keys_are_escaped_once() {
        let path = |key: &str| of_key(&base(), key).unwrap().path().to_owned();
        assert_eq!(
            path("db1/sp ace+plus%25.bson.gz"),
            "/db1/sp%20ace%2Bplus%2525.bson.gz"
        );
        assert_eq!(path("目录/a b"), "/%E7%9B%AE%E5%BD%95/a%20b");
        assert_eq!(path("a//b/"), "/a//b/");
        assert_eq!(path("a/../b"), "/a%2F..%2Fb");
        assert_eq!(path("a/.b/..c"), "/a/.b/..c");
        assert_eq!(path("what?#me"), "/what%3F%23me");
    }

    #[test]
    fn a_gateway_may_have_a_path() {
        let gateway: Url = "http://127.0.0.1:9000/bucket".parse().unwrap();
        assert_eq!(
            of_key(&gateway, "k").unwrap().as_str(),
            "http://127.0.0.1:9000/bucket/k"
        );
        assert_eq!(
            of_bucket(&gateway).as_str(),
            "http://127.0.0.1:9000/bucket/"
        );
        assert_eq!(of_bucket(&base()).path(), "/");
        assert_eq!(host(&gateway), "127.0.0.1:9000");
    }

    proptest! {
        #[test]
        fn every_key_round_trips(key in "[a-z./ %+\u{0}-\u{1f}é备]{1,40}") {
            if let Some(url) = of_key(&base(), &key) {
                prop_assert_eq!(decoded_path(&url), format!("/{key}"));
            } else {
                prop_assert!(key == "." || key == "..");
            }
        }
    }
}
