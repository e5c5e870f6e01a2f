//! This machine: what mounting needs, dead mounts, the cache's directory and the ledger.

use super::Finding;
use crate::cache;
use crate::config::MountConfig;
use crate::config::units::short_size;
use crate::mount;
use crate::tasks::ledger::Ledger;

/// With less than this free, every file is soon fetched again.
const LITTLE_ROOM: u64 = 1 << 30;

/// Looks at the machine; changes nothing.
pub fn machine(config: &MountConfig) -> Vec<Finding> {
    let mut found = Vec::new();
    for (subject, fit) in mount::fitness(config) {
        found.push(match fit {
            Ok(what) => Finding::ok(subject, what),
            Err(error) => {
                let text = error.to_string();
                // These name their cure after a colon.
                match text.split_once(": ") {
                    Some((what, cure)) => Finding::failure(subject, what, cure),
                    None => Finding::failure(subject, text, "see the README"),
                }
            }
        });
    }
    found.extend(mounts());
    found.extend(cache_directory(config));
    found.push(ledger(config));
    found
}

fn mounts() -> Vec<Finding> {
    const SUBJECT: &str = "mounts";
    match mount::dead() {
        Err(error) => vec![Finding::of_error(SUBJECT, &error, "mount /proc")],
        Ok(dead) if dead.is_empty() => vec![Finding::ok(SUBJECT, "none is dead")],
        Ok(dead) => {
            let of = |place: std::path::PathBuf| {
                let place = place.display();
                let what =
                    format!("the process of {place} is gone, reading it fails with ENOTCONN");
                let cure = format!("run `mongo-backupfs unmount {place}` and mount again");
                Finding::failure(SUBJECT, what, cure)
            };
            dead.into_iter().map(of).collect()
        }
    }
}

fn cache_directory(config: &MountConfig) -> Vec<Finding> {
    const SUBJECT: &str = "cache";
    let dir = &config.cache_dir;
    let shown = dir.display();
    let found = match cache::examine(dir) {
        Ok(found) => found,
        Err(error) => {
            let cure = "make it writable for this user, or set another cache_dir";
            return vec![Finding::of_error(SUBJECT, &error, cure)];
        }
    };
    let kind = mount::filesystem_of(dir).unwrap_or_else(|| "an unknown filesystem".to_owned());
    let owner = found.owner.map(|pid| format!(", in use by process {pid}"));
    let owner = owner.unwrap_or_default();
    let mut all = Vec::new();
    if !found.sparse {
        all.push(Finding::warning(
            SUBJECT,
            format!(
                "{shown} is on {kind}, which has no sparse files: each file may take its full size"
            ),
            "set cache_dir to ext4, xfs, btrfs or tmpfs",
        ));
    }
    let reach = found.free.saturating_add(found.used);
    if found.free < LITTLE_ROOM.min(config.cache_size) && reach < config.cache_size {
        all.push(Finding::failure(
            SUBJECT,
            format!(
                "{shown} has {} free: reads go on without a cache",
                short_size(found.free)
            ),
            "free some space, set a smaller cache_size, or another cache_dir",
        ));
    } else if reach < config.cache_size {
        all.push(Finding::warning(
            SUBJECT,
            format!(
                "{shown} cannot grow to its cache_size of {}: {} are free",
                short_size(config.cache_size),
                short_size(found.free)
            ),
            "set a smaller cache_size, or cache_dir to a larger filesystem",
        ));
    }
    if all.is_empty() {
        let what = format!("{shown} is private, writable, sparse, on {kind}{owner}");
        all.push(Finding::ok(SUBJECT, what));
    }
    all.push(match mount::passthrough(dir) {
        Ok(()) => Finding::ok(
            "passthrough",
            "possible: the kernel can read whole files by itself",
        ),
        Err(why) => Finding::ok(
            "passthrough",
            format!("not possible, reads are answered by us: {why}"),
        ),
    });
    all
}

fn ledger(config: &MountConfig) -> Finding {
    const SUBJECT: &str = "ledger";
    let shown = config.state_dir.display();
    match Ledger::examine(&config.state_dir) {
        Ok(Some(tasks)) => Finding::ok(
            SUBJECT,
            format!("{shown} is whole; tasks that it knows: {tasks}"),
        ),
        Ok(None) => Finding::ok(SUBJECT, format!("{shown} is empty yet, and can be written")),
        Err(error) => Finding::of_error(
            SUBJECT,
            &error,
            "make it writable for this user, or set another state_dir",
        ),
    }
}
