//! Copies of whole files: what `get` does.
//!
//! [`plan`] says which files go where, [`source`] gives their bytes (a filesystem of our own, or a
//! mount that has the cache), [`part`] keeps what came until a copy is whole. A copy has its name
//! only once every byte of it is on disk; what was interrupted goes on where it ended. Owns no
//! state but what is on disk: whoever runs the same copies again continues them.

mod one;
mod part;
mod plan;
mod source;

use std::path::Path;

use futures::StreamExt;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::error::Error;

pub use plan::{Item, Plan};
pub use source::Source;

/// Files copied at the same time; each is brought by several requests.
const COPYING: usize = 4;
/// Files whose tasks are waited for at the same time.
const WAITING: usize = 64;

/// What happens while copying. As JSON, `event` is one of the names in lower case; names and fields
/// are added to, never renamed or removed. Sizes are bytes, times RFC 3339.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event<'a> {
    /// What will be copied.
    Plan {
        /// How many files.
        files: usize,
        /// The mount that brings them, if one has the cache.
        mount: Option<&'a Path>,
    },
    /// A file waits for its download task, or for the end of a download of unknown length.
    Waiting {
        /// Its path in the tree, as in all events.
        path: &'a str,
        /// As `user.backupfs.state`.
        state: &'a str,
        /// Progress of the task, 0 to 100.
        percent: Option<u8>,
        /// When it may be ready.
        estimate: Option<Timestamp>,
        /// Bytes that came so far.
        cached: u64,
    },
    /// Its bytes are coming.
    Started {
        /// Which.
        path: &'a str,
        /// Where it goes.
        to: &'a Path,
        /// Its exact size.
        size: u64,
        /// Bytes that an earlier run left.
        resumed: u64,
    },
    /// More of it came.
    Progress {
        /// Which.
        path: &'a str,
        /// How much of it is here.
        bytes: u64,
        /// Its exact size.
        size: u64,
    },
    /// It is here already.
    Skipped {
        /// Which.
        path: &'a str,
        /// Where.
        to: &'a Path,
        /// Its size.
        size: u64,
    },
    /// It is whole, on disk, and has its name.
    Done {
        /// Which.
        path: &'a str,
        /// Where.
        to: &'a Path,
        /// Its size.
        size: u64,
        /// Whether its bytes were found to have the digest that its store publishes; null where
        /// the store publishes none.
        verified: Option<bool>,
    },
    /// It could not be copied.
    Failed {
        /// Which.
        path: &'a str,
        /// Why.
        error: String,
    },
}

/// Who hears of events.
pub type Listener<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// How copies are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Copy also what is at its place already.
    pub force: bool,
}

/// What came of all copies.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Files that are whole at their place now, those included that were before.
    pub whole: usize,
    /// Why the others are not.
    pub failures: Vec<Error>,
}

/// Makes the copies of `plan`. Dropping the future leaves what came, for the next run.
pub async fn run(plan: &Plan, source: &Source, options: Options, tell: Listener<'_>) -> Outcome {
    tell(Event::Plan {
        files: plan.items.len(),
        mount: source.mountpoint(),
    });
    let turns = Semaphore::new(COPYING);
    let copies = plan.items.iter().map(|item| async {
        let copied = one::copy(item, source, options, &turns, tell).await;
        copied.map_err(|error| {
            tell(Event::Failed {
                path: &item.path,
                error: error.to_string(),
            });
            // An own filesystem says what it was opening.
            match error.to_string().contains(&item.path) {
                true => error,
                false => error.context(item.path.clone()),
            }
        })
    });
    let copies: Vec<_> = copies.collect();
    let mut copies = futures::stream::iter(copies).buffer_unordered(WAITING);
    let mut outcome = Outcome::default();
    while let Some(copied) = copies.next().await {
        match copied {
            Ok(()) => outcome.whole += 1,
            Err(error) => outcome.failures.push(error),
        }
    }
    outcome.failures.extend(plan.finish_directories());
    outcome
}
