//! UCloud UMongoDB, also under other brands: the instances of some regions and their backups, each
//! behind a link that the API makes on demand.
//!
//! There are no download tasks: opening a file costs one call, and nothing else. Links are asked for
//! with the configured life and used as they are, to the letter. What is not documented (which
//! backups have a link, and by which code others are refused) is left to the API to say: a refused
//! link is explained by what is known of its backup, and by whether that is still listed.

mod client;
mod convert;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod oplogs;
mod refusal;
mod sign;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::try_join;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use tracing::debug;

use self::client::{Action, Client};
use self::refusal::Refusal;
use self::sign::Parameters;
use super::presigned;
use crate::clock::SharedClock;
use crate::config::{Network, ProviderConfig, UcloudConfig};
use crate::error::{Error, Kind, Result};
use crate::model::{
    Backup, Facts, Found, Instance, Link, Origin, RemoteFile, ShardRef, Size, Task,
};
use crate::providers::http::{Api, Budget};
use crate::providers::{Provider, Step};

/// A shorter life may be refused: the least, and the default, of links to backups in UCloud's other
/// databases (`DescribeUDBInstanceBackupURL`).
const USUAL_LIFE: Duration = Duration::from_secs(4 * 3600);

/// How long a call is tried that may not be served at all.
const TRIAL: Duration = Duration::from_secs(5);

/// One account.
#[derive(Debug)]
pub struct Ucloud {
    client: Client,
    regions: Vec<String>,
    zones: Vec<String>,
    network: Network,
    valid_time: Duration,
    allow_http: bool,
    /// Whether packed logs were listed once.
    packages_served: AtomicBool,
}

impl Ucloud {
    /// An account as configured; asks nothing yet.
    pub fn new(common: &ProviderConfig, config: &UcloudConfig, clock: SharedClock) -> Result<Self> {
        Ok(Ucloud {
            client: Client::new(
                Api::new(common, clock)?,
                config.endpoint.clone(),
                config.public_key.clone(),
                config.private_key.clone(),
                config.project_id.clone(),
            ),
            regions: config.regions.clone(),
            zones: config.zones.clone(),
            network: config.network,
            valid_time: config.valid_time,
            allow_http: common.allow_http,
            packages_served: AtomicBool::new(false),
        })
    }

    /// A whole list: none has pages.
    async fn list<T: DeserializeOwned>(
        &self,
        action: Action,
        parameters: Parameters,
        budget: &mut Budget,
    ) -> Result<Result<Vec<T>, Refusal>> {
        let answer = self
            .client
            .ask::<wire::DataSet<T>>(action, parameters, budget);
        Ok(answer.await?.map(|list| list.items))
    }

    async fn rows(&self, of: &Instance) -> Result<Vec<wire::Backup>> {
        let mut budget = self.client.api.budget();
        let action = Action::Backups;
        self.list(action, place(of, None)?, &mut budget)
            .await?
            .map_err(|refusal| refusal.into_error(action))
    }

    /// The packed logs; none where the account may not ask for them, or where this call has never
    /// been answered: other brands may not serve it. Once it was, not to know them is an error.
    async fn packages(&self, of: &Instance) -> Result<Vec<wire::Package>> {
        let served = self.packages_served.load(Ordering::Relaxed);
        let mut budget = match served {
            true => self.client.api.budget(),
            false => Budget::new(TRIAL),
        };
        let action = Action::Packages;
        let answer = self.list(action, place(of, None)?, &mut budget).await;
        let error = match answer {
            Ok(Ok(listed)) => {
                self.packages_served.store(true, Ordering::Relaxed);
                return Ok(listed);
            }
            Ok(Err(refusal)) if served && !refusal.is_about_the_call() => {
                return Err(refusal.into_error(action));
            }
            Err(error) if served => return Err(error),
            Ok(Err(refusal)) => refusal.into_error(action),
            Err(error) => error,
        };
        debug!(instance = of.id, %error, "no packed logs");
        Ok(Vec::new())
    }

    /// Asks for links to `file` that live for `life`.
    async fn addresses(
        &self,
        of: &ShardRef,
        file: &RemoteFile,
        life: Duration,
    ) -> Result<Result<wire::Addresses, Refusal>> {
        let mut parameters = place(&of.instance, of.shard.facts.get(convert::ZONE))?;
        let category = || ("Category", oplogs::CATEGORY.to_owned());
        let fact = |name| file.facts.get(name).cloned();
        if let Some(package) = fact(oplogs::PACKAGE) {
            parameters.extend([("PackageId", package), category()]);
        } else if let Some(part) = fact(oplogs::PART) {
            parameters.extend([("BackupId", part), category()]);
        } else {
            parameters.push(("BackupId", backup_id(of)?.to_owned()));
        }
        let seconds = life.as_secs().max(1);
        parameters.push(("ValidTime", seconds.to_string()));
        let mut budget = self.client.api.budget();
        self.client.ask(Action::Link, parameters, &mut budget).await
    }

    /// The link among `addresses` for the configured network; `None` when there is no link at all.
    fn link_of(&self, addresses: wire::Addresses, life: Duration) -> Result<Option<Link>> {
        let (internet, intranet) = (addresses.internet_address, addresses.intranet_address);
        let (wanted, other, word) = match self.network {
            Network::Public => (internet, intranet, "intranet"),
            Network::Private => (intranet, internet, "internet"),
        };
        let Some(text) = wanted else {
            return match other {
                None => Ok(None),
                Some(_) => Err(Error::new(
                    Kind::Unsupported,
                    format!(
                        "UCloud has only an {word} link to this backup: set `network = \"{word}\"`"
                    ),
                )),
            };
        };
        // The store serves both schemes over the internet, plain http only within the cloud.
        let text = match self.network {
            Network::Public => presigned::over_tls(text.expose(), self.allow_http),
            Network::Private => text.expose().into(),
        };
        let mut link = presigned::link("UCloud", &text, self.allow_http)?;
        let promised = SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
        let promised = || self.client.api.now().checked_add(promised).ok();
        link.expires = link.expires.or_else(promised);
        Ok(Some(link))
    }

    /// Why there is no link to `of`, in `words`: it was deleted meanwhile, UCloud does not offer it,
    /// or that is not known.
    async fn explain(&self, of: &ShardRef, words: String) -> Error {
        let listed = match self.rows(&of.instance).await {
            Ok(rows) => rows,
            Err(error) => return Error::new(error.kind(), format!("{words}; {error}")),
        };
        let id = backup_id(of).ok();
        if !listed.iter().any(|row| row.backup_id.as_deref() == id) {
            return Error::new(
                Kind::NotFound,
                format!(
                    "{words}; UCloud no longer lists this backup: it was deleted or its retention has ended"
                ),
            );
        }
        match convert::reservation(&of.shard) {
            Some(why) => Error::new(Kind::Unsupported, format!("{words}; {why}")),
            None => Error::new(Kind::Protocol, words),
        }
    }
}

#[async_trait]
impl Provider for Ucloud {
    async fn instances(&self) -> Result<Vec<Instance>> {
        let mut budget = self.client.api.budget();
        let mut instances = BTreeMap::new();
        for region in &self.regions {
            let parameters = vec![("Region", region.clone())];
            let action = Action::Instances;
            let listed = self
                .list(action, parameters, &mut budget)
                .await
                .and_then(|listed| listed.map_err(|refusal| refusal.into_error(action)))
                .map_err(|error| error.context(format!("listing the instances in {region}")))?;
            for listed in listed {
                if let Some(instance) = convert::instance(listed, region)
                    && self.is_wanted(&instance)
                {
                    instances.insert(instance.id.clone(), instance);
                }
            }
        }
        Ok(instances.into_values().collect())
    }

    async fn backups(&self, of: &Instance) -> Result<Vec<Backup>> {
        let listed = async { try_join!(self.rows(of), self.packages(of)) };
        let (rows, packages) = listed
            .await
            .map_err(|error| error.context(format!("listing the backups of {}", of.id)))?;
        Ok(convert::backups(rows, packages, of))
    }

    async fn files(&self, of: &ShardRef) -> Result<Vec<RemoteFile>> {
        let mut files = vec![RemoteFile {
            // A compressed `mongodump --archive`, whatever the link's own path ends with.
            path: format!("{}.archive.gz", of.shard.id),
            size: Size::Unknown,
            modified: None,
            origin: Origin::Object,
            etag: None,
            digest: None,
            facts: Facts::new(),
        }];
        files.extend(oplogs::files(&of.shard)?);
        Ok(files)
    }

    async fn find_task(&self, _of: &ShardRef) -> Result<Found> {
        Ok(Found::Nothing)
    }

    async fn create_task(&self, _of: &ShardRef) -> Result<Task> {
        Err(no_tasks())
    }

    async fn poll_task(&self, _of: &ShardRef, _task: &Task) -> Result<Task> {
        Err(no_tasks())
    }

    async fn link(&self, of: &ShardRef, file: &RemoteFile, _task: Option<&Task>) -> Result<Link> {
        let asking = |error: Error| error.context("asking for the download link");
        let mut life = self.valid_time;
        loop {
            let answer = self.addresses(of, file, life).await.map_err(asking)?;
            let words = match answer {
                Ok(addresses) => match self.link_of(addresses, life).map_err(asking)? {
                    Some(link) => return Ok(link),
                    None => "UCloud answered without a link".to_owned(),
                },
                Err(refusal) if !refusal.is_undocumented() => {
                    return Err(asking(refusal.into_error(Action::Link)));
                }
                Err(_) if life < USUAL_LIFE => {
                    life = USUAL_LIFE;
                    continue;
                }
                Err(refusal) => format!("UCloud refuses the link: {}", refusal.words()),
            };
            return Err(asking(self.explain(of, words).await));
        }
    }

    fn refusal_hint(&self) -> Option<&'static str> {
        Some("an intranet link works only inside UCloud, in the region of the backup")
    }

    fn permission(&self, step: Step) -> Option<&'static str> {
        match step {
            Step::Instances => Some(Action::Instances.name()),
            Step::Backups => Some(Action::Backups.name()),
            Step::Link => Some(Action::Link.name()),
            Step::FindTask | Step::Create => None,
        }
    }

    fn cloud_time(&self) -> Option<Timestamp> {
        Some(self.client.api.now())
    }
}

impl Ucloud {
    /// Whether the configured zones leave `instance` in; one whose zone is not told stays.
    fn is_wanted(&self, instance: &Instance) -> bool {
        let zone = instance.facts.get(convert::ZONE);
        self.zones.is_empty() || zone.is_none_or(|zone| self.zones.contains(zone))
    }
}

/// What names an instance, or a backup of it in a zone of its own.
fn place(of: &Instance, zone: Option<&String>) -> Result<Parameters> {
    let region = of.facts.get(convert::REGION).cloned();
    let region = region.ok_or_else(|| Error::new(Kind::Internal, "an instance lost its region"))?;
    let mut parameters = vec![("Region", region), ("ClusterId", of.id.clone())];
    let zone = zone.or_else(|| of.facts.get(convert::ZONE));
    parameters.extend(zone.map(|zone| ("Zone", zone.clone())));
    Ok(parameters)
}

fn backup_id(of: &ShardRef) -> Result<&str> {
    let id = of.shard.facts.get(convert::BACKUP).map(String::as_str);
    id.ok_or_else(|| Error::new(Kind::Internal, "a shard lost its backup"))
}

fn no_tasks() -> Error {
    Error::new(Kind::Internal, "UCloud has no download tasks")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::ProviderKind;
    use crate::secret::Secret;

    const LIFE: Duration = Duration::from_secs(3600);

    fn account(network: Network, allow_http: bool) -> Ucloud {
        let config = UcloudConfig {
            endpoint: "https://api.example/".parse().unwrap(),
            regions: vec!["cn-zj".into()],
            zones: vec!["cn-zj-01".into()],
            project_id: None,
            public_key: Secret::new("CANARY"),
            private_key: Secret::new("CANARY"),
            network,
            valid_time: LIFE,
        };
        let common = ProviderConfig {
            name: "ucloud".into(),
            allow_http,
            ca_file: None,
            poll_interval: Duration::from_secs(10),
            retry_budget: Duration::from_secs(1),
            kind: ProviderKind::Ucloud(config.clone()),
        };
        Ucloud::new(&common, &config, Arc::new(SystemClock)).unwrap()
    }

    fn addresses(internet: &str, intranet: &str) -> wire::Addresses {
        let json = serde_json::json!({"InternetAddress": internet, "IntranetAddress": intranet});
        serde_json::from_value(json).unwrap()
    }

    fn linked(of: &Ucloud, internet: &str, intranet: &str) -> Result<Option<Link>> {
        of.link_of(addresses(internet, intranet), LIFE)
    }

    #[tokio::test]
    async fn the_network_decides_which_address_is_used_and_how() {
        let (wide, inside) = (
            "http://b.example/k?Expires=1700000000",
            "http://b.internal/k",
        );
        let public = account(Network::Public, false);
        let link = linked(&public, wide, inside).unwrap().unwrap();
        assert_eq!(link.url.expose(), "https://b.example/k?Expires=1700000000");
        assert_eq!(link.expires.unwrap().as_second(), 1_700_000_000);
        let refused = linked(&account(Network::Private, false), wide, inside).unwrap_err();
        assert!(refused.to_string().contains("allow_http"), "{refused}");
        let private = account(Network::Private, true);
        let link = linked(&private, wide, inside).unwrap().unwrap();
        assert_eq!(link.url.expose(), inside);
        assert!(link.expires.is_some(), "as long as was asked for");
    }

    #[tokio::test]
    async fn an_address_that_is_missing_is_no_link() {
        let public = account(Network::Public, false);
        assert!(linked(&public, "", "").unwrap().is_none());
        let other = linked(&public, "", "http://b.internal/k").unwrap_err();
        assert_eq!(other.kind(), Kind::Unsupported);
        assert!(
            other.to_string().contains("network = \"intranet\""),
            "{other}"
        );
    }

    #[tokio::test]
    async fn zones_leave_out_what_is_known_to_be_elsewhere() {
        let public = account(Network::Public, false);
        for (zone, wanted) in [
            (Some("cn-zj-01"), true),
            (Some("cn-zj-02"), false),
            (None, true),
        ] {
            let row = serde_json::json!({"ClusterId": "c", "Zone": zone});
            let row = serde_json::from_value(row).unwrap();
            let instance = convert::instance(row, "cn-zj").unwrap();
            assert_eq!(public.is_wanted(&instance), wanted, "{zone:?}");
        }
        assert!(!format!("{public:?}").contains("CANARY"));
    }
}
