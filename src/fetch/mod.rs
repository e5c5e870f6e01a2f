//! The only place that reads artifact bytes over HTTP.
//!
//! [`validate`] and [`retry`] are pure; [`client`] sends. What leaves this module is exactly the
//! bytes of the pinned version, or an error.

pub mod client;
pub mod retry;
pub mod validate;

pub use client::{FetchOptions, Fetcher, Part, Probe};
