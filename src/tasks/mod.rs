//! Download tasks: at most one per (backup, shard), ever paid once.
//!
//! [`lifecycle`] is the pure state machine, [`ledger`] its durable memory, [`policy`] says who may
//! spend, [`engine`] lets any number of openers share one wait, `drives` are what they share, `drive` carries the
//! machine's steps out at the provider, `lanes` says whose turn it is where an instance makes one task at a time,
//! `request` is the one that pays, and `estimate` says when it may be ready. Two hosts on one account have two
//! ledgers: each adopts the task it finds at the provider, and only two first opens within the time
//! of one look can miss each other.

mod drive;
mod drives;
pub mod engine;
mod estimate;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod histories;
mod lanes;
pub mod ledger;
pub mod lifecycle;
pub mod policy;
mod request;
mod share;
mod view;

pub use engine::{Engine, EngineOptions, Wait};
pub use policy::Spender;
pub use view::TaskView;
