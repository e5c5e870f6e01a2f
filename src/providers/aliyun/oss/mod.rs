//! The account's own bucket that download tasks write into: what lies there, and links to it.
//!
//! Each shard of a backup has a folder of its own, whose name follows from theirs, so that what a
//! task wrote is found again without the task. Whether that is one archive or a tree is not
//! documented; both are served.

mod sign;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

use self::sign::{IN_KEY, Signer};
use super::refusal;
use super::sign::{Keys, canonical_query};
use crate::clock::SharedClock;
use crate::config::{OssConfig, ProviderConfig};
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Link, LinkMode, ShardRef};
use crate::providers::http::{Answer, Api, Budget, Call, Dialect, Verdict};
use crate::secret::SafeUrl;

/// Bounds a store that never comes to the end of a list.
const MOST_PAGES: usize = 10_000;
/// The code of a refused date: more than 15 minutes from the store's.
const SKEWED: &str = "RequestTimeTooSkewed";
/// How long a link is valid.
const LINK_LIFE: u64 = 3600;

/// The bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    api: Api,
    keys: Keys,
    pub(super) config: OssConfig,
}

/// An object in a shard's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) key: String,
    /// Its place below the folder.
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) modified: Option<Timestamp>,
    /// Its version, with its quotes.
    pub(super) etag: Option<String>,
}

impl Bucket {
    pub(super) fn new(
        common: &ProviderConfig,
        config: &OssConfig,
        keys: Keys,
        clock: SharedClock,
    ) -> Result<Self> {
        Ok(Bucket {
            api: Api::new(common, clock)?,
            keys,
            config: config.clone(),
        })
    }

    /// The folder of a shard of a backup, without a slash at its end.
    pub(super) fn folder(&self, of: &ShardRef) -> String {
        let part = |text: &str| text.replace('/', "_");
        format!(
            "{}{}/{}/{}",
            self.config.prefix,
            part(&of.instance.id),
            part(&of.backup.id),
            part(&of.shard.id)
        )
    }

    /// The configured budget, for one operation.
    pub(super) fn budget(&self) -> Budget {
        self.api.budget()
    }

    /// Everything in the folder of `of`, by path.
    pub(super) async fn objects(&self, of: &ShardRef, budget: &mut Budget) -> Result<Vec<Object>> {
        let folder = self.folder(of);
        let mut objects = Vec::new();
        let mut token = None;
        for _ in 0..MOST_PAGES {
            let page = self.page(&folder, token.as_deref(), budget).await;
            let page = page.map_err(|error| error.context(format!("listing {folder}")))?;
            objects.extend(page.objects(&folder));
            let more = page.is_truncated.trim().eq_ignore_ascii_case("true");
            let next = page.next().filter(|next| !next.is_empty());
            match next.filter(|_| more) {
                None if more => break,
                None => {
                    objects.sort_by(|a, b| a.path.cmp(&b.path));
                    return Ok(objects);
                }
                next => token = next,
            }
        }
        Err(Error::new(
            Kind::Protocol,
            format!("the listing of {folder} does not come to an end"),
        ))
    }

    /// One page of ListObjectsV2.
    async fn page(&self, folder: &str, token: Option<&str>, budget: &mut Budget) -> Result<Page> {
        // An empty parameter is signed in two ways by official clients: there is none here.
        let mut query = vec![
            ("encoding-type", "url".to_owned()),
            ("list-type", "2".to_owned()),
            ("max-keys", "1000".to_owned()),
            ("prefix", folder.to_owned()),
        ];
        query.extend(token.map(|token| ("continuation-token", token.to_owned())));
        let mut url = self.config.endpoint.clone();
        let path = format!("{}/", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url.set_query(Some(&canonical_query(&query)));
        let question = Question {
            bucket: self,
            query,
        };
        let answer = self.api.call(&Call::get(url), &question, budget).await?;
        if !answer.status.is_success() {
            return Err(refused(&answer));
        }
        Page::read(&String::from_utf8_lossy(&answer.body)).ok_or_else(|| {
            Error::new(
                Kind::Protocol,
                format!(
                    "{} answered no list of objects: check the `endpoint` of `[provider.oss]`",
                    answer.origin
                ),
            )
        })
    }

    /// A link to the object at `key`. Asks nobody.
    pub(super) fn link(&self, key: &str) -> Result<Link> {
        let now = self.api.now();
        let query = self.signer(now).link(key, LINK_LIFE);
        let base = self.config.endpoint.as_str().trim_end_matches('/');
        let key = utf8_percent_encode(key, IN_KEY);
        let url = format!("{base}/{key}?{}", canonical_query(&query));
        let url = SafeUrl::parse(&url)
            .map_err(|why| Error::new(Kind::Internal, format!("an own link {why}")))?;
        let life = SignedDuration::from_secs(i64::try_from(LINK_LIFE).unwrap_or(i64::MAX));
        Ok(Link {
            url,
            headers: Vec::new(),
            expires: now.checked_add(life).ok(),
            mode: LinkMode::Ranged,
        })
    }

    fn signer(&self, now: Timestamp) -> Signer<'_> {
        Signer {
            keys: &self.keys,
            region: &self.config.region,
            bucket: &self.config.bucket,
            now,
        }
    }
}

/// One page of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "ListBucketResult", rename_all = "PascalCase", default)]
struct Page {
    is_truncated: String,
    next_continuation_token: Option<String>,
    encoding_type: String,
    contents: Vec<Listed>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    key: String,
    last_modified: String,
    #[serde(rename = "ETag")]
    etag: String,
    size: String,
}

impl Page {
    /// `None` for anything but a listing: it must never be taken for an empty one.
    fn read(text: &str) -> Option<Self> {
        text.contains("<ListBucketResult").then_some(())?;
        quick_xml::de::from_str(text).ok()
    }

    /// A name as it is meant.
    fn decoded(&self, name: &str) -> Option<String> {
        match self.encoding_type.trim().eq_ignore_ascii_case("url") {
            true => Some(percent_decode_str(name).decode_utf8().ok()?.into_owned()),
            false => Some(name.to_owned()),
        }
    }

    /// Where the next page begins.
    fn next(&self) -> Option<String> {
        self.decoded(self.next_continuation_token.as_deref()?.trim())
    }

    /// The objects below `folder`; markers of folders are none.
    fn objects(&self, folder: &str) -> Vec<Object> {
        let objects = self.contents.iter().filter_map(|listed| {
            let key = self.decoded(&listed.key)?;
            // Not what lies in another folder whose name only begins alike.
            let path = key.strip_prefix(folder)?.strip_prefix('/')?;
            let path = path.trim_start_matches('/').to_owned();
            (!path.is_empty() && !path.ends_with('/')).then(|| Object {
                size: listed.size.trim().parse().unwrap_or(0),
                modified: listed.last_modified.trim().parse().ok(),
                etag: Some(listed.etag.trim().to_owned()).filter(|tag| !tag.is_empty()),
                key,
                path,
            })
        });
        objects.collect()
    }
}

/// One listing on its way.
struct Question<'a> {
    bucket: &'a Bucket,
    query: Vec<(&'static str, String)>,
}

#[async_trait]
impl Dialect for Question<'_> {
    /// Whether the date was refused once; the answer's own date has corrected it.
    type Session = bool;

    async fn sign(
        &self,
        call: &mut Call,
        _redated: &mut bool,
        now: Timestamp,
        _budget: &mut Budget,
    ) -> Result<()> {
        for (name, value) in self.bucket.signer(now).headers(&self.query) {
            let words = "an access key or token holds a character that cannot be sent";
            let mut value =
                HeaderValue::from_str(&value).map_err(|_| Error::new(Kind::Config, words))?;
            value.set_sensitive(true);
            call.headers.insert(HeaderName::from_static(name), value);
        }
        Ok(())
    }

    fn judge(&self, answer: &Answer, redated: &mut bool) -> Verdict {
        let body = String::from_utf8_lossy(&answer.body);
        let skewed = refusal::element(&body, "Code").is_some_and(|code| code == SKEWED);
        if answer.status == StatusCode::FORBIDDEN && skewed && !*redated {
            *redated = true;
            return Verdict::SignAgain;
        }
        Verdict::of_status(answer.status)
    }
}

/// A refused listing with its cure.
fn refused(answer: &Answer) -> Error {
    let body = String::from_utf8_lossy(&answer.body);
    let code = refusal::element(&body, "Code").unwrap_or_default();
    let message = refusal::element(&body, "Message").unwrap_or_default();
    let (kind, cure) = match (code.as_str(), answer.status.as_u16()) {
        ("NoSuchBucket", _) => (
            Kind::Config,
            "check `bucket` and `region` of `[provider.oss]`",
        ),
        (SKEWED, _) => (Kind::Environment, "set this machine's clock"),
        (_, 401 | 403) => (
            Kind::Credentials,
            "grant the RAM user oss:ListObjects and oss:GetObject on the bucket of `[provider.oss]`",
        ),
        _ => (Kind::Protocol, "check `[provider.oss]`"),
    };
    let (code, message) = (one_line(&code), one_line(&message));
    let (origin, status) = (&answer.origin, answer.status.as_u16());
    Error::new(
        kind,
        format!("{origin} refuses to list the bucket: {status} {code} {message}; {cure}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_what_is_below_it() {
        let page = Page::read(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult>\n  <Name>b</Name><Prefix>m/i/b/d-1</Prefix>\n  <EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>\n\
             <Contents><Key>m/i/b/d-1/</Key><Size>0</Size></Contents>\
             <Contents><Key>m/i/b/d-1/sp%20ace%2Bplus.tar</Key><LastModified>2026-03-28T08:00:00.000Z</LastModified><ETag>\"E\"</ETag><Size>5</Size></Contents>\
             <Contents><Key>m/i/b/d-10/other.tar</Key><Size>6</Size></Contents>\
             <Contents><Key>m/i/b/d-1//deep/x</Key><Size>7</Size></Contents>\
             <KeyCount>4</KeyCount></ListBucketResult>",
        )
        .unwrap();
        let found: Vec<(String, u64)> = page
            .objects("m/i/b/d-1")
            .into_iter()
            .map(|object| (object.path, object.size))
            .collect();
        assert_eq!(
            found,
            [("sp ace+plus.tar".to_owned(), 5), ("deep/x".to_owned(), 7)]
        );
        let empty = Page::read("<ListBucketResult></ListBucketResult>").unwrap();
        assert!(empty.objects("m").is_empty());
        for other in ["no list", "<html><p>Log in</p></html>", ""] {
            assert!(Page::read(other).is_none(), "{other}");
        }
    }
}
