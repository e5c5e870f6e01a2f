//! One cached listing: the last good answer, the last failure, and at most one refresh under way.
//!
//! A refresh runs in its own task, so a caller that is interrupted takes nothing away from the
//! others. A failure never replaces an answer: the last good one is served and marked stale, and
//! the provider is left alone for a moment before it is asked again. Whoever concludes that a name
//! does not exist must hold an answer that is not stale.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};

/// Nothing a provider does may take longer; its own retry budget ends well before.
const REFRESH_DEADLINE: Duration = Duration::from_secs(600);

/// How soon a failed listing is asked again: at most, and while there is nothing to serve.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_WITHOUT_ANSWER: Duration = Duration::from_secs(1);

/// How long a caller waits for a refresh while an older answer could be served.
const GRACE: Duration = Duration::from_secs(5);

/// The same for a name that the older answer has: that a path is still there is what stat is told
/// most often, and each of its components may wait so long.
const MOMENT: Duration = Duration::from_millis(20);

/// How long an answer is served and how long a caller waits for one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// How long an answer is served before it is asked again.
    pub(super) ttl: Duration,
    /// How long a caller waits for a refresh at most.
    pub(super) patience: Duration,
}

/// What the caller needs the answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A name that an older answer may have: not worth a wait that could be felt.
    Known,
    /// All names: an older answer is better than a long wait.
    Any,
    /// Proof that a name does not exist: worth the wait.
    Current,
}

impl Need {
    /// How long an older answer is held back for a refresh; `None` when it does not do.
    fn grace(self) -> Option<Duration> {
        match self {
            Need::Known => Some(MOMENT),
            Need::Any => Some(GRACE),
            Need::Current => None,
        }
    }
}

/// An answer, as good as it could be had.
#[derive(Debug)]
pub(super) struct Served<T> {
    /// The answer.
    pub(super) value: Arc<T>,
    /// How long names in it may be believed without asking again.
    pub(super) fresh_for: Duration,
    /// Why it is not current, if it is not.
    pub(super) stale: Option<Error>,
}

/// What status shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    /// When the last good answer came.
    pub(super) listed: Option<Timestamp>,
    /// Why the last attempt failed, if it did: what is shown is older than it should be.
    pub(super) error: Option<String>,
}

/// The cached listing.
#[derive(Debug)]
pub(super) struct Listing<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    good: Option<Good<T>>,
    failure: Option<Failure>,
    refresh: Option<Refresh>,
}

#[derive(Debug)]
struct Good<T> {
    value: Arc<T>,
    at: Instant,
    listed: Timestamp,
}

#[derive(Debug)]
struct Failure {
    error: Error,
    at: Instant,
}

#[derive(Debug, Clone)]
struct Refresh {
    since: Instant,
    done: watch::Receiver<bool>,
}

impl<T: Send + Sync + 'static> Listing<T> {
    pub(super) fn new() -> Self {
        Listing {
            state: Mutex::new(State {
                good: None,
                failure: None,
                refresh: None,
            }),
        }
    }

    /// The answer, asked again with `load` when it is older than `terms.ttl`.
    ///
    /// # Errors
    /// Only when there is no answer at all, not even an old one: why it could not be had.
    pub(super) async fn get<L, F>(
        self: &Arc<Self>,
        terms: Terms,
        need: Need,
        clock: &SharedClock,
        load: L,
    ) -> Result<Served<T>>
    where
        L: FnOnce() -> F,
        F: Future<Output = Result<Arc<T>>> + Send + 'static,
    {
        let (mut refresh, deadline) = {
            let now = Instant::now();
            let mut state = self.state();
            if let Some(answer) = state.at_hand(now, terms) {
                return answer;
            }
            let refresh = match &state.refresh {
                Some(refresh) => refresh.clone(),
                None => {
                    let refresh = self.refresh(load(), clock.clone());
                    state.refresh = Some(refresh.clone());
                    refresh
                }
            };
            let deadline = match need.grace().filter(|_| state.good.is_some()) {
                Some(grace) => refresh.since + grace.min(terms.patience),
                None => now + terms.patience,
            };
            (refresh, deadline)
        };
        // The sender lives until the refresh has left its result in the state.
        let ended = timeout_at(deadline, refresh.done.wait_for(|done| *done)).await;
        self.state().after_wait(ended.is_ok(), terms)
    }

    /// How long the last answer may still be believed.
    pub(super) fn fresh_for(&self, terms: Terms) -> Duration {
        match self.state().at_hand(Instant::now(), terms) {
            Some(Ok(served)) => served.fresh_for,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn health(&self) -> Health {
        let state = self.state();
        let is_overdue = state
            .refresh
            .as_ref()
            .is_some_and(|refresh| refresh.since.elapsed() > GRACE);
        let failure = state.failure.as_ref().map(|f| f.error.to_string());
        Health {
            listed: state.good.as_ref().map(|good| good.listed),
            error: failure.or_else(|| is_overdue.then(|| overdue().to_string())),
        }
    }

    fn refresh<F>(self: &Arc<Self>, load: F, clock: SharedClock) -> Refresh
    where
        F: Future<Output = Result<Arc<T>>> + Send + 'static,
    {
        let (sender, done) = watch::channel(false);
        let listing = Arc::clone(self);
        tokio::spawn(async move {
            let outcome =
                match timeout(REFRESH_DEADLINE, AssertUnwindSafe(load).catch_unwind()).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_panic)) => Err(Error::new(Kind::Internal, "the listing panicked")),
                    Err(_elapsed) => Err(Error::new(
                        Kind::Unavailable,
                        format!("the listing did not end within {REFRESH_DEADLINE:?}"),
                    )),
                };
            listing.state().settle(outcome, clock.now());
            sender.send_replace(true);
        });
        Refresh {
            since: Instant::now(),
            done,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// What can be answered without asking the provider.
    fn at_hand(&self, now: Instant, terms: Terms) -> Option<Result<Served<T>>> {
        if let Some(good) = &self.good
            && now < good.at + terms.ttl
        {
            return Some(Ok(Served {
                value: Arc::clone(&good.value),
                fresh_for: good.at + terms.ttl - now,
                stale: None,
            }));
        }
        let failure = self.failure.as_ref()?;
        let pause = match self.good {
            Some(_) => PAUSE,
            None => PAUSE_WITHOUT_ANSWER,
        };
        let again = failure.at + pause.min(terms.ttl);
        (now < again).then(|| self.stale(failure.error.duplicate(), again - now))
    }

    /// What a caller gets that waited for a refresh; `ended` says whether it came to its end.
    fn after_wait(&self, ended: bool, terms: Terms) -> Result<Served<T>> {
        if !ended {
            return self.stale(overdue(), Duration::ZERO);
        }
        match (&self.failure, &self.good) {
            (Some(failure), _) => self.stale(failure.error.duplicate(), PAUSE.min(terms.ttl)),
            (None, Some(good)) => Ok(Served {
                value: Arc::clone(&good.value),
                fresh_for: terms.ttl,
                stale: None,
            }),
            (None, None) => Err(Error::new(Kind::Stopping, "the mount is shutting down")),
        }
    }

    fn stale(&self, error: Error, fresh_for: Duration) -> Result<Served<T>> {
        match &self.good {
            Some(good) => Ok(Served {
                value: Arc::clone(&good.value),
                fresh_for,
                stale: Some(error),
            }),
            None => Err(error),
        }
    }

    fn settle(&mut self, outcome: Result<Arc<T>>, listed: Timestamp) {
        let at = Instant::now();
        self.refresh = None;
        match outcome {
            Ok(value) => {
                self.good = Some(Good { value, at, listed });
                self.failure = None;
            }
            Err(error) => self.failure = Some(Failure { error, at }),
        }
    }
}

fn overdue() -> Error {
    Error::new(
        Kind::Unavailable,
        "the provider has not answered yet and is still being asked; check its endpoint and the \
         network",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::SystemClock;

    const TERMS: Terms = Terms {
        ttl: Duration::from_secs(60),
        patience: Duration::from_secs(48),
    };

    /// A provider that answers after a while what it is told to, and counts.
    #[derive(Clone)]
    struct Source {
        asked: Arc<AtomicUsize>,
        takes: Duration,
        answer: Result<usize, Kind>,
    }

    impl Source {
        fn new(answer: Result<usize, Kind>) -> Self {
            Source {
                asked: Arc::default(),
                takes: Duration::from_secs(1),
                answer,
            }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    async fn get(
        listing: &Arc<Listing<usize>>,
        source: &Source,
        need: Need,
    ) -> Result<Served<usize>> {
        let clock: SharedClock = Arc::new(SystemClock);
        let source = source.clone();
        listing
            .get(TERMS, need, &clock, move || async move {
                source.asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(source.takes).await;
                match source.answer {
                    Ok(value) => Ok(Arc::new(value)),
                    Err(kind) => Err(Error::new(kind, "told to fail")),
                }
            })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_one_request() {
        let listing = Arc::new(Listing::new());
        let source = Source::new(Ok(7));
        let all = (0..100).map(|_| get(&listing, &source, Need::Any));
        for served in futures::future::join_all(all).await {
            let served = served.unwrap();
            assert_eq!((*served.value, served.stale.is_some()), (7, false));
        }
        assert_eq!(source.asked(), 1);
        get(&listing, &source, Need::Current).await.unwrap();
        assert_eq!(source.asked(), 1, "served within its ttl");
        tokio::time::advance(TERMS.ttl).await;
        get(&listing, &source, Need::Any).await.unwrap();
        assert_eq!(source.asked(), 2, "asked again after its ttl");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_leaves_takes_nothing_away() {
        let listing = Arc::new(Listing::new());
        let source = Source::new(Ok(7));
        let left = timeout(Duration::from_millis(10), get(&listing, &source, Need::Any));
        assert!(left.await.is_err());
        assert_eq!(*get(&listing, &source, Need::Any).await.unwrap().value, 7);
        assert_eq!(source.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn case_29_a_failure_serves_the_last_good_answer_and_leaves_the_provider_alone() {
        let listing = Arc::new(Listing::new());
        get(&listing, &Source::new(Ok(7)), Need::Any).await.unwrap();
        tokio::time::advance(TERMS.ttl).await;

        let down = Source::new(Err(Kind::Unreachable));
        for _ in 0..10 {
            let served = get(&listing, &down, Need::Current).await.unwrap();
            assert_eq!(*served.value, 7);
            assert_eq!(served.stale.unwrap().kind(), Kind::Unreachable);
            assert!(served.fresh_for <= PAUSE);
        }
        assert_eq!(down.asked(), 1);
        assert!(listing.health().error.is_some());

        tokio::time::advance(PAUSE).await;
        let up = Source::new(Ok(8));
        let served = get(&listing, &up, Need::Any).await.unwrap();
        assert_eq!((*served.value, served.stale.is_some()), (8, false));
        assert_eq!(listing.health().error, None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_the_error_is_the_answer_for_a_moment() {
        let listing = Arc::new(Listing::new());
        let down = Source::new(Err(Kind::Credentials));
        for _ in 0..10 {
            let error = get(&listing, &down, Need::Any).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Credentials);
        }
        assert_eq!(down.asked(), 1);
        tokio::time::advance(PAUSE_WITHOUT_ANSWER).await;
        let up = Source::new(Ok(8));
        assert_eq!(*get(&listing, &up, Need::Any).await.unwrap().value, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_refresh_delays_only_those_who_need_proof() {
        let listing = Arc::new(Listing::new());
        get(&listing, &Source::new(Ok(7)), Need::Any).await.unwrap();
        tokio::time::advance(TERMS.ttl).await;
        let slow = Source {
            takes: Duration::from_secs(30),
            ..Source::new(Ok(8))
        };

        let start = Instant::now();
        let served = get(&listing, &slow, Need::Any).await.unwrap();
        assert_eq!((*served.value, start.elapsed()), (7, GRACE));
        assert_eq!(served.stale.unwrap().kind(), Kind::Unavailable);
        assert_eq!(listing.health().error, None);
        let served = get(&listing, &slow, Need::Any).await.unwrap();
        assert_eq!((*served.value, start.elapsed()), (7, GRACE));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(listing.health().error.is_some(), "overdue");

        let served = get(&listing, &slow, Need::Current).await.unwrap();
        assert_eq!((*served.value, served.stale.is_some()), (8, false));
        assert_eq!((start.elapsed(), slow.asked()), (slow.takes, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_refresh_is_not_felt_by_those_who_look_for_a_name() {
        let listing = Arc::new(Listing::new());
        let slow = Source {
            takes: Duration::from_secs(30),
            ..Source::new(Ok(8))
        };
        let start = Instant::now();
        let first = get(&listing, &slow, Need::Known).await.unwrap();
        assert_eq!(
            (*first.value, start.elapsed()),
            (8, slow.takes),
            "nothing else to serve"
        );
        tokio::time::advance(TERMS.ttl).await;

        let start = Instant::now();
        for _ in 0..3 {
            let served = get(&listing, &slow, Need::Known).await.unwrap();
            assert_eq!((*served.value, start.elapsed()), (8, MOMENT));
            assert!(served.stale.is_some() && served.fresh_for.is_zero());
        }
        let served = get(&listing, &slow, Need::Current).await.unwrap();
        assert!(served.stale.is_none());
        assert_eq!((start.elapsed(), slow.asked()), (slow.takes, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_never_answers_is_an_error_within_the_patience() {
        let listing = Arc::new(Listing::new());
        let hung = Source {
            takes: Duration::MAX,
            ..Source::new(Ok(8))
        };
        let start = Instant::now();
        let error = get(&listing, &hung, Need::Any).await.unwrap_err();
        assert_eq!(error.errno(), libc::EIO);
        assert_eq!(start.elapsed(), TERMS.patience);
        tokio::time::advance(REFRESH_DEADLINE).await;
        let up = Source::new(Ok(8));
        // The hung refresh has just been given up; its failure holds for a moment.
        get(&listing, &up, Need::Any).await.unwrap_err();
        tokio::time::advance(PAUSE_WITHOUT_ANSWER).await;
        assert_eq!(*get(&listing, &up, Need::Any).await.unwrap().value, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_failure_like_others() {
        let listing: Arc<Listing<usize>> = Arc::new(Listing::new());
        let clock: SharedClock = Arc::new(SystemClock);
        let error = listing
            .get(TERMS, Need::Any, &clock, || async { panic!("planted") })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
    }

    #[tokio::test(start_paused = true)]
    async fn with_no_ttl_every_caller_asks_but_concurrent_ones_share() {
        let listing = Arc::new(Listing::new());
        let source = Source::new(Ok(7));
        let clock: SharedClock = Arc::new(SystemClock);
        let terms = Terms {
            ttl: Duration::ZERO,
            ..TERMS
        };
        for asked in 1..=3 {
            let counter = source.asked.clone();
            let served = listing
                .get(terms, Need::Current, &clock, move || async move {
                    counter.fetch_add(1, Ordering::SeqCst);
                    Ok(Arc::new(7))
                })
                .await
                .unwrap();
            assert!(served.stale.is_none());
            assert_eq!(source.asked(), asked);
        }
    }
}
