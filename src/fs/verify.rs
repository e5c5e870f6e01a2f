//! What follows from comparing a file with the digest of its store: once it is right that is
//! remembered, and what is wrong is thrown away. Owns no state; the check itself is [`digest`].

use std::future::Future;
use std::sync::Arc;

use super::digest::{self, Check, Verdict};
use super::handles::OpenArtifact;
use super::open::{Account, Opener, blocking, content_key};
use crate::error::{Kind, Result};
use crate::names;
use crate::reader::ArtifactSpec;

/// Bytes read at a time to check a file that is complete.
const PIECE: u32 = 4 << 20;

impl Opener {
    /// Whether a file that is complete in the cache has the digest that its store publishes, found
    /// out once for all who open it. One that has not is forgotten; where it cannot be told, the
    /// file is checked as it is read.
    pub(super) async fn is_right(&self, account: &Account, open: &OpenArtifact) -> Result<bool> {
        let Some(promised) = open.digest.as_ref().map(Check::promised) else {
            return Ok(true);
        };
        let content = content_key(&open.key, &open.validator, &open.task_id);
        let (readers, size) = (self.readers.clone(), open.validator.size);
        let spec = ArtifactSpec {
            key: content.clone(),
            validator: open.validator.clone(),
            links: Arc::clone(open.reader.artifact().links()),
            fetcher: account.fetcher.clone(),
        };
        let work = || async move {
            let reader = blocking(move || readers.open(spec)).await?;
            let check = Check::new(promised, size);
            let mut at = 0;
            while at < size {
                let bytes = reader.read(at, PIECE).await?;
                match check.take(at, &bytes) {
                    Verdict::Open => at += bytes.len() as u64,
                    verdict => return Ok(verdict),
                }
            }
            Ok(Verdict::Open)
        };
        match self.checks.join(content, work).await {
            Ok(Verdict::Right) => {
                self.note_verified(open);
                Ok(true)
            }
            Ok(Verdict::Wrong) => {
                tracing::warn!(
                    file = %names::display(&open.key.file),
                    "what was cached is not what the store says: it is fetched again"
                );
                self.discard(open).await;
                Ok(false)
            }
            Ok(Verdict::Open) => Ok(false),
            Err(error) if error.kind() == Kind::Stopping => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// The bytes of this version are not what the store says: nobody is served them any more, and
    /// the next open fetches them anew.
    pub(super) fn discard(&self, open: &OpenArtifact) -> impl Future<Output = ()> + use<> {
        self.activity.digest_mismatches.add(1);
        open.reader.artifact().condemn(digest::damaged());
        self.forgetting(open)
    }

    /// What was read of this version is what the store says.
    pub(super) fn note_verified(&self, open: &OpenArtifact) {
        self.activity.digests_verified.add(1);
        let (ledger, key) = (self.ledger.clone(), open.key.clone());
        let validator = open.validator.clone();
        self.runtime.spawn(async move {
            if let Err(error) = ledger.verified_artifact(&key, &validator).await {
                tracing::warn!(%error, "a digest will have to be checked again");
            }
        });
    }

    /// This version is no more: the next open of its file learns anew, and its blocks make room.
    pub(super) async fn forget(&self, artifact: &OpenArtifact) {
        self.forgetting(artifact).await;
    }

    /// Forgets a version, also when nobody waits for the end of it.
    fn forgetting(&self, artifact: &OpenArtifact) -> impl Future<Output = ()> + use<> {
        let (ledger, cache) = (self.ledger.clone(), self.cache.clone());
        let (key, validator) = (artifact.key.clone(), artifact.validator.clone());
        let content = content_key(&key, &validator, &artifact.task_id);
        let work = self.runtime.spawn(async move {
            let known = ledger.artifact(&key);
            if known.is_some_and(|record| record.validator == validator)
                && let Err(error) = ledger.forget_artifact(&key).await
            {
                tracing::warn!(%error, "a replaced artifact could not be forgotten");
            }
            let _done = blocking(move || cache.forget(&content, &validator)).await;
        });
        async move {
            let _done = work.await;
        }
    }
}
