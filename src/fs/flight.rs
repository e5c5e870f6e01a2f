//! Work that concurrent callers of one key share.
//!
//! It runs in its own task: a caller that leaves takes nothing away from the others. Owns the map
//! of what is under way; an outcome is handed to those who waited and then forgotten.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::watch;

use crate::error::{Error, Kind, Result};
use crate::sync::{Mutex, lock, spawn};

type Outcome<V> = Option<Result<V, Arc<Error>>>;
type UnderWay<K, V> = HashMap<K, watch::Receiver<Outcome<V>>>;

/// The work under way.
pub(crate) struct Flights<K, V> {
    under_way: Arc<Mutex<UnderWay<K, V>>>,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Flights {
            under_way: Arc::default(),
        }
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights")
            .field("under_way", &lock(&self.under_way).len())
            .finish()
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The outcome of `work` for `key`, joined if it is under way already.
    pub(crate) async fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let mut outcome = {
            let mut under_way = lock(&self.under_way);
            match under_way.get(&key) {
                Some(outcome) => outcome.clone(),
                None => {
                    let (sender, outcome) = watch::channel(None);
                    under_way.insert(key.clone(), outcome.clone());
                    self.launch(key, work(), sender);
                    outcome
                }
            }
        };
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(value))) => Ok(value.clone()),
            Ok(Some(Err(error))) => Err(error.duplicate()),
            Ok(None) | Err(_) => Err(Error::new(Kind::Stopping, "the mount is shutting down")),
        }
    }

    fn launch<F>(&self, key: K, work: F, sender: watch::Sender<Outcome<V>>)
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let all = Arc::clone(&self.under_way);
        spawn(async move {
            let outcome = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(_panic) => Err(Error::new(Kind::Internal, "shared work panicked")),
            };
            lock(&all).remove(&key);
            sender.send_replace(Some(outcome.map_err(Arc::new)));
        });
    }
}
