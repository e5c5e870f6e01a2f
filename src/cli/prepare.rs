//! `prepare PATH… [--wait] [--dry-run] [--force]`: download tasks ahead of time.
//!
//! One line for each shard on stdout, whether its task was made or found, and how it stands; what
//! fails is one line on stderr.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{FuturesOrdered, FuturesUnordered};

use super::{Context, Exit, finish, print};
use crate::clock::{SharedClock, SystemClock};
use crate::config::MountArgs;
use crate::error::{Error, Kind, Result};
use crate::fs::{Ahead, Outlook, Wanted};
use crate::model::{Task, TaskState};
use crate::tasks::{TaskView, Wait};

/// How often the progress of waited-for tasks is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Creates the download tasks of backups ahead of time, or adopts those that exist.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Backups, shards or files, such as tencent/cmgo-1/latest or 'atlas-prod/*/latest'
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Wait until all are ready, at most task_wait
    #[arg(long)]
    wait: bool,
    /// Say what would be done and what it costs, and do nothing
    #[arg(long, conflicts_with_all = ["wait", "force"])]
    dry_run: bool,
    /// Create a task even if an earlier request may have been carried out and the provider cannot
    /// tell, or if recreate_expired is false: it may be paid twice
    #[arg(long)]
    force: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Result<Exit> {
    let config = context.config(&MountArgs::default())?;
    let clock: SharedClock = Arc::new(SystemClock);
    let runtime = super::runtime()?;
    runtime.block_on(async {
        let ahead = Ahead::open(&config, clock, args.force)?;
        let (mut wanted, mut failures) = (Vec::<Wanted>::new(), Vec::new());
        for path in &args.paths {
            match ahead.wanted(path).await {
                Ok(found) => wanted.extend(found),
                Err(error) => failures.push(error),
            }
        }
        wanted.sort_by(|a, b| a.path.cmp(&b.path));
        wanted.dedup_by(|a, b| a.path == b.path);
        let mut done = 0;
        let works = wanted.iter().map(|wanted| one(&ahead, wanted, &args));
        // What only looks tells in the order of the paths, what may wait tells as it comes.
        let mut works = match args.dry_run {
            true => works.collect::<FuturesOrdered<_>>().left_stream(),
            false => works.collect::<FuturesUnordered<_>>().right_stream(),
        };
        while let Some(outcome) = works.next().await {
            match outcome {
                Ok(line) => {
                    print(&line)?;
                    done += 1;
                }
                Err(error) => failures.push(error),
            }
        }
        finish(failures, done > 0)
    })
}

/// Does what `args` say about one shard; the line that tells of it.
async fn one(ahead: &Ahead, wanted: &Wanted, args: &Args) -> Result<String> {
    let path = &wanted.path;
    let told = |error: Error| error.context(path.clone());
    let outlook = ahead.outlook(wanted).await.map_err(told)?;
    let known = match outlook {
        Outlook::Object => return Ok(format!("{path}: needs no download task\n")),
        Outlook::Refused(reason) => {
            let words = format!("this backup cannot be downloaded: {reason}");
            return Err(told(Error::new(Kind::Unsupported, words)));
        }
        Outlook::Exists(task) => Some(task),
        Outlook::Create(price) if args.dry_run => {
            let price = price.unwrap_or("at a price this program does not know");
            return Ok(format!("{path}: would be created, {price}\n"));
        }
        Outlook::Doubtful if args.dry_run => {
            let words = "may have been created already, and the provider cannot tell; --force \
                         would create another";
            return Ok(format!("{path}: {words}\n"));
        }
        Outlook::Doubtful if args.force => {
            ahead.dismiss_doubt(wanted).await.map_err(told)?;
            None
        }
        Outlook::Create(_) | Outlook::Doubtful => None,
    };
    if args.dry_run {
        let state = known
            .as_ref()
            .map_or(String::new(), |task| state(task, None));
        let would = match known.as_ref().map(|task| task.state) {
            Some(TaskState::Expired | TaskState::Failed) => "; another would be created",
            _ => ", would be used",
        };
        return Ok(format!("{path}: {state}{would}\n"));
    }
    let wait = match args.wait {
        true => Wait::UntilReady,
        false => Wait::UntilStarted,
    };
    let task = watched(ahead, wanted, ahead.prepare(wanted, wait)).await;
    let task = task.map_err(told)?;
    let how = match &known {
        Some(known) if known.id == task.id => "found",
        _ => "created",
    };
    let state = state(&task, Some(&ahead.view(wanted)));
    Ok(format!("{path}: {how}, {state}\n"))
}

/// Tells on stderr how the task gets on while `work` waits for it.
async fn watched(
    ahead: &Ahead,
    wanted: &Wanted,
    work: impl Future<Output = Result<Task>>,
) -> Result<Task> {
    let mut work = std::pin::pin!(work);
    let mut told = None;
    loop {
        tokio::select! {
            outcome = &mut work => return outcome,
            () = tokio::time::sleep(LOOK) => {}
        }
        let view = ahead.view(wanted);
        let now = (view.state, view.percent);
        if view.state != "none" && told != Some(now) {
            told = Some(now);
            let percent = view.percent.map(|p| format!(" {p} %")).unwrap_or_default();
            let expected = expected(&view);
            let _ = writeln!(
                io::stderr(),
                "{}: {}{percent}{expected}",
                wanted.path,
                view.state
            );
        }
    }
}

fn expected(view: &TaskView) -> String {
    let estimate = view.estimate;
    estimate.map_or(String::new(), |at| format!(", expected ready at {at:.0}"))
}

/// How a task stands, in words.
fn state(task: &Task, view: Option<&TaskView>) -> String {
    let percent = task.percent.map(|p| format!(" {p} %")).unwrap_or_default();
    let expected = view.map(expected).unwrap_or_default();
    match task.state {
        TaskState::Queued => format!("queued{expected}"),
        TaskState::Running => format!("running{percent}{expected}"),
        TaskState::Ready => match task.expires {
            Some(at) => format!("ready until {at:.0}"),
            None => "ready".to_owned(),
        },
        TaskState::Expired => "expired".to_owned(),
        TaskState::Failed => "failed".to_owned(),
    }
}
