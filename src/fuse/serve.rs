//! How one operation runs: polled once where it arrives, then as a task with a deadline.
//!
//! An operation that needs no waiting is answered on the FUSE thread. One that must wait moves
//! into a tokio task, so a FUSE thread never blocks, and ends by whatever comes first: its result,
//! a signal to its caller, the shutdown, its deadline. A panic in it costs that operation an EIO.
//! State: what is shared by all operations of a session; locks are inside its parts.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::{Errno, FileAttr, Request};
use futures::FutureExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::convert;
use super::directories::Directories;
use super::interrupts::Interrupts;
use super::iomode::Ways;
use super::opening::Backing;
use super::sizes::Sizes;
use crate::error::{Error, Kind, Result};
use crate::fs::{Attr, Caller, FileKind, Fs};

/// An operation, as far as serving it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    /// Its name in logs.
    pub(super) name: &'static str,
    /// When it must have ended.
    pub(super) deadline: Duration,
    /// Whether it ends with the shutdown's beginning. Reads do not: open files are served on.
    pub(super) ends_at_stop: bool,
}

/// What all operations of a session share.
#[derive(Debug)]
pub(super) struct Service {
    /// What is served.
    pub(super) fs: Fs,
    /// Where waiting operations wait.
    pub(super) runtime: Handle,
    /// The watch over blocked callers.
    pub(super) interrupts: Interrupts,
    /// Sizes told to the kernel.
    pub(super) sizes: Sizes,
    /// Directories kept by the kernel.
    pub(super) directories: Directories,
    /// By which way the kernel reads each open file.
    pub(super) ways: Mutex<Ways<Backing>>,
    /// Cancelled when the shutdown begins.
    pub(super) stopping: CancellationToken,
    /// Owner of every file: who mounted.
    pub(super) owner: (u32, u32),
}

type Work<T> = Pin<Box<dyn Future<Output = std::result::Result<Result<T>, Panic>> + Send>>;
type Panic = Box<dyn Any + Send>;

impl Service {
    /// Runs `work` for the caller of `request` and hands its result to `answer`.
    pub(super) fn serve<T: Send + 'static>(
        self: &Arc<Self>,
        operation: Operation,
        request: &Request,
        ino: u64,
        work: impl Future<Output = Result<T>> + Send + 'static,
        answer: impl FnOnce(&Service, Result<T, Errno>) + Send + 'static,
    ) {
        let caller = convert::caller(request);
        let mut work: Work<T> = Box::pin(AssertUnwindSafe(work).catch_unwind());
        let first = {
            // Timers and spawned work need the runtime's context.
            let _runtime = self.runtime.enter();
            work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        match first {
            Poll::Ready(done) => {
                self.finish(operation, ino, &caller, result_of(done), answer);
            }
            Poll::Pending => {
                let service = Arc::clone(self);
                self.runtime.spawn(async move {
                    let result = bounded(
                        work,
                        operation.deadline,
                        service.interrupts.signalled(caller.pid),
                        service.stopped(operation),
                    )
                    .await;
                    service.finish(operation, ino, &caller, result, answer);
                });
            }
        }
    }

    /// The ways of open files.
    pub(super) fn ways(&self) -> MutexGuard<'_, Ways<Backing>> {
        // Every update is a single step, so a panicking holder leaves nothing half done.
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what the kernel wants no answer to. It must not wait.
    pub(super) fn notice(&self, run: impl FnOnce(&Service)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(self))) {
            tracing::error!(operation = "forget", "{}", bug(&panic));
        }
    }

    /// Attributes as the kernel wants them; remembers the size it is told.
    pub(super) fn tell(&self, attr: &Attr) -> FileAttr {
        if attr.kind == FileKind::File {
            self.sizes.tell(attr.ino, attr.size);
        }
        convert::attributes(attr, self.owner)
    }

    /// Resolves when the shutdown begins, for operations that end with it.
    async fn stopped(&self, operation: Operation) {
        if operation.ends_at_stop {
            self.stopping.cancelled().await;
        } else {
            std::future::pending().await
        }
    }

    fn finish<T>(
        &self,
        operation: Operation,
        ino: u64,
        caller: &Caller,
        result: Result<T>,
        answer: impl FnOnce(&Service, Result<T, Errno>),
    ) {
        // Should this panic, the unsent reply answers EIO when it is dropped.
        let answered = catch_unwind(AssertUnwindSafe(|| {
            if let Err(error) = &result {
                self.fs.failed(operation.name, ino, caller, error);
            }
            answer(self, result.map_err(|error| Errno::from_i32(error.errno())));
        }));
        if let Err(panic) = answered {
            tracing::error!(operation = operation.name, ino, "{}", bug(&panic));
        }
    }
}

/// The result of `work`, or what ended the wait for it.
async fn bounded<T>(
    work: Work<T>,
    deadline: Duration,
    interrupted: impl Future<Output = ()>,
    stopped: impl Future<Output = ()>,
) -> Result<T> {
    let (kind, words) = tokio::select! {
        biased;
        done = work => return result_of(done),
        () = interrupted => (Kind::Interrupted, "the caller was interrupted".to_owned()),
        () = stopped => (Kind::Stopping, "the mount is being ended".to_owned()),
        () = tokio::time::sleep(deadline) => (
            Kind::TimedOut,
            format!("no answer within {deadline:?}; what was begun goes on, try again later"),
        ),
    };
    Err(Error::new(kind, words))
}

fn result_of<T>(done: std::result::Result<Result<T>, Panic>) -> Result<T> {
    done.unwrap_or_else(|panic| Err(Error::new(Kind::Internal, bug(&panic))))
}

/// What may be said about a panic: its text only if it was fixed when the program was compiled,
/// because a formatted one may show a link or a key.
fn bug(panic: &Panic) -> String {
    let words = panic.downcast_ref::<&'static str>();
    format!("a bug in mongo-backupfs: {}", words.unwrap_or(&"a panic"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn work<T>(work: impl Future<Output = Result<T>> + Send + 'static) -> Work<T> {
        Box::pin(AssertUnwindSafe(work).catch_unwind())
    }

    async fn ended_by(
        work: Work<u8>,
        interrupted: impl Future<Output = ()>,
        stopped: impl Future<Output = ()>,
    ) -> (Result<u8, i32>, Duration) {
        let began = tokio::time::Instant::now();
        let deadline = Duration::from_secs(60);
        let result = bounded(work, deadline, interrupted, stopped).await;
        (result.map_err(|error| error.errno()), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_by_whatever_comes_first() {
        let soon = || tokio::time::sleep(Duration::from_secs(1));
        let (result, _) = ended_by(work(ready(Ok(7))), ready(()), ready(())).await;
        assert_eq!(result, Ok(7), "a result that is there is used");
        let (result, took) = ended_by(work(pending()), soon(), pending()).await;
        assert_eq!((result, took.as_secs()), (Err(libc::EINTR), 1));
        let (result, took) = ended_by(work(pending()), pending(), soon()).await;
        assert_eq!((result, took.as_secs()), (Err(libc::ENODEV), 1));
        let (result, took) = ended_by(work(pending()), pending(), pending()).await;
        assert_eq!((result, took.as_secs()), (Err(libc::ETIMEDOUT), 60));
    }

    #[tokio::test]
    async fn case_54_a_panic_costs_its_operation_an_error_without_private_words() {
        let link = "https://host/?sig=canary".to_owned();
        let formatted = work(async move { panic!("no {link}") });
        let fixed: Work<u8> = work(async { panic!("an invariant broke") });
        let (result, _) = ended_by(formatted, pending(), pending()).await;
        assert_eq!(result, Err(libc::EIO));
        let words = bug(&fixed.await.unwrap_err());
        assert_eq!(words, "a bug in mongo-backupfs: an invariant broke");
        let formatted: Panic = Box::new("sig=canary".to_owned());
        assert!(!bug(&formatted).contains("canary"));
    }
}
