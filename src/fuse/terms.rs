//! What is agreed with the kernel when the session begins (FUSE_INIT).
//!
//! What an older kernel lacks is done without. Not asked for: FUSE_AUTO_INVAL_DATA, since a version
//! never changes under its pages, and FUSE_CACHE_SYMLINKS, since `latest` moves on.

use fuser::{InitFlags, KernelConfig};
use rustix::thread::CapabilitySet;

use crate::observe::kernel::Kernel;

/// Most bytes that the kernel asks for at once: the 256 pages that it allows by default.
const MAX_READ: u32 = 1 << 20;
/// Requests the kernel may send ahead of what its callers wait for.
const MAX_BACKGROUND: u16 = 64;
/// Filesystems below ours that a backing file may be on: so one may still be stacked on ours.
const BACKING_DEPTH: u32 = 1;

/// Agrees on everything, and has `kernel` know what came of it.
pub(super) fn agree(config: &mut KernelConfig, kernel: &Kernel) {
    for wish in [
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    ] {
        if let Err(missing) = config.add_capabilities(wish) {
            tracing::debug!(?missing, "the kernel lacks a capability");
        }
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        tracing::debug!(nearest, "the kernel keeps fewer requests in the background");
    }
    kernel.serves(event_loops(), MAX_READ);
    match passthrough(config) {
        Ok(()) => kernel.allow_passthrough(),
        Err(why) => kernel.refuse_passthrough(why),
    }
}

/// Threads that take requests: one serves one reader; several readers gain from as many as there
/// are processors.
pub(super) fn event_loops() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    processors.clamp(2, 4)
}

/// Agrees on passthrough, or tells why there is none. Whether the cache's filesystem can be lent
/// from turns out with the first file.
fn passthrough(config: &mut KernelConfig) -> Result<(), &'static str> {
    let capabilities = rustix::thread::capabilities(None).map(|sets| sets.effective);
    if !capabilities.is_ok_and(|have| have.contains(CapabilitySet::SYS_ADMIN)) {
        return Err("it takes CAP_SYS_ADMIN");
    }
    config
        .add_capabilities(InitFlags::FUSE_PASSTHROUGH)
        .map_err(|_| "the kernel lacks it")?;
    config
        .set_max_stack_depth(BACKING_DEPTH)
        .map_err(|_| "the kernel allows no backing file")?;
    Ok(())
}
