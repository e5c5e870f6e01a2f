//! What the serving process does for its own safety: it holds credentials and many files.
//!
//! Failures are logged and not fatal: a mount without them is still a mount.

use std::panic::{self, PanicHookInfo};

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// No core file and no debugger may show the credentials in memory; as many files may be open as
/// the system allows; a panic is one log line.
pub(crate) fn harden() {
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, no_core) {
        tracing::warn!(%error, "core files cannot be turned off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process's memory cannot be shielded from debuggers");
    }
    let files = getrlimit(Resource::Nofile);
    let all_files = Rlimit {
        current: files.maximum,
        maximum: files.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, all_files) {
        tracing::debug!(%error, "the limit of open files cannot be raised");
    }
    panic::set_hook(Box::new(log_panic));
}

/// Where it happened, without its words: they may show a link or a key.
fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map_or_else(String::new, ToString::to_string);
    tracing::error!(place, "a bug in mongo-backupfs: a panic");
}
