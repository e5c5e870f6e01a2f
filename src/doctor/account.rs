//! One account: asked for what it lists, as far as that is free, on one backup as a sample.
//!
//! A permission that is missing is named by the refusal itself. Creating a task cannot be tried
//! without paying: its permission is named so that it can be looked up.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::{Finding, Severity, reach};
use crate::clock::SharedClock;
use crate::config::{Config, Network, ProviderConfig, ProviderKind};
use crate::error::{Error, Kind, Result};
use crate::model::{Found, Link, Origin, ShardRef, TaskState};
use crate::providers::{self, Provider, Step};

/// All retries of one step together: whoever asks a doctor does not want to wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one step may take whatever happens.
const STEP: Duration = Duration::from_secs(40);
/// Instances looked at for one that has a backup.
const SAMPLES: usize = 5;
/// A clock that differs by more than this is worth a word, and by more than the other is wrong:
/// clouds refuse signatures that are some minutes off, and this program alone makes up for it.
const NOTABLE_SKEW: SignedDuration = SignedDuration::from_secs(30);
const WRONG_SKEW: SignedDuration = SignedDuration::from_mins(4);

/// Looks at every account, all at the same time; in the order of the configuration.
/// With `proxied`, whether hosts can be reached directly says nothing.
pub async fn accounts(config: &Config, clock: &SharedClock, proxied: bool) -> Vec<Finding> {
    let providers = config.providers.iter();
    let each = providers.map(|provider| examine(provider, clock, proxied));
    join_all(each).await.into_iter().flatten().collect()
}

async fn examine(config: &ProviderConfig, clock: &SharedClock, proxied: bool) -> Vec<Finding> {
    let impatient = ProviderConfig {
        retry_budget: config.retry_budget.min(PATIENCE),
        ..config.clone()
    };
    let provider = match providers::build(&impatient, Arc::clone(clock)) {
        Ok(provider) => provider,
        Err(error) => {
            let cure = "correct this account in the configuration";
            return vec![Finding::of_error(&config.name, &error, cure)];
        }
    };
    let mut visit = Visit {
        config,
        provider: &*provider,
        proxied,
        found: Vec::new(),
    };
    visit.lists().await;
    let now = clock.now();
    visit.clock(now);
    visit.found
}

struct Visit<'a> {
    config: &'a ProviderConfig,
    provider: &'a dyn Provider,
    proxied: bool,
    found: Vec<Finding>,
}

impl Visit<'_> {
    /// From the instances down to a link, as far as everything goes well.
    async fn lists(&mut self) {
        let provider = self.provider;
        let Some(instances) = self.step(Step::Instances, provider.instances()).await else {
            return;
        };
        if instances.is_empty() {
            let cure = "check the project or the regions of this account, and that its key may see \
                        instances there";
            return self.warn("it answers, and lists no instance", cure);
        }
        let mut sample = None;
        for instance in instances.iter().take(SAMPLES) {
            let Some(backups) = self.step(Step::Backups, provider.backups(instance)).await else {
                return;
            };
            let newest = backups
                .into_iter()
                .filter(|backup| backup.not_downloadable.is_none() && !backup.shards.is_empty());
            if let Some(backup) = newest.max_by_key(|backup| backup.started) {
                sample = Some(ShardRef {
                    provider: self.config.name.as_str().into(),
                    instance: Arc::new(instance.clone()),
                    shard: backup.shards[0].clone(),
                    backup: Arc::new(backup),
                });
                break;
            }
        }
        let count = match instances.len() {
            1 => "1 instance".to_owned(),
            count => format!("{count} instances"),
        };
        let Some(shard) = sample else {
            return self.ok(format!(
                "{count}; none of the first has a backup to download"
            ));
        };
        let Some(files) = self.step(Step::Backups, provider.files(&shard)).await else {
            return;
        };
        let mut ready = None;
        let tasks = files.iter().any(|file| file.origin == Origin::Task);
        if tasks {
            let Some(found) = self.step(Step::FindTask, provider.find_task(&shard)).await else {
                return;
            };
            ready = match found {
                Found::Task(task) if task.state == TaskState::Ready => Some(task),
                _ => None,
            };
        }
        let file = files.iter().find(|file| match file.origin {
            Origin::Object => true,
            Origin::Task => ready.is_some(),
        });
        if file.is_none() {
            self.inner_host().await;
        }
        if let Some(file) = file {
            let task = ready.as_ref().filter(|_| file.origin == Origin::Task);
            match timeout(STEP, provider.link(&shard, file, task)).await {
                // What has just gone says nothing about the account.
                Ok(Err(error)) if matches!(error.kind(), Kind::Expired | Kind::NotFound) => {}
                Ok(Ok(link)) => self.link_host(&link).await,
                Ok(Err(error)) => return self.failed(Step::Link, &error),
                Err(_) => return self.failed(Step::Link, &silent()),
            }
        }
        let mut what = format!("{count}; listing them and their backups is allowed");
        if tasks {
            what.push_str(", and so is listing download tasks");
        }
        self.ok(what);
        if tasks && let Some(permission) = provider.permission(Step::Create) {
            self.ok(format!(
                "making a download task takes {permission}: not tried, because it can cost money"
            ));
        }
    }

    /// Does one step; `None` once it failed, which is told.
    async fn step<T>(&mut self, step: Step, work: impl Future<Output = Result<T>>) -> Option<T> {
        let done = timeout(STEP, work).await;
        match done.unwrap_or_else(|_| Err(silent())) {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed(step, &error);
                None
            }
        }
    }

    fn failed(&mut self, step: Step, error: &Error) {
        let otherwise = match error.kind() {
            Kind::Unreachable | Kind::Unavailable | Kind::Throttled | Kind::TimedOut => {
                "check `endpoint`, the network and the proxy settings, and try again".to_owned()
            }
            Kind::Config => "correct this account in the configuration".to_owned(),
            _ => match self.provider.permission(step) {
                Some(permission) => {
                    format!("check the keys of this account, and allow {permission}")
                }
                None => "check the keys of this account".to_owned(),
            },
        };
        let mut finding = Finding::of_error(&self.config.name, error, &otherwise);
        if error.kind() == Kind::Credentials
            && let Some(permission) = self.provider.permission(step)
            && !finding.what.contains(permission)
            && !finding
                .cure
                .as_deref()
                .is_some_and(|cure| cure.contains(permission))
        {
            finding.what += &format!(" ({} takes {permission})", step.words());
        }
        if error.kind() == Kind::Unreachable
            && let Some(way) = self.way_inside()
        {
            let cure = finding.cure.unwrap_or_default();
            finding.cure = Some(format!("{cure}; {way}"));
        }
        self.found.push(finding);
    }

    /// Whether the host that a link leads to can be reached.
    async fn link_host(&mut self, link: &Link) {
        let url = link.url.url();
        if let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) {
            self.data_host(format!("{host}:{port}")).await;
        }
    }

    /// Where there is no link yet, the store inside the cloud's network stands for its host.
    async fn inner_host(&mut self) {
        if let ProviderKind::Aliyun(aliyun) = &self.config.kind
            && aliyun.network == Network::Private
            && aliyun
                .endpoint
                .host_str()
                .is_some_and(|host| host.ends_with(".aliyuncs.com"))
            && let Some(region) = aliyun.regions.first()
        {
            self.data_host(format!("oss-{region}-internal.aliyuncs.com:443"))
                .await;
        }
    }

    /// Whether the host that serves artifacts can be reached.
    async fn data_host(&mut self, place: String) {
        if self.proxied {
            return;
        }
        let Err(failure) = reach(&place).await else {
            return;
        };
        let what = format!("its data host {place} {failure}");
        let otherwise = || "allow this host in the firewall or the proxy".to_owned();
        let cure = self.way_inside().unwrap_or_else(otherwise);
        self.found
            .push(Finding::failure(&self.config.name, what, cure));
    }

    /// What to know about addresses inside the cloud's network, where the account may have some.
    fn way_inside(&self) -> Option<String> {
        let outside = |private: &str, public: &str| {
            format!(
                "`network = \"{private}\"` works only inside the cloud's network of that region: run \
                 this there, or set `network = \"{public}\"`"
            )
        };
        match &self.config.kind {
            ProviderKind::Aliyun(aliyun) if aliyun.network == Network::Private => {
                Some(outside("private", "public"))
            }
            ProviderKind::Ucloud(ucloud) if ucloud.network == Network::Private => {
                Some(outside("intranet", "internet"))
            }
            ProviderKind::Tencent(_) => {
                let words = "addresses inside Tencent Cloud's network are reached only from a machine \
                             in that region and VPC; elsewhere allow the COS domains in the firewall";
                Some(words.to_owned())
            }
            _ => None,
        }
    }

    /// How far this machine's clock is off.
    fn clock(&mut self, now: Timestamp) {
        let Some(theirs) = self.provider.cloud_time() else {
            return;
        };
        let behind = theirs.duration_since(now);
        if behind.abs() < NOTABLE_SKEW {
            return;
        }
        let direction = if behind.is_positive() {
            "behind"
        } else {
            "ahead of"
        };
        let seconds = behind.abs().as_secs();
        let what =
            format!("this machine's clock is {seconds} s {direction} the cloud's: clock skew");
        let cure = "set the clock, for instance with `timedatectl set-ntp true`";
        let severity = match behind.abs() > WRONG_SKEW {
            true => Severity::Failure,
            false => Severity::Warning,
        };
        self.found.push(Finding {
            severity,
            ..Finding::warning(&self.config.name, what, cure)
        });
    }

    fn ok(&mut self, what: impl Into<String>) {
        self.found.push(Finding::ok(&self.config.name, what));
    }

    fn warn(&mut self, what: &str, cure: &str) {
        self.found
            .push(Finding::warning(&self.config.name, what, cure));
    }
}

fn silent() -> Error {
    Error::new(
        Kind::TimedOut,
        format!("it does not answer within {STEP:?}"),
    )
}
