//! Logs go to a [`Sink`], as text for people or as one JSON object per line for machines.
//!
//! Only our own words are ever printed below the level of warnings: HTTP and TLS crates write
//! headers and whole addresses there, and those hold credentials and signatures.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::sink::Sink;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Failures of the program itself.
    Error,
    /// What an operator should look at.
    Warn,
    /// Milestones.
    Info,
    /// Every operation.
    Debug,
    /// Every step.
    Trace,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// When text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// When it goes to a terminal and `NO_COLOR` is not set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Sends log lines to `sink` from now on. Only the first call in a process counts.
pub fn init(level: LogLevel, format: LogFormat, ansi: bool, sink: Sink) {
    let lines = fmt::layer().with_writer(sink).with_ansi(ansi);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().with_ansi(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter(level)));
    // Fails when a subscriber stands already, as in tests: then that one is kept.
    let _ = subscriber.try_init();
}

/// Our own lines down to `level`, those of other crates down to warnings at most.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_default(level.min(LevelFilter::WARN))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn other_crates_never_speak_below_warnings() {
        let trace = filter(LogLevel::Trace);
        assert!(trace.would_enable("mongo_backupfs::fetch::client", &Level::TRACE));
        for other in [
            "reqwest",
            "hyper_util::client",
            "h2::codec",
            "rustls",
            "fuser",
        ] {
            assert!(!trace.would_enable(other, &Level::INFO), "{other}");
            assert!(trace.would_enable(other, &Level::WARN), "{other}");
        }
    }

    #[test]
    fn a_stricter_level_holds_for_all() {
        let error = filter(LogLevel::Error);
        assert!(!error.would_enable("mongo_backupfs::fs", &Level::WARN));
        assert!(!error.would_enable("hyper", &Level::WARN));
        assert!(error.would_enable("hyper", &Level::ERROR));
        assert!(!filter(LogLevel::Off).would_enable("mongo_backupfs", &Level::ERROR));
    }
}
