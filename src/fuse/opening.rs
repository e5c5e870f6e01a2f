//! What OPEN is answered: a handle and the way its reads take, or to look the file up again first.
//!
//! A complete file is lent to the kernel, which then reads the cache's own file (`Backing`);
//! everything else is asked of us, through the kernel's pages or directly. Which ways may stand
//! beside each other is decided by [`super::iomode`].

use fuser::{BackingId, Errno, FileHandle, OpenFlags, ReplyOpen};

use super::convert;
use super::iomode::{Clash, Way};
use super::serve::Service;
use super::sizes::Admission;
use crate::cache::Lent;
use crate::error::{Error, Kind, Result};
use crate::fs::{Caller, Fs, Opened};
use crate::observe::kernel;

/// A cache file that the kernel reads. The kernel lets go of it before its loan ends.
#[derive(Debug)]
pub(super) struct Backing {
    id: BackingId,
    _loan: Lent,
}

/// Answer to OPEN, as far as it is known before the kernel is asked.
#[derive(Debug)]
pub(super) enum Opening {
    /// It is open.
    Done(Ready),
    /// ESTALE: see [`super::sizes`].
    LookAgain,
}

/// An open file that the kernel is about to be told of.
#[derive(Debug)]
pub(super) struct Ready {
    ino: u64,
    handle: u64,
    caller: Caller,
    is_artifact: bool,
    keep_cache: bool,
    direct: bool,
    /// Opened with O_DIRECT. Such reads need no alignment here but would on the cache's filesystem,
    /// so they are asked of us even where the file is lent.
    unbuffered: bool,
    /// Nothing of it may be served from a version that is open already.
    alone: bool,
    loan: Option<Lent>,
}

/// Programs that read a file in pieces of 128 KiB and more. Asked for such pieces as they are, we
/// and they need half the processor time that the kernel's pages cost; smaller pieces are several
/// times slower without the pages. Those of them that copy read all of it, from start to end;
/// others may stop anywhere.
const IN_BIG_PIECES: [&str; 1] = ["cat"];
const COPYING: [&str; 4] = ["cp", "install", "rsync", "mongo-backupfs"];
/// Below this the way makes no difference, and asking /proc for a name does.
const WORTH_ASKING: u64 = 4 << 20;

/// How a file is about to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Any,
    InBigPieces,
    /// Whole, and in big pieces.
    Copy,
}

/// What `caller` does with a file of `size` bytes, as far as its name tells.
fn use_of(size: u64, caller: &Caller) -> Use {
    if size < WORTH_ASKING {
        return Use::Any;
    }
    match crate::fs::process_name(caller.pid) {
        Some(name) if COPYING.contains(&&*name) => Use::Copy,
        Some(name) if IN_BIG_PIECES.contains(&&*name) => Use::InBigPieces,
        _ => Use::Any,
    }
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
    let purpose = size.map_or(Use::Any, |size| use_of(size, caller));
    if purpose == Use::Copy {
        fs.expect_whole(handle);
    }
    let lendable = !direct_io && fs.kernel().may_pass_through();
    Ok(Opening::Done(Ready {
        ino,
        handle,
        caller: *caller,
        is_artifact: size.is_some(),
        keep_cache,
        direct: direct_io || purpose != Use::Any,
        unbuffered: flags.0 & libc::O_DIRECT != 0,
        alone: direct_io,
        loan: (lendable && service.ways().is_free(ino))
            .then(|| fs.lend(handle))
            .flatten(),
    }))
}

/// Tells the kernel, and settles by which way it reads.
pub(super) fn answer(service: &Service, ready: Ready, reply: ReplyOpen) {
    let kernel = service.fs.kernel();
    let Ready {
        ino,
        handle,
        is_artifact,
        caller,
        ..
    } = ready;
    let count = |way| {
        if is_artifact {
            kernel.opened(way);
        }
    };
    let lend = || {
        let loan = ready.loan?;
        match reply.open_backing(&loan) {
            Ok(id) => Some(Backing { id, _loan: loan }),
            Err(error) => {
                kernel.refuse_passthrough(refusal(&error));
                None
            }
        }
    };
    let way = service.ways().admit(ino, !ready.alone, lend);
    let handle = FileHandle(handle);
    match way {
        Ok(Way::Backing(backing)) => {
            count(kernel::Way::Passthrough);
            let flags = convert::open_flags(false, ready.unbuffered);
            reply.opened_passthrough(handle, flags, &backing.id);
        }
        Ok(Way::Asking) => {
            count(match ready.direct {
                true => kernel::Way::Direct,
                false => kernel::Way::PageCache,
            });
            reply.opened(handle, convert::open_flags(ready.keep_cache, ready.direct));
        }
        Err(Clash) => {
            let why = "an older version is open and read straight from the cache; close that first";
            let error = Error::new(Kind::Busy, why);
            service.fs.release(handle.0);
            service.fs.failed("open", ino, &caller, &error);
            reply.error(Errno::from_i32(error.errno()));
        }
    }
}

/// The kernel closed a handle: what it was lent is let go before the version behind it.
pub(super) fn release(service: &Service, ino: u64, handle: u64) {
    let backing = service.ways().release(ino);
    drop(backing);
    service.fs.release(handle);
}

/// Why the kernel takes no backing file (ioctl FUSE_DEV_IOC_BACKING_OPEN).
fn refusal(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "it takes CAP_SYS_ADMIN outside of containers".to_owned(),
        Some(libc::ELOOP) => {
            "the cache directory is on a stacked filesystem; choose another `cache_dir`".to_owned()
        }
        _ => format!("the kernel refused: {error}"),
    }
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
