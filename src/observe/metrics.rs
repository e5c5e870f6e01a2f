//! Prometheus text: a small writer of the exposition format, and the counters of the filesystem.
//!
//! Values are read where they are kept when somebody asks; nothing is pushed. Names are
//! `mongo_backupfs_<what>_<unit>`, counters end in `_total`. No label ever holds remote text but
//! the configured provider name. Format: prometheus.io/docs/instrumenting/exposition_formats.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};

/// What Content-Type the text has.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A document being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// An empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// A metric with one value.
    pub fn value(&mut self, name: &str, kind: Type, help: &str, value: impl Display) {
        self.begin(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A metric with one value for each value of `label`.
    pub fn values<L: AsRef<str>, V: Display>(
        &mut self,
        name: &str,
        kind: Type,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) {
        self.begin(name, kind, help);
        for (of, value) in values {
            self.sample(name, &[(label, of.as_ref())], value);
        }
    }

    /// The document.
    pub fn finish(self) -> String {
        self.text
    }

    fn begin(&mut self, name: &str, kind: Type, help: &str) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
        };
        self.line(format_args!(
            "# HELP mongo_backupfs_{name} {help}\n# TYPE mongo_backupfs_{name} {kind}"
        ));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        match labels.is_empty() {
            true => self.line(format_args!("mongo_backupfs_{name} {value}")),
            false => self.line(format_args!(
                "mongo_backupfs_{name}{{{}}} {value}",
                labels.join(",")
            )),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("writing to a String cannot fail");
    }
}

/// Serves `text` at `/metrics` on `listener` until `stopped`. Must be called within a tokio
/// runtime.
///
/// # Errors
/// [`Kind::Environment`] when the socket cannot be used.
pub fn serve(
    listener: std::net::TcpListener,
    text: impl Fn() -> Bytes + Clone + Send + Sync + 'static,
    stopped: CancellationToken,
) -> Result<()> {
    let prepared = listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener));
    let listener = prepared.map_err(|error| {
        Error::new(Kind::Environment, "the metrics socket cannot be used").with_source(error)
    })?;
    let answer = move || {
        let text = text.clone();
        async move { ([(http::header::CONTENT_TYPE, CONTENT_TYPE)], text()) }
    };
    let router = axum::Router::new().route("/metrics", axum::routing::get(answer));
    tokio::spawn(async move {
        let server = axum::serve(listener, router);
        tokio::select! {
            ended = server => {
                if let Err(error) = ended {
                    tracing::warn!(%error, "metrics are no longer served");
                }
            }
            () = stopped.cancelled() => {}
        }
    });
    Ok(())
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the filesystem did since it was opened.
#[derive(Debug, Default)]
pub struct Activity {
    /// Files opened.
    pub opens: Counter,
    /// Read requests answered with bytes.
    pub reads: Counter,
    /// Bytes given to readers.
    pub read_bytes: Counter,
    /// Links asked for again; the first of an artifact is not counted.
    pub link_refreshes: Counter,
    /// Files whose bytes were found to have the digest that their store publishes.
    pub digests_verified: Counter,
    /// Files whose bytes had another one.
    pub digest_mismatches: Counter,
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

impl Activity {
    /// One more operation answered with the errno of this name.
    pub fn failed(&self, errno: &'static str) {
        *self.failures_guard().entry(errno).or_default() += 1;
    }

    /// Failed operations by the errno's name.
    pub fn failures(&self) -> BTreeMap<&'static str, u64> {
        self.failures_guard().clone()
    }

    fn failures_guard(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut metrics = Exposition::new();
        metrics.value("reads_total", Type::Counter, "Read requests.", 7);
        metrics.values(
            "tasks",
            Type::Gauge,
            "Tasks by state.",
            "state",
            [("ready", 1), ("a\"b\\c\nd", 2)],
        );
        insta::assert_snapshot!(metrics.finish(), @r#"
        # HELP mongo_backupfs_reads_total Read requests.
        # TYPE mongo_backupfs_reads_total counter
        mongo_backupfs_reads_total 7
        # HELP mongo_backupfs_tasks Tasks by state.
        # TYPE mongo_backupfs_tasks gauge
        mongo_backupfs_tasks{state="ready"} 1
        mongo_backupfs_tasks{state="a\"b\\c\nd"} 2
        "#);
    }

    #[test]
    fn failures_are_counted_by_name() {
        let activity = Activity::default();
        for errno in ["EIO", "EACCES", "EIO"] {
            activity.failed(errno);
        }
        let counted: Vec<_> = activity.failures().into_iter().collect();
        assert_eq!(counted, [("EACCES", 1), ("EIO", 2)]);
    }
}
