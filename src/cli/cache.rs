//! `cache info|verify|purge`: the block cache, without a mount or beside one.

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::json;

use super::table::{Align, columns, short_size};
use super::{Context, Exit, print};
use crate::cache::{self, Entry, Place};
use crate::config::MountArgs;
use crate::error::{Error, Kind, Result};
use crate::names;

/// Shows, checks or empties the block cache.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what is cached, and whether every byte of it was verified
    Info(Json),
    /// Check every block and drop the damaged ones; exit code 1 if there were any
    ///
    /// Beside a running mount nothing is dropped: the mount does so when it reads them.
    Verify(Json),
    /// Remove what is cached; refused while a mount has the cache
    ///
    /// The files are unlinked, their bytes are not overwritten.
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
struct Json {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Purge {
    /// What to remove, such as atlas-prod/M2AWS or 'tencent/*/20260105T*' [default: everything]
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Do not ask, on a terminal, before everything is removed
    #[arg(short, long)]
    yes: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    match &args.command {
        Command::Info(args) => info(context, args.json),
        Command::Verify(args) => verify(context, args.json),
        Command::Purge(args) => purge(context, args),
    }
}

fn info(context: &Context, as_json: bool) -> Result<Exit> {
    let mount = context.config(&MountArgs::default())?.mount;
    let found = cache::survey(&mount.cache_dir)?;
    if as_json {
        let mut object = json!(found);
        if let Some(object) = object.as_object_mut() {
            object.insert("limit".to_owned(), json!(mount.cache_size));
        }
        print(&format!("{object}\n"))?;
        return Ok(Exit::Done);
    }
    let Some(found) = found else {
        print(&format!(
            "{}: nothing is cached\n",
            mount.cache_dir.display()
        ))?;
        return Ok(Exit::Done);
    };
    let owner = found.owner.map(|pid| format!("; in use by process {pid}"));
    let mut text = format!(
        "{}: {} of {} used, its filesystem has {} of {} free{}\n",
        found.directory.display(),
        short_size(found.used),
        short_size(mount.cache_size),
        short_size(found.filesystem_free),
        short_size(found.filesystem_size),
        owner.unwrap_or_default()
    );
    if !found.artifacts.is_empty() {
        let mut lines = vec![["CACHED", "SIZE", "STATE", "USED", "PATH"].map(str::to_owned)];
        lines.extend(found.artifacts.iter().map(line));
        text.push('\n');
        use Align::{Left, Right};
        text += &columns([Right, Right, Left, Left, Left], &lines);
    }
    print(&text)?;
    Ok(Exit::Done)
}

fn line(entry: &Entry) -> [String; 5] {
    let state = match (entry.verified, entry.size) {
        (true, _) => "verified",
        (false, Some(size)) if size == entry.cached => "whole",
        (false, _) => "partly",
    };
    [
        short_size(entry.cached),
        entry.size.map_or("unknown".to_owned(), short_size),
        state.to_owned(),
        entry.used.map_or("-".to_owned(), |at| format!("{at:.0}")),
        names::display(&entry.path),
    ]
}

fn verify(context: &Context, as_json: bool) -> Result<Exit> {
    let directory = context.config(&MountArgs::default())?.mount.cache_dir;
    let (right, damages) = cache::verify(&directory)?;
    let bad: usize = damages
        .iter()
        .map(|damage| damage.offsets.len().max(1))
        .sum();
    if as_json {
        print(&format!(
            "{}\n",
            json!({ "right_blocks": right, "damaged": damages })
        ))?;
    } else {
        let mut text = String::new();
        for damage in &damages {
            let path = names::display(&damage.path);
            text += &match damage.offsets.as_slice() {
                [] => format!("{path}: its map is damaged\n"),
                offsets => format!("{path}: {} damaged blocks, at {offsets:?}\n", offsets.len()),
            };
        }
        text += &format!("{right} blocks are right, {bad} were damaged\n");
        print(&text)?;
    }
    if damages.is_empty() {
        return Ok(Exit::Done);
    }
    let words = format!(
        "{bad} blocks of {} were damaged: they are fetched again when they are needed; check that disk",
        directory.display()
    );
    Err(Error::new(Kind::Cache, words))
}

fn purge(context: &Context, args: &Purge) -> Result<Exit> {
    let directory = context.config(&MountArgs::default())?.mount.cache_dir;
    // A malformed pattern is told before anything is removed.
    let places: Vec<Place> = args
        .paths
        .iter()
        .map(|path| Place::parse(path))
        .collect::<Result<_>>()?;
    if args.paths.is_empty() && !args.yes && !agreed(&directory.display().to_string())? {
        return Err(Error::new(Kind::Usage, "nothing was removed"));
    }
    let is_wanted =
        |entry: &Entry| places.is_empty() || places.iter().any(|place| place.has(entry));
    let gone = cache::purge(&directory, is_wanted)?;
    let bytes: u64 = gone.iter().map(|entry| entry.disk).sum();
    if args.json {
        print(&format!("{}\n", json!({ "removed": gone, "bytes": bytes })))?;
    } else {
        let mut text = String::new();
        for entry in &gone {
            text += &format!("{}: removed\n", names::display(&entry.path));
        }
        text += &format!(
            "{} files, {} of disk; unlinked, not overwritten\n",
            gone.len(),
            short_size(bytes)
        );
        print(&text)?;
    }
    Ok(Exit::Done)
}

/// Whether everything may go; only who sits at a terminal is asked.
fn agreed(directory: &str) -> Result<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(true);
    }
    let failed = |error| Error::new(Kind::Environment, "cannot ask").with_source(error);
    write!(io::stderr(), "Remove everything in {directory}? [y/N] ").map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
