//! What was agreed with the kernel for this mount, and by which way files were opened.
//!
//! Each outcome is said once in the log when it becomes known and shown in the status document for
//! as long as the mount lives. One lock, held for moments only.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::metrics::Counter;
use super::status::{KernelStatus, OpensByWay};

/// The way by which the reads of an open file reach its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The kernel reads the cache's file itself.
    Passthrough,
    /// Each read is asked of us as it is.
    Direct,
    /// Through the kernel's pages, with its read-ahead.
    PageCache,
}

/// The agreement. Until it is made, passthrough is off.
#[derive(Debug, Default)]
pub struct Kernel {
    terms: Mutex<Terms>,
    passthrough: Counter,
    direct: Counter,
    page_cache: Counter,
}

#[derive(Debug)]
struct Terms {
    /// `Err` says why it is off.
    passthrough: Result<(), String>,
    read_ahead_kib: Option<u64>,
    max_read: u32,
    event_loops: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Terms {
            passthrough: Err("not mounted".to_owned()),
            read_ahead_kib: None,
            max_read: 0,
            event_loops: 0,
        }
    }
}

impl Kernel {
    /// The mount is served by `event_loops` threads and asked for at most `max_read` bytes at once.
    pub fn serves(&self, event_loops: usize, max_read: u32) {
        let mut terms = self.terms();
        terms.event_loops = event_loops;
        terms.max_read = max_read;
    }

    /// Complete files may be lent to the kernel.
    pub fn allow_passthrough(&self) {
        tracing::info!("passthrough is on: the kernel reads complete files from the cache itself");
        self.terms().passthrough = Ok(());
    }

    /// Files are not lent to the kernel from now on, and why.
    pub fn refuse_passthrough(&self, why: impl Display) {
        tracing::info!("passthrough is off: {why}; reads take the ordinary way");
        self.terms().passthrough = Err(why.to_string());
    }

    /// Whether complete files may be lent to the kernel.
    pub fn may_pass_through(&self) -> bool {
        self.terms().passthrough.is_ok()
    }

    /// How much the kernel reads ahead in its pages; `raised` if that is what we asked for.
    pub fn reads_ahead(&self, kib: Option<u64>, raised: bool) {
        match (kib, raised) {
            (Some(kib), true) => tracing::info!("the kernel reads ahead by {kib} KiB"),
            (Some(kib), false) => {
                tracing::info!("the kernel reads ahead by {kib} KiB: only root may raise that");
            }
            (None, _) => tracing::info!("how far the kernel reads ahead cannot be learnt here"),
        }
        self.terms().read_ahead_kib = kib;
    }

    /// One more file was opened by `way`.
    pub fn opened(&self, way: Way) {
        let counter = match way {
            Way::Passthrough => &self.passthrough,
            Way::Direct => &self.direct,
            Way::PageCache => &self.page_cache,
        };
        counter.add(1);
    }

    /// For the status document.
    pub fn status(&self) -> KernelStatus {
        let terms = self.terms();
        KernelStatus {
            passthrough: match &terms.passthrough {
                Ok(()) => "on".to_owned(),
                Err(why) => format!("off: {why}"),
            },
            read_ahead_kib: terms.read_ahead_kib,
            max_read: terms.max_read,
            event_loops: terms.event_loops,
            opens: OpensByWay {
                passthrough: self.passthrough.get(),
                direct: self.direct.get(),
                page_cache: self.page_cache.get(),
            },
        }
    }

    fn terms(&self) -> MutexGuard<'_, Terms> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_agreed_is_shown() {
        let kernel = Kernel::default();
        assert_eq!(kernel.status().passthrough, "off: not mounted");
        kernel.serves(2, 1 << 20);
        kernel.allow_passthrough();
        kernel.reads_ahead(Some(1024), true);
        for way in [Way::Passthrough, Way::Passthrough, Way::Direct] {
            kernel.opened(way);
        }
        assert!(kernel.may_pass_through());
        let shown = serde_json::to_value(kernel.status()).unwrap();
        let expected = serde_json::json!({
            "passthrough": "on", "read_ahead_kib": 1024, "max_read": 1 << 20, "event_loops": 2,
            "opens": {"passthrough": 2, "direct": 1, "page_cache": 0},
        });
        assert_eq!(shown, expected);
        kernel.refuse_passthrough("it takes CAP_SYS_ADMIN");
        assert!(!kernel.may_pass_through());
        assert_eq!(kernel.status().passthrough, "off: it takes CAP_SYS_ADMIN");
    }
}
