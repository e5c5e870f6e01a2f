//! Where a link, and a redirect, may lead. Pure but for [`PublicNames`], which resolves.
//!
//! A link comes from the authenticated provider and may name any https address that can be a store's,
//! also in a private network; TLS proves who answers there. A redirect comes
//! from whoever answered, so it must not turn this machine into a way to its own services: it may
//! lead to public https addresses only, unless the link itself was a local one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The most redirects followed for one request.
pub const MOST_HOPS: usize = 3;
/// A longer `Location` is not an address.
const LONGEST_LOCATION: usize = 16 << 10;

/// Whether a link may be asked at all; why not, in words.
pub fn check_link(url: &Url, allow_http: bool) -> Result<(), &'static str> {
    if url.scheme() != "https" && !allow_http {
        return Err("the link is plain http; set allow_http if that is intended");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the link carries a user name or password in its address");
    }
    if !allow_http && is_never_a_store(url) {
        return Err("the link leads to an address where no store can be");
    }
    Ok(())
}

/// The address that `location` leads to from `at`, if it may be followed. `lenient` allows local
/// targets: for links that are local themselves, and where plain http is allowed.
pub fn target(
    at: &Url,
    location: &[u8],
    allow_http: bool,
    lenient: bool,
) -> Result<Url, &'static str> {
    let location = std::str::from_utf8(location)
        .ok()
        .filter(|text| !text.is_empty() && text.len() <= LONGEST_LOCATION)
        .ok_or("a redirect leads to no address")?;
    let url = at
        .join(location)
        .map_err(|_| "a redirect leads to no address")?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        _ => return Err("a redirect leads away from https"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a redirect carries a user name or password");
    }
    if !lenient && is_local(&url) {
        return Err("a redirect leads to an address that is not public");
    }
    Ok(url)
}

/// Whether scheme, host and port are the same: only then are a link's private headers sent on.
pub fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// Whether the host is, by its text alone, on this machine or in a network that is not public.
pub fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => !is_public(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => !is_public(IpAddr::V6(ip)),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
        None => true,
    }
}

/// Whether the host is an address at which machines find their own cloud's metadata and credentials
/// (link-local, and those of Alibaba Cloud and of AWS over IPv6), or none at all. Other private
/// addresses are where links to a cloud's internal network lead, and TLS proves who is there.
fn is_never_a_store(url: &Url) -> bool {
    const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let never_v4 = |ip: Ipv4Addr| {
        ip.is_link_local() || ip.is_unspecified() || ip.is_multicast() || ip == METADATA_V4
    };
    match url.host() {
        Some(Host::Ipv4(ip)) => never_v4(ip),
        Some(Host::Ipv6(ip)) => {
            ip.to_ipv4_mapped().is_some_and(never_v4)
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip == METADATA_V6
        }
        Some(Host::Domain(_)) => false,
        None => true,
    }
}

/// Whether an address is reachable in the public internet, by the IANA special-purpose registries
/// (RFC 6890 and its successors). Cloud metadata services live in 169.254.0.0/16 and 100.64.0.0/10.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4-mapped and NAT64 addresses are as public as what they stand for.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        // 6to4.
        [0x2002, high, low, ..] => embedded(high, low),
        // Only 2000::/3 is global unicast: this leaves out ::1, fc00::/7, fe80::/10, ff00::/8.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

/// Resolves names as the system does, without the addresses that are not public: for hosts that
/// only a redirect named.
#[derive(Debug, Clone, Copy)]
pub struct PublicNames;

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await?
                .filter(|address| is_public(address.ip()))
                .collect();
            if found.is_empty() {
                return Err("a redirect leads to an address that is not public".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Url {
        Url::parse("https://store.example.com/bucket/key?sig=1").unwrap()
    }

    #[test]
    fn case_27_only_public_https_targets_are_followed() {
        let table: [(&str, bool); 27] = [
            ("https://other.example.com/key", true),
            ("/elsewhere?x=1", true),
            ("//cdn.example.com/key", true),
            ("https://93.184.216.34/", true),
            ("https://[2606:2800:220:1::1]/", true),
            ("http://other.example.com/key", false),
            ("ftp://other.example.com/key", false),
            ("file:///etc/passwd", false),
            ("https://user@other.example.com/", false),
            ("https://:pw@other.example.com/", false),
            ("https://localhost/", false),
            ("https://a.localhost./", false),
            ("https://127.0.0.1/", false),
            ("https://127.1/", false),
            ("https://0x7f000001/", false),
            ("https://0.0.0.0/", false),
            ("https://10.1.2.3/", false),
            ("https://172.16.0.1/", false),
            ("https://192.168.1.1/", false),
            ("https://169.254.169.254/latest/meta-data/", false),
            ("https://100.100.100.200/latest/meta-data/", false),
            ("https://[::1]/", false),
            ("https://[fe80::1]/", false),
            ("https://[fd00:ec2::254]/", false),
            ("https://[::ffff:169.254.169.254]/", false),
            ("https://[64:ff9b::a9fe:a9fe]/", false),
            ("https://[2002:7f00:1::]/", false),
        ];
        for (location, followed) in table {
            let answer = target(&at(), location.as_bytes(), false, false);
            assert_eq!(answer.is_ok(), followed, "{location}: {answer:?}");
        }
        for nothing in [&b""[..], b"https://", b"\xff", b"https://[::1"] {
            assert!(target(&at(), nothing, true, true).is_err(), "{nothing:?}");
        }
        let long = "/".repeat(LONGEST_LOCATION + 1);
        assert!(target(&at(), long.as_bytes(), true, true).is_err());
    }

    #[test]
    fn what_is_configured_is_allowed() {
        assert!(target(&at(), b"http://127.0.0.1:80/", true, true).is_ok());
        assert!(target(&at(), b"https://10.0.0.1/", false, true).is_ok());
        assert!(target(&at(), b"http://10.0.0.1/", false, true).is_err());
        assert!(target(&at(), b"https://u:p@example.com/", true, true).is_err());
    }

    #[test]
    fn case_27_links_are_https_and_lead_to_stores_unless_configured() {
        let link = |text| Url::parse(text).unwrap();
        assert!(check_link(&link("http://h/x"), false).is_err());
        assert!(check_link(&link("http://h/x"), true).is_ok());
        assert!(check_link(&link("https://10.0.0.1/x"), false).is_ok());
        assert!(check_link(&link("https://u:p@h/x"), true).is_err());
        for metadata in [
            "https://169.254.169.254/latest/meta-data/",
            "https://0xa9fea9fe/latest/meta-data/",
            "https://[::ffff:169.254.169.254]/",
            "https://[fe80::1]/",
            "https://100.100.100.200/latest/meta-data/",
            "https://[fd00:ec2::254]/latest/",
            "https://0.0.0.0/",
            "https://[::]/",
            "https://224.0.0.1/",
            "http://169.254.169.254/",
        ] {
            assert!(check_link(&link(metadata), false).is_err(), "{metadata}");
        }
        for internal in ["https://100.64.1.2/x", "https://[fd00::1]/x"] {
            assert!(check_link(&link(internal), false).is_ok(), "{internal}");
        }
    }

    #[tokio::test]
    async fn case_27_a_name_for_a_local_address_is_no_way_in() {
        let resolved = PublicNames.resolve("localhost".parse().unwrap()).await;
        let words = resolved.err().unwrap().to_string();
        assert!(words.contains("not public"), "{words}");
    }

    #[test]
    fn private_headers_stay_at_their_origin() {
        let other = |text| same_origin(&at(), &Url::parse(text).unwrap());
        assert!(other("https://store.example.com:443/else"));
        assert!(!other("https://store.example.com:8443/bucket/key"));
        assert!(!other("https://evil.example.com/bucket/key"));
        assert!(!other("http://store.example.com/bucket/key"));
    }
}
