//! `doctor [--json] [--repair-ledger]`: what is wrong here, and the cure of each.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use serde_json::json;

use super::table::counted;
use super::{Context, Exit, print};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{MountArgs, MountConfig};
use crate::doctor::{self, Finding, Severity};
use crate::error::{Error, Kind, Result};
use crate::tasks::ledger::Ledger;

/// Checks configuration, accounts, permissions, network, clock, mounts, cache and ledger: one line
/// for each finding, with its cure. Nothing it asks costs money.
///
/// Exit code 0 if all is well or there are only warnings, 1 if something cannot work.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON object: `healthy`, and `findings`, a list of `severity`, `subject`, `what`, `cure`
    #[arg(long)]
    json: bool,
    /// Make a damaged task ledger anew from what can still be read of it; the damaged file is kept
    /// beside it. Every mount has to be ended first
    #[arg(long)]
    repair_ledger: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    if args.repair_ledger {
        return repair(context);
    }
    let loaded = context.config(&MountArgs::default());
    let clock: SharedClock = Arc::new(SystemClock);
    let mut found = Vec::new();
    match &loaded {
        Ok(config) => {
            found.push(sound(context)?);
            found.extend(doctor::machine(&config.mount));
            let runtime = super::runtime()?;
            runtime.block_on(async {
                let proxies = doctor::proxies(|name| context.environment.get(name)).await;
                let proxied = !proxies.is_empty();
                found.extend(proxies);
                found.extend(doctor::accounts(config, &clock, proxied).await);
            });
        }
        Err(error) => {
            let there = context.config_path().is_ok_and(|path| path.exists());
            let cure = match there {
                true => {
                    "correct that line; a key that is not known may be of a newer version: upgrade \
                     mongo-backupfs, or remove it"
                }
                false => {
                    "name another file, or write one: `mongo-backupfs config example` prints what \
                     to start from"
                }
            };
            found.push(Finding::of_error("configuration", error, cure));
            found.extend(doctor::machine(&MountConfig::defaults(
                &context.environment,
            )));
        }
    }
    let count = |severity| {
        let alike = found.iter().filter(|finding| finding.severity == severity);
        alike.count()
    };
    let (warnings, failures) = (count(Severity::Warning), count(Severity::Failure));
    if args.json {
        print(&format!(
            "{}\n",
            json!({ "healthy": failures == 0, "findings": found })
        ))?;
    } else {
        let colored = context.colored(io::stdout().is_terminal());
        let lines: Vec<String> = found.iter().map(|finding| line(finding, colored)).collect();
        let sum = match (warnings, failures) {
            (0, 0) => "all is well\n".to_owned(),
            (1.., 0) => format!("it works, with {}\n", counted(warnings, "warning")),
            _ => String::new(),
        };
        print(&(lines.concat() + &sum))?;
    }
    match failures {
        0 => Ok(Exit::Done),
        1 => Err(Error::new(
            Kind::Environment,
            "1 thing cannot work, see above",
        )),
        n => Err(Error::new(
            Kind::Environment,
            format!("{n} things cannot work, see above"),
        )),
    }
}

fn sound(context: &Context) -> Result<Finding> {
    Ok(Finding {
        severity: Severity::Ok,
        subject: "configuration".to_owned(),
        what: format!(
            "{} is well-formed, its keys are private",
            context.config_path()?.display()
        ),
        cure: None,
    })
}

fn line(finding: &Finding, colored: bool) -> String {
    let (word, color) = match finding.severity {
        Severity::Ok => ("ok     ", "32"),
        Severity::Warning => ("warning", "33"),
        Severity::Failure => ("failure", "31"),
    };
    let word = match colored {
        true => format!("\x1b[{color}m{word}\x1b[0m"),
        false => word.to_owned(),
    };
    let cure = finding.cure.as_ref().map(|cure| format!("; {cure}"));
    let cure = cure.unwrap_or_default();
    format!("{word} {}: {}{cure}\n", finding.subject, finding.what)
}

fn repair(context: &Context) -> Result<Exit> {
    let config = context.config(&MountArgs::default())?;
    let words = match Ledger::repair(&config.mount.state_dir)? {
        None => "the task ledger is whole: nothing was done".to_owned(),
        Some(repaired) => format!(
            "{} tasks and {} artifacts were read from the damaged ledger, which is {} now; what it \
             did not tell any more is looked for at the providers",
            repaired.tasks,
            repaired.artifacts,
            repaired.moved_to.display()
        ),
    };
    print(&format!("{words}\n"))?;
    Ok(Exit::Done)
}
