//! Rate limits: one token bucket per group of endpoints, refilled continuously. Pure.
//!
//! Capacities and refill rates are those of "Atlas Administration API Rate Limits" on
//! mongodb.com/docs, which counts them per project or per user.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Endpoints that share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Backups,
    Flex,
    Clusters,
    Groups,
    Root,
}

/// The size of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Requests at once.
    pub capacity: u32,
    /// Requests given back every 60 seconds.
    pub refill: u32,
}

/// The sizes of all buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Snapshots, restores and downloads.
    pub backups: Limit,
    /// Flex clusters, their snapshots and downloads.
    pub flex: Limit,
    /// The clusters of a project.
    pub clusters: Limit,
    /// Projects.
    pub groups: Limit,
    /// All clusters of all projects.
    pub root: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        let limit = |capacity, refill| Limit { capacity, refill };
        Limits {
            backups: limit(1200, 500),
            flex: limit(1200, 500),
            clusters: limit(10_000, 5000),
            groups: limit(1200, 500),
            root: limit(300, 100),
        }
    }
}

impl Limits {
    pub(super) fn of(&self, class: Class) -> Limit {
        match class {
            Class::Backups => self.backups,
            Class::Flex => self.flex,
            Class::Clusters => self.clusters,
            Class::Groups => self.groups,
            Class::Root => self.root,
        }
    }
}

/// The levels of all buckets; one that was never used is full.
#[derive(Debug, Default)]
pub(super) struct Buckets(HashMap<Class, Level>);

#[derive(Debug, Clone, Copy)]
struct Level {
    tokens: f64,
    at: Timestamp,
}

impl Buckets {
    /// Takes one token: how many are left, or in how many whole seconds there will be one.
    pub(super) fn take(&mut self, class: Class, limit: Limit, now: Timestamp) -> Result<u32, u64> {
        let capacity = f64::from(limit.capacity);
        let per_second = f64::from(limit.refill) / 60.0;
        let level = self.0.entry(class).or_insert(Level {
            tokens: capacity,
            at: now,
        });
        let elapsed = now.duration_since(level.at).as_secs_f64().max(0.0);
        level.tokens = (level.tokens + elapsed * per_second).min(capacity);
        level.at = level.at.max(now);
        if level.tokens >= 1.0 {
            level.tokens -= 1.0;
            Ok(level.tokens as u32)
        } else {
            let wait = (1.0 - level.tokens) / per_second;
            Err(if wait.is_finite() {
                wait.ceil() as u64
            } else {
                60
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_bucket_empties_and_refills() {
        let mut buckets = Buckets::default();
        let limit = Limit {
            capacity: 2,
            refill: 6,
        };
        let start = Timestamp::UNIX_EPOCH;
        let mut take = |seconds| {
            let now = start + SignedDuration::from_secs(seconds);
            buckets.take(Class::Backups, limit, now)
        };
        assert_eq!([take(0), take(0), take(0)], [Ok(1), Ok(0), Err(10)]);
        assert_eq!(take(4), Err(6));
        assert_eq!(take(10), Ok(0));
        assert_eq!(
            [take(1000), take(1000), take(1000)],
            [Ok(1), Ok(0), Err(10)]
        );
        assert_eq!(take(990), Err(10), "a clock set back gives nothing");
    }
}
