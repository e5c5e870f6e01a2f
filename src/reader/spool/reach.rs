//! How far the bytes of a version have come that only one stream brings, and who waits for more.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{Error, Kind, Result};

/// The front of a spool, as its readers see it.
#[derive(Debug)]
pub(in crate::reader) struct Reach(watch::Sender<Front>);

#[derive(Debug, Default)]
struct Front {
    /// Blocks before this one have come.
    landed: u64,
    /// Whether a spool is bringing more.
    flowing: bool,
    /// Why the last one brought no more.
    failed: Option<Arc<Error>>,
}

impl Reach {
    /// Nothing is being brought, because all of it is there (`is_whole`) or nobody does.
    pub(in crate::reader) fn new(is_whole: bool) -> Self {
        Reach(watch::Sender::new(Front {
            landed: if is_whole { u64::MAX } else { 0 },
            ..Front::default()
        }))
    }

    /// Whether a spool is bringing more.
    pub(in crate::reader) fn is_flowing(&self) -> bool {
        self.0.borrow().flowing
    }

    /// A spool brings what follows the first `landed` blocks.
    pub(super) fn flows(&self, landed: u64) {
        self.0.send_replace(Front {
            landed,
            flowing: true,
            failed: None,
        });
    }

    /// The blocks before `landed` have come.
    pub(super) fn advance(&self, landed: u64) {
        self.0.send_modify(|front| front.landed = landed);
    }

    /// The spool is over.
    pub(super) fn ends(&self, outcome: Result<(), Arc<Error>>) {
        self.0.send_modify(|front| {
            front.flowing = false;
            front.failed = outcome.err();
        });
    }

    /// Waits until the spool has passed `block`, or is over: then why it brings no more.
    pub(in crate::reader) async fn passed(&self, block: u64) -> Result<()> {
        let mut front = self.0.subscribe();
        let front = front
            .wait_for(|front| front.landed > block || !front.flowing)
            .await;
        match front.as_deref() {
            Ok(front) if front.landed > block => Ok(()),
            Ok(Front {
                failed: Some(error),
                ..
            }) => Err(error.duplicate()),
            _ => Err(Error::new(
                Kind::Unreachable,
                "the download of this file was interrupted; open it again to go on",
            )),
        }
    }
}
