//! The command line: one file per command, no logic of the system inside.
//!
//! This file parses, starts the logs, runs the command and maps its outcome to the exit code:
//! 0 done, 1 failed, 2 usage or configuration, 3 partly done, 128 + n ended by signal n. It is the
//! one place that reads the process environment.

mod cache;
mod completions;
mod config;
mod demo;
mod doctor;
mod get;
mod ls;
mod mount;
mod prepare;
mod status;
mod table;
mod unmount;

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Environment, MountArgs, fstab, locate};
use crate::error::{Error, Kind, Result};
use crate::mount::shield;
use crate::observe::logs::{self, Color, LogFormat, LogLevel};
use crate::observe::sink::Sink;

const NAME: &str = "mongo-backupfs";
/// The name under which mount(8) calls the program.
const HELPER: &str = "mount.mongo-backupfs";

/// The variable by which whoever looks for a bug lets core files and debuggers show the memory of this
/// process, credentials included.
const DEBUGGABLE: &str = "MONGO_BACKUPFS_DEBUGGABLE";

/// Every backup of every managed MongoDB you own, as a plain read-only directory tree.
#[derive(Debug, Parser)]
#[command(name = NAME, version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Configuration file [env: MONGO_BACKUPFS_CONFIG] [default:
    /// $XDG_CONFIG_HOME/mongo-backupfs/config.toml, then /etc/mongo-backupfs/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How much is logged [default: info for mount, error for ls and get, else warn]
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "MONGO_BACKUPFS_LOG_LEVEL"
    )]
    log_level: Option<LogLevel>,
    /// How log lines look
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "MONGO_BACKUPFS_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
    /// Where log lines go instead of stderr; SIGHUP makes a mount open it anew
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MONGO_BACKUPFS_LOG_FILE"
    )]
    log_file: Option<PathBuf>,
    /// When output is coloured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount the backups and serve them until unmounted
    Mount(mount::Args),
    /// End a mount and wait for its process
    Unmount(unmount::Args),
    /// List the backups without mounting them
    Ls(ls::Args),
    /// Copy backups to a directory, without a mount or beside one
    Get(get::Args),
    /// Create download tasks ahead of time
    Prepare(prepare::Args),
    /// Show the tasks, the cache and the last errors of running mounts
    Status(status::Args),
    /// Check everything that a mount needs, and name the cure of what is wrong
    Doctor(doctor::Args),
    /// Show, check or empty the block cache
    Cache(cache::Args),
    /// Try everything on simulated clouds, without an account
    Demo(demo::Args),
    /// Check, show or find the configuration
    Config(config::Args),
    /// Print what a shell needs to complete arguments
    Completions(completions::CompletionsArgs),
    /// Write the manual pages
    Man(completions::ManArgs),
}

impl Command {
    /// What is logged unless the user says otherwise.
    fn log_level(&self) -> LogLevel {
        match self {
            Command::Mount(_) => LogLevel::Info,
            // What they cannot do they tell themselves.
            Command::Ls(_) | Command::Get(_) => LogLevel::Error,
            _ => LogLevel::Warn,
        }
    }

    fn run(self, context: &Context) -> Result<Exit> {
        match self {
            Command::Mount(args) => mount::run(context, args),
            Command::Unmount(args) => unmount::run(args),
            Command::Ls(args) => ls::run(context, args),
            Command::Doctor(args) => doctor::run(context, &args),
            Command::Cache(args) => cache::run(context, &args),
            Command::Get(args) => get::run(context, &args),
            Command::Status(args) => status::run(context, &args),
            Command::Prepare(args) => prepare::run(context, args),
            Command::Demo(args) => demo::run(context, &args),
            Command::Config(args) => config::run(context, args),
            Command::Completions(args) => completions::completions(&args),
            Command::Man(args) => completions::man(&args),
        }
    }
}

/// How a command ended that did not fail as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// Everything was done.
    Done,
    /// Some of it failed and was told.
    Partly,
    /// A signal ended it, of this number.
    Signal(u8),
    /// It failed in another process, which told why and ended with this code.
    Told(u8),
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> u8 {
        match exit {
            Exit::Done => 0,
            Exit::Partly => 3,
            Exit::Signal(number) => 128_u8.saturating_add(number),
            Exit::Told(code) => code,
        }
    }
}

/// What every command is given besides its arguments.
#[derive(Debug)]
struct Context {
    global: Global,
    environment: Environment,
    /// As given, without the program's own name.
    arguments: Vec<OsString>,
    /// Where log lines go.
    logs: Sink,
}

impl Context {
    /// Whether this process serves a mount behind the one that was called.
    fn in_background(&self) -> bool {
        self.environment.get(crate::mount::CHILD).is_some()
    }

    /// Which configuration file is read.
    fn config_path(&self) -> Result<PathBuf> {
        locate(self.global.config.as_deref(), &self.environment)
    }

    /// The configuration, with `flags` over the environment over the file.
    fn config(&self, flags: &MountArgs) -> Result<Config> {
        self.shield();
        Config::load(&self.config_path()?, flags, &self.environment)
    }

    /// Whatever secrets are read from now on are shielded from core files and debuggers, unless
    /// [`DEBUGGABLE`] is 1.
    fn shield(&self) {
        let debuggable = self.environment.get(DEBUGGABLE);
        if debuggable.is_none_or(|value| value != "1") {
            shield();
        }
    }

    /// Whether what goes to a stream that is or is not a terminal may be drawn over: not where the
    /// terminal is said to know no more than lines.
    fn draws(&self, terminal: bool) -> bool {
        let kind = self.environment.get("TERM");
        terminal && kind.is_some_and(|kind| !kind.is_empty() && kind != "dumb")
    }

    /// Whether to colour what goes to a stream that is or is not a terminal.
    fn colored(&self, terminal: bool) -> bool {
        match self.global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let refused = self.environment.get("NO_COLOR");
                self.draws(terminal) && refused.is_none_or(|value| value.is_empty())
            }
        }
    }
}

/// Parses the arguments, runs the command and tells the exit code.
pub fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => return failed(&error),
    };
    let cli = match Cli::try_parse_from(
        [OsStr::new(NAME)]
            .into_iter()
            .chain(arguments.iter().map(OsString::as_os_str)),
    ) {
        Ok(cli) => cli,
        Err(error) => {
            // Also `--help` and `--version`; nobody is left to hear that printing failed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let mut context = Context {
        global: cli.global,
        environment: Environment::new(std::env::vars_os(), rustix::process::geteuid().is_root()),
        arguments,
        logs: Sink::stderr(),
    };
    match sink(&context, &cli.command) {
        Ok(sink) => context.logs = sink,
        Err(error) => return failed(&error),
    }
    let level = context.global.log_level.unwrap_or(cli.command.log_level());
    let plain = context.global.log_file.is_some() || context.in_background();
    let ansi = !plain && context.colored(io::stderr().is_terminal());
    logs::init(level, context.global.log_format, ansi, context.logs.clone());

    match cli.command.run(&context) {
        Ok(exit) => ExitCode::from(u8::from(exit)),
        Err(error) if is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// What the program is asked to do: its arguments, or those that a mount helper's stand for.
fn arguments() -> Result<Vec<OsString>> {
    let mut given = std::env::args_os();
    let name = given.next().unwrap_or_default();
    if Path::new(&name).file_name() != Some(OsStr::new(HELPER)) {
        return Ok(given.collect());
    }
    let words: Result<Vec<String>, OsString> = given.map(OsString::into_string).collect();
    let words = words.map_err(|_| Error::new(Kind::Config, format!("{HELPER}: not UTF-8 text")))?;
    let arguments = fstab::arguments(&words)?;
    Ok(arguments.into_iter().map(OsString::from).collect())
}

/// Where log lines go: whoever only starts the serving process leaves that to it.
fn sink(context: &Context, command: &Command) -> Result<Sink> {
    if matches!(command, Command::Mount(args) if args.starts_another(context)) {
        return Ok(Sink::stderr());
    }
    match &context.global.log_file {
        Some(path) => Sink::file(path).map_err(|error| {
            let path = path.display();
            Error::new(Kind::Config, format!("log file {path} cannot be opened")).with_source(error)
        }),
        None if context.in_background() => Ok(Sink::system()),
        None => Ok(Sink::stderr()),
    }
}

fn failed(error: &Error) -> ExitCode {
    report(error);
    ExitCode::from(error.kind().exit_code())
}

/// A runtime for a command that serves nobody but its caller.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Kind::Environment, "cannot start a runtime").with_source(error))
}

/// One line about a failure, on stderr.
fn report(error: &Error) {
    let _ = writeln!(io::stderr(), "mongo-backupfs: {error}");
}

/// Tells what failed: partly done if there was `something` to show.
fn finish(mut failures: Vec<Error>, something: bool) -> Result<Exit> {
    let Some(last) = failures.pop() else {
        return Ok(Exit::Done);
    };
    failures.iter().for_each(report);
    if !something {
        return Err(last);
    }
    report(&last);
    Ok(Exit::Partly)
}

/// Writes `text` to stdout.
fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| {
            let failed = Error::new(Kind::Environment, "cannot write the output");
            match error.kind() {
                ErrorKind::BrokenPipe => failed.with_source(ClosedOutput),
                _ => failed.with_source(error),
            }
        })
}

/// The reader of our output has seen enough (`| head`): that is no failure.
#[derive(Debug)]
struct ClosedOutput;

impl std::fmt::Display for ClosedOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("its reader has gone")
    }
}

impl std::error::Error for ClosedOutput {}

fn is_closed_output(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|source| source.is::<ClosedOutput>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
