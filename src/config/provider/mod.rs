//! The accounts: what a `[[provider]]` table says, as typed values of one cloud.

mod bucket;
pub(super) mod keys;
mod layout;
mod read;
mod values;

pub(super) use bucket::options_of;
pub use layout::{Field, Folder, Layout, Names, Pattern};
pub(super) use read::read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::secret::Secret;

/// One `[[provider]]`.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The top-level directory: a path component that needs no escape.
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

impl ProviderConfig {
    /// The local directory whose files are the artifacts, where it is one.
    pub fn directory(&self) -> Option<&Path> {
        match &self.kind {
            ProviderKind::Bucket(bucket) if bucket.service == BucketService::Fs => {
                bucket.option("root").map(Path::new)
            }
            _ => None,
        }
    }
}

/// Which cloud.
#[derive(Debug, Clone)]
pub enum ProviderKind {
    /// MongoDB Atlas.
    Atlas(AtlasConfig),
    /// TencentDB for MongoDB.
    Tencent(TencentConfig),
    /// ApsaraDB for MongoDB (Alibaba Cloud).
    Aliyun(AliyunConfig),
    /// UCloud UMongoDB, also under other brands.
    Ucloud(UcloudConfig),
    /// Any object store with backups in folders.
    Bucket(BucketConfig),
}

impl ProviderKind {
    /// The word in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            ProviderKind::Atlas(_) => "atlas",
            ProviderKind::Tencent(_) => "tencent",
            ProviderKind::Aliyun(_) => "aliyun",
            ProviderKind::Ucloud(_) => "ucloud",
            ProviderKind::Bucket(_) => "bucket",
        }
    }
}

/// `kind = "atlas"`.
#[derive(Debug, Clone)]
pub struct AtlasConfig {
    /// API base. Its path is `/`, or a gateway's prefix without a slash at the end.
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

/// `kind = "tencent"`.
#[derive(Debug, Clone)]
pub struct TencentConfig {
    /// API base.
    pub endpoint: Url,
    /// Regions to list, at least one.
    pub regions: Vec<String>,
    /// Key id.
    pub secret_id: Secret,
    /// Key.
    pub secret_key: Secret,
    /// Token of temporary credentials.
    pub token: Option<Secret>,
    /// Backups kept as folders in a COS bucket.
    pub cos: Option<CosConfig>,
}

/// `[provider.cos]`: backups under `<root>/<replica set id>/snapshot/<time>/`.
#[derive(Debug, Clone)]
pub struct CosConfig {
    /// Bucket name with its APPID.
    pub bucket: String,
    /// The bucket's region.
    pub region: String,
    /// First part of every key, without slashes at its ends; may be empty.
    pub root: String,
    /// The bucket's own base: keys follow as `<endpoint>/<key>`.
    pub endpoint: Url,
}

/// `kind = "aliyun"`.
#[derive(Debug, Clone)]
pub struct AliyunConfig {
    /// Base of the dds API.
    pub endpoint: Url,
    /// Base of the dbs API.
    pub dbs_endpoint: Url,
    /// Regions to list, at least one.
    pub regions: Vec<String>,
    /// Key id.
    pub access_key_id: Secret,
    /// Key.
    pub access_key_secret: Secret,
    /// Token of temporary credentials.
    pub security_token: Option<Secret>,
    /// Which of the two links is used.
    pub network: Network,
    /// How long a link shall live: 5 minutes to 24 hours.
    pub link_duration: Duration,
    /// How download tasks pack a backup.
    pub format: ArchiveFormat,
    /// Own bucket that tasks write into.
    pub oss: Option<OssConfig>,
}

/// Which way to the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Over the internet.
    Public,
    /// Within the cloud.
    Private,
}

/// How a download task packs a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// `.tar.gz`
    TarGz,
    /// `.tar.zst`
    TarZst,
}

/// `[provider.oss]`: the destination of tasks and the source of reads.
#[derive(Debug, Clone)]
pub struct OssConfig {
    /// Bucket name.
    pub bucket: String,
    /// The bucket's region.
    pub region: String,
    /// First part of every key: empty, or ending with a slash.
    pub prefix: String,
    /// The bucket's own base: keys follow as `<endpoint>/<key>`.
    pub endpoint: Url,
}

/// `kind = "ucloud"`.
#[derive(Debug, Clone)]
pub struct UcloudConfig {
    /// API base.
    pub endpoint: Url,
    /// Regions to list, at least one.
    pub regions: Vec<String>,
    /// Only these zones; all when empty.
    pub zones: Vec<String>,
    /// Project; the account's default when absent.
    pub project_id: Option<String>,
    /// Public key.
    pub public_key: Secret,
    /// Private key.
    pub private_key: Secret,
    /// Which of the two links is used.
    pub network: Network,
    /// How long a link shall live.
    pub valid_time: Duration,
}

/// `kind = "bucket"`.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    /// The store's protocol.
    pub service: BucketService,
    /// Where a backup lies below the root.
    pub layout: Layout,
    /// The store's own options, complete; any of them may be private.
    pub options: BTreeMap<String, Secret>,
}

impl BucketConfig {
    /// What an option says, if it is given.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(Secret::expose)
    }
}

/// A store's protocol (an OpenDAL service).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketService {
    /// Amazon S3 and compatible stores.
    S3,
    /// Tencent COS.
    Cos,
    /// Alibaba OSS.
    Oss,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azblob,
    /// A local directory.
    Fs,
}

impl BucketService {
    /// Every protocol.
    pub const ALL: [BucketService; 6] = [
        BucketService::S3,
        BucketService::Cos,
        BucketService::Oss,
        BucketService::Gcs,
        BucketService::Azblob,
        BucketService::Fs,
    ];

    /// The word in the configuration: OpenDAL's name of the service.
    pub fn word(self) -> &'static str {
        match self {
            BucketService::S3 => "s3",
            BucketService::Cos => "cos",
            BucketService::Oss => "oss",
            BucketService::Gcs => "gcs",
            BucketService::Azblob => "azblob",
            BucketService::Fs => "fs",
        }
    }
}
