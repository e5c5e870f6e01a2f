//! The documents `status.json` and `tasks.json`: their fields, names and meaning.
//!
//! Field names are part of the contract with scripts: they are added, never renamed. Times are
//! RFC 3339 in UTC, sizes are bytes. Neither document holds a secret or a link.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::events::LastError;

/// `status.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// Its process id.
    pub pid: u32,
    /// Where it is mounted, if it is.
    pub mountpoint: Option<PathBuf>,
    /// Since when.
    pub since: Timestamp,
    /// When this document was made.
    pub now: Timestamp,
    /// The accounts.
    pub providers: Vec<ProviderStatus>,
    /// Download tasks.
    pub tasks: TaskCounts,
    /// Why no new task can be recorded and what to do, if so.
    pub ledger_error: Option<String>,
    /// The block cache on disk.
    pub cache: CacheStatus,
    /// Read-ahead and blocks in memory.
    pub memory: Usage,
    /// Files open now.
    pub open_files: usize,
    /// Entries of the tree known now.
    pub known_entries: usize,
    /// What was agreed with the kernel.
    pub kernel: KernelStatus,
    /// What was done since the start.
    pub activity: Totals,
    /// The most recent failure that mattered.
    pub last_error: Option<LastError>,
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProviderStatus {
    /// The configured name.
    pub name: String,
    /// When any of its listings was last answered well.
    pub last_listing: Option<Timestamp>,
    /// Some listing shown is older than it should be, or could never be had.
    pub stale: bool,
    /// Why.
    pub error: Option<String>,
    /// Instances in its last listing.
    pub instances: usize,
    /// Its data requests.
    pub fetch: FetchTotals,
}

/// What one account's data client did since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FetchTotals {
    /// Requests sent, redirects followed included.
    pub requests: u64,
    /// Bytes of artifacts received and accepted.
    pub bytes: u64,
    /// Requests made again after a failure.
    pub retries: u64,
    /// Answers that turned a link down.
    pub links_refused: u64,
    /// Answers that the protocol does not allow.
    pub protocol_errors: u64,
}

/// Download tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TaskCounts {
    /// Known now, by state.
    pub by_state: BTreeMap<&'static str, usize>,
    /// Openers that wait for one now.
    pub waiting: usize,
    /// Created in the whole life of the state directory.
    pub created_total: u64,
}

/// A bounded resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes in use.
    pub used: u64,
    /// Most bytes it may use.
    pub limit: u64,
}

/// The block cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheStatus {
    /// Its directory, `cache_dir`.
    pub directory: PathBuf,
    /// Bytes of disk in use.
    pub used: u64,
    /// Most bytes of disk it may use.
    pub limit: u64,
    /// Nothing is cached at the moment because its disk failed; reads go on without it.
    pub degraded: bool,
    /// Blocks found damaged since the start, forgotten and fetched again.
    pub damaged_blocks: u64,
    /// Bytes that left to make room since the start.
    pub evicted_bytes: u64,
    /// Failures of its disk since the start.
    pub disk_failures: u64,
}

/// What was agreed with the kernel for this mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelStatus {
    /// Whether the kernel reads complete files from the cache itself: `on`, or `off: ` and why.
    pub passthrough: String,
    /// How far the kernel reads ahead in its pages, in KiB, where that can be learnt.
    pub read_ahead_kib: Option<u64>,
    /// Most bytes that the kernel asks for at once.
    pub max_read: u32,
    /// Threads that take its requests.
    pub event_loops: usize,
    /// Files opened since the start.
    pub opens: OpensByWay,
}

/// Files opened, by the way their reads take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OpensByWay {
    /// The kernel reads the cache's file itself.
    pub passthrough: u64,
    /// Each read is asked of us as it is.
    pub direct: u64,
    /// Through the kernel's pages.
    pub page_cache: u64,
}

/// What the filesystem did since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Files opened.
    pub opens: u64,
    /// Read requests answered with bytes.
    pub reads: u64,
    /// Bytes given to readers.
    pub read_bytes: u64,
    /// Links asked for again.
    pub link_refreshes: u64,
    /// Files whose bytes were found to have the digest that their store publishes.
    pub digests_verified: u64,
    /// Files whose bytes had another one: they were thrown away.
    pub digest_mismatches: u64,
    /// Failed operations by the errno's name; everyday answers (ENOENT, ENODATA …) do not count.
    pub failures: BTreeMap<&'static str, u64>,
}

/// One entry of `tasks.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskStatus {
    /// Path of the shard in the tree, where its backup is listed now.
    pub path: Option<String>,
    /// The configured provider name.
    pub provider: String,
    /// Instance id.
    pub instance: String,
    /// Backup id.
    pub backup: String,
    /// Shard id.
    pub shard: String,
    /// `none|queued|running|ready|expired|failed|denied`.
    pub state: &'static str,
    /// The provider's id.
    pub task: Option<String>,
    /// 0 to 100.
    pub percent: Option<u8>,
    /// When it may be ready, as far as its progress or earlier tasks of its instance tell.
    pub estimate: Option<Timestamp>,
    /// When the artifact will be gone.
    pub expires: Option<Timestamp>,
    /// The last failure or denial.
    pub error: Option<String>,
    /// When it was asked for or adopted.
    pub since: Option<Timestamp>,
    /// Openers that wait for it now.
    pub waiting: usize,
}
