//! Whose turn it is where only one download task can be made at a time. Pure.
//!
//! First come, first served: who wants a task made enters the lane of its instance, may ask for the
//! task once nobody stands before it, and leaves when the task has ended or nobody wants it any
//! more.

use std::collections::{HashMap, VecDeque};

use crate::model::TaskKey;

/// An account and what makes one task at a time there.
pub(super) type Lane = (String, String);

/// All lanes that somebody stands in.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    queues: HashMap<Lane, VecDeque<TaskKey>>,
}

impl Lanes {
    /// Puts `key` at the end of `lane`, unless it stands there already.
    pub(super) fn enter(&mut self, lane: &Lane, key: &TaskKey) {
        let queue = self.queues.entry(lane.clone()).or_default();
        if !queue.contains(key) {
            queue.push_back(key.clone());
        }
    }

    /// Who stands before `key`, its turn first; nobody when it is its turn.
    pub(super) fn before(&self, lane: &Lane, key: &TaskKey) -> Vec<TaskKey> {
        let queue = self.queues.get(lane).into_iter().flatten();
        queue.take_while(|other| *other != key).cloned().collect()
    }

    /// Takes `key` out of `lane`.
    pub(super) fn leave(&mut self, lane: &Lane, key: &TaskKey) {
        if let Some(queue) = self.queues.get_mut(lane) {
            queue.retain(|other| other != key);
            if queue.is_empty() {
                self.queues.remove(lane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(backup: usize) -> TaskKey {
        TaskKey {
            provider: "p".into(),
            instance: "i".into(),
            backup: backup.to_string(),
            shard: "s".into(),
        }
    }

    fn lane(name: usize) -> Lane {
        ("p".into(), name.to_string())
    }

    #[test]
    fn the_first_goes_first() {
        let mut lanes = Lanes::default();
        for number in [1, 2, 1, 3] {
            lanes.enter(&lane(0), &key(number));
        }
        assert!(lanes.before(&lane(0), &key(1)).is_empty());
        assert_eq!(lanes.before(&lane(0), &key(3)), [key(1), key(2)]);
        lanes.leave(&lane(0), &key(2));
        assert_eq!(lanes.before(&lane(0), &key(3)), [key(1)]);
        lanes.leave(&lane(0), &key(1));
        assert!(lanes.before(&lane(0), &key(3)).is_empty());
        lanes.leave(&lane(0), &key(3));
        assert!(lanes.queues.is_empty(), "an empty lane takes no room");
    }

    proptest! {
        #[test]
        fn one_has_its_turn_and_nobody_overtakes(
            steps in proptest::collection::vec((0_usize..2, 0_usize..5, proptest::bool::ANY), 0..60),
        ) {
            let mut lanes = Lanes::default();
            let mut expected: Vec<Vec<usize>> = vec![Vec::new(); 2];
            for (at, number, enters) in steps {
                let queue = &mut expected[at];
                if enters {
                    lanes.enter(&lane(at), &key(number));
                    if !queue.contains(&number) {
                        queue.push(number);
                    }
                } else {
                    lanes.leave(&lane(at), &key(number));
                    queue.retain(|other| *other != number);
                }
                for (place, number) in queue.iter().enumerate() {
                    let before: Vec<TaskKey> = queue[..place].iter().map(|n| key(*n)).collect();
                    prop_assert_eq!(lanes.before(&lane(at), &key(*number)), before);
                }
            }
        }
    }
}
