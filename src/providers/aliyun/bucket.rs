//! The account's own bucket that download tasks write into: what lies there, and links to it.
//!
//! Each shard of a backup has a folder of its own, whose name follows from theirs, so that what a
//! task wrote is found again without the task. Whether that is one archive or a tree is not
//! documented; both are served.

use jiff::Timestamp;

use crate::clock::SharedClock;
use crate::config::{OssConfig, ProviderConfig};
use crate::error::Result;
use crate::model::{Link, ShardRef};
use crate::providers::http::Budget;
use crate::providers::objects::{self, Flavour, Keys, Named};

/// The bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    store: objects::Bucket,
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
        let flavour = Flavour::Oss(Named {
            bucket: config.bucket.clone(),
            region: config.region.clone(),
        });
        let base = config.endpoint.clone();
        Ok(Bucket {
            store: objects::Bucket::new(common, base, keys, flavour, clock)?,
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
        self.store.budget()
    }

    /// Everything in the folder of `of`, by path.
    pub(super) async fn objects(&self, of: &ShardRef, budget: &mut Budget) -> Result<Vec<Object>> {
        let folder = format!("{}/", self.folder(of));
        let listed = self.store.objects(&folder, budget).await?;
        let below = listed.into_iter();
        let mut objects: Vec<Object> = below
            .filter_map(|object| below_folder(object, &folder))
            .collect();
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    /// A link to the object at `key`. Asks nobody.
    pub(super) fn link(&self, key: &str) -> Result<Link> {
        self.store.link(key)
    }
}

/// `object` as it lies in `folder`; markers of folders are no objects.
fn below_folder(object: objects::Object, folder: &str) -> Option<Object> {
    let path = object.key.strip_prefix(folder)?;
    let path = path.trim_start_matches('/').to_owned();
    (!path.is_empty() && !path.ends_with('/')).then_some(Object {
        path,
        key: object.key,
        size: object.size,
        modified: object.modified,
        etag: object.etag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_what_is_below_it() {
        let path = |key: &str| {
            let object = objects::Object {
                key: key.to_owned(),
                size: 5,
                modified: None,
                etag: None,
            };
            below_folder(object, "m/i/b/d-1/").map(|object| object.path)
        };
        assert_eq!(path("m/i/b/d-1/a b+c.tar").as_deref(), Some("a b+c.tar"));
        assert_eq!(path("m/i/b/d-1//deep/x").as_deref(), Some("deep/x"));
        for other in ["m/i/b/d-1/", "m/i/b/d-1/deep/", "m/i/b/d-10/other.tar"] {
            assert_eq!(path(other), None, "{other}");
        }
    }
}
