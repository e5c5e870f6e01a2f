//! The durable memory of tasks and artifacts (SQLite, write-ahead log). No secret, and no link but
//! the one that an artifact ends with.
//!
//! It owns `ledger.sqlite3` in the state directory and a mirror of it in memory, from which
//! everything but a decision to spend is answered. Several processes may share the file: a writer
//! says which revision of a row it saw and is told when another one has changed it since. Every
//! commit is copied into the main file at once, so that a lost log loses nothing.
//!
//! A file that is damaged, or that cannot be understood, is never taken for an empty one: the
//! ledger then knows what could still be read, keeps what it learns in memory, and refuses every
//! intent. Lock order: `db`, then `mirror`.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod link;
mod mirror;
mod open;
mod owner;
mod place;
mod record;
mod repair;
mod schema;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::{Error, Kind, Result};
use crate::model::{ArtifactKey, Link, LinkMode, Task, TaskKey, TaskState, Validator};
use crate::tasks::policy;
use mirror::Mirror;
use owner::Owner;

pub(crate) use record::word;
pub use record::{ArtifactRecord, Intent, Record};
pub use repair::Repaired;

/// The open ledger. Cheap to clone; reads come from memory, writes leave the caller's thread.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    db: Mutex<Store>,
    mirror: Mutex<Mirror>,
    /// Why no intent can be written, if so.
    closed: Option<String>,
    owners: PathBuf,
    /// The name under which this process writes intents; empty when it cannot.
    owner: String,
}

/// A task that was ready sooner tells nothing of how long tasks take: it was found so.
const TELLING: SignedDuration = SignedDuration::from_secs(1);

/// What the `db` lock guards. Fields are dropped in this order: the database before the lock that
/// tells the others that we live.
#[derive(Debug)]
struct Store {
    db: Option<Connection>,
    _owner: Option<Owner>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The ledger holds it.
    Done(Record),
    /// Another process changed the row first; nothing was written.
    Changed,
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intention {
    /// It is durable: the request may be sent.
    Open(Record),
    /// Another process changed the row first, or holds an intent of its own.
    Changed,
    /// So many creates were sent in the last day already.
    LimitReached,
}

impl Ledger {
    /// Why no new task can be recorded, and the cure; `None` for a ledger in order.
    pub fn closed(&self) -> Option<&str> {
        self.shared.closed.as_deref()
    }

    /// What is remembered of an artifact; from memory.
    pub fn artifact(&self, key: &ArtifactKey) -> Option<ArtifactRecord> {
        self.mirror().artifacts.get(key).cloned()
    }

    /// Remembers an artifact durably.
    ///
    /// `Ledger` when the disk does not take it; it is remembered in memory even then.
    pub async fn remember_artifact(&self, key: &ArtifactKey, record: ArtifactRecord) -> Result<()> {
        {
            let mut mirror = self.mirror();
            if mirror.artifacts.get(key) == Some(&record) {
                return Ok(());
            }
            mirror.artifacts.insert(key.clone(), record.clone());
        }
        let key = key.clone();
        self.access(move |db| record::put_artifact(db, &key, &record))
            .await
            .map(drop)
    }

    /// Notes that the bytes of this version of an artifact have the published digest.
    ///
    /// `Ledger` as for [`Ledger::remember_artifact`].
    pub async fn verified_artifact(&self, key: &ArtifactKey, of: &Validator) -> Result<()> {
        let known = self.artifact(key).filter(|record| record.validator == *of);
        match known {
            Some(record) => {
                let verified = ArtifactRecord {
                    verified: true,
                    ..record
                };
                self.remember_artifact(key, verified).await
            }
            None => Ok(()),
        }
    }

    /// Forgets an artifact whose version turned out to be gone.
    pub async fn forget_artifact(&self, key: &ArtifactKey) -> Result<()> {
        self.mirror().artifacts.remove(key);
        let key = key.clone();
        self.access(move |db| record::delete_artifact(db, &key))
            .await
            .map(drop)
    }

    /// What is remembered of a task; from memory.
    pub fn task(&self, key: &TaskKey) -> Option<Record> {
        self.mirror().tasks.get(key).cloned()
    }

    /// Every task; from memory, ordered by key.
    pub fn tasks(&self) -> Vec<(TaskKey, Record)> {
        let mut all: Vec<_> = self
            .mirror()
            .tasks
            .iter()
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// How long the tasks of an instance that are ready took to be so; from memory.
    pub(crate) fn task_times(&self, provider: &str, instance: &str) -> Vec<SignedDuration> {
        let mirror = self.mirror();
        let ready = mirror.tasks.iter().filter(|(key, record)| {
            let task = record.task.as_ref();
            (&*key.provider, &*key.instance) == (provider, instance)
                && task.is_some_and(|task| task.state == TaskState::Ready)
        });
        let times = ready.map(|(_, record)| record.changed.duration_since(record.since));
        times.filter(|time| *time > TELLING).collect()
    }

    /// Creates that were carried out, in this ledger's whole life.
    pub fn created_total(&self) -> u64 {
        self.mirror().created
    }

    /// Whether a live process other than this one is between `intent` and its answer.
    pub(crate) fn is_held(&self, intent: &Intent) -> bool {
        intent.owner != self.shared.owner && owner::is_alive(&self.shared.owners, &intent.owner)
    }

    /// Creates sent in the [`policy::DAY`] before `now`; 0 where that cannot be read, because
    /// [`Ledger::intend`] has the last word.
    pub(crate) async fn created_in_day(&self, now: Timestamp) -> u32 {
        let start = record::before(now, policy::DAY);
        let read = self
            .access(move |db| record::creates_since(db, start))
            .await;
        read.ok().flatten().unwrap_or(0)
    }

    /// What the file holds of a task now, whoever wrote it; what memory holds where it cannot be
    /// read.
    pub(crate) async fn reload(&self, key: &TaskKey) -> Option<Record> {
        let wanted = key.clone();
        match self.access(move |db| record::task(db, &wanted)).await {
            Ok(Some(Some(record))) => self.mirror().learn(key, record),
            Ok(_) => {}
            Err(error) => tracing::warn!("{error}"),
        }
        self.task(key)
    }

    /// Makes an intent to create `key`'s task durable, unless the row is no longer at `revision`
    /// (0 for no row), another live process has one open, or `limit` (0 for none) creates were
    /// sent in the last day. A create of unknown outcome is disproved by a new intent.
    ///
    /// `Ledger` when it cannot be made durable: then nothing may be created.
    pub(crate) async fn intend(
        &self,
        key: &TaskKey,
        revision: u64,
        limit: u32,
        now: Timestamp,
    ) -> Result<Intention> {
        let now = record::rounded(now);
        let (ledger, row) = (self.clone(), key.clone());
        let intention = self
            .change(move |db| {
                let old = record::task(db, &row)?;
                if ledger.is_taken(old.as_ref(), revision) {
                    return Ok(Intention::Changed);
                }
                record::uncount_create(db, &row)?;
                if limit > 0
                    && record::creates_since(db, record::before(now, policy::DAY))? >= limit
                {
                    return Ok(Intention::LimitReached);
                }
                record::count_create(db, &row, now)?;
                let mut new = old.unwrap_or_else(|| Record::new(now));
                new.since = now;
                new.revision += 1;
                new.intent = Some(Intent {
                    owner: ledger.shared.owner.clone(),
                    at: now,
                });
                record::put_task(db, &row, &new)?;
                Ok(Intention::Open(new))
            })
            .await?;
        if let Intention::Open(record) = &intention {
            self.mirror().learn(key, record.clone());
        }
        Ok(intention)
    }

    /// Records the answer to the create whose intent is open, whatever the row has become since.
    /// Where the disk does not take it memory does: the open intent on disk tells the rest.
    pub(crate) async fn answer(&self, key: &TaskKey, task: &Task, now: Timestamp) -> Record {
        let (row, answer) = (key.clone(), task.clone());
        let written = self
            .change(move |db| {
                let old = record::task(db, &row)?;
                let new = Record::following(old.as_ref(), answer, record::rounded(now));
                record::put_task(db, &row, &new)?;
                record::answer_create(db, &row)?;
                Ok((new, record::creates_total(db)?))
            })
            .await;
        match written {
            Ok((record, created)) => {
                let mut mirror = self.mirror();
                mirror.created = created;
                mirror.learn(key, record.clone());
                record
            }
            Err(error) => {
                tracing::error!(task = %key, "the new download task cannot be recorded: {error}");
                self.mirror().created += 1;
                self.keep_in_memory(key, task, now)
            }
        }
    }

    /// Takes back the intent: its request was surely not carried out.
    pub(crate) async fn withdraw(&self, key: &TaskKey) {
        let row = key.clone();
        let written = self
            .change(move |db| {
                record::uncount_create(db, &row)?;
                let Some(mut record) = record::task(db, &row)? else {
                    return Ok(None);
                };
                record.intent = None;
                record.revision += 1;
                record::put_task(db, &row, &record)?;
                Ok(Some(record))
            })
            .await;
        match written {
            Ok(Some(record)) => self.mirror().learn(key, record),
            Ok(None) => {}
            Err(error) => tracing::error!(task = %key, "an intent cannot be taken back: {error}"),
        }
    }

    /// Records what the provider says of a task, unless the row is no longer at `revision`. Closes
    /// an open intent: `task` is what became of it.
    pub(crate) async fn keep(
        &self,
        key: &TaskKey,
        revision: u64,
        task: &Task,
        now: Timestamp,
    ) -> Write {
        if let Some(record) = self.mirror().refresh(key, revision, task, now) {
            return Write::Done(record);
        }
        let (row, kept) = (key.clone(), task.clone());
        let written = self
            .change(move |db| {
                let old = record::task(db, &row)?;
                if revision_of(old.as_ref()) != revision {
                    return Ok(None);
                }
                let new = Record::following(old.as_ref(), kept, record::rounded(now));
                record::put_task(db, &row, &new)?;
                if old.is_some_and(|old| old.intent.is_some()) {
                    record::answer_create(db, &row)?;
                }
                Ok(Some((new, record::creates_total(db)?)))
            })
            .await;
        match written {
            Ok(Some((record, created))) => {
                let mut mirror = self.mirror();
                mirror.created = created;
                mirror.learn(key, record.clone());
                Write::Done(record)
            }
            Ok(None) => Write::Changed,
            Err(error) => {
                if self.shared.closed.is_none() {
                    tracing::warn!(task = %key, "a task's state cannot be recorded: {error}");
                }
                Write::Done(self.keep_in_memory(key, task, now))
            }
        }
    }

    /// The artifact of `task_id` ends with `link`, which is kept until then.
    pub(crate) async fn remember_link(
        &self,
        key: &TaskKey,
        task_id: &str,
        link: &Link,
        now: Timestamp,
    ) {
        let Some(end) = link.expires.map(record::rounded) else {
            return;
        };
        if link.headers.is_empty() && link.mode == LinkMode::Ranged {
            let (row, id, link) = (key.clone(), task_id.to_owned(), link.clone());
            let kept = self.change(move |db| {
                link::drop_ended(db, now)?;
                link::put(db, &row, &id, &link, end)
            });
            if let Err(error) = kept.await {
                tracing::warn!(task = %key, "the link will have to be asked for again: {error}");
            }
        }
        let id = task_id.to_owned();
        let ending = move |old: Option<Record>| {
            let mut new = old?;
            let task = new.task.as_mut()?;
            if task.id != id || task.state != TaskState::Ready || task.expires == Some(end) {
                return None;
            }
            task.expires = Some(end);
            Some(new)
        };
        self.amend(key, ending).await;
    }

    /// The link that the artifact of `task_id` ends with, unless it has ended at `now`.
    pub(crate) async fn link(&self, key: &TaskKey, task_id: &str, now: Timestamp) -> Option<Link> {
        let (row, id) = (key.clone(), task_id.to_owned());
        let found = self.access(move |db| link::get(db, &row, &id)).await;
        let link = found.ok().flatten().flatten();
        link.filter(|link| link.expires.is_some_and(|end| end > now))
    }

    /// A reader found the artifact of `task_id` gone.
    pub(crate) async fn report_gone(&self, key: &TaskKey, task_id: &str, now: Timestamp) {
        let id = task_id.to_owned();
        let gone = move |old: Option<Record>| {
            let mut new = old?;
            let task = new.task.as_mut()?;
            if task.id != id || task.state == TaskState::Expired {
                return None;
            }
            task.state = TaskState::Expired;
            new.changed = record::rounded(now);
            new.reports = new.reports.saturating_add(1);
            Some(new)
        };
        self.amend(key, gone).await;
    }

    /// Changes a row as `amended` says, whatever it has become since it was seen last; in memory
    /// alone where the disk does not take it.
    async fn amend(
        &self,
        key: &TaskKey,
        amended: impl Fn(Option<Record>) -> Option<Record> + Clone + Send + 'static,
    ) {
        let row = key.clone();
        let on_disk = amended.clone();
        let written = self
            .change(move |db| {
                let Some(mut new) = on_disk(record::task(db, &row)?) else {
                    return Ok(None);
                };
                new.revision += 1;
                record::put_task(db, &row, &new)?;
                Ok(Some(new))
            })
            .await;
        match written {
            Ok(Some(record)) => self.mirror().learn(key, record),
            Ok(None) => {}
            Err(_) => {
                if let Some(record) = amended(self.task(key)) {
                    self.mirror().tasks.insert(key.clone(), record);
                }
            }
        }
    }

    /// Whether the row is not what the writer saw, or in another's hands.
    fn is_taken(&self, row: Option<&Record>, revision: u64) -> bool {
        revision_of(row) != revision
            || row
                .and_then(|row| row.intent.as_ref())
                .is_some_and(|intent| self.is_held(intent))
    }

    /// The mirror alone learns of `task`. The revision stays that of the file, so that a later
    /// write finds the row it expects.
    fn keep_in_memory(&self, key: &TaskKey, task: &Task, now: Timestamp) -> Record {
        let mut mirror = self.mirror();
        let old = mirror.tasks.get(key);
        let mut record = Record::following(old, task.clone(), now);
        record.revision = revision_of(old);
        mirror.tasks.insert(key.clone(), record.clone());
        record
    }

    /// Changes the file in one transaction, durable when this returns. `Ledger` if that fails or
    /// the ledger is closed.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let closed = || {
            let why = self.shared.closed.as_deref();
            Error::new(Kind::Ledger, why.unwrap_or("the task ledger is closed"))
        };
        self.access(work).await?.ok_or_else(closed)
    }

    /// Works on the file in one transaction, on a thread that may block; `None` without a file.
    async fn access<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || {
            let mut store = lock(&shared.db);
            let Some(db) = store.db.as_mut() else {
                return Ok(None);
            };
            let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answer = work(&step)?;
            step.commit()?;
            Ok(Some(answer))
        });
        match done.await {
            Ok(answer) => answer.map_err(|error: rusqlite::Error| {
                Error::new(Kind::Ledger, format!("the task ledger failed: {error}"))
            }),
            Err(_) => Err(Error::new(
                Kind::Stopping,
                "the task ledger was closed while it was written",
            )),
        }
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        lock(&self.shared.mirror)
    }
}

fn revision_of(record: Option<&Record>) -> u64 {
    record.map_or(0, |record| record.revision)
}

/// The data stays consistent through a panic: every change of it is a single assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
