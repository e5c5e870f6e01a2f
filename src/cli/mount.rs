//! `mount MOUNTPOINT`: serve the tree until it is unmounted, in the foreground or behind it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Context, Exit};
use crate::config::{Config, MountArgs};
use crate::error::{Error, Kind, Result};
use crate::mount::{self, Manner, Started, Upkeep};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An empty directory; or /dev/fd/N, an open FUSE device that somebody else mounts
    mountpoint: PathBuf,
    /// Go to the background once mounted; logs go to --log-file, else to the system's log
    #[arg(long)]
    daemon: bool,
    /// Take away a dead mount at this place first, never one that lives
    #[arg(long)]
    replace_stale: bool,
    #[command(flatten)]
    settings: MountArgs,
}

impl Args {
    /// Whether the mount is served by another process than this one.
    pub(super) fn starts_another(&self, context: &Context) -> bool {
        self.daemon && !context.in_background()
    }
}

pub(super) fn run(context: &Context, args: Args) -> Result<Exit> {
    if args.starts_another(context) {
        return match mount::start_in_background(&context.arguments)? {
            Started::Ready => Ok(Exit::Done),
            Started::Failed(words, code) => {
                // Nobody is left to hear that telling it failed.
                let _ = writeln!(io::stderr(), "{words}");
                Ok(Exit::Told(code))
            }
        };
    }
    let manner = Manner {
        replace_stale: args.replace_stale,
        in_background: context.in_background(),
    };
    let path = std::path::absolute(context.config_path()?).map_err(|error| {
        Error::new(Kind::Environment, "the current directory is gone").with_source(error)
    })?;
    let (settings, environment) = (args.settings, context.environment.clone());
    let read = move || Config::load(&path, &settings, &environment);
    context.shield();
    let config = read()?;
    let logs = context.logs.clone();
    let upkeep = Upkeep {
        read: Arc::new(read),
        reopen: Arc::new(move || logs.reopen()),
    };
    mount::run(&config, &args.mountpoint, manner, &upkeep)?;
    Ok(Exit::Done)
}
