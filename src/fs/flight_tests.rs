//! Shared work on tokio's own clock; see `tests/interleavings.rs` for every order of events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::flight::Flights;
use crate::error::{Error, Kind, Result};

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
