//! Reads `[[provider]]` tables: which keys each kind has, their defaults and their limits.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::bucket;
use super::keys::{self, Table};
use super::values::{base_address, host_part};
use super::{
    AliyunConfig, ArchiveFormat, AtlasAuth, AtlasConfig, BucketConfig, BucketService, CosConfig,
    Layout, Network, OssConfig, ProviderConfig, ProviderKind, TencentConfig, UcloudConfig,
};
use crate::config::document::{Entry, Section};
use crate::config::{Environment, units};
use crate::error::Result;
use crate::names;

/// Reads all `[[provider]]` tables.
pub(in crate::config) fn read(
    tables: Vec<Section<'_>>,
    environment: &Environment,
) -> Result<Vec<ProviderConfig>> {
    let mut providers: Vec<ProviderConfig> = Vec::with_capacity(tables.len());
    for table in tables {
        let name = table.get("name").and_then(|entry| entry.text().ok());
        let title = match name {
            Some(name) => format!("provider \"{}\"", names::display(name)),
            None => "[[provider]]".to_owned(),
        };
        let table = table.titled(title);
        let provider = read_one(&table, environment)?;
        if providers.iter().any(|other| other.name == provider.name) {
            let words = format!("another provider is named `{}` already", provider.name);
            return Err(table.require("name")?.error(&words));
        }
        providers.push(provider);
    }
    Ok(providers)
}

fn read_one(table: &Section<'_>, environment: &Environment) -> Result<ProviderConfig> {
    type Read = fn(&Account<'_>) -> Result<ProviderKind>;
    let kinds: [(&str, (&Table, Read)); 5] = [
        ("atlas", (&keys::ATLAS, |account| account.atlas())),
        ("tencent", (&keys::TENCENT, |account| account.tencent())),
        ("aliyun", (&keys::ALIYUN, |account| account.aliyun())),
        ("ucloud", (&keys::UCLOUD, |account| account.ucloud())),
        ("bucket", (&keys::BUCKET, |account| account.bucket())),
    ];
    let mut known = keys::COMMON.names();
    let Some(kind) = table.get("kind") else {
        known.extend(kinds.iter().flat_map(|(_, (keys, _))| keys.names()));
        table.allow_only(&[&known])?;
        return Err(table.missing("kind"));
    };
    let (keys, read) = kind.choice(&kinds)?;
    known.extend(keys.names());
    table.allow_only(&[&known])?;

    let account = Account {
        allow_http: optional(table, "allow_http", |entry| entry.boolean())?.unwrap_or(false),
        table,
        environment,
    };
    Ok(ProviderConfig {
        name: account.name()?,
        allow_http: account.allow_http,
        ca_file: account.ca_file()?,
        poll_interval: account
            .duration("poll_interval", Duration::from_millis(1), Duration::MAX)?
            .unwrap_or(Duration::from_secs(10)),
        retry_budget: account
            .duration("retry_budget", Duration::ZERO, Duration::MAX)?
            .unwrap_or(Duration::from_secs(120)),
        kind: read(&account)?,
    })
}

/// One table on its way to a [`ProviderConfig`].
struct Account<'a> {
    table: &'a Section<'a>,
    environment: &'a Environment,
    allow_http: bool,
}

impl Account<'_> {
    fn name(&self) -> Result<String> {
        let entry = self.table.require("name")?;
        let name = entry.filled_text()?;
        if names::component(name) != name || name.contains('%') {
            return Err(entry.error(
                "it becomes a directory: at most 255 bytes, no `/`, `%`, control character or leading dot",
            ));
        }
        Ok(name.to_owned())
    }

    fn ca_file(&self) -> Result<Option<PathBuf>> {
        let Some(entry) = self.table.get("ca_file") else {
            return Ok(None);
        };
        let text = entry.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let path = entry.source().resolve(text);
        let shown = names::display(&path.to_string_lossy());
        let pem = std::fs::read(&path)
            .map_err(|error| entry.error(&format!("{shown} cannot be read: {error}")))?;
        let marker = b"-----BEGIN CERTIFICATE-----";
        if !pem.windows(marker.len()).any(|window| window == marker) {
            return Err(entry.error(&format!("{shown} holds no PEM certificate")));
        }
        Ok(Some(path))
    }

    fn atlas(&self) -> Result<ProviderKind> {
        let table = self.table;
        Ok(ProviderKind::Atlas(AtlasConfig {
            endpoint: self.endpoint("endpoint", "https://cloud.mongodb.com")?,
            project_id: table.require("project_id")?.filled_text()?.to_owned(),
            auth: self.atlas_auth()?,
        }))
    }

    fn atlas_auth(&self) -> Result<AtlasAuth> {
        let table = self.table;
        let account = table.get("client_id").or(table.get("client_secret"));
        match (account, table.get("public_key").or(table.get("private_key"))) {
            (Some(account), Some(_)) => Err(account.error(
                "give either `public_key` and `private_key` or `client_id` and `client_secret`, not both",
            )),
            (Some(_), None) => Ok(AtlasAuth::ServiceAccount {
                client_id: table.require_secret("client_id", self.environment)?,
                client_secret: table.require_secret("client_secret", self.environment)?,
            }),
            (None, _) => Ok(AtlasAuth::ApiKey {
                public_key: table.require_secret("public_key", self.environment)?,
                private_key: table.require_secret("private_key", self.environment)?,
            }),
        }
    }

    fn tencent(&self) -> Result<ProviderKind> {
        let table = self.table;
        Ok(ProviderKind::Tencent(TencentConfig {
            endpoint: self.endpoint("endpoint", "https://mongodb.tencentcloudapi.com")?,
            regions: self.regions()?,
            secret_id: table.require_secret("secret_id", self.environment)?,
            secret_key: table.require_secret("secret_key", self.environment)?,
            token: table.optional_secret("token", self.environment)?,
            cos: self.bucket_of("cos", &keys::COS, |cos, bucket, region| {
                let host = format!("https://{bucket}.cos.{region}.myqcloud.com");
                let root = optional(&cos, "root", |entry| entry.text())?.unwrap_or("cmongo_backup");
                Ok(CosConfig {
                    root: root.trim_matches('/').to_owned(),
                    endpoint: self.endpoint_in(&cos, "endpoint", &host)?,
                    bucket,
                    region,
                })
            })?,
        }))
    }

    fn aliyun(&self) -> Result<ProviderKind> {
        let table = self.table;
        let network = self.network("public", "private")?;
        Ok(ProviderKind::Aliyun(AliyunConfig {
            endpoint: self.endpoint("endpoint", "https://mongodb.aliyuncs.com")?,
            dbs_endpoint: self
                .endpoint("dbs_endpoint", "https://dbs-api.cn-hangzhou.aliyuncs.com")?,
            regions: self.regions()?,
            access_key_id: table.require_secret("access_key_id", self.environment)?,
            access_key_secret: table.require_secret("access_key_secret", self.environment)?,
            security_token: table.optional_secret("security_token", self.environment)?,
            network,
            link_duration: self
                .duration(
                    "link_duration",
                    Duration::from_secs(5 * 60),
                    Duration::from_secs(24 * 3600),
                )?
                .unwrap_or(Duration::from_secs(24 * 3600)),
            format: match table.get("format") {
                None => ArchiveFormat::TarGz,
                Some(entry) => entry.choice(&[
                    ("tar.gz", ArchiveFormat::TarGz),
                    ("tar.zst", ArchiveFormat::TarZst),
                ])?,
            },
            oss: self.bucket_of("oss", &keys::OSS, |oss, bucket, region| {
                let internal = match network {
                    Network::Public => "",
                    Network::Private => "-internal",
                };
                let host = format!("https://{bucket}.oss-{region}{internal}.aliyuncs.com");
                let prefix = optional(&oss, "prefix", |entry| entry.text())?.unwrap_or("");
                let prefix = prefix.trim_matches('/');
                let slash = if prefix.is_empty() { "" } else { "/" };
                Ok(OssConfig {
                    prefix: format!("{prefix}{slash}"),
                    endpoint: self.endpoint_in(&oss, "endpoint", &host)?,
                    bucket,
                    region,
                })
            })?,
        }))
    }

    fn ucloud(&self) -> Result<ProviderKind> {
        let table = self.table;
        let project_id = optional(table, "project_id", |entry| entry.text())?.unwrap_or("");
        Ok(ProviderKind::Ucloud(UcloudConfig {
            endpoint: self.endpoint("endpoint", "https://api.ucloud.cn")?,
            regions: self.regions()?,
            zones: optional(table, "zones", |entry| entry.texts())?.unwrap_or_default(),
            project_id: (!project_id.is_empty()).then(|| project_id.to_owned()),
            public_key: table.require_secret("public_key", self.environment)?,
            private_key: table.require_secret("private_key", self.environment)?,
            network: self.network("internet", "intranet")?,
            valid_time: self
                .duration(
                    "valid_time",
                    Duration::from_secs(1),
                    Duration::from_secs(7 * 24 * 3600),
                )?
                .unwrap_or(Duration::from_secs(4 * 3600)),
        }))
    }

    fn bucket(&self) -> Result<ProviderKind> {
        let table = self.table;
        let services = BucketService::ALL.map(|service| (service.word(), service));
        let service = table.require("service")?.choice(&services)?;
        let options = table.require("options")?.section()?.below("options");
        let layout = match table.get("layout") {
            None => Layout::default(),
            Some(entry) => {
                Layout::parse(entry.filled_text()?).map_err(|words| entry.error(words))?
            }
        };
        Ok(ProviderKind::Bucket(BucketConfig {
            service,
            layout,
            options: bucket::options(&options, service, self.allow_http, self.environment)?,
        }))
    }

    fn regions(&self) -> Result<Vec<String>> {
        let entry = self.table.require("regions")?;
        let regions = entry.texts()?;
        if regions.is_empty() {
            return Err(entry.error("name at least one region"));
        }
        Ok(regions)
    }

    fn network(&self, public: &str, private: &str) -> Result<Network> {
        match self.table.get("network") {
            None => Ok(Network::Public),
            Some(entry) => entry.choice(&[(public, Network::Public), (private, Network::Private)]),
        }
    }

    fn duration(
        &self,
        key: &'static str,
        least: Duration,
        most: Duration,
    ) -> Result<Option<Duration>> {
        let Some(entry) = self.table.get(key) else {
            return Ok(None);
        };
        let duration = entry.measure(units::duration)?;
        if (least..=most).contains(&duration) {
            return Ok(Some(duration));
        }
        let least = units::show_duration(least);
        Err(entry.error(&if most == Duration::MAX {
            format!("must be at least {least}")
        } else {
            format!("must be from {least} to {}", units::show_duration(most))
        }))
    }

    fn endpoint(&self, key: &'static str, default: &str) -> Result<Url> {
        self.endpoint_in(self.table, key, default)
    }

    /// The base address at `key`; `default` when the key is absent or empty.
    fn endpoint_in(&self, table: &Section<'_>, key: &'static str, default: &str) -> Result<Url> {
        let entry = table.get(key);
        let text = match &entry {
            Some(entry) => entry.text()?,
            None => "",
        };
        let text = if text.is_empty() { default } else { text };
        base_address(text, self.allow_http).map_err(|words| match entry {
            Some(entry) => entry.error(words),
            None => table.missing(key),
        })
    }

    /// The optional table `key` of an own bucket, with these keys.
    fn bucket_of<T>(
        &self,
        key: &'static str,
        keys: &Table,
        read: impl FnOnce(Section<'_>, String, String) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(entry) = self.table.get(key) else {
            return Ok(None);
        };
        let table = entry.section()?.below(key);
        table.allow_only(&[&keys.names()])?;
        let part = |key| {
            let entry = table.require(key)?;
            let text = entry.filled_text()?;
            host_part(&entry, text).map(|()| text.to_owned())
        };
        let (bucket, region) = (part("bucket")?, part("region")?);
        read(table, bucket, region).map(Some)
    }
}

/// What `read` makes of the entry of `key`, if it is there.
fn optional<'a, T>(
    table: &Section<'a>,
    key: &'static str,
    read: impl FnOnce(&Entry<'_, 'a>) -> Result<T>,
) -> Result<Option<T>> {
    table.get(key).map(|entry| read(&entry)).transpose()
}
