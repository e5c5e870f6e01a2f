//! The table of nodes by number: what is listed now and what the kernel still refers to.
//!
//! A number is a hash of the path, so it is the same after a remount without any state. It stays
//! in the table while the newest listing of its directory has the name or the kernel holds a
//! reference, and belongs to that one path all the while. Two paths whose hashes clash (a chance
//! of one in ten million among a million names) are told apart by hashing on; which of them gets
//! the plain number is decided by who was listed first, in the order of names.
//!
//! Owns no lock; [`super::Tree`] keeps it behind one that is never held across an await.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::listing::Listing;
use super::node::{self, Child, META_NAME, MetaFile, Node, Sketch};

/// Inode number of the root.
pub const ROOT: u64 = 1;

/// Inode number of `.backupfs`; its documents follow.
pub(super) const META: u64 = 2;

/// Hashes below this are not used: room for the fixed numbers.
const RESERVED: u64 = 64;

/// Not listed: only the kernel's references keep the slot.
const UNLISTED: u64 = 0;

/// One generation of a listing: the children of its directory and of all directories below that
/// the same answer described, ordered by name.
#[derive(Debug)]
pub(super) struct Contents {
    directories: HashMap<u64, Arc<Vec<Child>>>,
}

impl Contents {
    /// The children of directory `ino`, if this generation has it.
    pub(super) fn of(&self, ino: u64) -> Option<&Arc<Vec<Child>>> {
        self.directories.get(&ino)
    }
}

/// The child `name` of a sorted directory.
pub(super) fn find<'a>(children: &'a [Child], name: &str) -> Option<&'a Child> {
    children
        .binary_search_by(|child| child.name.as_str().cmp(name))
        .ok()
        .map(|at| &children[at])
}

#[derive(Debug)]
struct Slot {
    parent: u64,
    name: Box<str>,
    node: Node,
    /// References the kernel holds.
    refs: u64,
    /// The generation that lists it, or [`UNLISTED`].
    generation: u64,
    /// Its own newest listing, while it is in the table.
    contents: Option<Arc<Contents>>,
    listing: Option<Arc<Listing<Contents>>>,
}

/// Number of the `salt`-th try for `name` in `parent`.
type Numbering = fn(parent: u64, name: &str, salt: u32) -> u64;

/// The table.
#[derive(Debug)]
pub(super) struct Inodes {
    slots: HashMap<u64, Slot>,
    /// By parent: names that have another number than their first, because it is fixed or the
    /// first was taken.
    displaced: HashMap<u64, HashMap<Box<str>, u64>>,
    generations: u64,
    numbering: Numbering,
}

impl Inodes {
    /// A table with the root, its `entries`, and the hidden documents.
    pub(super) fn new(entries: Vec<Sketch>) -> Self {
        Self::numbered_by(hashed, entries)
    }

    fn numbered_by(numbering: Numbering, entries: Vec<Sketch>) -> Self {
        let mut table = Inodes {
            slots: HashMap::new(),
            displaced: HashMap::new(),
            generations: UNLISTED,
            numbering,
        };
        let fixed = table.next_generation();
        table.put(ROOT, ROOT, "", Node::Root, fixed);
        table.put(META, ROOT, META_NAME, Node::Meta, fixed);
        table.displace(META, ROOT, META_NAME);
        let mut documents = Vec::new();
        for (ino, Sketch { name, node, .. }) in (META + 1..).zip(node::documents()) {
            table.put(ino, META, &name, node.clone(), fixed);
            table.displace(ino, META, &name);
            documents.push(Child {
                parent: META,
                name,
                ino,
                node,
            });
        }
        debug_assert!(META + (MetaFile::ALL.len() as u64) < RESERVED);
        let contents = Contents {
            directories: HashMap::from([(META, Arc::new(documents))]),
        };
        if let Some(slot) = table.slots.get_mut(&META) {
            slot.contents = Some(Arc::new(contents));
        }
        table.install(ROOT, entries);
        table
    }

    pub(super) fn node(&self, ino: u64) -> Option<&Node> {
        self.slots.get(&ino).map(|slot| &slot.node)
    }

    pub(super) fn parent(&self, ino: u64) -> Option<u64> {
        self.slots.get(&ino).map(|slot| slot.parent)
    }

    /// The path from the root, beginning with `/`.
    pub(super) fn path(&self, ino: u64) -> Option<String> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != ROOT {
            let slot = self.slots.get(&at)?;
            names.push(&*slot.name);
            at = slot.parent;
        }
        names.reverse();
        Some(format!("/{}", names.join("/")))
    }

    /// The cached listing of directory `ino`.
    pub(super) fn listing(&mut self, ino: u64) -> Option<Arc<Listing<Contents>>> {
        let slot = self.slots.get_mut(&ino)?;
        let listing = slot.listing.get_or_insert_with(|| Arc::new(Listing::new()));
        Some(Arc::clone(listing))
    }

    /// Every cached listing, with its directory's number and node.
    pub(super) fn listings(&self) -> impl Iterator<Item = (u64, &Node, &Arc<Listing<Contents>>)> {
        self.slots.iter().filter_map(|(ino, slot)| {
            let listing = slot.listing.as_ref()?;
            Some((*ino, &slot.node, listing))
        })
    }

    /// How many nodes are known.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// What `owner` and the directories below it hold, as far as it was installed.
    pub(super) fn contents(&self, owner: u64) -> Option<&Arc<Contents>> {
        self.slots.get(&owner)?.contents.as_ref()
    }

    /// Replaces what `owner` and the directories below it hold. `None` when `owner` itself is no
    /// longer in the table.
    pub(super) fn install(&mut self, owner: u64, entries: Vec<Sketch>) -> Option<Arc<Contents>> {
        self.slots.get(&owner)?;
        let generation = self.next_generation();
        let mut directories = HashMap::new();
        let mut changed = Vec::new();
        self.place(owner, entries, generation, &mut directories, &mut changed);
        let contents = Arc::new(Contents { directories });
        let slot = self.slots.get_mut(&owner)?;
        if let Some(old) = slot.contents.replace(Arc::clone(&contents)) {
            for child in old
                .directories
                .values()
                .flat_map(|children| children.iter())
            {
                if self
                    .slots
                    .get(&child.ino)
                    .is_some_and(|slot| slot.generation != generation)
                {
                    self.unlist(child.ino);
                }
            }
        }
        for backup in changed {
            self.install_shards(backup);
        }
        Some(contents)
    }

    /// What the backup `ino` holds: its shards are known with it.
    pub(super) fn install_shards(&mut self, ino: u64) -> Option<Arc<Contents>> {
        match self.node(ino)? {
            Node::Backup {
                provider,
                instance,
                backup,
            } => {
                let shards = node::shards(provider, instance, backup);
                self.install(ino, shards)
            }
            _ => None,
        }
    }

    fn place(
        &mut self,
        parent: u64,
        mut entries: Vec<Sketch>,
        generation: u64,
        directories: &mut HashMap<u64, Arc<Vec<Child>>>,
        changed: &mut Vec<u64>,
    ) {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut children = Vec::with_capacity(entries.len());
        for Sketch { name, node, below } in entries {
            let ino = self.number(parent, &name);
            match self.slots.get_mut(&ino) {
                Some(slot) => {
                    slot.generation = generation;
                    if slot.contents.is_some() && is_another_backup(&slot.node, &node) {
                        changed.push(ino);
                    }
                    slot.node = node.clone();
                }
                None => self.put(ino, parent, &name, node.clone(), generation),
            }
            if matches!(node, Node::Directory { .. }) {
                self.place(ino, below, generation, directories, changed);
            }
            children.push(Child {
                parent,
                name,
                ino,
                node,
            });
        }
        directories.insert(parent, Arc::new(children));
    }

    /// One more kernel reference to `child`, which may come from an older listing. Answers its
    /// number and what it is by the newest listing.
    pub(super) fn hold(&mut self, child: &Child) -> (u64, Node) {
        let ino = self.number(child.parent, &child.name);
        if !self.slots.contains_key(&ino) {
            self.put(ino, child.parent, &child.name, child.node.clone(), UNLISTED);
        }
        match self.slots.get_mut(&ino) {
            Some(slot) => {
                slot.refs = slot.refs.saturating_add(1);
                (ino, slot.node.clone())
            }
            None => (ino, child.node.clone()),
        }
    }

    /// The kernel dropped `count` references; true when none is left.
    pub(super) fn release(&mut self, ino: u64, count: u64) -> bool {
        let Some(slot) = self.slots.get_mut(&ino) else {
            return true;
        };
        slot.refs = slot.refs.saturating_sub(count);
        let unused = slot.refs == 0;
        if unused && slot.generation == UNLISTED {
            self.remove(ino);
        }
        unused
    }

    fn unlist(&mut self, ino: u64) {
        let Some(slot) = self.slots.get_mut(&ino) else {
            return;
        };
        slot.generation = UNLISTED;
        if slot.refs == 0 {
            self.remove(ino);
        }
    }

    /// Takes the slot out, and what only its listing kept. Recursion is as deep as the tree.
    fn remove(&mut self, ino: u64) {
        let Some(slot) = self.slots.remove(&ino) else {
            return;
        };
        if let Some(siblings) = self.displaced.get_mut(&slot.parent) {
            siblings.remove(&slot.name);
            if siblings.is_empty() {
                self.displaced.remove(&slot.parent);
            }
        }
        let contents = slot.contents.iter();
        for children in contents.flat_map(|contents| contents.directories.values()) {
            for child in children.iter() {
                self.unlist(child.ino);
            }
        }
    }

    fn put(&mut self, ino: u64, parent: u64, name: &str, node: Node, generation: u64) {
        self.slots.insert(
            ino,
            Slot {
                parent,
                name: name.into(),
                node,
                refs: 0,
                generation,
                contents: None,
                listing: None,
            },
        );
    }

    /// The number of `name` in `parent`: the one it has, or a free one for it.
    fn number(&mut self, parent: u64, name: &str) -> u64 {
        let displaced = self.displaced.get(&parent);
        if let Some(&ino) = displaced.and_then(|siblings| siblings.get(name)) {
            return ino;
        }
        let mut salt = 0;
        loop {
            let ino = (self.numbering)(parent, name, salt);
            match self.slots.get(&ino) {
                Some(slot) if slot.parent == parent && *slot.name == *name => return ino,
                None if ino >= RESERVED => {
                    if salt > 0 {
                        self.displace(ino, parent, name);
                    }
                    return ino;
                }
                _ => salt += 1,
            }
        }
    }

    fn displace(&mut self, ino: u64, parent: u64, name: &str) {
        let siblings = self.displaced.entry(parent).or_default();
        siblings.insert(name.into(), ino);
    }

    fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }
}

/// Whether the provider now says something else about a backup or its instance.
fn is_another_backup(old: &Node, new: &Node) -> bool {
    match (old, new) {
        (
            Node::Backup {
                instance: old_instance,
                backup: old_backup,
                ..
            },
            Node::Backup {
                instance, backup, ..
            },
        ) => old_backup != backup || old_instance != instance,
        _ => false,
    }
}

/// The usual numbering. The parent's number stands for its path. 63 bits, for programs that keep
/// inode numbers signed.
fn hashed(parent: u64, name: &str, salt: u32) -> u64 {
    let mut hash = Sha256::new();
    hash.update(parent.to_be_bytes());
    hash.update(salt.to_be_bytes());
    hash.update(name.as_bytes());
    let digest = hash.finalize();
    let mut number = [0; 8];
    number.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(number) >> 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Clashes all the time.
    fn crowded(_parent: u64, name: &str, salt: u32) -> u64 {
        RESERVED + name.len() as u64 % 3 + u64::from(salt)
    }

    /// Tries reserved numbers first.
    fn low(parent: u64, name: &str, salt: u32) -> u64 {
        if salt < 3 {
            u64::from(salt)
        } else {
            hashed(parent, name, salt)
        }
    }

    fn entry(name: &str) -> Sketch {
        Sketch {
            name: name.to_owned(),
            node: Node::Provider(name.into()),
            below: Vec::new(),
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A new generation lists these names.
        List(HashSet<usize>),
        /// The kernel refers to a name it saw in any generation.
        Hold(usize),
        /// The kernel drops some references.
        Release(usize, u64),
    }

    const NAMES: [&str; 6] = ["a", "b", "cc", "dd", "eee", "ffff"];

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let name = 0..NAMES.len();
        let step = prop_oneof![
            prop::collection::hash_set(name.clone(), 0..NAMES.len()).prop_map(Step::List),
            name.clone().prop_map(Step::Hold),
            (name, 1..3u64).prop_map(|(name, count)| Step::Release(name, count)),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// A name has a number of its own exactly while it is listed or referred to.
        #[test]
        fn case_52_the_table_follows_the_model(steps in steps(), crowded_numbers in any::<bool>()) {
            let numbering = if crowded_numbers { crowded } else { hashed };
            let mut table = Inodes::numbered_by(numbering, Vec::new());
            let fixed = table.len();
            let mut listed: HashSet<usize> = HashSet::new();
            let mut refs = [0_u64; NAMES.len()];
            let mut numbers: HashMap<usize, u64> = HashMap::new();
            for step in steps {
                match step {
                    Step::List(names) => {
                        table.install(ROOT, names.iter().map(|&n| entry(NAMES[n])).collect());
                        listed = names;
                    }
                    Step::Hold(n) => {
                        let child = Child {
                            parent: ROOT,
                            name: NAMES[n].to_owned(),
                            ino: 0,
                            node: Node::Provider(NAMES[n].into()),
                        };
                        let (ino, _) = table.hold(&child);
                        prop_assert_eq!(numbers.get(&n).copied().unwrap_or(ino), ino);
                        refs[n] += 1;
                    }
                    Step::Release(n, count) => {
                        if let Some(&ino) = numbers.get(&n) {
                            refs[n] = refs[n].saturating_sub(count);
                            prop_assert_eq!(table.release(ino, count), refs[n] == 0);
                        }
                    }
                }
                let before = std::mem::take(&mut numbers);
                for n in (0..NAMES.len()).filter(|n| listed.contains(n) || refs[*n] > 0) {
                    let ino = table.number(ROOT, NAMES[n]);
                    prop_assert!(matches!(table.node(ino), Some(Node::Provider(p)) if **p == *NAMES[n]));
                    prop_assert_eq!(table.parent(ino), Some(ROOT));
                    prop_assert_eq!(table.path(ino), Some(format!("/{}", NAMES[n])));
                    prop_assert_eq!(before.get(&n).copied().unwrap_or(ino), ino, "moved");
                    prop_assert!(!numbers.values().any(|other| *other == ino), "shared");
                    numbers.insert(n, ino);
                }
                prop_assert_eq!(table.len(), fixed + numbers.len(), "leaked");
            }
        }
    }

    #[test]
    fn reserved_numbers_are_never_given_to_names() {
        let mut table = Inodes::numbered_by(low, vec![entry("a"), entry("b")]);
        for name in ["a", "b"] {
            assert!(table.number(ROOT, name) >= RESERVED);
        }
        assert!(matches!(table.node(ROOT), Some(Node::Root)));
        assert!(matches!(table.node(META), Some(Node::Meta)));
    }

    #[test]
    fn a_displaced_name_keeps_its_number_when_its_rival_goes() {
        let mut table = Inodes::numbered_by(crowded, vec![entry("a"), entry("b")]);
        let number = table.number(ROOT, "b");
        table.install(ROOT, vec![entry("b")]);
        assert_eq!(table.number(ROOT, "b"), number);
        table.install(ROOT, Vec::new());
        assert!(!table.displaced[&ROOT].contains_key("b"));
    }

    /// Numbers must not change from one release to the next: incremental backup tools compare them.
    #[test]
    fn case_52_the_numbering_is_fixed() {
        assert_eq!(hashed(ROOT, "atlas-prod", 0), 6602429420219805450);
    }
}
