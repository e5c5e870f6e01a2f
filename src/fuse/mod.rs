//! fuser, and only here: translation to [`crate::fs`], interrupts, deadlines.

use std::path::Path;
use std::time::Duration;

use crate::error::Result;
use crate::fs::Fs;

/// How to serve.
#[derive(Debug, Clone)]
pub struct FuseOptions {
    /// Other users may look (with default_permissions, always).
    pub allow_other: bool,
    /// Deadline of every operation but open.
    pub op_timeout: Duration,
    /// Deadline of open.
    pub open_timeout: Duration,
}

/// A mounted session.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// Mounts `fs` at `mountpoint` and serves it on its own threads; ready when this returns.
    pub fn mount(
        _fs: Fs,
        _mountpoint: &Path,
        _options: &FuseOptions,
        _runtime: tokio::runtime::Handle,
    ) -> Result<Self> {
        todo!()
    }

    /// Resolves when the kernel ended the session (unmounted by anyone).
    pub async fn ended(&mut self) -> Result<()> {
        todo!()
    }
}
