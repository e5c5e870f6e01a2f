//! `status [MOUNTPOINT] [--json] [--watch]`: what the mounts on this machine say of themselves.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::table::{Align, columns, short_size, short_time};
use super::{Context, Exit, print};
use crate::error::{Error, Kind, Result};
use crate::mount::{self, Report};
use crate::names;

/// Pause between two looks of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);
/// Clears a terminal.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows the download tasks, the cache and the last errors of a running mount.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which mount [default: every one on this machine]
    mountpoint: Option<PathBuf>,
    /// One JSON object: `mounts` is a list of `mountpoint`, `status` and `tasks`, the last two as
    /// status.json and tasks.json in .backupfs
    #[arg(long)]
    json: bool,
    /// Again every two seconds, until interrupted
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let mut before: Option<(Instant, Vec<Report>)> = None;
    loop {
        let reports = reports(args)?;
        let at = Instant::now();
        if args.json {
            print(&format!("{}\n", json!({ "mounts": reports })))?;
        } else {
            let clear = args.watch && context.draws(io::stdout().is_terminal());
            let mut text = String::from(if clear { CLEAR } else { "" });
            for (number, report) in reports.iter().enumerate() {
                if number > 0 {
                    text += "\n";
                }
                let rate = before
                    .as_ref()
                    .and_then(|(then, earlier)| rate(report, earlier, at.duration_since(*then)));
                text += &shown(report, rate)?;
            }
            print(&text)?;
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        before = Some((at, reports));
        thread::sleep(PAUSE);
    }
}

fn reports(args: &Args) -> Result<Vec<Report>> {
    let places = match &args.mountpoint {
        Some(place) => vec![place.clone()],
        None => mount::mountpoints()?,
    };
    if places.is_empty() {
        return Err(Error::new(
            Kind::Environment,
            "nothing is mounted: `mongo-backupfs mount MOUNTPOINT` mounts, `mongo-backupfs ls` lists \
             without a mount",
        ));
    }
    places.iter().map(|place| mount::ask(place)).collect()
}

/// What is shown of a status document.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    pid: u32,
    since: Timestamp,
    now: Timestamp,
    providers: Vec<Provider>,
    tasks: Counts,
    ledger_error: Option<String>,
    cache: Cache,
    memory: Usage,
    open_files: u64,
    activity: Activity,
    last_error: Option<LastError>,
}

#[derive(Debug, Deserialize)]
struct Provider {
    name: String,
    last_listing: Option<Timestamp>,
    error: Option<String>,
    instances: u64,
    fetch: Fetch,
}

#[derive(Debug, Deserialize)]
struct Fetch {
    bytes: u64,
    retries: u64,
}

#[derive(Debug, Deserialize)]
struct Counts {
    waiting: u64,
    created_total: u64,
}

#[derive(Debug, Deserialize)]
struct Cache {
    used: u64,
    limit: u64,
    degraded: bool,
}

#[derive(Debug, Deserialize)]
struct Usage {
    used: u64,
    limit: u64,
}

#[derive(Debug, Deserialize)]
struct Activity {
    read_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct LastError {
    time: Timestamp,
    operation: String,
    path: String,
    message: String,
}

/// What is shown of a task.
#[derive(Debug, Deserialize)]
struct Task {
    path: Option<String>,
    provider: String,
    instance: String,
    backup: String,
    shard: String,
    state: String,
    percent: Option<u8>,
    estimate: Option<Timestamp>,
    expires: Option<Timestamp>,
    error: Option<String>,
    waiting: u64,
}

/// Bytes per second given to readers and fetched since an earlier report of the same mount.
fn rate(report: &Report, earlier: &[Report], over: Duration) -> Option<(u64, u64)> {
    let before = earlier
        .iter()
        .find(|before| before.mountpoint == report.mountpoint)?;
    let (now, then) = (read(&report.status).ok()?, read(&before.status).ok()?);
    let fetched = |status: &Status| -> u64 { status.providers.iter().map(|p| p.fetch.bytes).sum() };
    let per_second = |now: u64, then: u64| {
        let bytes = now.saturating_sub(then) as f64;
        (bytes / over.as_secs_f64().max(0.001)) as u64
    };
    Some((
        per_second(now.activity.read_bytes, then.activity.read_bytes),
        per_second(fetched(&now), fetched(&then)),
    ))
}

fn read(status: &Value) -> Result<Status> {
    Status::deserialize(status).map_err(foreign)
}

fn foreign(error: serde_json::Error) -> Error {
    let words = "the mount is of another version of mongo-backupfs: use --json, or mount again";
    Error::new(Kind::Environment, words).with_source(error)
}

/// Seconds from one time to a later one.
fn since(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}

/// One mount in words.
fn shown(report: &Report, rate: Option<(u64, u64)>) -> Result<String> {
    let status = read(&report.status)?;
    let tasks = Vec::<Task>::deserialize(&report.tasks).map_err(foreign)?;
    let mut text = String::new();
    let mut line = |words: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{words}");
    };
    line(format!(
        "{}: up {}, process {}, version {}",
        report.mountpoint.display(),
        short_time(since(status.since, status.now)),
        status.pid,
        status.version
    ));
    let degraded = match status.cache.degraded {
        true => ", its disk fails: reading goes on without it",
        false => "",
    };
    line(format!(
        "cache {} of {}{degraded}; memory {} of {}; {} open files",
        short_size(status.cache.used),
        short_size(status.cache.limit),
        short_size(status.memory.used),
        short_size(status.memory.limit),
        status.open_files
    ));
    let fetched: u64 = status.providers.iter().map(|p| p.fetch.bytes).sum();
    let (read_now, fetched_now) = match rate {
        Some((read, fetched)) => (
            format!(", {}/s now", short_size(read)),
            format!(", {}/s now", short_size(fetched)),
        ),
        None => Default::default(),
    };
    line(format!(
        "read {}{read_now}; fetched {}{fetched_now}",
        short_size(status.activity.read_bytes),
        short_size(fetched)
    ));
    if let Some(error) = &status.ledger_error {
        line(format!("ledger: {error}"));
    }
    text += "\n";
    text += &providers(&status);
    let _ = writeln!(
        text,
        "\ndownload tasks: {} created so far; opens that wait: {}",
        status.tasks.created_total, status.tasks.waiting
    );
    if !tasks.is_empty() {
        text += &table(&tasks, status.now);
    }
    if let Some(error) = &status.last_error {
        let ago = short_time(since(error.time, status.now));
        let LastError {
            operation,
            path,
            message,
            ..
        } = error;
        let _ = writeln!(
            text,
            "\nlast error, {ago} ago: {operation} {path}: {message}"
        );
    }
    Ok(text)
}

fn providers(status: &Status) -> String {
    let mut lines =
        vec![["PROVIDER", "INSTANCES", "LISTED", "RETRIES", "ERROR"].map(str::to_owned)];
    for provider in &status.providers {
        let listed = provider.last_listing.map_or("never".to_owned(), |at| {
            format!("{} ago", short_time(since(at, status.now)))
        });
        lines.push([
            provider.name.clone(),
            provider.instances.to_string(),
            listed,
            provider.fetch.retries.to_string(),
            provider.error.clone().unwrap_or_default(),
        ]);
    }
    use Align::{Left, Right};
    columns([Left, Right, Right, Right, Left], &lines)
}

fn table(tasks: &[Task], now: Timestamp) -> String {
    let ahead = |at: Option<Timestamp>| at.map_or(String::new(), |at| short_time(since(now, at)));
    let mut lines = vec![
        [
            "STATE", "%", "READY IN", "GONE IN", "WAITING", "PATH", "ERROR",
        ]
        .map(str::to_owned),
    ];
    for task in tasks {
        let key = || {
            let parts = [&task.provider, &task.instance, &task.backup, &task.shard];
            names::display(&parts.map(String::as_str).join("/"))
        };
        lines.push([
            task.state.clone(),
            task.percent.map_or(String::new(), |p| p.to_string()),
            ahead(task.estimate),
            ahead(task.expires),
            task.waiting.to_string(),
            // As commands take it.
            match &task.path {
                Some(path) => path.trim_start_matches('/').to_owned(),
                None => key(),
            },
            task.error.clone().unwrap_or_default(),
        ]);
    }
    use Align::{Left, Right};
    columns([Left, Right, Right, Right, Right, Left, Left], &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_another_version_is_said_to_be_one() {
        let report = Report {
            mountpoint: "/mnt/backups".into(),
            status: json!({ "version": "9.0.0" }),
            tasks: json!([]),
        };
        let error = shown(&report, None).unwrap_err();
        assert!(error.to_string().contains("another version"), "{error}");
    }
}
