//! Which blocks of one artifact version are present, how durable each is, and when it was used.
//!
//! Blocks are kept in extents of 128, so that a set of blocks is one `u128`. A block goes from
//! *fresh* (in the data file, maybe only in the page cache) over *syncing* to *durable*, and only
//! then belongs into the map: an entry on disk never promises bytes that a power cut can take
//! away. A block is *proven* once this process wrote it or read it back and found its checksum
//! right. Extents are also the unit of eviction within an artifact. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::store::BLOCK_SIZE;

/// Blocks per extent: 16 MiB of data.
pub(super) const EXTENT_BLOCKS: u64 = u128::BITS as u64;

/// How a file of `size` bytes divides into blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// Bytes of the file.
    pub(super) size: u64,
}

impl Geometry {
    /// Number of blocks.
    pub(super) fn blocks(self) -> u64 {
        self.size.div_ceil(BLOCK_SIZE)
    }

    /// Bytes of `block`: less than [`BLOCK_SIZE`] only for the last, 0 beyond it.
    pub(super) fn block_len(self, block: u64) -> u64 {
        let start = block.saturating_mul(BLOCK_SIZE);
        self.size.saturating_sub(start).min(BLOCK_SIZE)
    }

    /// The blocks that hold `range`, which must lie within the file.
    pub(super) fn blocks_of(self, range: &Range<u64>) -> Range<u64> {
        range.start / BLOCK_SIZE..range.end.div_ceil(BLOCK_SIZE)
    }
}

/// A run of map entries that differ from the map on disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MapRun {
    /// The first block of the run.
    pub(super) first: u64,
    /// What the map should say of this and the following blocks.
    pub(super) crcs: Vec<Option<u32>>,
}

#[derive(Debug)]
struct Extent {
    /// CRC32C of each present block.
    crcs: [u32; EXTENT_BLOCKS as usize],
    /// Can be read from the data file.
    present: u128,
    /// Written since the last sync began.
    fresh: u128,
    /// Part of a sync under way.
    syncing: u128,
    /// The map on disk has an entry.
    mapped: u128,
    /// Written, or read and verified, by this process.
    proven: u128,
    /// When a block of it was last used, by the cache's own count.
    used: u64,
}

impl Extent {
    /// Blocks that the map should have.
    fn durable(&self) -> u128 {
        self.present & !self.fresh & !self.syncing
    }

    fn unproven(&self) -> u128 {
        self.present & !self.proven
    }

    fn forget(&mut self, blocks: u128) {
        self.present &= !blocks;
        self.fresh &= !blocks;
        self.syncing &= !blocks;
        self.proven &= !blocks;
    }
}

/// The blocks of one artifact version.
#[derive(Debug)]
pub(super) struct Extents {
    geometry: Geometry,
    extents: BTreeMap<u64, Box<Extent>>,
    /// Extents with something fresh, syncing, or different from the map.
    unsettled: BTreeSet<u64>,
    bytes: u64,
    /// How many times blocks were forgotten: tells a reader that its block left meanwhile.
    forgettings: u64,
}

impl Extents {
    pub(super) fn new(geometry: Geometry) -> Self {
        Extents {
            geometry,
            extents: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            bytes: 0,
            forgettings: 0,
        }
    }

    /// Bytes present.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes whenever blocks were forgotten.
    pub(super) fn forgettings(&self) -> u64 {
        self.forgettings
    }

    /// CRC32C of `block` if it is present.
    pub(super) fn crc(&self, block: u64) -> Option<u32> {
        let (extent, bit) = place(block);
        let extent = self.extents.get(&extent)?;
        (extent.present & mask(bit) != 0).then(|| extent.crcs[bit as usize])
    }

    /// Notes that the blocks of `range` were used at `tick`.
    pub(super) fn touch(&mut self, blocks: &Range<u64>, tick: u64) {
        let extents = blocks.start / EXTENT_BLOCKS..blocks.end.div_ceil(EXTENT_BLOCKS);
        for (_, extent) in self.extents.range_mut(extents) {
            extent.used = tick;
        }
    }

    /// Takes over a block that the map on disk has; beyond the end of the file there is none.
    pub(super) fn load(&mut self, block: u64, crc: u32) {
        if block < self.geometry.blocks() {
            let bit = mask(place(block).1);
            let extent = self.put(block, crc);
            extent.mapped |= bit;
        }
    }

    /// Notes that `block` was written to the data file.
    pub(super) fn install(&mut self, block: u64, crc: u32, tick: u64) {
        let bit = mask(place(block).1);
        let extent = self.put(block, crc);
        extent.fresh |= bit;
        extent.syncing &= !bit;
        // Whatever the map says was for other bytes: it must be written again.
        extent.mapped &= !bit;
        extent.proven |= bit;
        extent.used = tick;
        self.unsettled.insert(place(block).0);
    }

    /// Notes that those of `blocks` that are present were read and verified.
    pub(super) fn prove(&mut self, blocks: Range<u64>) {
        for block in blocks {
            let (index, bit) = place(block);
            if let Some(extent) = self.extents.get_mut(&index) {
                extent.proven |= mask(bit) & extent.present;
            }
        }
    }

    /// Notes that everything present is known to be as it was when this process proved it.
    pub(super) fn prove_all(&mut self) {
        for extent in self.extents.values_mut() {
            extent.proven = extent.present;
        }
    }

    /// Notes that nothing is proven any more.
    pub(super) fn doubt_all(&mut self) {
        for extent in self.extents.values_mut() {
            extent.proven = 0;
        }
    }

    /// Whether `block` is present and proven.
    pub(super) fn is_proven(&self, block: u64) -> bool {
        let (index, bit) = place(block);
        let extent = self.extents.get(&index);
        extent.is_some_and(|extent| extent.proven & mask(bit) != 0)
    }

    /// The first block from `from` on that is present but not proven.
    pub(super) fn next_unproven(&self, from: u64) -> Option<u64> {
        let (index, bit) = place(from);
        self.extents.range(index..).find_map(|(at, extent)| {
            let skipped = if *at == index { mask(bit) - 1 } else { 0 };
            let unproven = extent.unproven() & !skipped;
            (unproven != 0).then(|| at * EXTENT_BLOCKS + u64::from(unproven.trailing_zeros()))
        })
    }

    /// Whether every block of the file is present and durable.
    pub(super) fn is_settled(&self) -> bool {
        let mut extents = self.extents.values();
        self.bytes == self.geometry.size && extents.all(|extent| extent.durable() == extent.present)
    }

    fn put(&mut self, block: u64, crc: u32) -> &mut Extent {
        let (index, bit) = place(block);
        let extent = self.extents.entry(index).or_insert_with(|| {
            Box::new(Extent {
                crcs: [0; EXTENT_BLOCKS as usize],
                present: 0,
                fresh: 0,
                syncing: 0,
                mapped: 0,
                proven: 0,
                used: 0,
            })
        });
        if extent.present & mask(bit) == 0 {
            self.bytes += self.geometry.block_len(block);
        }
        extent.present |= mask(bit);
        extent.crcs[bit as usize] = crc;
        extent
    }

    /// Forgets one block. Returns its bytes if it was present.
    pub(super) fn forget(&mut self, block: u64) -> u64 {
        let (index, bit) = place(block);
        self.forget_in(index, mask(bit))
    }

    /// Forgets a whole extent. Returns the bytes that were present.
    pub(super) fn forget_extent(&mut self, index: u64) -> u64 {
        self.forget_in(index, u128::MAX)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.extents.clear();
        self.unsettled.clear();
        self.bytes = 0;
        self.forgettings += 1;
    }

    fn forget_in(&mut self, index: u64, blocks: u128) -> u64 {
        let Some(extent) = self.extents.get_mut(&index) else {
            return 0;
        };
        let bytes = bytes_of(self.geometry, index, extent.present & blocks);
        extent.forget(blocks);
        self.bytes -= bytes;
        self.forgettings += 1;
        self.unsettled.insert(index);
        bytes
    }

    /// Begins a sync: what is fresh now will be durable when it ends. `false` if nothing is fresh.
    pub(super) fn begin_sync(&mut self) -> bool {
        let mut any = false;
        for index in &self.unsettled {
            if let Some(extent) = self.extents.get_mut(index) {
                extent.syncing |= extent.fresh;
                extent.fresh = 0;
                any |= extent.syncing != 0;
            }
        }
        any
    }

    /// Ends the sync. When it failed nobody knows what is on disk, so its blocks are forgotten;
    /// returns their bytes.
    pub(super) fn end_sync(&mut self, synced: bool) -> u64 {
        let mut lost = 0;
        for index in &self.unsettled {
            if let Some(extent) = self.extents.get_mut(index) {
                if !synced {
                    lost += bytes_of(self.geometry, *index, extent.syncing);
                    extent.forget(extent.syncing);
                }
                extent.syncing = 0;
            }
        }
        self.bytes -= lost;
        self.forgettings += u64::from(lost > 0);
        lost
    }

    /// What to write to the map so that it names exactly the durable blocks.
    pub(super) fn map_changes(&self) -> Vec<MapRun> {
        let changed = self.unsettled.iter().filter_map(|index| {
            let extent = self.extents.get(index)?;
            let durable = extent.durable();
            let change = durable ^ extent.mapped;
            if change == 0 {
                return None;
            }
            let bits = change.trailing_zeros()..u128::BITS - change.leading_zeros();
            let crcs = bits
                .clone()
                .map(|bit| (durable & mask(bit) != 0).then(|| extent.crcs[bit as usize]));
            Some(MapRun {
                first: index * EXTENT_BLOCKS + u64::from(bits.start),
                crcs: crcs.collect(),
            })
        });
        let mut runs: Vec<MapRun> = Vec::new();
        for run in changed {
            match runs.last_mut() {
                Some(last) if last.first + last.crcs.len() as u64 == run.first => {
                    last.crcs.extend(run.crcs);
                }
                _ => runs.push(run),
            }
        }
        runs
    }

    /// Notes that `runs` were written to the map.
    pub(super) fn mapped(&mut self, runs: &[MapRun]) {
        for run in runs {
            for (block, crc) in (run.first..).zip(&run.crcs) {
                let (index, bit) = place(block);
                if let Some(extent) = self.extents.get_mut(&index) {
                    match crc {
                        Some(_) => extent.mapped |= mask(bit),
                        None => extent.mapped &= !mask(bit),
                    }
                }
            }
        }
        let extents = &mut self.extents;
        self.unsettled.retain(|index| {
            let Some(extent) = extents.get(index) else {
                return false;
            };
            if extent.present | extent.mapped == 0 {
                extents.remove(index);
                return false;
            }
            extent.durable() != extent.mapped || extent.fresh | extent.syncing != 0
        });
    }

    /// Runs of blocks that are not present.
    pub(super) fn gaps(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let present = self.extents.iter().flat_map(|(index, extent)| {
            let first = index * EXTENT_BLOCKS;
            (0..u128::BITS)
                .filter(|bit| extent.present & mask(*bit) != 0)
                .map(move |bit| first + u64::from(bit))
        });
        let ends = present.chain([self.geometry.blocks()]);
        ends.scan(0, |next, end| {
            let gap = *next..end;
            *next = end + 1;
            Some(gap)
        })
        .filter(|gap| !gap.is_empty())
    }

    /// Each extent that holds something: its index, bytes, and when it was last used.
    pub(super) fn usage(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.extents.iter().filter_map(|(index, extent)| {
            let bytes = bytes_of(self.geometry, *index, extent.present);
            (bytes > 0).then_some((*index, bytes, extent.used))
        })
    }
}

/// The extent of `block`, and its place there.
fn place(block: u64) -> (u64, u32) {
    (block / EXTENT_BLOCKS, (block % EXTENT_BLOCKS) as u32)
}

fn mask(bit: u32) -> u128 {
    1 << bit
}

/// Bytes of the blocks `set` of the extent `index`.
fn bytes_of(geometry: Geometry, index: u64, set: u128) -> u64 {
    let Some(last) = set.checked_ilog2() else {
        return 0;
    };
    // Only the last block of a file is short.
    let whole = u64::from(set.count_ones()) - 1;
    whole * BLOCK_SIZE + geometry.block_len(index * EXTENT_BLOCKS + u64::from(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn written(runs: &[MapRun]) -> Vec<(u64, Option<u32>)> {
        runs.iter()
            .flat_map(|run| (run.first..).zip(run.crcs.iter().copied()))
            .collect()
    }

    #[test]
    fn geometry_of_odd_sizes() {
        for (size, blocks, last) in [
            (0, 0, 0),
            (1, 1, 1),
            (BLOCK_SIZE, 1, BLOCK_SIZE),
            (BLOCK_SIZE + 1, 2, 1),
        ] {
            let geometry = Geometry { size };
            assert_eq!(geometry.blocks(), blocks);
            assert_eq!(geometry.block_len(blocks.saturating_sub(1)), last);
            assert_eq!(geometry.block_len(blocks), 0);
        }
        assert_eq!(Geometry { size: 5 }.block_len(u64::MAX), 0);
    }

    #[test]
    fn only_synced_blocks_reach_the_map() {
        let mut extents = Extents::new(Geometry {
            size: 4 * BLOCK_SIZE,
        });
        extents.install(0, 10, 1);
        assert_eq!(extents.map_changes(), []);
        assert!(extents.begin_sync());
        extents.install(1, 11, 2);
        assert_eq!(extents.end_sync(true), 0);
        let runs = extents.map_changes();
        assert_eq!(written(&runs), [(0, Some(10))]);
        extents.mapped(&runs);
        assert_eq!(extents.map_changes(), []);
        assert!(extents.begin_sync());
        extents.end_sync(true);
        assert_eq!(written(&extents.map_changes()), [(1, Some(11))]);
    }

    #[test]
    fn a_block_rewritten_during_a_sync_waits_for_the_next() {
        let mut extents = Extents::new(Geometry { size: BLOCK_SIZE });
        extents.install(0, 10, 1);
        extents.begin_sync();
        extents.forget(0);
        extents.install(0, 12, 2);
        extents.end_sync(true);
        assert_eq!(extents.map_changes(), []);
        extents.begin_sync();
        extents.end_sync(true);
        assert_eq!(written(&extents.map_changes()), [(0, Some(12))]);
    }

    #[test]
    fn a_failed_sync_forgets_its_blocks_only() {
        let mut extents = Extents::new(Geometry {
            size: 2 * BLOCK_SIZE,
        });
        extents.install(0, 10, 1);
        extents.begin_sync();
        extents.install(1, 11, 2);
        assert_eq!(extents.end_sync(false), BLOCK_SIZE);
        assert_eq!((extents.crc(0), extents.crc(1)), (None, Some(11)));
        assert_eq!(extents.bytes(), BLOCK_SIZE);
    }

    #[test]
    fn adjacent_extents_make_one_run() {
        let mut extents = Extents::new(Geometry {
            size: 300 * BLOCK_SIZE,
        });
        for block in 0..256 {
            extents.install(block, block as u32, block);
        }
        extents.begin_sync();
        extents.end_sync(true);
        let runs = extents.map_changes();
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].crcs.len(), 256);
    }

    #[test]
    fn gaps_are_what_is_not_present() {
        let mut extents = Extents::new(Geometry {
            size: 300 * BLOCK_SIZE,
        });
        assert!(extents.gaps().eq(std::iter::once(0..300)));
        for block in [0, 1, 5, 127, 128, 299] {
            extents.load(block, 1);
        }
        let gaps: Vec<_> = extents.gaps().collect();
        assert_eq!(gaps, [2..5, 6..127, 129..299]);
        assert_eq!(Extents::new(Geometry { size: 0 }).gaps().count(), 0);
    }

    #[test]
    fn loaded_blocks_are_unproven_until_read() {
        let mut extents = Extents::new(Geometry {
            size: 300 * BLOCK_SIZE,
        });
        for block in 0..300 {
            extents.load(block, 1);
        }
        assert!(extents.is_settled());
        extents.prove(0..5);
        extents.prove(6..290);
        assert_eq!(extents.next_unproven(0), Some(5));
        assert_eq!(extents.next_unproven(6), Some(290));
        extents.install(5, 2, 1);
        assert!(!extents.is_settled() && extents.is_proven(5));
        extents.forget(295);
        extents.prove(0..300);
        assert!(!extents.is_proven(295));
        assert_eq!(extents.next_unproven(0), None);
        extents.load(295, 1);
        assert_eq!(extents.next_unproven(127), Some(295));
        extents.prove_all();
        assert_eq!(extents.next_unproven(0), None);
        extents.doubt_all();
        assert_eq!(extents.next_unproven(0), Some(0));
    }

    #[test]
    fn use_is_counted_per_extent() {
        let mut extents = Extents::new(Geometry {
            size: 200 * BLOCK_SIZE - 1,
        });
        extents.load(0, 1);
        extents.load(199, 2);
        extents.load(200, 3);
        extents.touch(&(190..200), 7);
        let usage: Vec<_> = extents.usage().collect();
        assert_eq!(usage, [(0, BLOCK_SIZE, 0), (1, BLOCK_SIZE - 1, 7)]);
        assert_eq!(extents.forget_extent(1), BLOCK_SIZE - 1);
        assert_eq!(written(&extents.map_changes()), [(199, None)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Install(u64, u32),
        Forget(u64),
        ForgetExtent(u64),
        BeginSync,
        EndSync(bool),
        WriteMap,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..300, any::<u32>()).prop_map(|(block, crc)| Step::Install(block, crc)),
            1 => (0u64..300).prop_map(Step::Forget),
            1 => (0u64..3).prop_map(Step::ForgetExtent),
            2 => Just(Step::BeginSync),
            2 => any::<bool>().prop_map(Step::EndSync),
            2 => Just(Step::WriteMap),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a plain model of the two files: an entry written to the map always describes
        /// bytes that an earlier, finished sync covered.
        #[test]
        fn case_41_the_map_never_runs_ahead_of_the_data(steps in proptest::collection::vec(step(), 0..200)) {
            let geometry = Geometry { size: 300 * BLOCK_SIZE - 77 };
            let mut extents = Extents::new(geometry);
            let mut present: BTreeMap<u64, u32> = BTreeMap::new();
            let mut durable: BTreeMap<u64, u32> = BTreeMap::new();
            let mut syncing: Option<BTreeMap<u64, u32>> = None;
            let mut map: BTreeMap<u64, u32> = BTreeMap::new();
            for (tick, step) in (0..).zip(steps) {
                match step {
                    Step::Install(block, crc) => {
                        extents.install(block, crc, tick);
                        present.insert(block, crc);
                        durable.remove(&block);
                        if let Some(syncing) = &mut syncing { syncing.remove(&block); }
                    }
                    Step::Forget(block) => {
                        extents.forget(block);
                        present.remove(&block);
                        durable.remove(&block);
                        if let Some(syncing) = &mut syncing { syncing.remove(&block); }
                    }
                    Step::ForgetExtent(index) => {
                        extents.forget_extent(index);
                        let gone = |block: &u64, _: &mut u32| block / EXTENT_BLOCKS != index;
                        present.retain(gone);
                        durable.retain(gone);
                        if let Some(syncing) = &mut syncing { syncing.retain(gone); }
                    }
                    Step::BeginSync if syncing.is_none() => {
                        let fresh: BTreeMap<u64, u32> = present.clone().into_iter()
                            .filter(|(block, _)| !durable.contains_key(block)).collect();
                        prop_assert_eq!(extents.begin_sync(), !fresh.is_empty());
                        syncing = Some(fresh);
                    }
                    Step::EndSync(ok) => if let Some(synced) = syncing.take() {
                        let lost = extents.end_sync(ok);
                        let bytes: u64 = synced.keys().map(|block| geometry.block_len(*block)).sum();
                        prop_assert_eq!(lost, if ok { 0 } else { bytes });
                        for (block, crc) in synced {
                            if ok { durable.insert(block, crc); } else { present.remove(&block); }
                        }
                    }
                    Step::WriteMap => {
                        let runs = extents.map_changes();
                        for (block, crc) in written(&runs) {
                            match crc {
                                Some(crc) => {
                                    prop_assert_eq!(durable.get(&block), Some(&crc));
                                    map.insert(block, crc);
                                }
                                None => { map.remove(&block); }
                            }
                        }
                        extents.mapped(&runs);
                        prop_assert!(extents.map_changes().is_empty());
                        for (block, crc) in &durable {
                            prop_assert_eq!(map.get(block), Some(crc));
                        }
                    }
                    Step::BeginSync => {}
                }
                let bytes: u64 = present.keys().map(|block| geometry.block_len(*block)).sum();
                prop_assert_eq!(extents.bytes(), bytes);
                for block in 0..300 {
                    prop_assert_eq!(extents.crc(block), present.get(&block).copied());
                }
            }
        }
    }
}
