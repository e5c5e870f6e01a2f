//! From a file of the tree to a pinned version that can be read.
//!
//! What the ledger knows and the cache holds whole is opened without asking anybody. Otherwise the
//! download task comes first, then its version: the one that others have open, or the one that a
//! probe learns, once for all who open the file at the same time.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;

use super::Caller;
use super::digest::{self, Check, Verdict};
use super::flight::Flights;
use super::handles::OpenArtifact;
use super::live::{LinkKey, LiveLinks, Proven};
use super::spender::spender;
use crate::cache::Cache;
use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use crate::fetch::Fetcher;
use crate::links::Links;
use crate::model::{ArtifactKey, LinkMode, Origin, Size, Task, TaskState, Validator};
use crate::observe::metrics::Activity;
use crate::providers::{Exchange, Provider};
use crate::reader::spool::{Job, Spools};
use crate::reader::{self, Artifact, ArtifactSpec, Readers};
use crate::tasks::ledger::{ArtifactRecord, Ledger};
use crate::tasks::{Engine, Wait};
use crate::tree::FileNode;

/// How often one open starts over because the provider's artifact is gone although its task was
/// said to be ready: the engine believes the provider once against a first such report.
const ROUNDS: usize = 3;

/// One configured account.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) provider: Arc<dyn Provider>,
    /// The same, where another may step in its place.
    pub(super) exchange: Arc<Exchange>,
    pub(super) fetcher: Fetcher,
    /// First task poll; backs off.
    pub(super) poll_interval: Duration,
}

/// One version of an artifact and the way to it.
#[derive(Debug, Clone)]
pub(super) struct Pinned {
    pub(super) validator: Validator,
    pub(super) task_id: String,
    pub(super) links: Arc<Links>,
    /// Its bytes, where they come by one stream only.
    pub(super) artifact: Option<Arc<Artifact>>,
}

impl Pinned {
    /// How its readers open it.
    fn spec(&self, key: &ArtifactKey, fetcher: &Fetcher) -> ArtifactSpec {
        ArtifactSpec {
            key: content_key(key, &self.validator, &self.task_id),
            validator: self.validator.clone(),
            links: Arc::clone(&self.links),
            fetcher: fetcher.clone(),
        }
    }
}

/// What opening needs.
pub(super) struct Opener {
    pub(super) accounts: HashMap<Arc<str>, Account>,
    pub(super) engine: Engine,
    pub(super) ledger: Ledger,
    pub(super) cache: Cache,
    pub(super) readers: Readers,
    pub(super) activity: Arc<Activity>,
    pub(super) clock: SharedClock,
    pub(super) links: Arc<LiveLinks>,
    pub(super) spools: Spools,
    probes: Flights<LinkKey, Validator>,
    /// Checks of complete files.
    pub(super) checks: Flights<ArtifactKey, Verdict>,
    /// Carries on what a read found out; reads come on threads of their own too.
    pub(super) runtime: Handle,
}

impl Opener {
    pub(super) fn new(
        accounts: HashMap<Arc<str>, Account>,
        engine: Engine,
        ledger: Ledger,
        cache: Cache,
        readers: Readers,
        activity: Arc<Activity>,
        clock: SharedClock,
    ) -> Self {
        Opener {
            accounts,
            links: Arc::new(LiveLinks::new(
                engine.clone(),
                Arc::clone(&activity),
                Arc::clone(&clock),
            )),
            spools: Spools::default(),
            engine,
            ledger,
            cache,
            readers,
            activity,
            clock,
            probes: Flights::default(),
            checks: Flights::default(),
            runtime: Handle::current(),
        }
    }

    /// Opens `node` for `caller`.
    pub(super) async fn open(
        &self,
        ino: u64,
        node: &FileNode,
        wait: Wait,
        caller: &Caller,
    ) -> Result<OpenArtifact> {
        if let Some(reason) = &node.shard.backup.not_downloadable {
            return Err(Error::new(
                Kind::Unsupported,
                format!("this backup cannot be downloaded: {reason}"),
            ));
        }
        let account = self.accounts.get(&node.shard.provider).ok_or_else(|| {
            let words = format!("no account `{}` is configured", node.shard.provider);
            Error::new(Kind::Internal, words)
        })?;
        let key = artifact_key(node);
        if let Some(pinned) = self.held(account, node, &key).await {
            let open = self.opened(account, ino, &key, pinned, true).await?;
            if self.is_right(account, &open).await? {
                return Ok(open.checked());
            }
        }
        let pinned = match self.spooled(&key, wait).await {
            Some(spooled) => spooled?,
            None => {
                self.worth_spooling(&key)?;
                self.pin(account, node, &key, wait, caller).await?
            }
        };
        self.opened(account, ino, &key, pinned, false).await
    }

    /// A handle of the pinned version, which is `complete` in the cache or not.
    async fn opened(
        &self,
        account: &Account,
        ino: u64,
        key: &ArtifactKey,
        pinned: Pinned,
        complete: bool,
    ) -> Result<OpenArtifact> {
        let reader = match &pinned.artifact {
            Some(artifact) => reader::Handle::new(Arc::clone(artifact)),
            None => {
                let spec = pinned.spec(key, &account.fetcher);
                let readers = self.readers.clone();
                blocking(move || readers.open(spec)).await?
            }
        };
        let record = self.ledger.artifact(key);
        let digest = record
            // Of a file that is not complete, bytes will come anew.
            .filter(|record| record.validator == pinned.validator && !(complete && record.verified))
            .and_then(|record| digest::promised(record.digest.as_deref()?))
            .filter(|_| pinned.validator.size > 0)
            .map(|promised| Check::new(promised, pinned.validator.size));
        Ok(OpenArtifact::new(
            ino,
            key.clone(),
            pinned.task_id,
            pinned.validator,
            reader,
            digest,
        ))
    }

    /// The remembered version, if every byte of it is in the cache.
    async fn held(&self, account: &Account, node: &FileNode, key: &ArtifactKey) -> Option<Pinned> {
        let record = self.ledger.artifact(key)?;
        let size = record.validator.size;
        let declared = super::attr::declared(&node.file);
        if matches!(declared, Size::Declared(n) | Size::Exact(n) if n != size) {
            return None;
        }
        // The listing tells of another version than the remembered one.
        if node.file.etag.is_some() && node.file.etag != record.validator.etag {
            return None;
        }
        let cached = self.cached_bytes(key, &record).await;
        (cached == size).then(|| {
            let task = (node.file.origin == Origin::Task).then(|| Task {
                id: record.task_id.clone(),
                state: TaskState::Ready,
                percent: None,
                expires: None,
                message: None,
            });
            Pinned {
                links: self.links.of(&account.provider, node, key, task).0,
                validator: record.validator,
                task_id: record.task_id,
                artifact: None,
            }
        })
    }

    /// The version that the provider has now, its task made ready first.
    async fn pin(
        &self,
        account: &Account,
        node: &FileNode,
        key: &ArtifactKey,
        wait: Wait,
        caller: &Caller,
    ) -> Result<Pinned> {
        let mut round = 1;
        loop {
            let task = match node.file.origin {
                Origin::Object => None,
                Origin::Task => {
                    let (provider, first_poll) = (&account.provider, account.poll_interval);
                    let spender = spender(caller);
                    let ready =
                        self.engine
                            .ready(provider, first_poll, &node.shard, &spender, wait);
                    Some(ready.await?)
                }
            };
            let task_id = task
                .as_ref()
                .map_or_else(String::new, |task| task.id.clone());
            let (links, proven) = self.links.of(&account.provider, node, key, task);
            let probed = match links.lease().await.map(|lease| lease.link.mode) {
                Ok(LinkMode::Once) => {
                    let job = Job { task_id, links };
                    let spender = spender(caller);
                    return self.spool(account, node, key, job, spender, wait).await;
                }
                Ok(LinkMode::Ranged) => self.probe(account, key, &task_id, &links, proven).await,
                Err(error) => Err(error),
            };
            match probed {
                Ok(validator) => {
                    return Ok(Pinned {
                        validator,
                        task_id,
                        links,
                        artifact: None,
                    });
                }
                Err(error)
                    if error.kind() == Kind::Expired
                        && node.file.origin == Origin::Task
                        && round < ROUNDS =>
                {
                    self.engine.report_expired(&key.task, &task_id).await;
                    round += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Learns the version behind `links` and has the ledger remember it; `proven` once it was seen
    /// there, it is only remembered.
    async fn probe(
        &self,
        account: &Account,
        key: &ArtifactKey,
        task_id: &str,
        links: &Arc<Links>,
        proven: Proven,
    ) -> Result<Validator> {
        let flight = (key.clone(), task_id.to_owned());
        let work = || {
            let fetcher = account.fetcher.clone();
            let (ledger, readers) = (self.ledger.clone(), self.readers.clone());
            let links = Arc::clone(links);
            let (key, task_id) = flight.clone();
            async move {
                if let Some(validator) = served(&ledger, &readers, &key, &task_id) {
                    if proven.load(Ordering::SeqCst) {
                        return Ok(validator);
                    }
                    let pinned = Pinned {
                        validator,
                        task_id: task_id.clone(),
                        links: Arc::clone(&links),
                        artifact: None,
                    };
                    let spec = pinned.spec(&key, &fetcher);
                    let remembered = blocking(move || readers.open(spec)).await?;
                    if still_served(&remembered).await? {
                        proven.store(true, Ordering::SeqCst);
                        return Ok(pinned.validator);
                    }
                }
                let probe = fetcher.probe(&links).await?;
                let size = probe.validator.size;
                if i64::try_from(size).is_err() {
                    return Err(Error::new(
                        Kind::Protocol,
                        format!("the store claims {size} bytes, more than a file can have"),
                    ));
                }
                let record = ArtifactRecord {
                    validator: probe.validator.clone(),
                    task_id,
                    source_name: probe.source_name,
                    digest: probe.digest,
                    verified: false,
                };
                if let Err(error) = ledger.remember_artifact(&key, record).await {
                    tracing::warn!(%error, "the artifact's size will have to be asked again");
                }
                proven.store(true, Ordering::SeqCst);
                Ok(probe.validator)
            }
        };
        self.probes.join(flight.clone(), work).await
    }

    /// Bytes of the remembered version that are cached.
    pub(super) async fn cached_bytes(&self, key: &ArtifactKey, record: &ArtifactRecord) -> u64 {
        let key = content_key(key, &record.validator, &record.task_id);
        if let Some(open) = self.readers.opened(&key, &record.validator) {
            return open.cached_bytes();
        }
        let cache = self.cache.clone();
        let validator = record.validator.clone();
        blocking(move || cache.cached_bytes(&key, &validator))
            .await
            .unwrap_or(0)
    }

    /// Tells the engine that the task of an open file has no artifact any more. Goes on when the
    /// reader that found out is gone.
    pub(super) async fn report_expired(&self, artifact: &OpenArtifact) {
        let (engine, key) = (self.engine.clone(), artifact.key.task.clone());
        let task_id = artifact.task_id.clone();
        let work = tokio::spawn(async move { engine.report_expired(&key, &task_id).await });
        let _done = work.await;
    }

    /// When the link of an open version expires, where known.
    pub(super) fn link_expiry(
        &self,
        key: &ArtifactKey,
        record: &ArtifactRecord,
    ) -> Option<jiff::Timestamp> {
        let key = content_key(key, &record.validator, &record.task_id);
        let open = self.readers.opened(&key, &record.validator)?;
        open.links().expires()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("accounts", &self.accounts.keys())
            .finish_non_exhaustive()
    }
}

/// The remembered version of this task, unless its readers found it gone.
fn served(
    ledger: &Ledger,
    readers: &Readers,
    key: &ArtifactKey,
    task_id: &str,
) -> Option<Validator> {
    let record = ledger.artifact(key)?;
    if record.validator.download.is_some() {
        // That link is gone; nothing can be asked of this version any more.
        return None;
    }
    let content = content_key(key, &record.validator, task_id);
    let open = readers.opened(&content, &record.validator);
    let gone = open.is_some_and(|open| open.broken().is_some());
    (record.task_id == task_id && !gone).then_some(record.validator)
}

/// Whether the store still has this version, learnt by asking for the first bytes a reader wants
/// of it, so that they are there after one round trip. `false` when that cannot tell.
async fn still_served(remembered: &reader::Handle) -> Result<bool> {
    match remembered.prove().await {
        Err(error) if matches!(error.kind(), Kind::Changed | Kind::Cache) => Ok(false),
        answer => answer,
    }
}

/// The artifact a file is made of.
pub(super) fn artifact_key(node: &FileNode) -> ArtifactKey {
    ArtifactKey {
        task: node.shard.key(),
        file: node.file.path.clone(),
    }
}

/// The name under which a version's blocks are kept. Where the store names no version, the task
/// stands for it: blocks of two downloads must not be mixed.
pub(super) fn content_key(key: &ArtifactKey, validator: &Validator, task_id: &str) -> ArtifactKey {
    let Validator {
        etag,
        last_modified,
        download,
        ..
    } = validator;
    let named = [etag, last_modified, download]
        .into_iter()
        .any(Option::is_some);
    if named || task_id.is_empty() {
        return key.clone();
    }
    ArtifactKey {
        task: key.task.clone(),
        file: format!("{}\0{task_id}", key.file),
    }
}

/// Runs disk work off the threads that serve the kernel.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        let why = if error.is_panic() {
            "opening the cache panicked"
        } else {
            "the mount is shutting down"
        };
        Error::new(Kind::Internal, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_unversioned_downloads_are_kept_apart() {
        let key = ArtifactKey {
            task: crate::model::TaskKey {
                provider: "p".into(),
                instance: "i".into(),
                backup: "b".into(),
                shard: "s".into(),
            },
            file: "f".into(),
        };
        let mut validator = Validator {
            etag: None,
            last_modified: None,
            size: 1,
            download: None,
        };
        let one = content_key(&key, &validator, "t1");
        assert_ne!(one, content_key(&key, &validator, "t2"));
        assert_eq!(content_key(&key, &validator, ""), key);
        validator.etag = Some("\"x\"".into());
        assert_eq!(content_key(&key, &validator, "t1"), key);
    }
}
