//! What every cloud's API calls share; what differs between clouds is a [`Dialect`].
//!
//! [`Api`] belongs to one account and owns its connection pool, its measured clock skew, the pause
//! that a "slow down" answer imposes on the whole account, and the cap on calls in flight.
//! [`retry`] holds the arithmetic of retries, without I/O. Artifact bytes never pass here.
//!
//! Locks: the pause has one, held for a few instructions and never together with another.

mod api;
mod call;
pub mod lenient;
pub mod retry;
mod transport;

pub use api::{Api, Dialect, Verdict};
pub use call::{Answer, Call, Effect, refusal_words};
pub use retry::Budget;
