//! What OPEN is answered: a handle, or the request to look the file up again first.

use fuser::{FopenFlags, OpenFlags};

use super::convert;
use super::serve::Service;
use super::sizes::Admission;
use crate::error::{Error, Kind, Result};
use crate::fs::{Caller, Fs, Opened};

/// Answer to OPEN.
#[derive(Debug)]
pub(super) enum Opening {
    /// It is open.
    Done {
        /// Handle.
        handle: u64,
        /// How the kernel shall treat it.
        flags: FopenFlags,
    },
    /// ESTALE: see [`super::sizes`].
    LookAgain,
}

/// Opens `ino` for reading.
pub(super) async fn open(
    service: &Service,
    ino: u64,
    flags: OpenFlags,
    caller: &Caller,
) -> Result<Opening> {
    if convert::wants_to_write(flags) {
        return Err(Error::new(Kind::ReadOnly, "backups cannot be written"));
    }
    let fs = &service.fs;
    let nonblock = flags.0 & libc::O_NONBLOCK != 0;
    let unanswered = Unanswered {
        opened: fs.open_file(ino, nonblock, caller).await?,
        fs,
        answered: false,
    };
    let Opened {
        handle,
        size,
        mut keep_cache,
        direct_io,
    } = unanswered.opened;
    if let Some(size) = size {
        match service.sizes.admit(ino, size, caller.pid, keep_cache) {
            Admission::Open { keep_cache: keep } => keep_cache = keep,
            Admission::LookAgain => return Ok(Opening::LookAgain),
        }
    }
    unanswered.answer();
    Ok(Opening::Done {
        handle,
        flags: convert::open_flags(keep_cache, direct_io),
    })
}

/// An open file that the kernel does not know of: closed again unless it is told.
struct Unanswered<'a> {
    fs: &'a Fs,
    opened: Opened,
    answered: bool,
}

impl Unanswered<'_> {
    fn answer(mut self) {
        self.answered = true;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.fs.release(self.opened.handle);
        }
    }
}
