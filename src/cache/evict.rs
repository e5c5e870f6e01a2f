//! Which cached bytes leave first when the cache is full. Pure.

use super::directory::Space;

/// When something was last used. Whatever was used in this run was used after anything earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LastUse {
    /// Before this run, in seconds since 1970, by the file's own time.
    Earlier(i64),
    /// In this run, by the cache's own count.
    Tick(u64),
}

/// Something that could leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate<T> {
    pub(super) what: T,
    /// What its leaving frees.
    pub(super) bytes: u64,
    pub(super) last_use: LastUse,
    /// Whether to bring it again costs more than asking its store: it leaves after all others.
    pub(super) is_dear: bool,
}

/// The least recently used of `candidates` that together free at least `excess` bytes, or all.
pub(super) fn victims<T>(mut candidates: Vec<Candidate<T>>, excess: u64) -> Vec<Candidate<T>> {
    candidates.sort_by_key(|candidate| (candidate.is_dear, candidate.last_use));
    let mut freed: u64 = 0;
    let enough = candidates.iter().position(|candidate| {
        let enough = freed >= excess;
        freed += candidate.bytes;
        enough
    });
    candidates.truncate(enough.unwrap_or(candidates.len()));
    candidates
}

/// Free space that the cache leaves to others on its filesystem: 5 %, at most 1 GiB.
pub(super) fn floor(total: u64) -> u64 {
    (total / 20).min(1 << 30)
}

/// Bytes that must leave before `incoming` more may be written.
pub(super) fn excess(limit: u64, used: u64, incoming: u64, space: Space, floor: u64) -> u64 {
    let above_limit = used.saturating_add(incoming).saturating_sub(limit);
    let below_floor = floor
        .saturating_add(incoming)
        .saturating_sub(space.available);
    above_limit.max(below_floor)
}

/// How much more than the excess leaves at once, so that eviction is not a matter of every write.
pub(super) fn slack(limit: u64) -> u64 {
    (limit / 32).min(256 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn candidate(what: char, bytes: u64, last_use: LastUse) -> Candidate<char> {
        Candidate {
            what,
            bytes,
            last_use,
            is_dear: what.is_uppercase(),
        }
    }

    #[test]
    fn the_oldest_leave_and_no_more_than_needed() {
        use LastUse::{Earlier, Tick};
        let all = vec![
            candidate('c', 10, Tick(1)),
            candidate('a', 10, Earlier(5)),
            candidate('d', 10, Tick(2)),
            candidate('b', 10, Earlier(i64::MAX)),
            candidate('E', 10, Earlier(0)),
        ];
        let leaving = |excess| -> String {
            victims(all.clone(), excess)
                .iter()
                .map(|v| v.what)
                .collect()
        };
        assert_eq!(leaving(0), "");
        assert_eq!(leaving(1), "a");
        assert_eq!(leaving(10), "a");
        assert_eq!(leaving(11), "ab");
        assert_eq!(leaving(21), "abc");
        assert_eq!(leaving(1000), "abcdE", "what is dear is the last to leave");
    }

    #[test]
    fn limit_and_floor_both_count() {
        let space = |available| Space {
            total: 1000,
            available,
        };
        assert_eq!(excess(100, 90, 10, space(500), 50), 0);
        assert_eq!(excess(100, 90, 11, space(500), 50), 1);
        assert_eq!(excess(100, 10, 10, space(60), 50), 0);
        assert_eq!(excess(100, 10, 10, space(55), 50), 5);
        assert_eq!(excess(100, 95, 10, space(40), 50), 20);
        assert_eq!(excess(100, 95, 10, space(57), 50), 5);
        assert_eq!(excess(0, u64::MAX, u64::MAX, space(0), u64::MAX), u64::MAX);
    }

    #[test]
    fn the_floor_is_five_percent_or_a_gibibyte() {
        assert_eq!(floor(1 << 20), (1 << 20) / 20);
        assert_eq!(floor(1 << 50), 1 << 30);
    }

    proptest! {
        #[test]
        fn victims_are_older_than_survivors(
            uses in proptest::collection::vec((0u64..50, 1u64..100), 0..50), excess in 0u64..3000,
        ) {
            let all: Vec<_> = uses.iter().enumerate().map(|(what, (tick, bytes))| Candidate {
                what, bytes: *bytes, last_use: LastUse::Tick(*tick), is_dear: false,
            }).collect();
            let total: u64 = all.iter().map(|c| c.bytes).sum();
            let leaving = victims(all.clone(), excess);
            let freed: u64 = leaving.iter().map(|c| c.bytes).sum();
            prop_assert!(freed >= excess.min(total));
            if let Some(newest) = leaving.last() {
                prop_assert!(freed - newest.bytes < excess);
                for survivor in all.iter().filter(|c| !leaving.contains(c)) {
                    prop_assert!(survivor.last_use >= newest.last_use);
                }
            }
        }
    }
}
