//! mongo-backupfs shows every backup of every managed MongoDB a team owns as a read-only tree.
//!
//! # The journey of one read
//!
//! The kernel asks [`fuse`], which translates to [`fs`]. An open asks [`tasks`] for the shard's
//! download task (adopted, or created once, ever), [`links`] for a live link, [`fetch`] for the
//! artifact's exact size and version, and [`reader`] for a handle pinned to that version. A read
//! goes to the [`reader`], which serves verified blocks from [`cache`] and has [`fetch`] bring
//! what is missing in parallel ranges: to the waiters first, to disk behind them. Names come from
//! [`tree`], which caches what [`providers`] list.
//!
//! Imports point one way: `cli -> {copy, doctor} -> mount -> fuse -> fs -> {tree, tasks, reader} ->
//! {providers, links, fetch, cache} -> {model, error, names, secret}`; `tests/architecture.rs`
//! keeps it so.

#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]
#![deny(clippy::undocumented_unsafe_blocks)]

// Fuzzers get only the rooms that read what others wrote: to instrument the rest takes minutes.

pub mod cache;
#[cfg(not(fuzzing))]
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(not(fuzzing))]
pub mod copy;
pub mod directory;
#[cfg(not(fuzzing))]
pub mod doctor;
pub mod error;
pub mod fetch;
#[cfg(not(fuzzing))]
pub mod fs;
#[cfg(not(fuzzing))]
pub mod fuse;
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod links;
pub mod model;
#[cfg(not(fuzzing))]
pub mod mount;
pub mod names;
pub mod observe;
mod planted;
pub mod providers;
#[cfg(not(fuzzing))]
pub mod reader;
pub mod secret;
#[cfg(not(fuzzing))]
pub mod sim;
pub mod sync;
pub mod tasks;
#[cfg(not(fuzzing))]
pub mod tree;
