//! Folders in an object store: complete listings, and links to single objects.
//!
//! A [`Bucket`] is reached at its own base address, keys follow it, so that private gateways work
//! too; OpenDAL puts the bucket before the host, which rules those out. Listings are asked through
//! the same retries as API calls; a link is a pre-signed GET that this machine signs by itself.

mod address;
mod cos;
mod listing;

use std::fmt;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use url::Url;

use self::cos::Request;
pub use self::listing::Object;
use self::listing::{Page, complaint};
use crate::clock::SharedClock;
use crate::config::ProviderConfig;
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Link, LinkMode};
use crate::providers::http::{Answer, Api, Budget, Call, Dialect, Verdict};
use crate::secret::{SafeUrl, Secret};

/// Objects asked for per page: the most that COS gives.
const PAGE: &str = "1000";
/// More pages than a backup has.
const MOST_PAGES: u32 = 10_000;

/// A signature is valid from a little before it is made: clocks differ.
const EARLY: SignedDuration = SignedDuration::from_secs(60);
/// How long the signature of a listing is valid.
const LISTING_LIFE: SignedDuration = SignedDuration::from_mins(10);
/// How long a link is valid.
const LINK_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// The keys that open a bucket.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Names the key.
    pub id: Secret,
    /// Signs.
    pub secret: Secret,
    /// Of temporary keys.
    pub token: Option<Secret>,
}

/// One bucket of Tencent COS.
pub struct Bucket {
    api: Api,
    base: Url,
    keys: Keys,
}

impl Bucket {
    /// The bucket at `base`; asks nothing yet.
    pub fn new(config: &ProviderConfig, base: Url, keys: Keys, clock: SharedClock) -> Result<Self> {
        Ok(Bucket {
            api: Api::new(config, clock)?,
            base,
            keys,
        })
    }

    /// The configured budget, for one operation.
    pub fn budget(&self) -> Budget {
        self.api.budget()
    }

    /// Names of the folders directly below `prefix`, which is empty or ends with a slash.
    pub async fn folders(&self, prefix: &str, budget: &mut Budget) -> Result<Vec<String>> {
        let listed = self.list(prefix, "/", budget).await?;
        let names = listed.folders.iter().filter_map(|folder| {
            let name = folder.strip_prefix(prefix)?.strip_suffix('/')?;
            (!name.is_empty()).then(|| name.to_owned())
        });
        Ok(names.collect())
    }

    /// Every object whose key begins with `prefix`.
    pub async fn objects(&self, prefix: &str, budget: &mut Budget) -> Result<Vec<Object>> {
        Ok(self.list(prefix, "", budget).await?.objects)
    }

    /// A link that reads the object at `key`, whether or not there is one. Asks nobody.
    pub fn link(&self, key: &str) -> Result<Link> {
        let now = self.api.now();
        let end = now + LINK_LIFE;
        let url = address::of_key(&self.base, key).ok_or_else(|| {
            Error::new(
                Kind::Protocol,
                "an object has a key that no address can name",
            )
        })?;
        let host = address::host(&url);
        let token = self.keys.token.as_ref().map(Secret::expose);
        let parameters: Vec<(&str, &str)> = token
            .map(|token| ("x-cos-security-token", token))
            .into_iter()
            .collect();
        let proof = Request {
            method: "get",
            path: &address::decoded_path(&url),
            parameters: &parameters,
            headers: &[("host", &host)],
        }
        .signed(&self.keys, now - EARLY, end);
        let url = format!("{url}?{}", address::query(&proof.into_pairs(&parameters)));
        let url = SafeUrl::parse(&url)
            .map_err(|why| Error::new(Kind::Internal, format!("an own link {why}")))?;
        Ok(Link {
            url,
            headers: Vec::new(),
            expires: Some(end),
            mode: LinkMode::Ranged,
        })
    }

    async fn list(&self, prefix: &str, delimiter: &str, budget: &mut Budget) -> Result<Page> {
        let listing = |error: Error| error.context(format!("listing {}", one_line(prefix)));
        let mut all = Page::default();
        let mut marker = String::new();
        for _page in 0..MOST_PAGES {
            let page = self.page(prefix, delimiter, &marker, budget).await;
            let page = page.map_err(listing)?;
            let next = page.next(&marker).map_err(listing)?;
            all.objects.extend(page.objects);
            all.folders.extend(page.folders);
            match next {
                Some(next) => marker = next,
                None => return Ok(all),
            }
        }
        Err(listing(Error::new(
            Kind::Protocol,
            "the store gives a list without end",
        )))
    }

    /// One page of "GET Bucket (List Objects)", cloud.tencent.com/document/product/436/7734.
    async fn page(
        &self,
        prefix: &str,
        delimiter: &str,
        marker: &str,
        budget: &mut Budget,
    ) -> Result<Page> {
        let parameters = [
            ("delimiter", delimiter),
            ("encoding-type", "url"),
            ("marker", marker),
            ("max-keys", PAGE),
            ("prefix", prefix),
        ];
        let mut url = address::of_bucket(&self.base);
        url.set_query(Some(&address::query(&parameters)));
        let question = Question {
            keys: &self.keys,
            parameters: &parameters,
        };
        let answer = self.api.call(&Call::get(url), &question, budget).await?;
        match answer.status.is_success() {
            true => listing::read(&answer),
            false => Err(refused(&answer)),
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

/// One listing on its way.
struct Question<'a> {
    keys: &'a Keys,
    parameters: &'a [(&'a str, &'a str)],
}

#[async_trait]
impl Dialect for Question<'_> {
    /// Whether the store refused the time of a signature once.
    type Session = bool;

    async fn sign(
        &self,
        call: &mut Call,
        _session: &mut bool,
        now: Timestamp,
        _budget: &mut Budget,
    ) -> Result<()> {
        let host = address::host(&call.url);
        let token = self.keys.token.as_ref().map(Secret::expose);
        let mut headers = vec![("host", host.as_str())];
        headers.extend(token.map(|token| ("x-cos-security-token", token)));
        let proof = Request {
            method: "get",
            path: &address::decoded_path(&call.url),
            parameters: self.parameters,
            headers: &headers,
        }
        .signed(self.keys, now - EARLY, now + LISTING_LIFE);
        if let Some(token) = token {
            let words = "a token holds a character that cannot be sent";
            let mut value =
                http::HeaderValue::from_str(token).map_err(|_| Error::new(Kind::Config, words))?;
            value.set_sensitive(true);
            call.headers.insert("x-cos-security-token", value);
        }
        call.authorize(&proof.into_header())
    }

    fn judge(&self, answer: &Answer, signed_again: &mut bool) -> Verdict {
        let (code, message) = complaint(answer);
        let late = code == "RequestTimeTooSkewed"
            || format!("{code} {message}")
                .to_ascii_lowercase()
                .contains("expired");
        if answer.status == http::StatusCode::FORBIDDEN && late && !*signed_again {
            *signed_again = true;
            return Verdict::SignAgain;
        }
        match code.as_str() {
            "SlowDown" => Verdict::Throttled,
            _ => Verdict::of_status(answer.status),
        }
    }
}

/// A refused listing as an error with its cure. Codes: "Error Codes",
/// cloud.tencent.com/document/product/436/7730.
fn refused(answer: &Answer) -> Error {
    let (code, message) = complaint(answer);
    let (kind, cure) = match (answer.status.as_u16(), code.as_str()) {
        (_, "NoSuchBucket") => (Kind::Config, "check `bucket`, with its APPID, and `region`"),
        (_, "InvalidAccessKeyId") => (Kind::Credentials, "check `secret_id`"),
        (_, "SignatureDoesNotMatch") => (Kind::Credentials, "check `secret_key`"),
        (_, "RequestTimeTooSkewed") => (Kind::Credentials, "set this machine's clock"),
        (_, "ExpiredToken") => (Kind::Credentials, "renew `token` together with its keys"),
        (401 | 403, _) => (
            Kind::Credentials,
            "allow this key to list and read the bucket (cos:GetBucket, cos:GetObject), and this machine's address to reach it",
        ),
        _ => (Kind::Protocol, "check `endpoint`, `bucket` and `region`"),
    };
    let said = match (code.as_str(), message.as_str()) {
        ("", "") => answer.status.to_string(),
        (code, message) => format!("{} {code} {message}", answer.status.as_u16()),
    };
    let said = one_line(&said);
    Error::new(
        kind,
        format!(
            "{} refuses: {}; {cure}",
            answer.origin,
            said.trim_end_matches('.')
        ),
    )
}
