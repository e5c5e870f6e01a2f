//! What shared work rests on: a lock and the start of a task.
//!
//! The modules that decide whether work is begun or joined use these names and no others, so that
//! `tests/interleavings.rs` can put a model checker's in their place.

use std::future::Future;
pub use std::sync::{Mutex, MutexGuard};

/// Locks, also after a panic elsewhere: callers leave the data whole at every moment they can
/// panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs `work` as a task of its own, within the current tokio runtime.
pub fn spawn<F>(work: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(work);
}
