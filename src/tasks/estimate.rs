//! When a task that is under way may be ready. Pure.
//!
//! From its own progress where the provider tells it, else from how long the earlier tasks of its
//! instance took. An estimate that is over tells nothing and is not given.

use jiff::{SignedDuration, Timestamp};

use crate::model::{Task, TaskState};

/// Progress below this says little about the whole, in percent.
const TELLING: u8 = 5;

/// When `task`, asked for at `since`, may be ready; `earlier` are the times that others took.
pub(super) fn ready_at(
    task: &Task,
    since: Timestamp,
    now: Timestamp,
    earlier: impl IntoIterator<Item = SignedDuration>,
) -> Option<Timestamp> {
    if !matches!(task.state, TaskState::Queued | TaskState::Running) {
        return None;
    }
    let elapsed = now.duration_since(since);
    let takes = match task.percent {
        Some(percent @ TELLING..=99) if elapsed.is_positive() => {
            elapsed.checked_mul(100)? / i32::from(percent)
        }
        _ => median(earlier.into_iter().collect())?,
    };
    since.checked_add(takes).ok().filter(|at| *at > now)
}

fn median(mut times: Vec<SignedDuration>) -> Option<SignedDuration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tasks::fake::task;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn seconds(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    fn running(percent: Option<u8>) -> Task {
        Task {
            percent,
            ..task("t", TaskState::Running)
        }
    }

    #[test]
    fn progress_tells_more_than_the_past() {
        let past = [seconds(50), seconds(70), seconds(900)];
        let estimate = |percent, now| ready_at(&running(percent), at(0), at(now), past);
        assert_eq!(estimate(Some(25), 30), Some(at(120)));
        assert_eq!(estimate(None, 30), Some(at(70)));
        assert_eq!(estimate(Some(4), 30), Some(at(70)), "too little to tell");
        assert_eq!(estimate(None, 71), None, "over");
        assert_eq!(ready_at(&running(None), at(0), at(30), []), None);
        let done = task("t", TaskState::Ready);
        assert_eq!(ready_at(&done, at(0), at(30), past), None);
    }

    proptest! {
        #[test]
        fn an_estimate_lies_ahead_whatever_the_clock_does(
            percent in prop::option::of(any::<u8>()),
            since in -1_000_000_000..1_000_000_000_i64,
            now in -1_000_000_000..1_000_000_000_i64,
            past in prop::collection::vec(any::<i64>(), 0..4),
        ) {
            let past = past.into_iter().map(seconds);
            if let Some(estimate) = ready_at(&running(percent), at(since), at(now), past) {
                prop_assert!(estimate > at(now));
            }
        }
    }
}
