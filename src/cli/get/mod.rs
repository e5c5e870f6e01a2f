//! `get PATH… DEST [--force] [--json]`: whole files, without a mount or beside one.
//!
//! What is copied and how is in [`crate::copy`], how it is shown in [`show`]. A signal ends it in
//! a state that the same command goes on from.

mod line;
mod screen;
mod show;
mod wait;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use self::show::Show;
use super::{Context, Exit, finish};
use crate::clock::SystemClock;
use crate::config::MountArgs;
use crate::copy::{self, Options, Outcome, Plan, Source};
use crate::error::{Error, Kind, Result};
use crate::mount;

/// Copies backups to DEST: creates or adopts their download tasks, waits for them, verifies what
/// comes, and goes on where an earlier run was interrupted.
///
/// One PATH that names one file is copied as cp does it: into DEST if that is a directory, else to
/// DEST itself. Everything else is mirrored below DEST with its whole path. A copy gets its name
/// when it is whole, verified and on disk; until then what came is beside it in
/// NAME.mongo-backupfs-part. What is there already, with the same size and time, is skipped.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files, shards, backups or what is above them, such as tencent/cmgo-1/latest or
    /// 'atlas-prod/*/latest'
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Where to
    #[arg(value_name = "DEST")]
    to: PathBuf,
    /// Copy also what is there already
    #[arg(long)]
    force: bool,
    /// One JSON object on each line, for each event: plan, waiting, started, progress, skipped,
    /// done, failed
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let config = context.config(&MountArgs::default())?;
    let show = Show::new(args.json, context.draws(io::stderr().is_terminal()));
    let runtime = mount::runtime()?;
    let exit = runtime.block_on(async {
        let source = Source::open(&config, Arc::new(SystemClock))?;
        let copies = async {
            let (plan, failures) = Plan::new(source.tree(), &args.paths, &args.to).await;
            plan.make_directories()?;
            let options = Options { force: args.force };
            let mut outcome = copy::run(&plan, &source, options, &|event| show.tell(&event)).await;
            outcome.failures.extend(failures);
            Ok(outcome)
        };
        let ended = tokio::select! {
            outcome = copies => outcome.map(Ended::ByItself),
            signal = signalled() => signal.map(Ended::BySignal),
        };
        show.end();
        source.close().await;
        match ended? {
            Ended::ByItself(Outcome { whole, failures }) => {
                show.sum_up();
                finish(failures, whole > 0)
            }
            Ended::BySignal(number) => {
                show.say("interrupted: the same command goes on from here");
                Ok(Exit::Signal(number))
            }
        }
    });
    // Threads that wait for a mount are left behind.
    mount::end(runtime);
    exit
}

enum Ended {
    ByItself(Outcome),
    BySignal(u8),
}

/// The number of the signal that asks for the end.
async fn signalled() -> Result<u8> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Error::new(Kind::Environment, "cannot listen to signals").with_source(error)
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let number = tokio::select! {
        _ = interrupt.recv() => libc::SIGINT,
        _ = terminate.recv() => libc::SIGTERM,
        _ = hangup.recv() => libc::SIGHUP,
    };
    Ok(u8::try_from(number).unwrap_or(u8::MAX))
}
