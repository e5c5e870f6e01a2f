//! The built binary over real FUSE mounts against the simulated clouds.
//!
//! Each test owns a [`world::World`]: its own simulated cloud, directories and mount. They need
//! /dev/fuse and the right to mount, and fail without.

mod aliyun;
#[path = "../support/authority.rs"]
mod authority;
mod bucket;
#[path = "../support/canary.rs"]
mod canary;
mod crowd;
mod dedicated;
#[path = "../support/dice.rs"]
mod dice;
mod disks;
mod doctor;
mod documents;
mod drawn;
mod get;
mod hangs;
mod kills;
mod links;
mod looking;
mod paid;
mod prepare;
mod proxies;
mod random;
mod readme;
mod real_chain;
mod secrets;
mod soak;
mod spool;
mod status;
mod tasks;
mod tencent;
#[path = "../support/terminal.rs"]
mod terminal;
mod tools;
mod troubles;
mod ucloud;
mod ways;
mod world;
