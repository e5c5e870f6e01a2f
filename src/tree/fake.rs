//! A provider in memory for tests of the tree and of the filesystem: says what it is told to say
//! and counts every call, those that cost money apart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::model::{
    Backup, Facts, Found, Instance, Link, LinkMode, Origin, RemoteFile, Shard, ShardRef, Size,
    Task, TaskState,
};
use crate::providers::Provider;
use crate::secret::SafeUrl;

/// The provider.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    state: Mutex<State>,
    pub(crate) lists: AtomicUsize,
    pub(crate) task_calls: AtomicUsize,
    pub(crate) creates: AtomicUsize,
    pub(crate) links: AtomicUsize,
}

/// What it says.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) instances: Vec<Instance>,
    pub(crate) backups: BTreeMap<String, Vec<Backup>>,
    pub(crate) files: Vec<RemoteFile>,
    /// Every listing fails like this.
    pub(crate) fails: Option<Kind>,
    /// Every listing takes this long.
    pub(crate) takes: Duration,
    /// The shards' only task, once created.
    pub(crate) task: Option<Task>,
    /// What a created task looks like.
    pub(crate) creates: Option<Task>,
    /// Where links lead.
    pub(crate) url: String,
    /// Links work once only.
    pub(crate) once: bool,
    /// The artifact of the task with this id is gone, whatever polls say.
    pub(crate) gone: Option<String>,
}

impl Fake {
    /// One instance `c0` with the backups `b1` (failed), `b2` and `b3` (both successful), each
    /// with the shard `rs0` and its one file.
    pub(crate) fn small() -> Arc<Self> {
        let fake = Fake::default();
        {
            let mut state = fake.state();
            state.instances = vec![instance("c0")];
            let mut failed = backup("b1", "2024-01-03T00:00:00Z");
            failed.successful = false;
            state.backups.insert(
                "c0".to_owned(),
                vec![
                    backup("b3", "2024-01-02T00:00:00Z"),
                    failed,
                    backup("b2", "2024-01-01T00:00:00Z"),
                ],
            );
            state.files = vec![file("rs0.archive.gz")];
            state.creates = Some(task("t1", TaskState::Ready));
        }
        Arc::new(fake)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
    }

    async fn listing<T>(&self, answer: impl FnOnce(&State) -> T) -> Result<T> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let takes = self.state().takes;
        tokio::time::sleep(takes).await;
        let state = self.state();
        match state.fails {
            Some(kind) => Err(Error::new(kind, "told to fail")),
            None => Ok(answer(&state)),
        }
    }
}

pub(crate) fn instance(id: &str) -> Instance {
    Instance {
        id: id.to_owned(),
        created: None,
        facts: Facts::new(),
    }
}

pub(crate) fn backup(id: &str, started: &str) -> Backup {
    let started = started.parse().unwrap();
    Backup {
        id: id.to_owned(),
        started,
        finished: started + jiff::SignedDuration::from_mins(5),
        status: "COMPLETED".to_owned(),
        successful: true,
        method: Some("logical".to_owned()),
        version: Some("8.0.4".to_owned()),
        trigger: None,
        not_downloadable: None,
        shards: vec![Shard {
            id: "rs0".to_owned(),
            facts: Facts::new(),
        }],
        facts: Facts::new(),
    }
}

pub(crate) fn file(path: &str) -> RemoteFile {
    RemoteFile {
        path: path.to_owned(),
        size: Size::Unknown,
        modified: None,
        origin: Origin::Task,
        etag: None,
        digest: None,
        facts: Facts::new(),
    }
}

pub(crate) fn task(id: &str, state: TaskState) -> Task {
    Task {
        id: id.to_owned(),
        state,
        percent: None,
        expires: None,
        message: None,
    }
}

#[async_trait]
impl Provider for Fake {
    async fn instances(&self) -> Result<Vec<Instance>> {
        self.listing(|state| state.instances.clone()).await
    }

    async fn backups(&self, of: &Instance) -> Result<Vec<Backup>> {
        self.listing(|state| state.backups.get(&of.id).cloned().unwrap_or_default())
            .await
    }

    async fn files(&self, _of: &ShardRef) -> Result<Vec<RemoteFile>> {
        self.listing(|state| state.files.clone()).await
    }

    async fn find_task(&self, _of: &ShardRef) -> Result<Found> {
        self.task_calls.fetch_add(1, Ordering::SeqCst);
        Ok(match &self.state().task {
            Some(task) => Found::Task(task.clone()),
            None => Found::Nothing,
        })
    }

    async fn create_task(&self, _of: &ShardRef) -> Result<Task> {
        self.creates.fetch_add(1, Ordering::SeqCst);
        let mut state = self.state();
        let created = state.creates.clone();
        state.task = created.clone();
        created.ok_or_else(|| Error::new(Kind::TaskFailed, "told to fail"))
    }

    async fn poll_task(&self, _of: &ShardRef, _task: &Task) -> Result<Task> {
        self.task_calls.fetch_add(1, Ordering::SeqCst);
        let task = self.state().task.clone();
        task.ok_or_else(|| Error::new(Kind::Expired, "no such task"))
    }

    async fn link(&self, _of: &ShardRef, _file: &RemoteFile, task: Option<&Task>) -> Result<Link> {
        self.links.fetch_add(1, Ordering::SeqCst);
        let state = self.state();
        if state.gone.is_some() && state.gone.as_ref() == task.map(|task| &task.id) {
            return Err(Error::new(Kind::Expired, "the artifact is gone"));
        }
        Ok(Link {
            url: SafeUrl::parse(&state.url).map_err(|why| Error::new(Kind::Protocol, why))?,
            headers: Vec::new(),
            expires: None,
            mode: match state.once {
                true => LinkMode::Once,
                false => LinkMode::Ranged,
            },
        })
    }
}
