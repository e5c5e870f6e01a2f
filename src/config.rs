//! Configuration: TOML file, environment and flags become one checked [`Config`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::secret::Secret;

/// Everything the program is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// How to mount.
    pub mount: MountConfig,
    /// The accounts, in the order of the file; names are unique.
    pub providers: Vec<ProviderConfig>,
}

/// The `[mount]` table.
#[derive(Debug, Clone)]
pub struct MountConfig {
    /// Block cache directory.
    pub cache_dir: PathBuf,
    /// Ledger directory.
    pub state_dir: PathBuf,
    /// Most bytes the block cache may hold.
    pub cache_size: u64,
    /// One budget in bytes for all read-ahead and blocks in memory.
    pub memory: u64,
    /// How long a listing is served before it is asked again.
    pub list_ttl: Duration,
    /// What an open may do about a missing task.
    pub on_open: OnOpen,
    /// Process names (comm) that may look but not spend.
    pub deny_processes: Vec<String>,
    /// Whether a task whose artifact is gone may be created again by a new open.
    pub recreate_expired: bool,
    /// Most tasks created per day; 0 = no limit.
    pub max_tasks_per_day: u32,
    /// How long an open may wait for its task.
    pub task_wait: Duration,
    /// Deadline of every other operation.
    pub op_timeout: Duration,
    /// Whether other users may look.
    pub allow_other: bool,
    /// Permission bits of files.
    pub file_mode: u16,
    /// Permission bits of directories.
    pub dir_mode: u16,
    /// Where to serve Prometheus text, if at all.
    pub metrics: Option<SocketAddr>,
}

/// What an open may do about a missing task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOpen {
    /// Adopt an existing task, create one if there is none.
    Create,
    /// Use existing tasks only.
    Adopt,
    /// Never use tasks.
    Never,
}

/// One `[[provider]]`.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The top-level directory.
    pub name: String,
    /// Plain http, and addresses on this machine, are refused unless true.
    pub allow_http: bool,
    /// Extra certificate authority for this provider (PEM file).
    pub ca_file: Option<PathBuf>,
    /// First task poll; backs off.
    pub poll_interval: Duration,
    /// All retries of one operation together.
    pub retry_budget: Duration,
    /// Which cloud, and its own keys.
    pub kind: ProviderKind,
}

/// Which cloud.
#[derive(Debug, Clone)]
pub enum ProviderKind {
    /// MongoDB Atlas.
    Atlas(AtlasConfig),
}

impl ProviderKind {
    /// The word in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            ProviderKind::Atlas(_) => "atlas",
        }
    }
}

/// `kind = "atlas"`.
#[derive(Debug, Clone)]
pub struct AtlasConfig {
    /// API base, without a path.
    pub endpoint: Url,
    /// Project (group) id.
    pub project_id: String,
    /// How requests are authenticated.
    pub auth: AtlasAuth,
}

/// How Atlas requests are authenticated.
#[derive(Debug, Clone)]
pub enum AtlasAuth {
    /// A programmatic API key, by HTTP Digest.
    ApiKey {
        /// User name.
        public_key: Secret,
        /// Password.
        private_key: Secret,
    },
    /// A service account, by OAuth 2 client credentials.
    ServiceAccount {
        /// Client id.
        client_id: Secret,
        /// Client secret.
        client_secret: Secret,
    },
}
