//! Download tasks: at most one per (backup, shard), ever paid once.
//!
//! [`lifecycle`] is the pure state machine, [`ledger`] its durable memory, [`policy`] says who may
//! spend, [`engine`] drives a provider through it and lets any number of openers share one wait.

pub mod engine;
pub mod ledger;
pub mod lifecycle;
pub mod policy;

pub use engine::{Engine, EngineOptions, TaskView, Wait};
pub use policy::Spender;
