//! Files behind links that work once only: one stream into the cache, for all who read them.
//!
//! [`Spools`] knows which files are being spooled, each by one task of its own that goes on when its
//! openers are gone: the download is paid for. [`course`] decides what is asked and what the bytes
//! are good for (pure), `drive` carries that out, `generation` is what the bytes go into, `reach`
//! lets readers wait for them. Where downloads come from is the business of [`Jobs`].
//!
//! One lock, held for moments.

mod course;
mod drive;
mod generation;
mod reach;

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::drive::Drive;
pub(super) use self::reach::Reach;
use crate::error::{Error, Kind, Result};
use crate::fetch::Fetcher;
use crate::links::Links;
use crate::model::{ArtifactKey, Validator};
use crate::reader::{Artifact, Readers, lock};

/// A download of unknown length goes on as long as there is room for so many bytes more.
const STEP: u64 = 1 << 20;

/// How long no other download is paid for where the last one could not be read.
const UNREADABLE: Duration = Duration::from_secs(10 * 60);

/// A download that is ready to be read.
#[derive(Debug, Clone)]
pub struct Job {
    /// The provider's task.
    pub task_id: String,
    /// The link to what it made.
    pub links: Arc<Links>,
}

/// A version that a download brings, or brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its identity.
    pub validator: Validator,
    /// The task it comes from.
    pub task_id: String,
    /// The provider's own file name.
    pub source_name: Option<String>,
    /// A digest the store publishes.
    pub digest: Option<String>,
}

/// Where downloads come from, and who remembers what they brought.
#[async_trait]
pub trait Jobs: fmt::Debug + Send + Sync + 'static {
    /// A job whose link may be read, adopted or created as the policy says.
    async fn ready(&self) -> Result<Job>;

    /// The link of this job leads to nothing any more.
    async fn used_up(&self, task_id: &str);

    /// The file is this version now.
    async fn remember(&self, version: Version);
}

/// What to spool.
#[derive(Debug)]
pub struct Order {
    /// Which file.
    pub key: ArtifactKey,
    /// The account's data client.
    pub fetcher: Fetcher,
    /// The downloads.
    pub jobs: Arc<dyn Jobs>,
    /// What an earlier spool of the file began.
    pub begun: Option<Version>,
}

/// A version that can be opened.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Its identity.
    pub validator: Validator,
    /// The task it comes from.
    pub task_id: String,
    /// Its bytes, as far as they have come.
    pub artifact: Arc<Artifact>,
}

/// How far a spool is.
#[derive(Debug, Default)]
struct Stage {
    opening: Option<Opening>,
    /// Bytes that came.
    bytes: u64,
    over: Option<Arc<Error>>,
}

/// All files that are being spooled. Cheap to clone.
#[derive(Clone, Default)]
pub struct Spools {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    under_way: HashMap<ArtifactKey, watch::Receiver<Stage>>,
    /// Why another download of a file would end like the last one, as far as it is known.
    hopeless: HashMap<ArtifactKey, Hopeless>,
}

/// What the next download of a file would meet.
#[derive(Debug)]
enum Hopeless {
    /// It is about this long at least, and the cache had no room for it.
    Long(u64),
    /// What the server sends cannot be read, at least until then.
    Unreadable(Arc<Error>, Instant),
}

/// A spool that is under way.
pub struct Spooling(watch::Receiver<Stage>);

impl Spools {
    /// The spool of `key`, if there is one under way.
    pub fn under_way(&self, key: &ArtifactKey) -> Option<Spooling> {
        let state = lock(&self.shared.state);
        state.under_way.get(key).cloned().map(Spooling)
    }

    /// Why there is no use in another download of `key`, where that is known: asked before one is
    /// paid for. `begun` is what an earlier one brought or learnt.
    pub fn worth_it(
        &self,
        key: &ArtifactKey,
        begun: Option<&Validator>,
        readers: &Readers,
    ) -> Result<()> {
        let least = match lock(&self.shared.state).hopeless.get(key) {
            None => None,
            Some(Hopeless::Unreadable(error, until)) if Instant::now() < *until => {
                let words = format!("not tried again within {UNREADABLE:?}");
                return Err(error.duplicate().context(words));
            }
            Some(Hopeless::Unreadable(..)) => None,
            Some(Hopeless::Long(least)) => Some(*least),
        };
        let open = begun.and_then(|validator| readers.opened(key, validator));
        match begun.map(|validator| validator.size).or(least) {
            None => Ok(()),
            Some(size) => {
                let own = open.as_ref().map(|open| open.cached());
                readers.cache.room_for(size, own)
            }
        }
    }

    /// Joins the spool of a file or starts it. Must be called within a tokio runtime.
    pub fn join(&self, order: Order, readers: &Readers) -> Result<Spooling> {
        let mut state = lock(&self.shared.state);
        if let Some(spool) = state.under_way.get(&order.key) {
            return Ok(Spooling(spool.clone()));
        }
        if self.shared.stop.is_cancelled() {
            return Err(stopping());
        }
        let (stage, spool) = watch::channel(Stage::default());
        state.under_way.insert(order.key.clone(), spool.clone());
        drop(state);
        let shared = Arc::clone(&self.shared);
        let readers = readers.clone();
        self.shared.tasks.spawn(async move {
            let key = order.key.clone();
            let stop = shared.stop.clone();
            let mut drive = Drive::new(order, readers, stage);
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => Err(stopping()),
                run = AssertUnwindSafe(drive.run()).catch_unwind() => run.unwrap_or_else(|_| {
                    Err(Error::new(Kind::Internal, "a spool panicked"))
                }),
            };
            let outcome = outcome.map_err(Arc::new);
            let mut state = lock(&shared.state);
            state.under_way.remove(&key);
            if let Err(error) = &outcome {
                tracing::warn!(task = %crate::names::display(&key.task.to_string()), %error, "spooling ended");
                if let Some(hopeless) = drive
                    .was_read()
                    .then(|| hopeless(error, drive.bytes()))
                    .flatten()
                {
                    state.hopeless.insert(key, hopeless);
                }
            }
            drop(state);
            drive.end(outcome);
        });
        Ok(Spooling(spool))
    }

    /// Ends all spools; what they brought stays in the cache.
    pub fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
    }

    /// After [`Spools::stop`]: returns once none writes any more.
    pub async fn settled(&self) {
        self.shared.tasks.wait().await;
    }
}

impl Spooling {
    /// What can be opened now.
    pub fn opening(&self) -> Option<Opening> {
        self.0.borrow().opening.clone()
    }

    /// Bytes that came so far.
    pub fn bytes(&self) -> u64 {
        self.0.borrow().bytes
    }

    /// Waits until its version can be opened, which may be only at its end: why it cannot,
    /// otherwise. Cancel-safe.
    pub async fn opened(mut self) -> Result<Opening> {
        let stage = self
            .0
            .wait_for(|stage| stage.opening.is_some() || stage.over.is_some())
            .await;
        match stage.as_deref() {
            Ok(Stage {
                opening: Some(opening),
                ..
            }) => Ok(opening.clone()),
            Ok(Stage {
                over: Some(error), ..
            }) => Err(error.duplicate()),
            _ => Err(stopping()),
        }
    }
}

/// Whether the next download would end by `error`, too, `bytes` of this one having come.
fn hopeless(error: &Arc<Error>, bytes: u64) -> Option<Hopeless> {
    match error.kind() {
        Kind::Cache => Some(Hopeless::Long(bytes / STEP * STEP + STEP)),
        Kind::Protocol => Some(Hopeless::Unreadable(
            Arc::clone(error),
            Instant::now() + UNREADABLE,
        )),
        _ => None,
    }
}

fn stopping() -> Error {
    Error::new(Kind::Stopping, "the mount is shutting down")
}

impl fmt::Debug for Spools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spools")
            .field("under_way", &lock(&self.shared.state).under_way.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Spooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spooling").field(&*self.0.borrow()).finish()
    }
}
