//! Every artifact version in the cache: who holds it, what it takes, when it was last used.
//!
//! The index is what makes `used` cheap and eviction possible; it is rebuilt by a scan at each
//! start and never written. An artifact version is *held* while a [`CachedArtifact`] of it is
//! alive. Holders are told apart by a number, so that one that outlived its removal cannot disturb
//! its successor.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::artifact::CachedArtifact;
use super::evict::{Candidate, LastUse};
use super::footprint::Footprint;
use super::identity::Name;

#[derive(Debug)]
struct Slot {
    holder: Weak<CachedArtifact>,
    /// Which holder.
    number: u64,
    /// Bytes of disk.
    disk: u64,
    last_use: LastUse,
    is_dear: bool,
}

/// Something that can leave as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whole {
    /// An artifact version that nobody holds.
    Artifact(Name),
    /// The directory of another version of the format.
    OtherVersion(String),
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: HashMap<Name, Slot>,
    other_versions: HashMap<String, u64>,
    used: u64,
}

impl Index {
    /// Bytes of disk that everything takes.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The living holder of `name`.
    pub(super) fn holder(&self, name: &Name) -> Option<Arc<CachedArtifact>> {
        self.slots.get(name)?.holder.upgrade()
    }

    /// Whether `number` still holds `name`.
    pub(super) fn is_holder(&self, name: &Name, number: u64) -> bool {
        self.slots
            .get(name)
            .is_some_and(|slot| slot.number == number)
    }

    /// Whether anybody holds `name`.
    pub(super) fn is_held(&self, name: &Name) -> bool {
        let slot = self.slots.get(name);
        slot.is_some_and(|slot| slot.holder.strong_count() > 0)
    }

    /// Whether there is anything under `name`.
    pub(super) fn knows(&self, name: &Name) -> bool {
        self.slots.contains_key(name)
    }

    /// Makes `holder` the holder of `name`.
    pub(super) fn hold(
        &mut self,
        name: Name,
        number: u64,
        holder: Weak<CachedArtifact>,
        is_dear: bool,
        tick: u64,
    ) {
        let last_use = LastUse::Tick(tick);
        let slot = self.slots.entry(name).or_insert(Slot {
            holder: Weak::new(),
            number,
            disk: 0,
            last_use,
            is_dear,
        });
        slot.is_dear = is_dear;
        slot.holder = holder;
        slot.number = number;
        slot.last_use = last_use;
    }

    /// The holder `number` of `name` is gone.
    pub(super) fn release(&mut self, name: &Name, number: u64, tick: u64) {
        if let Some(slot) = self.slots.get_mut(name)
            && slot.number == number
        {
            slot.last_use = LastUse::Tick(tick);
            if slot.disk == 0 {
                self.slots.remove(name);
            }
        }
    }

    /// The holder `number` of `name` found that it takes `disk` bytes.
    pub(super) fn set(&mut self, name: &Name, number: u64, disk: u64) {
        if let Some(slot) = self.slots.get_mut(name)
            && slot.number == number
        {
            self.used = self.used - slot.disk + disk;
            slot.disk = disk;
        }
    }

    /// The holder `number` of `name` takes `bytes` more.
    pub(super) fn grow(&mut self, name: &Name, number: u64, bytes: u64) {
        if let Some(slot) = self.slots.get_mut(name)
            && slot.number == number
        {
            slot.disk += bytes;
            self.used += bytes;
        }
    }

    /// The holder `number` of `name` takes `bytes` less.
    pub(super) fn shrink(&mut self, name: &Name, number: u64, bytes: u64) {
        if let Some(slot) = self.slots.get_mut(name)
            && slot.number == number
        {
            let bytes = bytes.min(slot.disk);
            slot.disk -= bytes;
            self.used -= bytes;
        }
    }

    /// The scan found `name`, which was not known.
    pub(super) fn found(&mut self, name: Name, footprint: Footprint) {
        self.used += footprint.disk;
        let slot = Slot {
            holder: Weak::new(),
            number: 0,
            disk: footprint.disk,
            last_use: LastUse::Earlier(footprint.used),
            is_dear: footprint.is_dear,
        };
        self.slots.insert(name, slot);
    }

    /// The scan found the directory of another version of the format.
    pub(super) fn found_other_version(&mut self, name: String, disk: u64) {
        self.used += disk;
        self.other_versions.insert(name, disk);
    }

    /// Forgets `name` and whoever holds it. Returns the bytes it took.
    pub(super) fn remove(&mut self, name: &Name) -> u64 {
        let disk = self.slots.remove(name).map_or(0, |slot| slot.disk);
        self.used -= disk;
        disk
    }

    /// Forgets the directory of another version of the format. Returns the bytes it took.
    pub(super) fn remove_other_version(&mut self, name: &str) -> u64 {
        let disk = self.other_versions.remove(name).unwrap_or(0);
        self.used -= disk;
        disk
    }

    /// What may leave as a whole.
    pub(super) fn idle(&self) -> Vec<Candidate<Whole>> {
        let artifacts = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.holder.strong_count() == 0)
            .map(|(name, slot)| Candidate {
                what: Whole::Artifact(*name),
                bytes: slot.disk,
                last_use: slot.last_use,
                is_dear: slot.is_dear,
            });
        let others = self.other_versions.iter().map(|(name, disk)| Candidate {
            what: Whole::OtherVersion(name.clone()),
            bytes: *disk,
            last_use: LastUse::Earlier(i64::MIN),
            is_dear: false,
        });
        others.chain(artifacts).collect()
    }

    /// Whoever holds something. Must not be dropped while the index is locked: the last owner of
    /// an artifact tells the index.
    pub(super) fn held(&self) -> Vec<Arc<CachedArtifact>> {
        let holders = self.slots.values().map(|slot| slot.holder.upgrade());
        holders.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::identity::Identity;
    use super::super::identity::tests::{key, version};

    fn name(file: &str) -> Name {
        Identity::of(&key(file), &version("1", 1)).name()
    }

    #[test]
    fn a_former_holder_changes_nothing() {
        let mut index = Index::default();
        let a = name("a");
        index.hold(a, 1, Weak::new(), false, 1);
        index.grow(&a, 1, 100);
        index.hold(a, 2, Weak::new(), false, 2);
        index.set(&a, 2, 90);
        index.grow(&a, 1, 5);
        index.shrink(&a, 1, 5);
        index.set(&a, 1, 5);
        index.release(&a, 1, 3);
        assert_eq!(index.used(), 90);
        assert!(index.is_holder(&a, 2) && !index.is_holder(&a, 1));
        assert_eq!(index.idle()[0].last_use, LastUse::Tick(2));
        index.shrink(&a, 2, 1000);
        assert_eq!(index.used(), 0);
        index.release(&a, 2, 4);
        assert!(!index.knows(&a));
    }

    #[test]
    fn everything_counts_until_it_is_removed() {
        let mut index = Index::default();
        let footprint = Footprint {
            disk: 70,
            used: 5,
            is_dear: false,
        };
        index.found(name("a"), footprint);
        index.found_other_version("v0".into(), 30);
        index.hold(name("b"), 1, Weak::new(), false, 1);
        index.grow(&name("b"), 1, 7);
        assert_eq!(index.used(), 107);
        assert_eq!(index.idle().len(), 3);
        assert!(index.held().is_empty());
        assert_eq!(index.remove(&name("a")), 70);
        assert_eq!(index.remove(&name("a")), 0);
        assert_eq!(index.remove_other_version("v0"), 30);
        assert_eq!(index.remove(&name("b")), 7);
        assert_eq!(index.used(), 0);
    }
}
