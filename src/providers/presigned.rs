//! Download links as clouds sign them: whether they may be used, and until when they are good. Pure.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::model::{Link, LinkMode};
use crate::secret::SafeUrl;

/// The address of the download link that `cloud` gave: https, unless `allow_http`.
/// [`Kind::Protocol`] for anything else, which nobody should send a backup over.
pub(super) fn address(cloud: &str, link: &str, allow_http: bool) -> Result<SafeUrl> {
    let refused = |why: fmt::Arguments| Error::new(Kind::Protocol, why.to_string());
    let url = SafeUrl::parse(link)
        .map_err(|why| refused(format_args!("the download link that {cloud} gave {why}")))?;
    if !url.is_https() && !allow_http {
        return Err(refused(format_args!(
            "the download link {url} that {cloud} gave is not https: it is refused unless `allow_http = true`"
        )));
    }
    Ok(url)
}

/// `link` with https in place of plain http, unless that is allowed: for stores that serve both and
/// sign neither scheme nor host. What listens at a port that the link names stays as it is.
pub(super) fn over_tls(link: &str, allow_http: bool) -> Cow<'_, str> {
    if let (false, Some((scheme, rest))) = (allow_http, link.split_once("://"))
        && scheme.eq_ignore_ascii_case("http")
        && SafeUrl::parse(link).is_ok_and(|url| url.url().port().is_none())
    {
        return format!("https://{rest}").into();
    }
    link.into()
}

/// The link at `link`, which `cloud` gave, with the end that its own parameters tell.
pub(super) fn link(cloud: &str, link: &str, allow_http: bool) -> Result<Link> {
    let url = address(cloud, link, allow_http)?;
    Ok(Link {
        expires: expiry(&url),
        url,
        // It is signed by itself; the account's keys never go to the data host.
        headers: Vec::new(),
        mode: LinkMode::Ranged,
    })
}

/// When a pre-signed address ends: `Expires` in seconds since 1970 (OSS version 1, S3 version 2,
/// US3), or `x-oss-expires` seconds after `x-oss-date`, and likewise `X-Amz-…`.
fn expiry(url: &SafeUrl) -> Option<Timestamp> {
    let url = url.url();
    let parameter = |name: &str| {
        let found = url.query_pairs().find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    };
    if let Some(seconds) = parameter("Expires") {
        return Timestamp::from_second(seconds.parse().ok()?).ok();
    }
    let either = |oss, amz| parameter(oss).or_else(|| parameter(amz));
    let life: u32 = either("x-oss-expires", "X-Amz-Expires")?.parse().ok()?;
    let date = either("x-oss-date", "X-Amz-Date")?;
    let date = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).ok()?;
    let signed = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    signed
        .checked_add(jiff::SignedDuration::from_secs(life.into()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_from_every_kind_of_signature() {
        let end = Timestamp::from_second(1_774_692_000).ok();
        for (text, expected) in [
            (
                "https://b/k?UCloudPublicKey=t&Expires=1774692000&Signature=a/b+c=",
                end,
            ),
            (
                "https://b/k?x-oss-date=20260328T080000Z&x-oss-expires=7200",
                end,
            ),
            (
                "https://b/k?X-Amz-Date=20260328T080000Z&X-Amz-Expires=7200",
                end,
            ),
            (
                "https://b/k?X-Amz-Date=20260328T080000Z&x-oss-expires=7200",
                end,
            ),
            ("https://b/k?X-Amz-Expires=7200", None),
            ("https://b/k?Expires=soon", None),
            ("https://b/k", None),
        ] {
            let link = link("The cloud", text, false).unwrap();
            assert_eq!(link.expires, expected, "{text}");
            assert_eq!(link.url.expose(), text, "kept to the letter");
        }
    }

    #[test]
    fn plain_http_becomes_https_where_nothing_speaks_against_it() {
        for (text, allow_http, expected) in [
            (
                "http://b/k?Signature=a/b=",
                false,
                "https://b/k?Signature=a/b=",
            ),
            ("HTTP://b/k", false, "https://b/k"),
            ("http://b/k", true, "http://b/k"),
            ("http://b:8080/k", false, "http://b:8080/k"),
            ("https://b/k", false, "https://b/k"),
            ("nonsense", false, "nonsense"),
        ] {
            assert_eq!(over_tls(text, allow_http), expected, "{text}");
        }
        let refused = link("The cloud", "http://b:8080/k?Signature=CANARY", false).unwrap_err();
        assert_eq!(refused.kind(), Kind::Protocol);
        assert!(refused.to_string().contains("allow_http"), "{refused}");
        assert!(!refused.to_string().contains("CANARY"), "{refused}");
    }
}
