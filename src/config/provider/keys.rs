//! The keys of `[[provider]]`, once: what reading allows and what the reference tells of them.

/// One key of a table.
#[derive(Debug)]
pub(in crate::config) struct Key {
    pub(in crate::config) name: &'static str,
    pub(in crate::config) unless: Unless,
    pub(in crate::config) help: &'static str,
}

/// What holds unless a key is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Unless {
    /// It has to be given.
    Required,
    /// This value, as it would be written.
    Default(&'static str),
    /// What these words say.
    Told(&'static str),
}

use Unless::{Default, Required, Told};

const fn key(name: &'static str, unless: Unless, help: &'static str) -> Key {
    Key { name, unless, help }
}

/// One table of keys.
#[derive(Debug)]
pub(in crate::config) struct Table {
    /// How its header is written.
    pub(in crate::config) title: &'static str,
    pub(in crate::config) keys: &'static [Key],
}

impl Table {
    pub(in crate::config) fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }
}

pub(in crate::config) static COMMON: Table = Table {
    title: "every `[[provider]]`",
    keys: &[
        key(
            "name",
            Required,
            "Its top-level directory: a plain file name without `%`",
        ),
        key(
            "kind",
            Required,
            "`atlas`, `tencent`, `aliyun`, `ucloud` or `bucket`",
        ),
        key(
            "allow_http",
            Default("false"),
            "Accept plain http, and addresses of this machine: for tests and private gateways",
        ),
        key(
            "ca_file",
            Default("\"\""),
            "A PEM file with an extra certificate authority, relative to this file",
        ),
        key(
            "poll_interval",
            Default("\"10s\""),
            "The first look at a running task; later ones are further apart, up to two minutes",
        ),
        key(
            "retry_budget",
            Default("\"120s\""),
            "The time that all retries of one operation may take together",
        ),
    ],
};

pub(in crate::config) static ATLAS: Table = Table {
    title: "`kind = \"atlas\"`: MongoDB Atlas",
    keys: &[
        key(
            "endpoint",
            Default("\"https://cloud.mongodb.com\""),
            "Base of the API",
        ),
        key("project_id", Required, "The project (group)"),
        key(
            "public_key",
            Told("needed with `private_key`, unless a service account is used"),
            "A programmatic API key (secret)",
        ),
        key(
            "private_key",
            Told("needed with `public_key`"),
            "Its private part (secret)",
        ),
        key(
            "client_id",
            Told("needed with `client_secret`, unless an API key is used"),
            "A service account (secret)",
        ),
        key(
            "client_secret",
            Told("needed with `client_id`"),
            "Its password (secret)",
        ),
    ],
};

pub(in crate::config) static TENCENT: Table = Table {
    title: "`kind = \"tencent\"`: TencentDB for MongoDB",
    keys: &[
        key(
            "regions",
            Required,
            "Which regions are shown, such as `[\"ap-guangzhou\"]`",
        ),
        key("secret_id", Required, "Id of the API key (secret)"),
        key("secret_key", Required, "The API key (secret)"),
        key("token", Told("none"), "Token of temporary keys (secret)"),
        key(
            "endpoint",
            Default("\"https://mongodb.tencentcloudapi.com\""),
            "Base of the API",
        ),
        key("cos", Told("no folders"), "A table, see `[provider.cos]`"),
    ],
};

pub(in crate::config) static COS: Table = Table {
    title: "`[provider.cos]`: backups kept as folders in COS, below `<root>/<replica set>/snapshot/<time>/`",
    keys: &[
        key("bucket", Required, "The bucket's name with its APPID"),
        key("region", Required, "The bucket's region"),
        key(
            "root",
            Default("\"cmongo_backup\""),
            "First part of every key",
        ),
        key(
            "endpoint",
            Told("`https://<bucket>.cos.<region>.myqcloud.com`"),
            "The bucket's own base address: keys follow it",
        ),
    ],
};

pub(in crate::config) static ALIYUN: Table = Table {
    title: "`kind = \"aliyun\"`: ApsaraDB for MongoDB",
    keys: &[
        key(
            "regions",
            Required,
            "Which regions are shown, such as `[\"cn-hangzhou\"]`",
        ),
        key("access_key_id", Required, "Id of the access key (secret)"),
        key("access_key_secret", Required, "The access key (secret)"),
        key(
            "security_token",
            Told("none"),
            "Token of temporary keys (secret)",
        ),
        key(
            "endpoint",
            Default("\"https://mongodb.aliyuncs.com\""),
            "Base of the API of instances",
        ),
        key(
            "dbs_endpoint",
            Default("\"https://dbs-api.cn-hangzhou.aliyuncs.com\""),
            "Base of the API of download tasks",
        ),
        key(
            "network",
            Default("\"public\""),
            "Which of the two links is used: `public`, or `private` inside the VPC",
        ),
        key(
            "link_duration",
            Default("\"24h\""),
            "How long a link shall live: `5m` to `24h`",
        ),
        key(
            "format",
            Default("\"tar.gz\""),
            "How download tasks pack a backup: `tar.gz` or `tar.zst`",
        ),
        key("oss", Told("behind links"), "A table, see `[provider.oss]`"),
    ],
};

pub(in crate::config) static OSS: Table = Table {
    title: "`[provider.oss]`: an own bucket that download tasks write into",
    keys: &[
        key("bucket", Required, "The bucket's name"),
        key("region", Required, "The bucket's region"),
        key("prefix", Default("\"\""), "First part of every key"),
        key(
            "endpoint",
            Told("`https://<bucket>.oss-<region>[-internal].aliyuncs.com`"),
            "The bucket's own base address: keys follow it",
        ),
    ],
};

pub(in crate::config) static UCLOUD: Table = Table {
    title: "`kind = \"ucloud\"`: UCloud UMongoDB, also under other brands",
    keys: &[
        key(
            "endpoint",
            Default("\"https://api.ucloud.cn\""),
            "Base of the API",
        ),
        key(
            "regions",
            Required,
            "Which regions are shown, such as `[\"cn-bj2\"]`",
        ),
        key("zones", Default("[]"), "Only these zones; none for all"),
        key(
            "project_id",
            Default("\"\""),
            "The project; empty for the account's default, sub-accounts must name one",
        ),
        key("public_key", Required, "The public key (secret)"),
        key("private_key", Required, "The private key (secret)"),
        key(
            "network",
            Default("\"internet\""),
            "Which of the two links is used: `internet`, or `intranet` inside UCloud",
        ),
        key(
            "valid_time",
            Default("\"4h\""),
            "How long a link shall live: `1s` to `7d`",
        ),
    ],
};

pub(in crate::config) static BUCKET: Table = Table {
    title: "`kind = \"bucket\"`: backups that lie in an object store or a directory already",
    keys: &[
        key(
            "service",
            Required,
            "`s3`, `cos`, `oss`, `gcs`, `azblob` or `fs`",
        ),
        key(
            "layout",
            Default("\"{instance}/{backup}/{shard}/\""),
            "What the folders mean, or `pbm`: Percona Backup for MongoDB",
        ),
        key(
            "options",
            Required,
            "A table: the options of the service, below",
        ),
    ],
};
