//! The thin binary: parse, run, exit code.

use std::process::ExitCode;

/// Bodies from the network arrive in buffers of some hundred KiB, freed by other threads than took
/// them: the C library's allocator gives each back to the kernel and asks for it anew, which costs
/// a fifth of the processor time of a copy.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    mongo_backupfs::cli::main()
}
