//! The only place that reads artifact bytes: over HTTP, or from a local directory.
//!
//! [`validate`], [`retry`], [`sizing`] and the rules of [`redirect`] are pure; [`client`] sends; [`part`] keeps
//! a range flowing; [`probe`] asks what there is; [`download`] reads links that work once only, by
//! the rules of [`head`] (pure); `local` answers for a directory. What leaves this module is exactly the bytes of
//! the pinned version, or an error that names no address.

mod attempts;
pub mod client;
pub mod download;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod head;
mod local;
pub mod part;
mod pool;
pub mod probe;
pub mod redirect;
pub mod retry;
pub mod sizing;
pub mod stats;
pub mod validate;

pub use client::{FetchOptions, Fetcher};
pub use download::{Answer, Ask, Download, Head, fresh_name};
pub use part::Part;
pub use probe::Probe;
pub use sizing::Plan;
pub use stats::FetchStats;
