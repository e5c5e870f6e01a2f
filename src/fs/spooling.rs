//! Opening files behind links that work once only: they are spooled, each once for all its readers.
//!
//! [`Downloads`] is where a spool gets its jobs: from the task engine, as the policy allows to whoever
//! opened the file first.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::live::LiveLinks;
use super::open::{Account, Opener, Pinned};
use crate::error::{Error, Kind, Result};
use crate::model::{ArtifactKey, Origin};
use crate::reader::spool::{Job, Jobs, Opening, Order, Version};
use crate::tasks::ledger::{ArtifactRecord, Ledger};
use crate::tasks::policy::Spender;
use crate::tasks::{Engine, Wait};
use crate::tree::FileNode;

impl Opener {
    /// The version that a spool under way brings, whatever became of its task meanwhile: it costs
    /// nothing to read along.
    pub(super) async fn spooled(&self, key: &ArtifactKey, wait: Wait) -> Option<Result<Pinned>> {
        let spooling = self.spools.under_way(key)?;
        Some(match (spooling.opening(), wait) {
            (Some(opening), _) => Ok(pinned(opening)),
            (None, Wait::UntilReady) => spooling.opened().await.map(pinned),
            (None, Wait::UntilStarted | Wait::No) => Err(not_ready(spooling.bytes())),
        })
    }

    /// Fails where it is known that a download could not be kept: before it is paid for.
    pub(super) fn worth_spooling(&self, key: &ArtifactKey) -> Result<()> {
        let begun = begun(&self.ledger, key);
        let validator = begun.as_ref().map(|version| &version.validator);
        self.spools.worth_it(key, validator, &self.readers)
    }

    /// Joins or starts the spool of a file, `job` being ready, and waits until the file can be
    /// opened.
    pub(super) async fn spool(
        &self,
        account: &Account,
        node: &FileNode,
        key: &ArtifactKey,
        job: Job,
        spender: Spender,
        wait: Wait,
    ) -> Result<Pinned> {
        let downloads = Downloads {
            engine: self.engine.clone(),
            ledger: self.ledger.clone(),
            links: Arc::clone(&self.links),
            account: account.clone(),
            node: node.clone(),
            key: key.clone(),
            spender,
            first: Mutex::new(Some(job)),
        };
        let order = Order {
            key: key.clone(),
            fetcher: account.fetcher.clone(),
            begun: begun(&self.ledger, key),
            jobs: Arc::new(downloads),
        };
        let spooling = self.spools.join(order, &self.readers)?;
        match wait {
            Wait::UntilReady => Ok(pinned(spooling.opened().await?)),
            Wait::UntilStarted | Wait::No => match spooling.opening() {
                Some(opening) => Ok(pinned(opening)),
                None => Err(not_ready(spooling.bytes())),
            },
        }
    }
}

fn pinned(opening: Opening) -> Pinned {
    Pinned {
        links: Arc::clone(opening.artifact.links()),
        validator: opening.validator,
        task_id: opening.task_id,
        artifact: Some(opening.artifact),
    }
}

fn not_ready(bytes: u64) -> Error {
    Error::new(
        Kind::NotReady,
        format!(
            "the file is being downloaded by a link that works only once ({bytes} bytes so far): not \
             waited for; it goes on, open the file again later"
        ),
    )
}

/// What an earlier download of the file brought, or at least learnt.
fn begun(ledger: &Ledger, key: &ArtifactKey) -> Option<Version> {
    let record = ledger.artifact(key)?;
    record.validator.download.is_some().then_some(Version {
        validator: record.validator,
        task_id: record.task_id,
        source_name: record.source_name,
        digest: record.digest,
    })
}

/// The jobs of one file.
#[derive(Debug)]
struct Downloads {
    engine: Engine,
    ledger: Ledger,
    links: Arc<LiveLinks>,
    account: Account,
    node: FileNode,
    key: ArtifactKey,
    spender: Spender,
    /// The one that was ready when the spool was started.
    first: Mutex<Option<Job>>,
}

impl Downloads {
    /// The job that the engine has ready.
    async fn next(&self) -> Result<Job> {
        let Account {
            provider,
            poll_interval,
            ..
        } = &self.account;
        let task = match self.node.file.origin {
            Origin::Object => None,
            Origin::Task => Some(
                self.engine
                    .ready(
                        provider,
                        *poll_interval,
                        &self.node.shard,
                        &self.spender,
                        Wait::UntilReady,
                    )
                    .await?,
            ),
        };
        let task_id = task
            .as_ref()
            .map_or_else(String::new, |task| task.id.clone());
        let (links, _) = self.links.of(provider, &self.node, &self.key, task);
        Ok(Job { task_id, links })
    }
}

#[async_trait]
impl Jobs for Downloads {
    async fn ready(&self) -> Result<Job> {
        let first = {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.take()
        };
        let job = match first {
            Some(job) => job,
            None => self.next().await?,
        };
        let read_before = begun(&self.ledger, &self.key);
        if read_before.is_some_and(|version| version.task_id == job.task_id) {
            // Then a refusal means that it is used up, not that it never worked from here.
            let lease = job.links.lease().await?;
            job.links.worked(&lease);
        }
        Ok(job)
    }

    async fn used_up(&self, task_id: &str) {
        if self.node.file.origin == Origin::Task {
            self.engine.report_expired(&self.key.task, task_id).await;
        }
    }

    async fn remember(&self, version: Version) {
        let record = ArtifactRecord {
            validator: version.validator,
            task_id: version.task_id,
            source_name: version.source_name,
            digest: version.digest,
            verified: false,
        };
        if let Err(error) = self.ledger.remember_artifact(&self.key, record).await {
            tracing::warn!(%error, "what is being downloaded will not be known after a restart");
        }
    }
}
