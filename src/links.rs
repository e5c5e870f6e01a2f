//! One live link per artifact: renewed ahead of expiry and on reject, single-flight.
//!
//! [`Links`] owns the artifact's current link, its generation and what is known of the clock that
//! its expiry is written in. A generation is used until its time is nearly over or until somebody
//! reports it refused; whoever reports an older generation is simply handed the current one, so any
//! number of ranges that meet one expiry cost one refresh. Refreshes run in spawned tasks: dropping
//! a waiter never stops one. One lock, never held across an await.

mod life;
mod refusal;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use self::life::{LONGEST_MARGIN, Standing, standing};
use self::refusal::History;
pub use self::refusal::Refusal;
use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use crate::model::{Link, RemoteFile, ShardRef, Task};
use crate::planted;
use crate::providers::Provider;

/// A link refused this soon after it was issued may not be valid yet (the issuer's clock is ahead
/// of the store's), or its object not have reached every machine: it is tried again at this age.
const RIPE: Duration = Duration::from_secs(5);
/// So many links in a row may be over before they are used.
const MOST_LAPSES: u32 = 8;
/// A `Date` header has whole seconds and was written before it travelled: less is no difference.
const CLOCK_NOISE: SignedDuration = SignedDuration::from_secs(2);
/// Wall clock and monotonic clock drifting apart by more means a set clock or a suspended machine.
const CLOCK_JUMP: SignedDuration = SignedDuration::from_secs(30);

/// Where fresh links come from.
#[async_trait]
pub trait LinkSource: fmt::Debug + Send + Sync + 'static {
    /// Asks the provider for a link.
    async fn fresh(&self) -> Result<Link>;

    /// Why its store may refuse even a fresh link, besides what is true of any store.
    fn refusal_hint(&self) -> Option<&'static str> {
        None
    }
}

/// The usual source: a provider's file and its task.
#[derive(Debug)]
pub struct ProviderLinks {
    /// The account.
    pub provider: Arc<dyn Provider>,
    /// The shard.
    pub target: ShardRef,
    /// The file.
    pub file: RemoteFile,
    /// Its task, unless the file is an object.
    pub task: Option<Task>,
}

#[async_trait]
impl LinkSource for ProviderLinks {
    async fn fresh(&self) -> Result<Link> {
        self.provider
            .link(&self.target, &self.file, self.task.as_ref())
            .await
    }

    fn refusal_hint(&self) -> Option<&'static str> {
        self.provider.refusal_hint()
    }
}

/// A link in use. `generation` grows with each refresh.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The link.
    pub link: Arc<Link>,
    /// Which refresh brought it.
    pub generation: u64,
}

/// The live link of one artifact, shared by all its readers.
#[derive(Debug)]
pub struct Links {
    shared: Arc<Inner>,
}

struct Inner {
    source: Box<dyn LinkSource>,
    clock: SharedClock,
    refreshes: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Live>,
    generation: u64,
    renewal: Option<Renewal>,
    /// An early renewal failed: not before this instant again, unless the link ends.
    quiet_until: Option<Instant>,
    /// What to add to our clock to get the data host's.
    skew: SignedDuration,
    /// Generations refused in a row without a success in between.
    strikes: u32,
    /// Whether the wait for a link that may not be valid yet was spent in this row.
    waited: bool,
    /// The generation in whose time the clock was last seen to have jumped.
    jumped: Option<u64>,
    /// That jump was not told yet.
    untold_jump: bool,
}

/// A refresh under way, awaited by any number of leases.
type Renewal = Shared<BoxFuture<'static, Result<Lease, Arc<Error>>>>;

/// What a renewal does.
enum Renew {
    /// Asks the source.
    Ask,
    /// Lets the same link ripen until the instant.
    Ripen(Instant),
}

/// The current link and its history.
struct Live {
    lease: Lease,
    /// When it came, by our wall clock and by the monotonic one.
    obtained: Timestamp,
    since: Instant,
    /// The provider named the same address as the time before.
    repeated: bool,
    /// This address was accepted at least once.
    worked: bool,
    /// Some range reported this generation refused.
    refused: bool,
}

impl Links {
    /// Asks nothing yet.
    pub fn new(source: impl LinkSource, clock: SharedClock) -> Self {
        Links {
            shared: Arc::new(Inner {
                source: Box::new(source),
                clock,
                refreshes: AtomicU64::new(0),
                state: Mutex::default(),
            }),
        }
    }

    /// A link that is expected to work: the current one, or a fresh one when there is none or its
    /// time is over. Shortly before that the current one is still given while its successor is
    /// being fetched. Concurrent callers share one refresh; cancel-safe.
    pub async fn lease(&self) -> Result<Lease> {
        let renewal = {
            let mut state = self.shared.lock();
            match self.shared.standing(&mut state) {
                Some((lease, Standing::Good)) => return Ok(lease),
                Some((lease, Standing::Ending { left })) => {
                    let now = Instant::now();
                    if state.quiet_until.is_none_or(|until| now >= until) {
                        // Should this one fail, there is time for two more.
                        state.quiet_until = Some(now + left / 3);
                        let _in_background = self.shared.renew(&mut state, Renew::Ask);
                    }
                    return Ok(lease);
                }
                Some((_, Standing::Over)) | None => self.shared.renew(&mut state, Renew::Ask),
            }
        };
        renewal.await.map_err(|error| error.duplicate())
    }

    /// `refused` did not work. Returns a newer link, refreshing at most once for all ranges that
    /// met the same refusal. A link refused again straight after its refresh is an error:
    /// `Expired` when the provider has nothing newer and its time is over, else `Credentials`.
    ///
    /// A link only a few seconds old may not be valid yet, or its object not be there yet: once, the
    /// same link is returned again after a wait of at most five seconds.
    pub async fn refused(&self, refused: &Lease, how: Refusal) -> Result<Lease> {
        let renewal = {
            let mut state = self.shared.lock();
            self.shared.after_refusal(&mut state, refused, how)?
        };
        match renewal {
            After::Use(lease) => Ok(lease),
            After::Await(renewal) => renewal.await.map_err(|error| error.duplicate()),
        }
    }

    /// `lease` was accepted by the store: a later refusal is an expiry, not a bad link.
    pub fn worked(&self, lease: &Lease) {
        let mut state = self.shared.lock();
        if let Some(live) = &mut state.current
            && live.lease.generation == lease.generation
        {
            live.worked = true;
            state.strikes = 0;
            state.waited = false;
        }
    }

    /// The data host's clock read `date`: expiry is compared with its time, not with ours.
    pub fn observe_date(&self, date: Timestamp) {
        let skew = date.duration_since(self.shared.clock.now());
        self.shared.lock().skew = if skew.abs() < CLOCK_NOISE {
            SignedDuration::ZERO
        } else {
            skew
        };
    }

    /// Now, by the data host's clock as far as it is known.
    pub fn host_now(&self) -> Timestamp {
        let skew = self.shared.lock().skew;
        self.shared.host_now(skew)
    }

    /// Whether the clock was seen to jump since this was last asked: the machine was suspended or its
    /// clock set, and connections from before may be dead without a word.
    pub fn clock_jumped(&self) -> bool {
        std::mem::take(&mut self.shared.lock().untold_jump)
    }

    /// When the current link expires, where known.
    pub fn expires(&self) -> Option<Timestamp> {
        let state = self.shared.lock();
        state.current.as_ref()?.lease.link.expires
    }

    /// How many times a link was asked for again (the first one not counted).
    pub fn refreshes(&self) -> u64 {
        self.shared.refreshes.load(Ordering::Relaxed)
    }
}

/// What a range does about its refusal.
enum After {
    Use(Lease),
    Await(Renewal),
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; were it so, each field is still valid by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host_now(&self, skew: SignedDuration) -> Timestamp {
        let now = self.clock.now();
        now.saturating_add(skew).unwrap_or(now)
    }

    /// The current link, unless it was refused, and what the clocks say about it.
    fn standing(&self, state: &mut State) -> Option<(Lease, Standing)> {
        let live = state.current.as_ref().filter(|live| !live.refused)?;
        let now = self.clock.now();
        let jump = now.duration_since(live.obtained) - signed(live.since.elapsed());
        let jumped = jump.abs() > CLOCK_JUMP;
        if jumped {
            state.skew = SignedDuration::ZERO;
            let generation = Some(live.lease.generation);
            state.untold_jump |= std::mem::replace(&mut state.jumped, generation) != generation;
        }
        let standing = standing(
            live.lease.link.expires,
            shifted(live.obtained, state.skew),
            shifted(now, state.skew),
        );
        let standing = match standing {
            Standing::Good if jumped => Standing::Ending {
                left: LONGEST_MARGIN.unsigned_abs(),
            },
            other => other,
        };
        Some((live.lease.clone(), standing))
    }

    /// Joins the renewal under way or starts one.
    fn renew(self: &Arc<Self>, state: &mut State, how: Renew) -> Renewal {
        if let Some(renewal) = &state.renewal
            && !planted::is("refresh-per-caller")
        {
            return renewal.clone();
        }
        let inner = Arc::clone(self);
        let task = tokio::spawn(async move {
            let outcome = match how {
                Renew::Ask => inner.ask().await,
                Renew::Ripen(until) => {
                    tokio::time::sleep_until(until).await;
                    Ok(None)
                }
            };
            inner.settle(outcome)
        });
        let renewal = async move {
            task.await.unwrap_or_else(|_| {
                Err(Arc::new(Error::new(
                    Kind::Stopping,
                    "the mount is shutting down",
                )))
            })
        }
        .boxed()
        .shared();
        state.renewal = Some(renewal.clone());
        renewal
    }

    async fn ask(&self) -> Result<Option<Link>> {
        if self.lock().current.is_some() {
            self.refreshes.fetch_add(1, Ordering::Relaxed);
        }
        // A panic must not leave a renewal behind that nobody will ever finish.
        AssertUnwindSafe(self.source.fresh())
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    Kind::Internal,
                    "asking for a link ended in a panic",
                ))
            })
            .map(Some)
    }

    /// Ends the renewal: a link from the source, the same link again (`None`), or a failure that
    /// concerns only those who wait for it.
    fn settle(&self, outcome: Result<Option<Link>>) -> Result<Lease, Arc<Error>> {
        let mut state = self.lock();
        state.renewal = None;
        let fresh = outcome.map_err(Arc::new)?;
        state.generation += 1;
        let generation = state.generation;
        let live = match (fresh, state.current.take()) {
            (None, None) => {
                let words = "a link that never was cannot ripen";
                return Err(Arc::new(Error::new(Kind::Internal, words)));
            }
            (None, Some(mut live)) => {
                live.lease.generation = generation;
                live.refused = false;
                live
            }
            (Some(link), before) => {
                let before = before.filter(|live| live.lease.link.url == link.url);
                let link = Arc::new(link);
                Live {
                    lease: Lease { link, generation },
                    obtained: self.clock.now(),
                    since: Instant::now(),
                    repeated: before.is_some(),
                    worked: before.is_some_and(|live| live.worked),
                    refused: false,
                }
            }
        };
        let lease = live.lease.clone();
        state.quiet_until = None;
        state.current = Some(live);
        Ok(lease)
    }

    fn after_refusal(
        self: &Arc<Self>,
        state: &mut State,
        refused: &Lease,
        how: Refusal,
    ) -> Result<After> {
        let host_now = self.host_now(state.skew);
        let Some(live) = &mut state.current else {
            return Ok(After::Await(self.renew(state, Renew::Ask)));
        };
        if refused.generation != live.lease.generation {
            return Ok(match live.refused {
                false => After::Use(live.lease.clone()),
                true => After::Await(self.renew(state, Renew::Ask)),
            });
        }
        let first_report = !std::mem::replace(&mut live.refused, true);
        let history = History {
            over: live.lease.link.expires.map(|expires| expires <= host_now),
            repeated: live.repeated,
            worked: live.worked,
        };
        let ripe = live.since + RIPE;
        let young = !live.worked && Instant::now() < ripe;
        if state.renewal.is_some() {
            return Ok(After::Await(self.renew(state, Renew::Ask)));
        }
        state.strikes += u32::from(first_report);
        match state.strikes {
            0 | 1 => Ok(After::Await(self.renew(state, Renew::Ask))),
            // It came, and was over before it was used: a slow machine, or a very short life.
            2..MOST_LAPSES if history.over == Some(true) && !history.repeated => {
                Ok(After::Await(self.renew(state, Renew::Ask)))
            }
            _ if young && !state.waited => {
                state.waited = true;
                Ok(After::Await(self.renew(state, Renew::Ripen(ripe))))
            }
            _ => {
                let hint = self.source.refusal_hint();
                Err(refusal::verdict(how, history, state.skew, hint))
            }
        }
    }
}

fn shifted(time: Timestamp, skew: SignedDuration) -> Timestamp {
    time.saturating_add(skew).unwrap_or(time)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Links")
            .field("source", &self.source)
            .field("generation", &state.generation)
            .field("refreshes", &self.refreshes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicI64};

    use futures::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::clock::Clock;
    use crate::model::LinkMode;
    use crate::secret::SafeUrl;

    fn epoch() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    /// Follows tokio's clock, off by some seconds.
    struct Wall {
        start: Instant,
        off: AtomicI64,
    }

    impl Clock for Wall {
        fn now(&self) -> Timestamp {
            let off = SignedDuration::from_secs(self.off.load(Ordering::SeqCst));
            epoch() + self.start.elapsed() + off
        }
    }

    /// A provider whose links live `life`, by the true clock, and differ unless `repeats`.
    #[derive(Debug)]
    struct Issuer {
        start: Instant,
        asked: AtomicU64,
        life: Option<Duration>,
        repeats: AtomicBool,
        down: AtomicBool,
        slow: Duration,
    }

    #[async_trait]
    impl LinkSource for Arc<Issuer> {
        async fn fresh(&self) -> Result<Link> {
            sleep(self.slow).await;
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            if self.down.load(Ordering::SeqCst) {
                return Err(Error::new(Kind::Unavailable, "no links today"));
            }
            let number = match self.repeats.load(Ordering::SeqCst) {
                true => 0,
                false => number,
            };
            Ok(Link {
                url: SafeUrl::parse(&format!("https://store/key?n={number}")).unwrap(),
                headers: Vec::new(),
                expires: self.life.map(|life| epoch() + self.start.elapsed() + life),
                mode: LinkMode::Ranged,
            })
        }
    }

    impl Issuer {
        fn asked(&self) -> u64 {
            self.asked.load(Ordering::SeqCst)
        }
    }

    fn issuer(life: Option<u64>) -> Issuer {
        Issuer {
            start: Instant::now(),
            asked: AtomicU64::new(0),
            life: life.map(Duration::from_secs),
            repeats: AtomicBool::new(false),
            down: AtomicBool::new(false),
            slow: Duration::from_millis(10),
        }
    }

    fn links(issuer: Issuer) -> (Arc<Links>, Arc<Issuer>, Arc<Wall>) {
        let issuer = Arc::new(issuer);
        let wall = Arc::new(Wall {
            start: Instant::now(),
            off: AtomicI64::new(0),
        });
        let clock: SharedClock = wall.clone();
        (
            Arc::new(Links::new(Arc::clone(&issuer), clock)),
            issuer,
            wall,
        )
    }

    /// Two refusals in a row of links that are no longer young.
    async fn refuse_twice(links: &Links) -> Result<Lease> {
        let first = links.lease().await?;
        let second = links.refused(&first, Refusal::Denied).await?;
        advance(RIPE).await;
        links.refused(&second, Refusal::Denied).await
    }

    #[tokio::test(start_paused = true)]
    async fn links_that_are_over_before_their_use_are_asked_again_but_not_for_ever() {
        let (links, issuer, _) = links(issuer(Some(2)));
        let mut lease = links.lease().await.unwrap();
        for _ in 1..MOST_LAPSES {
            advance(Duration::from_secs(3)).await;
            lease = links.refused(&lease, Refusal::Denied).await.unwrap();
        }
        assert_eq!(issuer.asked(), u64::from(MOST_LAPSES));
        advance(RIPE).await;
        let error = links.refused(&lease, Refusal::Denied).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Expired);
        assert_eq!(issuer.asked(), u64::from(MOST_LAPSES));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_share_one_link_and_one_request_for_it() {
        let (links, issuer, _) = links(issuer(Some(14_400)));
        let leases = join_all((0..32).map(|_| links.lease())).await;
        for lease in leases {
            assert_eq!(lease.unwrap().generation, 1);
        }
        advance(Duration::from_secs(14_000)).await;
        assert_eq!(links.lease().await.unwrap().generation, 1);
        assert_eq!((issuer.asked(), links.refreshes()), (1, 0));
        assert_eq!(
            links.expires(),
            Some(epoch() + Duration::from_millis(14_400_010))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_renewed_ahead_while_it_still_serves() {
        let (links, issuer, _) = links(issuer(Some(1000)));
        links.lease().await.unwrap();
        advance(Duration::from_secs(971)).await;
        let before = Instant::now();
        assert_eq!(links.lease().await.unwrap().generation, 1, "not waited for");
        assert_eq!(links.lease().await.unwrap().generation, 1);
        assert_eq!(before.elapsed(), Duration::ZERO);
        sleep(Duration::from_millis(20)).await;
        assert_eq!(links.lease().await.unwrap().generation, 2);
        assert_eq!((issuer.asked(), links.refreshes()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn case_35_links_that_live_two_seconds_are_renewed_once_per_life() {
        let (links, issuer, _) = links(issuer(Some(2)));
        let mut generations = 0;
        for _ in 0..200 {
            let lease = links.lease().await.unwrap();
            let left = lease
                .link
                .expires
                .unwrap()
                .duration_since(epoch() + issuer.start.elapsed());
            assert!(left > SignedDuration::ZERO, "an expired link was given");
            links.worked(&lease);
            generations = lease.generation;
            sleep(Duration::from_millis(100)).await;
        }
        assert!(
            (10..=11).contains(&generations),
            "{generations} links in 20 s"
        );
        assert_eq!(links.refreshes(), generations - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn case_36_ranges_that_meet_one_refusal_cause_one_refresh() {
        let (links, issuer, _) = links(issuer(None));
        let lease = links.lease().await.unwrap();
        links.worked(&lease);
        let renewed = join_all((0..32).map(|_| links.refused(&lease, Refusal::Denied))).await;
        for renewed in renewed {
            assert_eq!(renewed.unwrap().generation, 2);
        }
        let late = links.refused(&lease, Refusal::Denied).await.unwrap();
        assert_eq!(
            late.generation, 2,
            "an older generation gets the current link"
        );
        assert_eq!((issuer.asked(), links.refreshes()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_survives_its_waiters() {
        let (links, issuer, _) = links(issuer(None));
        for _ in 0..3 {
            let waiting = tokio::time::timeout(Duration::from_millis(2), links.lease());
            assert!(waiting.await.is_err());
        }
        assert_eq!(links.lease().await.unwrap().generation, 1);
        assert_eq!(issuer.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_refresh_is_told_to_all_and_forgotten() {
        let (links, issuer, _) = links(issuer(Some(100)));
        issuer.down.store(true, Ordering::SeqCst);
        for failed in join_all((0..8).map(|_| links.lease())).await {
            let error = failed.unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable);
            assert_eq!(error.to_string(), "no links today");
        }
        assert_eq!(issuer.asked(), 1);
        issuer.down.store(false, Ordering::SeqCst);
        links.lease().await.unwrap();
        assert_eq!(links.refreshes(), 0, "there was no link before");

        // Near its end a link outlasts a provider that is down, and is asked for thrice at most.
        issuer.down.store(true, Ordering::SeqCst);
        advance(Duration::from_secs(91)).await;
        for _ in 0..80 {
            links.lease().await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        let ahead = issuer.asked() - 2;
        assert!((2..=6).contains(&ahead), "asked {ahead} times");
        advance(Duration::from_secs(2)).await;
        assert_eq!(links.lease().await.unwrap_err().kind(), Kind::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn case_37_a_second_refusal_of_a_fresh_link_is_about_permission() {
        let (links, _, _) = links(issuer(Some(14_400)));
        let error = refuse_twice(&links).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Credentials, "{error}");
        let words = error.to_string();
        for cause in ["address", "clock", "key"] {
            assert!(words.contains(cause), "{words}");
        }
        // Others with the same link hear the same; who comes later gets a fresh link.
        let same = Lease {
            generation: 2,
            ..links.lease().await.unwrap()
        };
        let lease = links.lease().await.unwrap();
        assert_eq!(lease.generation, 3);
        assert_eq!(
            links
                .refused(&same, Refusal::Denied)
                .await
                .unwrap()
                .generation,
            3
        );
        links.worked(&lease);
        let renewed = links.refused(&lease, Refusal::Denied).await.unwrap();
        assert_eq!(renewed.generation, 4, "a success starts the count anew");
    }

    #[tokio::test(start_paused = true)]
    async fn case_38_nothing_newer_and_its_time_over_is_expired() {
        let (repeating, issuer_, _) = links(issuer(None));
        issuer_.repeats.store(true, Ordering::SeqCst);
        let error = refuse_twice(&repeating).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Expired, "{error}");

        // The same address although it says to live on: never accepted, so not for us.
        let (repeating, issuer_, _) = links(issuer(Some(14_400)));
        issuer_.repeats.store(true, Ordering::SeqCst);
        let error = refuse_twice(&repeating).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Credentials, "{error}");

        // Accepted once, now not, and nothing newer.
        let (repeating, issuer_, _) = links(issuer(Some(14_400)));
        issuer_.repeats.store(true, Ordering::SeqCst);
        let lease = repeating.lease().await.unwrap();
        repeating.worked(&lease);
        let error = refuse_twice(&repeating).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Expired, "{error}");

        // The place is empty.
        let (gone, _, _) = links(issuer(Some(14_400)));
        let first = gone.lease().await.unwrap();
        let second = gone.refused(&first, Refusal::Gone).await.unwrap();
        advance(RIPE).await;
        let error = gone.refused(&second, Refusal::Gone).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Expired, "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn case_40_a_link_that_is_not_valid_yet_is_tried_again_once() {
        let (links, issuer, _) = links(issuer(Some(14_400)));
        let first = links.lease().await.unwrap();
        let second = links.refused(&first, Refusal::Denied).await.unwrap();
        let start = Instant::now();
        let again = join_all((0..8).map(|_| links.refused(&second, Refusal::Denied))).await;
        assert_eq!(start.elapsed().as_secs(), 5);
        let ripe = again.into_iter().next().unwrap().unwrap();
        assert_eq!(ripe.generation, 3);
        assert_eq!(ripe.link.url, second.link.url, "the same link");
        assert_eq!((issuer.asked(), links.refreshes()), (2, 1));
        let error = links.refused(&ripe, Refusal::Denied).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Credentials);
        assert_eq!(start.elapsed().as_secs(), 5, "one wait only");
    }

    #[tokio::test(start_paused = true)]
    async fn case_39_expiry_is_compared_with_the_hosts_clock() {
        for off in [600i64, -600] {
            let (links, issuer, wall) = links(issuer(Some(60)));
            wall.off.store(off, Ordering::SeqCst);
            for _ in 0..600 {
                let lease = links.lease().await.unwrap();
                let true_now = epoch() + issuer.start.elapsed();
                links.observe_date(true_now);
                links.worked(&lease);
                assert!(lease.link.expires.unwrap() > true_now, "off by {off}");
                sleep(Duration::from_secs(1)).await;
            }
            assert!(
                (10..=12).contains(&issuer.asked()),
                "off by {off}: {}",
                issuer.asked()
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn case_39_a_jump_of_the_clock_checks_the_link_once() {
        let (links, issuer, wall) = links(issuer(Some(14_400)));
        links.lease().await.unwrap();
        assert!(!links.clock_jumped());
        wall.off.store(-3600, Ordering::SeqCst);
        let mut told = 0;
        for _ in 0..10 {
            links.lease().await.unwrap();
            told += u32::from(links.clock_jumped());
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!((issuer.asked(), told), (2, 1));
    }
}
