//! By which way the kernel reads each open file, so that no two ways clash. Pure.
//!
//! Since Linux 6.9 an inode is read either by asking us (through the page cache or directly) or by
//! passthrough, from one backing file. While handles of one kind are open the kernel fails every
//! open of the other with EIO, and also one that names another backing file (fs/fuse/iomode.c). A
//! direct handle may be mapped at any moment, which takes the page cache, so it counts as asking.
//! Therefore the first handle of an inode decides for all others until the last one is closed.
//!
//! The kernel leaves a mode before it sends RELEASE and enters one after it heard our answer to
//! OPEN, so what is counted here always covers what the kernel has.

use std::collections::HashMap;
use std::sync::Arc;

/// How a new handle is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way<B> {
    /// The kernel asks us.
    Asking,
    /// The kernel reads this backing file.
    Backing(Arc<B>),
}

/// The inode is read from a backing file that holds another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clash;

/// The ways of all open files; `B` is a backing file.
#[derive(Debug)]
pub(super) struct Ways<B> {
    inodes: HashMap<u64, Inode<B>>,
}

#[derive(Debug)]
struct Inode<B> {
    handles: usize,
    /// What all its handles are read from; `None` if all of them ask.
    backing: Option<Arc<B>>,
}

impl<B> Default for Ways<B> {
    fn default() -> Self {
        Ways {
            inodes: HashMap::new(),
        }
    }
}

impl<B> Ways<B> {
    /// Whether a new handle of `ino` would decide its way.
    pub(super) fn is_free(&self, ino: u64) -> bool {
        !self.inodes.contains_key(&ino)
    }

    /// Takes in a new handle of `ino` and tells how it is read. `lend` gives the backing file, if
    /// there is one to be had, and is asked only where it decides. `is_current` tells that no
    /// older version of the file is open.
    pub(super) fn admit(
        &mut self,
        ino: u64,
        is_current: bool,
        lend: impl FnOnce() -> Option<B>,
    ) -> Result<Way<B>, Clash> {
        let inode = self.inodes.entry(ino).or_insert_with(|| Inode {
            handles: 0,
            backing: is_current.then(lend).flatten().map(Arc::new),
        });
        if inode.backing.is_some() && !is_current {
            return Err(Clash);
        }
        inode.handles += 1;
        Ok(match &inode.backing {
            Some(backing) => Way::Backing(Arc::clone(backing)),
            None => Way::Asking,
        })
    }

    /// A handle of `ino` that was taken in is closed. Hands out the backing file if it was the
    /// last one, to be closed without any lock.
    pub(super) fn release(&mut self, ino: u64) -> Option<Arc<B>> {
        let inode = self.inodes.get_mut(&ino)?;
        inode.handles -= 1;
        match inode.handles {
            0 => self.inodes.remove(&ino)?.backing,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INO: u64 = 7;

    #[test]
    fn the_first_handle_decides_until_the_last_is_closed() {
        let mut ways = Ways::default();
        assert_eq!(ways.admit(INO, true, || None::<u8>), Ok(Way::Asking));
        assert!(!ways.is_free(INO));
        // Complete meanwhile: too late for this inode, not for another one.
        let asks = ways.admit(INO, true, || panic!("not asked for a backing file"));
        assert_eq!(asks, Ok(Way::Asking));
        assert_eq!(
            ways.admit(8, true, || Some(80)),
            Ok(Way::Backing(Arc::new(80)))
        );
        assert_eq!(ways.release(INO), None);
        assert_eq!(ways.release(INO), None);
        assert!(ways.is_free(INO));
        for _ in 0..2 {
            let way = ways.admit(INO, true, || Some(70));
            assert_eq!(way, Ok(Way::Backing(Arc::new(70))));
        }
        assert_eq!(ways.release(INO), None);
        assert_eq!(ways.release(INO), Some(Arc::new(70)));
        assert_eq!(ways.release(INO), None, "what was never taken in");
    }

    #[test]
    fn another_version_waits_for_the_end_of_the_one_being_lent() {
        let mut ways = Ways::default();
        ways.admit(INO, true, || Some(1)).unwrap();
        assert_eq!(ways.admit(INO, false, || Some(2)), Err(Clash));
        ways.release(INO);
        assert_eq!(ways.admit(INO, false, || Some(2)), Ok(Way::Asking));
    }

    /// The kernel's own rules for one inode, with the names of fs/fuse/iomode.c.
    #[derive(Default)]
    struct Kernel {
        /// Handles that use the page cache; negative: handles in passthrough.
        iocachectr: i64,
        backing: Option<u64>,
    }

    impl Kernel {
        fn open(&mut self, way: &Way<u64>, direct: bool) -> Result<(), &'static str> {
            match way {
                Way::Backing(id) => {
                    if self.backing.is_some_and(|old| old != **id) {
                        return Err("EBUSY");
                    }
                    if self.iocachectr > 0 {
                        return Err("ETXTBSY");
                    }
                    self.iocachectr -= 1;
                    self.backing = Some(**id);
                }
                Way::Asking if self.backing.is_some() => return Err("EINVAL"),
                Way::Asking if direct => {}
                Way::Asking => self.iocachectr += 1,
            }
            Ok(())
        }

        /// The first mapping of a direct handle.
        fn map(&mut self) -> Result<(), &'static str> {
            if self.backing.is_some() {
                return Err("ENODEV");
            }
            self.iocachectr += 1;
            Ok(())
        }

        fn close(&mut self, handle: &Handle) {
            match handle.way {
                Way::Backing(_) => {
                    self.iocachectr += 1;
                    if self.iocachectr == 0 {
                        self.backing = None;
                    }
                }
                Way::Asking if handle.direct && !handle.mapped => {}
                Way::Asking => self.iocachectr -= 1,
            }
        }
    }

    struct Handle {
        version: u64,
        way: Way<u64>,
        direct: bool,
        mapped: bool,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Open { direct: bool, complete: bool },
        Map(usize),
        Close(usize),
        Replace,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<(bool, bool)>().prop_map(|(direct, complete)| Step::Open { direct, complete }),
            1 => any::<usize>().prop_map(Step::Map),
            4 => any::<usize>().prop_map(Step::Close),
            1 => Just(Step::Replace),
        ]
    }

    proptest! {
        /// Whatever is opened, mapped, closed and replaced, the kernel never refuses, and no
        /// handle is read from the backing file of another version than its own.
        #[test]
        fn the_kernel_takes_every_answer(steps in prop::collection::vec(step(), 1..200)) {
            let mut ways = Ways::default();
            let mut kernel = Kernel::default();
            let mut open: Vec<Handle> = Vec::new();
            let mut version = 0;
            for step in steps {
                match step {
                    Step::Open { direct, complete } => {
                        let is_current = open.iter().all(|handle| handle.version == version);
                        let lend = || complete.then_some(version);
                        match ways.admit(INO, is_current, lend) {
                            Ok(way) => {
                                prop_assert_eq!(kernel.open(&way, direct), Ok(()));
                                if let Way::Backing(backing) = &way {
                                    prop_assert_eq!(**backing, version);
                                }
                                open.push(Handle { version, way, direct, mapped: false });
                            }
                            Err(Clash) => prop_assert!(!is_current && kernel.backing.is_some()),
                        }
                    }
                    Step::Map(at) if !open.is_empty() => {
                        let at = at % open.len();
                        let handle = &mut open[at];
                        if handle.way == Way::Asking && handle.direct && !handle.mapped {
                            prop_assert_eq!(kernel.map(), Ok(()));
                            handle.mapped = true;
                        }
                    }
                    Step::Close(at) if !open.is_empty() => {
                        let handle = open.swap_remove(at % open.len());
                        kernel.close(&handle);
                        let last = ways.release(INO).is_some();
                        prop_assert_eq!(last, open.is_empty() && handle.way != Way::Asking);
                    }
                    Step::Map(_) | Step::Close(_) => {}
                    Step::Replace => version += 1,
                }
                prop_assert_eq!(ways.is_free(INO), open.is_empty());
            }
        }
    }
}
