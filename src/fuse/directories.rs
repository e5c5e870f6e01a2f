//! Which directories the kernel may keep, so that walking a tree again asks for no listing.
//!
//! The kernel fills what it keeps from the answers to open handles, entry after entry, and cannot
//! tell two listings apart. So it may keep a directory only while all its open handles show the
//! same listing, and is told at each open whether that is still the one it has. Long directories
//! are not kept: read anew they bring the attributes of all entries along, which otherwise would
//! be asked one by one once their life is over.
//!
//! One lock, held for moments only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use fuser::FopenFlags;

use crate::tree::Child;

/// The most children of a directory that is kept.
const LONGEST: usize = 64;

type Listing<T> = Vec<T>;

/// The directories that the kernel has open or may have kept; `T` is a child.
#[derive(Debug)]
pub(super) struct Directories<T = Child>(Mutex<HashMap<u64, Directory<T>>>);

#[derive(Debug)]
struct Directory<T> {
    /// The listing that the kernel may have kept.
    kept: Weak<Listing<T>>,
    /// How many handles are open.
    handles: usize,
    /// Whether handles of another listing may be among them.
    mixed: bool,
}

impl<T> Default for Directories<T> {
    fn default() -> Self {
        Directories(Mutex::default())
    }
}

impl<T> Directories<T> {
    /// A handle of `ino` is opened that shows `listing`: what the kernel may do with it.
    pub(super) fn open(&self, ino: u64, listing: &Arc<Listing<T>>) -> FopenFlags {
        let mut directories = self.lock();
        let directory = directories.entry(ino).or_insert_with(|| Directory {
            kept: Weak::new(),
            handles: 0,
            mixed: false,
        });
        let same = std::ptr::eq(directory.kept.as_ptr(), Arc::as_ptr(listing));
        if directory.handles == 0 {
            directory.mixed = false;
        } else if !same {
            directory.mixed = true;
        }
        directory.handles += 1;
        if directory.mixed || listing.len() > LONGEST {
            directory.kept = Weak::new();
            return FopenFlags::empty();
        }
        directory.kept = Arc::downgrade(listing);
        let mut flags = FopenFlags::FOPEN_CACHE_DIR;
        // Without it the kernel drops what it has.
        flags.set(FopenFlags::FOPEN_KEEP_CACHE, same);
        flags
    }

    /// A handle of `ino` is closed.
    pub(super) fn close(&self, ino: u64) {
        let mut directories = self.lock();
        if let Some(directory) = directories.get_mut(&ino) {
            directory.handles = directory.handles.saturating_sub(1);
            if directory.handles == 0 && directory.kept.strong_count() == 0 {
                directories.remove(&ino);
            }
        }
    }

    /// The kernel dropped references to `ino`, perhaps the last one: what it kept may be gone.
    pub(super) fn forget(&self, ino: u64) {
        let mut directories = self.lock();
        if directories.get(&ino).is_some_and(|it| it.handles == 0) {
            directories.remove(&ino);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Directory<T>>> {
        // Every update is a single step, so a panicking holder leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: u64 = 7;
    const NOT_KEPT: FopenFlags = FopenFlags::empty();
    const KEPT_ANEW: FopenFlags = FopenFlags::FOPEN_CACHE_DIR;

    fn still_kept() -> FopenFlags {
        FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
    }

    fn listing(children: usize) -> Arc<Vec<u8>> {
        Arc::new(vec![0; children])
    }

    #[test]
    fn a_listing_is_kept_as_long_as_it_is_the_same() {
        let directories = Directories::default();
        let (first, second) = (listing(3), listing(3));
        assert_eq!(directories.open(INO, &first), KEPT_ANEW);
        assert_eq!(directories.open(INO, &first), still_kept());
        directories.close(INO);
        directories.close(INO);
        assert_eq!(directories.open(INO, &first), still_kept());
        directories.close(INO);
        assert_eq!(directories.open(INO, &second), KEPT_ANEW);
        directories.close(INO);
        directories.forget(INO);
        assert_eq!(directories.open(INO, &second), KEPT_ANEW);
    }

    #[test]
    fn handles_of_two_listings_keep_nothing() {
        let directories = Directories::default();
        let (old, new) = (listing(3), listing(4));
        assert_eq!(directories.open(INO, &old), KEPT_ANEW);
        assert_eq!(directories.open(INO, &new), NOT_KEPT);
        directories.close(INO);
        assert_eq!(directories.open(INO, &new), NOT_KEPT, "one may be older");
        assert_eq!(directories.open(INO, &new), NOT_KEPT);
        for _ in 0..3 {
            directories.close(INO);
        }
        assert_eq!(directories.open(INO, &new), KEPT_ANEW, "all are closed");
    }

    #[test]
    fn case_51_long_directories_are_read_anew() {
        let directories = Directories::default();
        let long = listing(LONGEST + 1);
        for _ in 0..2 {
            assert_eq!(directories.open(INO, &long), NOT_KEPT);
            directories.close(INO);
        }
        assert!(directories.lock().is_empty(), "nothing to remember");
    }

    #[test]
    fn case_51_a_listing_that_is_gone_is_never_taken_for_another() {
        let directories = Directories::default();
        directories.open(INO, &listing(3));
        directories.close(INO);
        // Its allocation lives as long as it is remembered, so no other listing has its address.
        for _ in 0..100 {
            assert_eq!(directories.open(8, &listing(3)), KEPT_ANEW);
            directories.close(8);
            assert_ne!(directories.open(INO, &listing(3)), still_kept());
            directories.close(INO);
        }
    }
}
