//! Folders in an object store: complete listings, and links to single objects.
//!
//! A [`Bucket`] is reached at its own base address, keys follow it, so that private gateways work
//! too; OpenDAL puts the bucket before the host, which rules those out. Listings are asked through
//! the same retries as API calls; a link is a pre-signed GET that this machine signs by itself. What
//! differs from store to store is its [`Flavour`].

mod address;
mod cos;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod listing;
mod oss;

use std::fmt;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use url::Url;

use self::listing::Page;
pub use self::listing::{Object, complaint};
use crate::clock::SharedClock;
use crate::config::ProviderConfig;
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Link, LinkMode};
use crate::providers::http::{Answer, Api, Budget, Call, Dialect, Verdict};
use crate::secret::{SafeUrl, Secret};

/// Objects asked for per page: the most that any of the stores gives.
const PAGE: &str = "1000";
/// More pages than a backup has.
const MOST_PAGES: u32 = 10_000;

/// A signature is valid from a little before it is made: clocks differ.
const EARLY: SignedDuration = SignedDuration::from_secs(60);
/// How long the signature of a listing is valid.
const LISTING_LIFE: SignedDuration = SignedDuration::from_mins(10);
/// How long a link is valid.
const LINK_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// An access key.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Names the key.
    pub id: Secret,
    /// Signs.
    pub secret: Secret,
    /// Of temporary keys.
    pub token: Option<Secret>,
}

/// Whose store a bucket is in: how its pages follow each other, how requests are signed, and what
/// its refusals mean.
#[derive(Debug, Clone)]
pub enum Flavour {
    /// Tencent COS.
    Cos,
    /// Alibaba Cloud OSS.
    Oss(Named),
}

/// What the signatures of OSS cover, whatever the address.
#[derive(Debug, Clone)]
pub struct Named {
    /// The bucket's name.
    pub bucket: String,
    /// Its region.
    pub region: String,
}

/// One bucket.
pub struct Bucket {
    api: Api,
    base: Url,
    keys: Keys,
    flavour: Flavour,
}

impl Bucket {
    /// The bucket at `base`; asks nothing yet.
    pub fn new(
        config: &ProviderConfig,
        base: Url,
        keys: Keys,
        flavour: Flavour,
        clock: SharedClock,
    ) -> Result<Self> {
        Ok(Bucket {
            api: Api::new(config, clock)?,
            base,
            keys,
            flavour,
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
        let query = match &self.flavour {
            Flavour::Cos => cos::link(&url, &self.keys, now - EARLY, end),
            Flavour::Oss(named) => {
                let signer = oss::Signer {
                    keys: &self.keys,
                    named,
                    now,
                };
                address::query(&signer.link(key, LINK_LIFE.as_secs()))
            }
        };
        let url = SafeUrl::parse(&format!("{url}?{query}"))
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
        let by_token = matches!(self.flavour, Flavour::Oss(_));
        let mut all = Page::default();
        let mut from = String::new();
        for _page in 0..MOST_PAGES {
            let page = self.page(prefix, delimiter, &from, budget).await;
            let page = page.map_err(listing)?;
            let next = page.next(&from, by_token).map_err(listing)?;
            all.objects.extend(page.objects);
            all.folders.extend(page.folders);
            match next {
                Some(next) => from = next,
                None => return Ok(all),
            }
        }
        Err(listing(Error::new(
            Kind::Protocol,
            "the store gives a list without end",
        )))
    }

    /// One page of "GET Bucket (List Objects)", cloud.tencent.com/document/product/436/7734, or of
    /// "ListObjectsV2", alibabacloud.com/help/en/oss.
    async fn page(
        &self,
        prefix: &str,
        delimiter: &str,
        from: &str,
        budget: &mut Budget,
    ) -> Result<Page> {
        let mut parameters = vec![
            ("delimiter", delimiter),
            ("encoding-type", "url"),
            ("max-keys", PAGE),
            ("prefix", prefix),
        ];
        match &self.flavour {
            Flavour::Cos => parameters.push(("marker", from)),
            Flavour::Oss(_) => {
                parameters.extend([("list-type", "2"), ("continuation-token", from)]);
            }
        }
        // An empty one says nothing, and is signed in several ways by official clients.
        parameters.retain(|(_, value)| !value.is_empty());
        let mut url = address::of_bucket(&self.base);
        url.set_query(Some(&address::query(&parameters)));
        let question = Question {
            bucket: self,
            parameters: &parameters,
        };
        let answer = self.api.call(&Call::get(url), &question, budget).await?;
        match answer.status.is_success() {
            true => listing::read(&answer),
            false => Err(self.refused(&answer)),
        }
    }

    /// A refused listing as an error with its cure. Codes: "Error Codes",
    /// cloud.tencent.com/document/product/436/7730, and "Error codes", alibabacloud.com/help/en/oss.
    fn refused(&self, answer: &Answer) -> Error {
        let (code, message) = complaint(answer);
        let Cures {
            bucket,
            id,
            secret,
            token,
            permission,
        } = match &self.flavour {
            Flavour::Cos => cos::CURES,
            Flavour::Oss(_) => oss::CURES,
        };
        let (kind, cure) = match (answer.status.as_u16(), code.as_str()) {
            (_, "NoSuchBucket") => (Kind::Config, bucket),
            (_, "InvalidAccessKeyId") => (Kind::Credentials, id),
            (_, "SignatureDoesNotMatch") => (Kind::Credentials, secret),
            (_, "RequestTimeTooSkewed") => (Kind::Credentials, "set this machine's clock"),
            (_, "ExpiredToken" | "SecurityTokenExpired" | "InvalidSecurityToken") => {
                (Kind::Credentials, token)
            }
            (401 | 403, _) => (Kind::Credentials, permission),
            _ => (Kind::Protocol, "check `endpoint`, `bucket` and `region`"),
        };
        refusal(kind, answer, &code, &message, cure)
    }
}

/// A refusal of a store in its own words, with its cure.
pub(super) fn refusal(kind: Kind, answer: &Answer, code: &str, message: &str, cure: &str) -> Error {
    let said = match (code, message) {
        ("", "") => answer.status.to_string(),
        (code, message) => format!("{} {code} {message}", answer.status.as_u16()),
    };
    let said = one_line(&said);
    let (origin, said) = (&answer.origin, said.trim_end_matches('.'));
    Error::new(kind, format!("{origin} refuses: {said}; {cure}"))
}

/// What to do about refusals, in the words of the account's configuration.
struct Cures {
    bucket: &'static str,
    id: &'static str,
    secret: &'static str,
    token: &'static str,
    permission: &'static str,
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
    bucket: &'a Bucket,
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
        let keys = &self.bucket.keys;
        let headers = match &self.bucket.flavour {
            Flavour::Cos => {
                let (start, end) = (now - EARLY, now + LISTING_LIFE);
                cos::headers(&call.url, self.parameters, keys, start, end)
            }
            Flavour::Oss(named) => oss::Signer { keys, named, now }.headers(self.parameters),
        };
        for (name, value) in headers {
            let words = "an access key or token holds a character that cannot be sent";
            let mut value =
                HeaderValue::from_str(&value).map_err(|_| Error::new(Kind::Config, words))?;
            value.set_sensitive(true);
            call.headers.insert(HeaderName::from_static(name), value);
        }
        Ok(())
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
