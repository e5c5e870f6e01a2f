//! The verifier of HTTP Digest (RFC 7616, MD5, qop=auth) as Atlas challenges for it: pure but for
//! the nonces it has issued.
//!
//! Clients write the header in many ways (quoted or bare `algorithm` and `qop`, no `algorithm`,
//! `=` in the cnonce, an nc that counts on over new nonces); all are taken. The values are not
//! negotiable: the realm, a nonce of ours, and a `uri` equal to the request line's path and query.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use jiff::{SignedDuration, Timestamp};
use lru::LruCache;
use md5::{Digest, Md5};

use super::super::hex;

/// The realm of every challenge.
pub(super) const REALM: &str = "MMS Public API";

/// Nonces remembered; the longest unused is forgotten first.
const NONCES: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The `WWW-Authenticate` value, with its parameters in the form and order of the real service:
/// at least one client takes no other.
pub(super) fn challenge(nonce: &str, stale: bool) -> String {
    format!(
        "Digest realm=\"{REALM}\", domain=\"\", nonce=\"{nonce}\", algorithm=MD5, qop=\"auth\", stale={stale}"
    )
}

/// The `Authorization: Digest …` header of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof {
    username: String,
    nonce: String,
    uri: String,
    response: String,
    cnonce: String,
    nc: String,
}

impl Proof {
    /// Reads the header's value; `None` when a parameter is missing, doubled or not acceptable.
    pub(super) fn parse(header: &str) -> Option<Proof> {
        let (scheme, rest) = header.split_once(' ')?;
        let mut fields = parameters(rest).filter(|_| scheme.eq_ignore_ascii_case("digest"))?;
        let algorithm = fields.remove("algorithm");
        let acceptable = algorithm.is_none_or(|name| name.eq_ignore_ascii_case("md5"))
            && fields.remove("qop")? == "auth"
            && fields.remove("realm")? == REALM;
        let proof = Proof {
            username: fields.remove("username")?,
            nonce: fields.remove("nonce")?,
            uri: fields.remove("uri")?,
            response: fields.remove("response")?,
            cnonce: fields.remove("cnonce")?,
            nc: fields.remove("nc")?,
        };
        (acceptable && proof.count().is_some() && !proof.cnonce.is_empty()).then_some(proof)
    }

    /// The nonce count: eight hexadecimal digits.
    fn count(&self) -> Option<u32> {
        (self.nc.len() == 8 && self.nc.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u32::from_str_radix(&self.nc, 16).ok())
            .flatten()
    }

    /// Whether the sender of `method target` knows the keys.
    pub(super) fn holds(&self, method: &str, target: &str, user: &str, password: &str) -> bool {
        self.username == user
            && self.uri == target
            && self.response.eq_ignore_ascii_case(&response(
                &md5_hex(&format!("{user}:{REALM}:{password}")),
                &self.nonce,
                &self.nc,
                &self.cnonce,
                &md5_hex(&format!("{method}:{target}")),
            ))
    }
}

fn response(ha1: &str, nonce: &str, nc: &str, cnonce: &str, ha2: &str) -> String {
    md5_hex(&format!("{ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}"))
}

fn md5_hex(text: &str) -> String {
    hex(&Md5::digest(text))
}

/// `name=token, name="quoted \" text"` as a map; `None` when malformed or a name is doubled.
fn parameters(mut text: &str) -> Option<HashMap<String, String>> {
    let mut found = HashMap::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        if text.is_empty() {
            return Some(found);
        }
        let (name, rest) = text.split_once('=')?;
        let rest = rest.trim_start();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (token, rest) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (token.trim_end().to_owned(), rest)
            }
        };
        let name = name.trim().to_ascii_lowercase();
        if name.is_empty() || found.insert(name, value).is_some() {
            return None;
        }
        text = rest.trim_start();
        if !text.is_empty() && !text.starts_with(',') {
            return None;
        }
    }
}

/// The text up to the closing quote, without its escapes, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// What a nonce is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Good.
    Fresh,
    /// Too old, or this count was used before: prove again with another.
    Stale,
    /// Not one of ours.
    Unknown,
}

/// The nonces that were issued.
#[derive(Debug)]
pub(super) struct Nonces(LruCache<String, Issued>);

#[derive(Debug)]
struct Issued {
    at: Timestamp,
    counts: HashSet<u32>,
}

impl Default for Nonces {
    fn default() -> Self {
        Nonces(LruCache::new(NONCES))
    }
}

impl Nonces {
    /// Remembers a new nonce.
    pub(super) fn issue(&mut self, nonce: String, now: Timestamp) {
        let counts = HashSet::new();
        self.0.put(nonce, Issued { at: now, counts });
    }

    /// What the nonce of `proof` is worth. Counts are remembered only to refuse their reuse.
    pub(super) fn standing(
        &mut self,
        proof: &Proof,
        now: Timestamp,
        life: Option<SignedDuration>,
        refuse_reuse: bool,
    ) -> Standing {
        let Some(issued) = self.0.get_mut(&proof.nonce) else {
            return Standing::Unknown;
        };
        let too_old = life.is_some_and(|life| now.duration_since(issued.at) >= life);
        let reused = refuse_reuse && !issued.counts.insert(proof.count().unwrap_or_default());
        if too_old || reused {
            Standing::Stale
        } else {
            Standing::Fresh
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "abcdefgh";
    const PASSWORD: &str = "11111111-2222-3333-4444-555555555555";
    const N1: &str = "669gyxpgL6MGDuSZvQ80Spv3k+Jc99ed";
    const GROUP: &str = "32b6e34b3d91647abb20e7b8";

    fn proof(nonce: &str, nc: &str, cnonce: &str, uri: &str, response: &str) -> Proof {
        Proof::parse(&format!(
            "Digest username=\"{USER}\", realm=\"{REALM}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", qop=auth, nc={nc}, cnonce=\"{cnonce}\""
        ))
        .unwrap()
    }

    #[test]
    fn the_challenge_is_the_recorded_one() {
        assert_eq!(
            challenge(N1, false),
            "Digest realm=\"MMS Public API\", domain=\"\", nonce=\"669gyxpgL6MGDuSZvQ80Spv3k+Jc99ed\", \
             algorithm=MD5, qop=\"auth\", stale=false"
        );
        assert!(challenge(N1, true).ends_with(", stale=true"));
    }

    #[test]
    fn vectors_of_independent_clients() {
        assert_eq!(
            md5_hex(&format!("{USER}:{REALM}:{PASSWORD}")),
            "8cd64a0de623612d8a912a47241acdbf"
        );
        let frozen = "0123456789abcdef";
        let paged = "/api/atlas/v2/groups?includeCount=true&itemsPerPage=100&pageNum=1";
        let jobs = format!("/api/atlas/v2/groups/{GROUP}/clusters/rs0/backup/restoreJobs");
        let tenant =
            format!("/api/atlas/v1.0/groups/{GROUP}/clusters/M2%20x/backup/tenant/snapshots");
        let job = format!("{jobs}/{GROUP}");
        let n2 = "AAAAyxpgL6MGDuSZvQ80Spv3k+Jc99ee";
        let curls = "MDUwMGE5ZGE5MzI0MjIyY2MwN2E4MTNkMGY3NjU1Mzc=";
        for (name, nonce, nc, cnonce, method, uri, expected) in [
            (
                "D1",
                N1,
                "00000001",
                frozen,
                "GET",
                "/api/atlas/v2/groups",
                "c9b5c8c3190c0e7bcf3ad48f083cf55d",
            ),
            (
                "D2",
                N1,
                "00000002",
                frozen,
                "GET",
                paged,
                "88c7e5536af143e7b3edfcefb74f42b4",
            ),
            (
                "D3",
                N1,
                "00000003",
                frozen,
                "POST",
                &jobs,
                "91737b575737e3b2ac8984a98f0c6801",
            ),
            (
                "D4",
                N1,
                "00000004",
                frozen,
                "GET",
                &tenant,
                "b5f27a275f344522e3a2c1c66d6a9ef9",
            ),
            (
                "D5",
                N1,
                "00000010",
                frozen,
                "DELETE",
                &job,
                "3cee55781e578dd6534a6abd0b743b13",
            ),
            (
                "D6",
                n2,
                "00000001",
                frozen,
                "GET",
                "/api/atlas/v2/groups",
                "3c65ddc5b209f4650ec5ab7769f4f4f3",
            ),
            (
                "D7",
                N1,
                "00000001",
                "86adde783108df81",
                "GET",
                paged,
                "215692d51d687d54620f41a9cb244598",
            ),
            (
                "D8",
                N1,
                "00000001",
                curls,
                "GET",
                "/api/atlas/v2/groups?itemsPerPage=2",
                "fc7b3285097a42a946464cc441219226",
            ),
        ] {
            let given = proof(nonce, nc, cnonce, uri, expected);
            assert!(given.holds(method, uri, USER, PASSWORD), "{name}");
            assert!(
                !given.holds(method, uri, USER, "another password"),
                "{name}"
            );
            assert!(!given.holds(method, uri, "someone", PASSWORD), "{name}");
            assert!(!given.holds("PUT", uri, USER, PASSWORD), "{name}");
            assert!(
                !given.holds(method, "/api/atlas/v2/clusters", USER, PASSWORD),
                "{name}"
            );
            let forged = proof(nonce, nc, cnonce, uri, &expected.replace(|c| c != '0', "0"));
            assert!(!forged.holds(method, uri, USER, PASSWORD), "{name}");
        }
    }

    #[test]
    fn every_client_s_way_of_writing_is_read() {
        for header in [
            // The Go SDK.
            "Digest username=\"u\", realm=\"MMS Public API\", nonce=\"n\", uri=\"/x?a=1&b=2\", \
             response=\"r\", algorithm=\"MD5\", qop=auth, nc=00000001, cnonce=\"c=\"",
            // python-requests.
            "Digest username=\"u\", realm=\"MMS Public API\", nonce=\"n\", uri=\"/x?a=1&b=2\", \
             response=\"r\", algorithm=\"MD5\", qop=\"auth\", nc=00000001, cnonce=\"c=\"",
            // curl.
            "Digest username=\"u\",realm=\"MMS Public API\",nonce=\"n\",uri=\"/x?a=1&b=2\",\
             cnonce=\"c=\",nc=00000001,qop=auth,response=\"r\",algorithm=MD5",
            // urllib of Node: no algorithm.
            "Digest username=\"u\", realm=\"MMS Public API\", nonce=\"n\", uri=\"/x?a=1&b=2\", \
             response=\"r\", qop=auth, nc=00000001, cnonce=\"c=\"",
        ] {
            let expected = Proof {
                username: "u".into(),
                nonce: "n".into(),
                uri: "/x?a=1&b=2".into(),
                response: "r".into(),
                cnonce: "c=".into(),
                nc: "00000001".into(),
            };
            assert_eq!(Proof::parse(header), Some(expected), "{header}");
        }
    }

    #[test]
    fn what_is_not_a_proof() {
        let good = "Digest username=\"u\", realm=\"MMS Public API\", nonce=\"n\", uri=\"/\", \
                    response=\"r\", algorithm=MD5, qop=auth, nc=0000000a, cnonce=\"c\"";
        assert!(Proof::parse(good).is_some());
        for (from, to) in [
            ("Digest ", "Basic "),
            ("MMS Public API", "another realm"),
            ("algorithm=MD5", "algorithm=SHA-256"),
            ("qop=auth", "qop=auth-int"),
            (", qop=auth", ""),
            ("nc=0000000a", "nc=10"),
            ("nc=0000000a", "nc=0000000g"),
            ("cnonce=\"c\"", "cnonce=\"\""),
            ("cnonce=\"c\"", "cnonce=\"c"),
            ("nonce=\"n\", ", "nonce=\"n\", nonce=\"n\", "),
            ("uri=\"/\",", "uri=\"/\" x,"),
            ("username=\"u\", ", ""),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert_eq!(Proof::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn escapes_and_commas_inside_quotes() {
        let fields = parameters(r#"a="x, \"y\" \\", b = c ,d=e"#).unwrap();
        assert_eq!(fields["a"], r#"x, "y" \"#);
        assert_eq!((&*fields["b"], &*fields["d"]), ("c", "e"));
        assert!(parameters("a=\"x\" y=z").is_none());
    }

    #[test]
    fn nonces_age_and_counts_are_used_once_if_asked() {
        let now = Timestamp::UNIX_EPOCH;
        let mut nonces = Nonces::default();
        nonces.issue(N1.into(), now);
        let first = proof(N1, "00000001", "c", "/", "r");
        let later = now + SignedDuration::from_secs(60);
        let life = Some(SignedDuration::from_secs(60));
        let minute = |nonces: &mut Nonces, at| nonces.standing(&first, at, life, false);
        assert_eq!(minute(&mut nonces, now), Standing::Fresh);
        assert_eq!(minute(&mut nonces, now), Standing::Fresh, "tolerant");
        assert_eq!(minute(&mut nonces, later), Standing::Stale);
        let strict = |nonces: &mut Nonces, proof| nonces.standing(proof, later, None, true);
        assert_eq!(strict(&mut nonces, &first), Standing::Fresh);
        assert_eq!(strict(&mut nonces, &first), Standing::Stale);
        let next = proof(N1, "0000000f", "c", "/", "r");
        assert_eq!(strict(&mut nonces, &next), Standing::Fresh);
        let foreign = proof("other", "00000001", "c", "/", "r");
        assert_eq!(strict(&mut nonces, &foreign), Standing::Unknown);
    }
}
