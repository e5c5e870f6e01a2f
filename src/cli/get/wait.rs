//! What a file waits for before its bytes come, in words. Pure.

use jiff::Timestamp;

use crate::cli::table::{short_size, short_time};
use crate::copy::Event;

/// How a file waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Wait {
    /// As `user.backupfs.state`.
    state: String,
    percent: Option<u8>,
    estimate: Option<Timestamp>,
    cached: u64,
}

impl Wait {
    pub(super) fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Waiting {
                state,
                percent,
                estimate,
                cached,
                ..
            } => Wait {
                state: (*state).to_owned(),
                percent: *percent,
                estimate: *estimate,
                cached: *cached,
            },
            _ => Wait::default(),
        }
    }

    /// What is waited for: a task that is ready leaves the file to be opened, or its bytes to come
    /// until its length is known.
    fn what(&self) -> String {
        match (&*self.state, self.cached, self.percent) {
            ("ready", 0, _) => "opening".to_owned(),
            ("ready", ..) => "fetching".to_owned(),
            (state, _, Some(percent)) => format!("{state} {percent} %"),
            (state, _, None) => state.to_owned(),
        }
    }

    fn estimate(&self) -> Option<Timestamp> {
        self.estimate.filter(|_| self.state != "ready")
    }

    fn cached(&self) -> Option<String> {
        (self.cached > 0).then(|| format!("{} so far", short_size(self.cached)))
    }

    /// For a bar, which is drawn again as time goes by.
    pub(super) fn details(&self, now: Timestamp) -> Vec<String> {
        let ahead = self.estimate().filter(|at| *at > now);
        let ahead = ahead.map(|at| {
            let seconds = at.duration_since(now).as_secs();
            format!("ready in {}", short_time(seconds))
        });
        [Some(self.what()), ahead, self.cached()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// For a line, which may be read much later.
    pub(super) fn in_words(&self) -> String {
        let estimate = self
            .estimate()
            .map(|at| format!("expected ready at {at:.0}"));
        let words = [Some(self.what()), estimate, self.cached()];
        words.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_by_what_they_are_for() {
        let at: Timestamp = "2026-01-05T14:00:00Z".parse().unwrap();
        let wait = |state: &str, percent, cached| Wait {
            state: state.to_owned(),
            percent,
            estimate: Some(at),
            cached,
        };
        let earlier = at - jiff::SignedDuration::from_mins(3);
        for (wait, words, details) in [
            (
                wait("running", Some(33), 0),
                "running 33 %, expected ready at 2026-01-05T14:00:00Z",
                "running 33 %|ready in 3m0s",
            ),
            (wait("ready", Some(100), 0), "opening", "opening"),
            (
                wait("ready", None, 3 << 20),
                "fetching, 3.0MiB so far",
                "fetching|3.0MiB so far",
            ),
        ] {
            assert_eq!(wait.in_words(), words);
            assert_eq!(wait.details(earlier).join("|"), details);
        }
    }
}
