//! Work that concurrent callers of one key share.
//!
//! It runs in its own task: a caller that leaves takes nothing away from the others. Owns the map
//! of what is under way; an outcome is handed to those who waited and then forgotten.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio::sync::watch;

use crate::error::{Error, Kind, Result};

type Outcome<V> = Option<Result<V, Arc<Error>>>;
type UnderWay<K, V> = HashMap<K, watch::Receiver<Outcome<V>>>;

/// The work under way.
pub(super) struct Flights<K, V> {
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
    pub(super) async fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> Result<V>
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
        tokio::spawn(async move {
            let outcome = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(_panic) => Err(Error::new(Kind::Internal, "shared work panicked")),
            };
            lock(&all).remove(&key);
            sender.send_replace(Some(outcome.map_err(Arc::new)));
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    async fn count(runs: Arc<AtomicUsize>) -> Result<usize> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(runs.fetch_add(1, Ordering::SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn callers_of_one_key_share_and_those_of_another_do_not() {
        let flights = Flights::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let join = |key: u8| flights.join(key, || count(Arc::clone(&runs)));
        let (a, b, c) = tokio::join!(join(1), join(1), join(2));
        assert_eq!(a.unwrap(), b.unwrap());
        c.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        join(1).await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 3, "an outcome is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn work_outlives_the_caller_that_began_it() {
        let flights = Flights::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let join = || flights.join(1, || count(Arc::clone(&runs)));
        let left = tokio::time::timeout(Duration::from_millis(1), join()).await;
        assert!(left.is_err());
        join().await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_and_a_panic_reach_every_caller() {
        let flights: Flights<u8, ()> = Flights::default();
        let fail = || flights.join(1, || async { Err(Error::new(Kind::Denied, "no")) });
        let (a, b) = tokio::join!(fail(), fail());
        assert_eq!(a.unwrap_err().kind(), Kind::Denied);
        assert_eq!(b.unwrap_err().kind(), Kind::Denied);
        let error = flights.join(2, || async { panic!("planted") }).await;
        assert_eq!(error.unwrap_err().kind(), Kind::Internal);
    }
}
