//! What the kernel has been told about file sizes, and how it is told before an open succeeds.
//!
//! The kernel trusts its own idea of a file's size in places where it does not ask again:
//! `sendfile` and `splice` end there, a mapping faults there. Most sizes are learnt by the very
//! open that waits for a download task, and an answer to OPEN cannot carry one. So such an open is
//! answered ESTALE once: the kernel then walks the path anew with fresh lookups, hears the size,
//! and opens again, all inside the caller's one call to open(2).
//!
//! One lock, held for moments only.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Callers between an ESTALE and their second attempt are forgotten beyond this many: some were
/// killed in between and will never come back.
const MOST_RETURNING: usize = 1024;

/// The sizes last told to the kernel.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Size by inode number, for the files that the kernel holds.
    told: HashMap<u64, u64>,
    /// Threads that were sent back, and for which file. One that comes back although nothing was
    /// looked up (an open through `/proc/<pid>/fd` walks no path) is let through.
    returning: HashSet<(u64, u32)>,
    /// Files of which an open was sent back that would have dropped the kernel's pages: the next
    /// one has to do so.
    stale_pages: HashSet<u64>,
}

/// What becomes of an open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It succeeds.
    Open {
        /// The kernel may keep the pages it has.
        keep_cache: bool,
    },
    /// It is answered ESTALE, and its handle closed.
    LookAgain,
}

impl Sizes {
    /// The kernel is being told that `ino` has `size` bytes.
    pub(super) fn tell(&self, ino: u64, size: u64) {
        self.lock().told.insert(ino, size);
    }

    /// The kernel dropped references to `ino`, perhaps the last one.
    pub(super) fn forget(&self, ino: u64) {
        self.lock().told.remove(&ino);
    }

    /// What becomes of the open by thread `tid` of a version with `size` bytes, for which the
    /// kernel may `keep_cache` as far as versions go.
    pub(super) fn admit(&self, ino: u64, size: u64, tid: u32, keep_cache: bool) -> Admission {
        let mut state = self.lock();
        let returned = state.returning.remove(&(ino, tid));
        if returned || state.told.get(&ino) == Some(&size) {
            let stale = state.stale_pages.remove(&ino);
            return Admission::Open {
                keep_cache: keep_cache && !stale,
            };
        }
        if state.returning.len() >= MOST_RETURNING {
            state.returning.clear();
        }
        state.returning.insert((ino, tid));
        if !keep_cache {
            state.stale_pages.insert(ino);
        }
        Admission::LookAgain
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every update is a single step, so a panicking holder leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Admission = Admission::Open { keep_cache: true };
    const DROP: Admission = Admission::Open { keep_cache: false };

    #[test]
    fn an_open_goes_through_once_the_kernel_knows_the_size() {
        let sizes = Sizes::default();
        sizes.tell(7, 0);
        assert_eq!(sizes.admit(7, 100, 1, true), Admission::LookAgain);
        sizes.tell(7, 100);
        assert_eq!(sizes.admit(7, 100, 1, true), KEEP);
        assert_eq!(sizes.admit(7, 100, 2, true), KEEP);
        assert_eq!(sizes.admit(7, 100, 2, false), DROP);
    }

    #[test]
    fn a_new_version_of_another_size_is_told_first() {
        let sizes = Sizes::default();
        sizes.tell(7, 100);
        assert_eq!(sizes.admit(7, 100, 1, true), KEEP);
        assert_eq!(sizes.admit(7, 90, 1, true), Admission::LookAgain);
    }

    #[test]
    fn nobody_is_sent_back_twice_in_a_row() {
        let sizes = Sizes::default();
        assert_eq!(sizes.admit(7, 100, 1, true), Admission::LookAgain);
        assert_eq!(sizes.admit(7, 100, 2, true), Admission::LookAgain);
        assert_eq!(sizes.admit(7, 100, 1, true), KEEP);
        assert_eq!(sizes.admit(7, 100, 2, true), KEEP);
        assert_eq!(sizes.admit(7, 100, 1, true), Admission::LookAgain);
    }

    #[test]
    fn pages_that_a_refused_open_would_have_dropped_are_dropped_by_the_next() {
        let sizes = Sizes::default();
        assert_eq!(sizes.admit(7, 100, 1, false), Admission::LookAgain);
        sizes.tell(7, 100);
        assert_eq!(sizes.admit(7, 100, 2, true), DROP);
        assert_eq!(sizes.admit(7, 100, 3, true), KEEP);
    }

    #[test]
    fn what_the_kernel_forgot_must_be_told_again() {
        let sizes = Sizes::default();
        sizes.tell(7, 100);
        sizes.forget(7);
        assert_eq!(sizes.admit(7, 100, 1, true), Admission::LookAgain);
    }

    #[test]
    fn callers_that_never_return_do_not_pile_up() {
        let sizes = Sizes::default();
        for tid in 0..10 * MOST_RETURNING as u32 {
            sizes.admit(7, 1, tid, true);
        }
        assert!(sizes.lock().returning.len() <= MOST_RETURNING);
    }
}
