//! What a process does for its own safety that holds credentials, and many files.
//!
//! Failures are logged and not fatal: a mount without them is still a mount.

use std::panic::{self, PanicHookInfo};

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// No core file and no debugger may show the credentials in memory, and a panic is one log line
/// without the words that may hold some: to be called before any secret is read.
pub(crate) fn shield() {
    panic::set_hook(Box::new(log_panic));
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
}

/// As many files may be open as the system allows.
pub(crate) fn raise_open_files() {
    let files = getrlimit(Resource::Nofile);
    let all_files = Rlimit {
        current: files.maximum,
        maximum: files.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, all_files) {
        tracing::debug!(%error, "the limit of open files cannot be raised");
    }
}

/// Where it happened, without its words: they may show a link or a key.
fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map_or_else(String::new, ToString::to_string);
    tracing::error!(place, "a bug in mongo-backupfs: a panic");
}
