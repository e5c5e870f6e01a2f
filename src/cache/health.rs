//! A failing cache disk must not fail or slow a reader: after a failure nothing is written for a
//! while, then it is tried again.
//!
//! [`Course`] is the pure rule; [`Health`] shares it between threads and says what happens, at most
//! once a minute.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::lock;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Whether to write, and when to try again.
#[derive(Debug, Default)]
struct Course {
    failing: Option<Failing>,
    said: Option<Instant>,
    /// Whether this failure was said, so that its end is said too.
    announced: bool,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    pause: Duration,
    retry_at: Instant,
}

impl Course {
    fn may_write(&self, now: Instant) -> bool {
        self.failing.is_none_or(|failing| now >= failing.retry_at)
    }

    /// Notes a failure; tells whether it is time to say so.
    fn failed(&mut self, now: Instant) -> bool {
        let pause = match self.failing {
            None => FIRST_PAUSE,
            // Failures of what was under way before the pause began do not lengthen it.
            Some(failing) if now < failing.retry_at => return false,
            Some(failing) => (failing.pause * 2).min(LONGEST_PAUSE),
        };
        self.failing = Some(Failing {
            pause,
            retry_at: now + pause,
        });
        let say = self.said.is_none_or(|said| now >= said + SAY_EVERY);
        if say {
            self.said = Some(now);
            self.announced = true;
        }
        say
    }

    /// Notes a success; tells whether it ended a failure that was said.
    fn worked(&mut self) -> bool {
        self.failing = None;
        std::mem::take(&mut self.announced)
    }
}

/// The state of the cache disk.
#[derive(Debug)]
pub(super) struct Health {
    path: PathBuf,
    failing: AtomicBool,
    failures: AtomicU64,
    course: Mutex<Course>,
}

impl Health {
    pub(super) fn new(path: PathBuf) -> Self {
        Health {
            path,
            failing: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            course: Mutex::default(),
        }
    }

    /// Whether a write may be tried now.
    pub(super) fn may_write(&self) -> bool {
        !self.failing.load(Relaxed) || lock(&self.course).may_write(Instant::now())
    }

    /// Whether the last write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    /// Failures so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub(super) fn failed(&self, doing: &str, why: impl Display) {
        self.failures.fetch_add(1, Relaxed);
        let mut course = lock(&self.course);
        self.failing.store(true, Relaxed);
        if course.failed(Instant::now()) {
            tracing::warn!(
                "cache {}: {doing} failed: {why}; reads go on without caching until it works again",
                self.path.display()
            );
        }
    }

    pub(super) fn worked(&self) {
        if self.failing.load(Relaxed) {
            let mut course = lock(&self.course);
            self.failing.store(false, Relaxed);
            if course.worked() {
                tracing::info!("cache {} works again", self.path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_43_pauses_double_up_to_a_minute() {
        let mut course = Course::default();
        let mut now = Instant::now();
        assert!(course.may_write(now));
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            course.failed(now);
            let almost = now + Duration::from_secs(expected) - Duration::from_millis(1);
            assert!(!course.may_write(almost));
            now += Duration::from_secs(expected);
            assert!(course.may_write(now));
        }
        assert!(course.worked());
        assert!(!course.worked());
        course.failed(now);
        assert!(course.may_write(now + FIRST_PAUSE));
    }

    #[test]
    fn case_43_a_burst_of_failures_is_one_failure() {
        let mut course = Course::default();
        let now = Instant::now();
        assert!(course.failed(now));
        for _ in 0..100 {
            assert!(!course.failed(now));
        }
        assert!(course.may_write(now + FIRST_PAUSE));
    }

    #[test]
    fn case_43_it_is_said_once_a_minute() {
        let mut course = Course::default();
        let start = Instant::now();
        let said = (0..300)
            .filter(|second| course.failed(start + Duration::from_secs(*second)))
            .count();
        assert!((3..=5).contains(&said), "{said}");
    }
}
