//! An object store, listed and signed for by OpenDAL.
//!
//! OpenDAL's services are used below its operator, which would tidy up paths: a key may hold `//`
//! or end with a blank, and must be asked for as it is.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use opendal::options::ListOptions;
use opendal::raw::oio::{List, ReadStream};
use opendal::raw::{OpList, OpPresign, OpRead, Service, Servicer};
use opendal::{EntryMode, Executor, HttpTransporter, OperationContext, Operator, services};

use super::requests::{Apis, Sender, address, uncarried};
use super::store::{Listed, Object};
use crate::clock::SharedClock;
use crate::config::{BucketConfig, BucketService, ProviderConfig};
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Link, LinkMode};
use crate::secret::{SafeUrl, Secret};

/// How long a link is good. Short, because it cannot outlive temporary keys.
const LINK_LIFE: Duration = Duration::from_secs(15 * 60);
/// OpenDAL signs links to Azure blobs for this long.
const AZURE_LINK_LIFE: Duration = Duration::from_secs(3600);
/// More objects than a listing has.
const MOST_OBJECTS: usize = 5_000_000;

/// The store.
pub(super) struct Remote {
    service: Servicer,
    apis: Arc<Apis>,
    clock: SharedClock,
    /// Whether requests are signed.
    is_private: bool,
    /// How long a link is good.
    link_life: Duration,
    /// Whether the versions that listings tell are those that come with the bytes.
    tells_etags: bool,
}

impl Remote {
    /// The store as configured; asks nothing yet. [`Kind::Config`] for options that OpenDAL refuses.
    pub(super) fn new(
        common: &ProviderConfig,
        config: &BucketConfig,
        clock: SharedClock,
    ) -> Result<Self> {
        let service = config.service;
        let built = operator(config).map_err(|error| {
            let words = one_line(error.message());
            Error::new(
                Kind::Config,
                format!("provider `{}`: key `options`: {words}", common.name),
            )
        })?;
        Ok(Remote {
            service: built.base_service().clone(),
            apis: Arc::new(Apis::new(common, service, Arc::clone(&clock))?),
            clock,
            is_private: config.option("skip_signature") != Some("true"),
            link_life: match service {
                BucketService::Azblob => AZURE_LINK_LIFE,
                _ => LINK_LIFE,
            },
            // Google's JSON listing tells other tags than its XML downloads.
            tells_etags: service != BucketService::Gcs,
        })
    }

    pub(super) fn service(&self) -> BucketService {
        self.apis.service
    }

    /// The time by the store's clock.
    pub(super) fn cloud_time(&self) -> Timestamp {
        self.apis.now()
    }

    /// What one operation sends its requests by.
    pub(super) fn sender(&self) -> Sender {
        Sender::new(Arc::clone(&self.apis))
    }

    fn context(&self, sender: &Sender) -> OperationContext {
        let transport = HttpTransporter::new(sender.clone());
        OperationContext::from_parts(transport, Executor::default())
    }

    /// Everything below `prefix`, or only what is directly there and the folders beside it.
    pub(super) async fn list(
        &self,
        prefix: &str,
        all_below: bool,
        sender: &Sender,
    ) -> Result<Listed> {
        let context = self.context(sender);
        let options = ListOptions {
            recursive: all_below,
            ..ListOptions::default()
        };
        let path = if prefix.is_empty() { "/" } else { prefix };
        let lister = self.service.list(&context, path, OpList::from(options));
        let mut lister = lister.map_err(|error| uncarried(&error))?;
        let mut listed = Listed::default();
        while let Some(entry) = lister.next().await.map_err(|error| uncarried(&error))? {
            let key = entry.path();
            // A folder may have an object of its own, which only marks it.
            let is_mark = key == prefix && key.ends_with('/');
            if is_mark || !key.starts_with(prefix) {
                continue;
            }
            let metadata = entry.metadata();
            match entry.mode() {
                EntryMode::DIR if !all_below => listed.folders.push(key.to_owned()),
                _ => listed.objects.push(Object {
                    key: key.to_owned(),
                    size: metadata.content_length(),
                    modified: metadata.last_modified().map(Into::into),
                    etag: metadata.etag().filter(|_| self.tells_etags).map(quoted),
                }),
            }
            if listed.objects.len() + listed.folders.len() > MOST_OBJECTS {
                let words = "the store lists more objects than fit into memory";
                return Err(Error::new(Kind::Unsupported, words));
            }
        }
        Ok(listed)
    }

    /// The object at `key`, which must be small.
    pub(super) async fn read(&self, key: &str, sender: &Sender) -> Result<Bytes> {
        use opendal::raw::oio::Read as _;

        let context = self.context(sender);
        let read = async {
            let reader = self.service.read(&context, key, OpRead::new())?;
            let (_, mut stream) = reader.open(opendal::BytesRange::default()).await?;
            stream.read_all().await
        };
        let read: opendal::Result<_> = read.await;
        Ok(read.map_err(|error| uncarried(&error))?.to_bytes())
    }

    /// A link that reads the object at `key`. Asks nobody, unless keys must be fetched first.
    pub(super) async fn link(&self, key: &str, sender: &Sender) -> Result<Link> {
        let expires = SignedDuration::try_from(self.link_life)
            .ok()
            .and_then(|life| self.clock.now().checked_add(life).ok())
            .filter(|_| self.is_private);
        let wanted = OpPresign::new(OpRead::new(), self.link_life);
        let context = self.context(sender);
        let signed = self.service.presign(&context, key, wanted).await;
        let signed = signed.map_err(|error| uncarried(&error))?;
        let request = signed.into_presigned_request();
        address(request.uri())?;
        let url = SafeUrl::parse(&request.uri().to_string())
            .map_err(|why| Error::new(Kind::Internal, format!("an own link {why}")))?;
        let headers = request.header().iter().filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((name.to_string(), Secret::new(value)))
        });
        Ok(Link {
            url,
            headers: headers.collect(),
            expires,
            mode: LinkMode::Ranged,
        })
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("service", &self.apis.service)
            .finish_non_exhaustive()
    }
}

/// The service with its options.
fn operator(config: &BucketConfig) -> opendal::Result<Operator> {
    let mut options: HashMap<String, String> = config
        .options
        .iter()
        .map(|(name, value)| (name.clone(), value.expose().to_owned()))
        .collect();
    match config.service {
        BucketService::S3 => Operator::from_iter::<services::S3>(options),
        BucketService::Cos => Operator::from_iter::<services::Cos>(options),
        BucketService::Oss => Operator::from_iter::<services::Oss>(options),
        BucketService::Gcs => {
            // A service account's key is a JSON document, which OpenDAL wants in base64.
            if let Some(credential) = options.get_mut("credential")
                && credential.trim_start().starts_with('{')
            {
                *credential = STANDARD.encode(&*credential);
            }
            Operator::from_iter::<services::Gcs>(options)
        }
        BucketService::Azblob => Operator::from_iter::<services::Azblob>(options),
        BucketService::Fs => Err(opendal::Error::new(
            opendal::ErrorKind::Unsupported,
            "a local directory is read directly",
        )),
    }
}

/// An entity tag as it comes with the bytes: some stores list it without its quotes.
fn quoted(etag: &str) -> String {
    match etag.ends_with('"') {
        true => etag.to_owned(),
        false => format!("\"{etag}\""),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::{Layout, ProviderKind};

    const KEY: &str = "c2VjcmV0IGtleQ==";

    fn remote(service: BucketService, options: &[(&str, &str)]) -> Remote {
        let options: BTreeMap<String, Secret> = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))
            .collect();
        let config = BucketConfig {
            service,
            layout: Layout::default(),
            options,
        };
        let common = ProviderConfig {
            name: "p".into(),
            allow_http: false,
            ca_file: None,
            poll_interval: Duration::from_secs(1),
            retry_budget: Duration::ZERO,
            kind: ProviderKind::Bucket(config.clone()),
        };
        Remote::new(&common, &config, Arc::new(SystemClock)).unwrap()
    }

    async fn link(remote: &Remote, key: &str) -> Result<Link> {
        remote.link(key, &remote.sender()).await
    }

    fn s3<'a>(more: &[(&'a str, &'a str)]) -> Remote {
        let base = [
            ("bucket", "pbm"),
            ("region", "eu-central-1"),
            ("endpoint", "https://store.example"),
            ("access_key_id", "AKID"),
            ("secret_access_key", KEY),
            ("disable_config_load", "true"),
        ];
        remote(BucketService::S3, &[&base, more].concat())
    }

    #[tokio::test]
    async fn keys_are_signed_for_as_they_are() {
        let store = s3(&[("root", "a/b"), ("session_token", "T0/+=")]);
        for (key, path) in [
            ("c/f.bson", "/pbm/a/b/c/f.bson"),
            ("c//f", "/pbm/a/b/c//f"),
            ("c/ f ", "/pbm/a/b/c/%20f%20"),
            ("c/+%?#&=.gz", "/pbm/a/b/c/%2B%25%3F%23%26%3D.gz"),
            ("目", "/pbm/a/b/%E7%9B%AE"),
        ] {
            let link = link(&store, key).await.unwrap();
            assert_eq!(link.url.url().path(), path);
            let query = link.url.url().query().unwrap().to_owned();
            assert!(query.contains("X-Amz-Expires=900"), "{query}");
            assert!(query.contains("X-Amz-SignedHeaders=host"), "{query}");
            assert!(
                query.contains("X-Amz-Security-Token=T0%2F%2B%3D"),
                "{query}"
            );
            assert!(link.headers.is_empty() && link.expires.is_some());
        }
        for key in ["c/../f", "./f"] {
            let error = link(&store, key).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{key}");
        }
        assert!(!format!("{store:?}").contains(KEY));
    }

    #[tokio::test]
    async fn options_shape_the_links() {
        let host = s3(&[("enable_virtual_host_style", "true")]);
        let virtual_host = link(&host, "k").await.unwrap();
        assert_eq!(virtual_host.url.to_string(), "https://pbm.store.example/…");
        let public = s3(&[("skip_signature", "true")]);
        let plain = link(&public, "k").await.unwrap();
        assert_eq!(plain.url.expose(), "https://store.example/pbm/k");
        assert_eq!(plain.expires, None);
    }

    #[tokio::test]
    async fn every_service_signs() {
        let cos = [
            ("bucket", "b-1"),
            ("endpoint", "https://cos.r.myqcloud.com"),
            ("secret_id", "I"),
            ("secret_key", KEY),
            ("disable_config_load", "true"),
        ];
        let oss = [
            ("bucket", "pbm"),
            ("endpoint", "https://oss-r.aliyuncs.com"),
            ("access_key_id", "I"),
            ("access_key_secret", KEY),
        ];
        let azure = [
            ("container", "pbm"),
            ("endpoint", "https://a.blob.core.windows.net"),
            ("account_name", "a"),
            ("account_key", KEY),
        ];
        let token = [
            ("container", "pbm"),
            ("endpoint", "https://a.blob.core.windows.net"),
            ("sas_token", "sv=2022-11-02&sp=rl&sig=x"),
        ];
        for (service, options, host, sign) in [
            (
                BucketService::Cos,
                &cos[..],
                "https://b-1.cos.r.myqcloud.com/…",
                "q-signature=",
            ),
            (
                BucketService::Oss,
                &oss,
                "https://pbm.oss-r.aliyuncs.com/…",
                "Signature=",
            ),
            (
                BucketService::Azblob,
                &azure,
                "https://a.blob.core.windows.net/…",
                "sig=",
            ),
            (
                BucketService::Azblob,
                &token,
                "https://a.blob.core.windows.net/…",
                "sig=x",
            ),
        ] {
            let store = remote(service, options);
            let link = link(&store, "c/f").await.unwrap();
            assert_eq!(link.url.to_string(), host);
            assert!(link.url.expose().contains(sign), "{service:?}");
        }
    }
}
