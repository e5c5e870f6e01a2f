//! One live link per artifact: renewed ahead of expiry and on reject, single-flight.
//!
//! [`Links`] owns the artifact's current link, its generation and what is known of the clock that
//! its expiry is written in. A generation is used until its time is nearly over or until somebody
//! reports it refused; whoever reports an older generation is simply handed the current one, so any
//! number of ranges that meet one expiry cost one refresh. Refreshes run in spawned tasks: dropping
//! a waiter never stops one. One lock, never held across an await.

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

use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use crate::model::{Link, RemoteFile, ShardRef, Task};
use crate::providers::Provider;

/// A link is renewed this long before its end, or [`MARGIN_SHARE`] of its life if that is shorter.
const LONGEST_MARGIN: SignedDuration = SignedDuration::from_secs(30);
/// The part of a link's life, as first seen, that is its margin: one in ten.
const MARGIN_SHARE: i32 = 10;
/// A link refused this soon after it was issued may not be valid yet (RequestTimeTooSkewed and its
/// kin, when the issuer's clock is ahead of the store's): it is tried again at this age.
const RIPE: Duration = Duration::from_secs(5);
/// A `Date` header has whole seconds and was written before it travelled: less is no difference.
const CLOCK_NOISE: SignedDuration = SignedDuration::from_secs(2);
/// Wall clock and monotonic clock drifting apart by more means a set clock or a suspended machine.
const CLOCK_JUMP: SignedDuration = SignedDuration::from_secs(30);

/// Where fresh links come from.
#[async_trait]
pub trait LinkSource: fmt::Debug + Send + Sync + 'static {
    /// Asks the provider for a link.
    async fn fresh(&self) -> Result<Link>;
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
}

/// A link in use. `generation` grows with each refresh.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The link.
    pub link: Arc<Link>,
    /// Which refresh brought it.
    pub generation: u64,
}

/// How a store turned a link down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not with this signature, from here, at this time (401, 403, some 400).
    Denied,
    /// There is nothing at that address (404, 410).
    Gone,
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

/// What time says about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    /// Still usable, to be renewed now; `left` of its life remains.
    Ending {
        left: Duration,
    },
    Over,
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
    /// A link only a few seconds old may not be valid yet: once, the same link is returned again
    /// after a wait of at most five seconds.
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
        if let Some(renewal) = &state.renewal {
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
        let verdict = verdict(live, how, host_now);
        let ripe = live.since + RIPE;
        if state.renewal.is_some() {
            return Ok(After::Await(self.renew(state, Renew::Ask)));
        }
        state.strikes += u32::from(first_report);
        match state.strikes {
            0 | 1 => Ok(After::Await(self.renew(state, Renew::Ask))),
            _ if how == Refusal::Denied && !state.waited && Instant::now() < ripe => {
                state.waited = true;
                Ok(After::Await(self.renew(state, Renew::Ripen(ripe))))
            }
            _ => Err(self.explain(verdict, state.skew)),
        }
    }

    fn explain(&self, kind: Kind, skew: SignedDuration) -> Error {
        let words = match kind {
            Kind::Expired => {
                "the provider has no newer link and this one no longer works: the artifact's time \
                 is over"
                    .to_owned()
            }
            _ => {
                let clock = match skew.as_secs() {
                    0 => String::new(),
                    off => format!(" (it differs from the store's by {} s)", off.abs()),
                };
                format!(
                    "the store refuses even a fresh link: perhaps this machine's address is not \
                     allowed there, its clock is wrong{clock}, or the key may not download"
                )
            }
        };
        Error::new(kind, words)
    }
}

/// What a link that is refused straight after its refresh means.
fn verdict(live: &Live, how: Refusal, host_now: Timestamp) -> Kind {
    let over = live.lease.link.expires.map(|expires| expires <= host_now);
    let spent = live.repeated && (live.worked || over.is_none());
    match how {
        Refusal::Gone => Kind::Expired,
        Refusal::Denied if over == Some(true) || spent => Kind::Expired,
        Refusal::Denied => Kind::Credentials,
    }
}

/// Where a link obtained at `obtained` stands at `now`, both by the clock that wrote `expires`.
///
/// A link that was over when it came tells more about the clocks than about itself: it is used
/// until it is refused.
fn standing(expires: Option<Timestamp>, obtained: Timestamp, now: Timestamp) -> Standing {
    let Some(expires) = expires else {
        return Standing::Good;
    };
    let life = expires.duration_since(obtained);
    let left = expires.duration_since(now);
    let margin = LONGEST_MARGIN.min(life / MARGIN_SHARE);
    if life <= SignedDuration::ZERO || left > margin {
        Standing::Good
    } else if left > SignedDuration::ZERO {
        Standing::Ending {
            left: left.unsigned_abs(),
        }
    } else {
        Standing::Over
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
