//! From the configuration to a filesystem, or to its tree alone.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::attr::Shape;
use super::handles::Handles;
use super::open::{Account, Opener};
use super::{Fs, Inner};
use crate::cache::{Budget, Cache};
use crate::clock::SharedClock;
use crate::config::{Config, MountConfig, OnOpen, ProviderConfig};
use crate::error::Result;
use crate::fetch::{FetchOptions, Fetcher};
use crate::observe::events::Events;
use crate::observe::kernel::Kernel;
use crate::observe::metrics::Activity;
use crate::providers::{self, Exchange, Provider};
use crate::reader::Readers;
use crate::tasks::ledger::Ledger;
use crate::tasks::{Engine, EngineOptions};
use crate::tree::{Tree, TreeOptions};

/// How long a command waits for a listing.
const COMMAND_PATIENCE: Duration = Duration::from_secs(3600);

impl Fs {
    /// Everything below the adapter, built from the configuration: ledger, cache, providers, tree.
    /// Asks no provider anything. Must be called within a tokio runtime.
    pub fn open(config: &Config, clock: SharedClock) -> Result<Self> {
        let accounts = config
            .providers
            .iter()
            .map(|provider| Ok((Arc::from(&*provider.name), account(provider, &clock)?)))
            .collect::<Result<_>>()?;
        Self::over(accounts, &config.mount, clock)
    }

    /// The same for a command that reads what somebody named: `on_open` is about opens, and no
    /// kernel waits for listings.
    pub fn for_command(config: &Config, clock: SharedClock) -> Result<Self> {
        let mut config = config.clone();
        config.mount.on_open = OnOpen::Create;
        config.mount.op_timeout = COMMAND_PATIENCE;
        Self::open(&config, clock)
    }

    /// Puts `configured` in the place of the accounts of the same names, all of them or, with an
    /// error, none. What has begun ends with the credentials it began with. Answers in words what
    /// takes a new mount: accounts that are new or gone.
    pub fn renew(&self, configured: &[ProviderConfig]) -> Result<Vec<String>> {
        let opener = &self.inner.opener;
        let (mut ready, mut left) = (Vec::new(), Vec::new());
        for config in configured {
            match opener.accounts.get(config.name.as_str()) {
                None => left.push(format!("{} was added", config.name)),
                Some(account) => {
                    let built = providers::build(config, Arc::clone(&opener.clock))?;
                    ready.push((&account.exchange, built));
                }
            }
        }
        for name in opener.accounts.keys() {
            if configured.iter().all(|config| *config.name != **name) {
                left.push(format!("{name} was removed"));
            }
        }
        left.sort();
        for (exchange, built) in ready {
            exchange.replace(built);
        }
        Ok(left)
    }

    /// The filesystem over these accounts.
    pub(super) fn over(
        accounts: HashMap<Arc<str>, Account>,
        mount: &MountConfig,
        clock: SharedClock,
    ) -> Result<Self> {
        let events = Events::new(Arc::clone(&clock));
        let ledger = Ledger::open(&mount.state_dir)?;
        let cache = Cache::open(&mount.cache_dir, mount.cache_size)?;
        let budget = Budget::within_machine(mount.memory);
        let options = EngineOptions::from(mount);
        // A listing that takes too long should say so before the operation's deadline does.
        let patience = mount.op_timeout / 5 * 4;
        let named = accounts
            .iter()
            .map(|(name, account)| (Arc::clone(name), Arc::clone(&account.provider)))
            .collect();
        Ok(Fs {
            inner: Arc::new(Inner {
                tree: Tree::new(
                    named,
                    tree_options(mount, patience, &events),
                    Arc::clone(&clock),
                ),
                handles: Handles::default(),
                shape: Shape {
                    file_mode: mount.file_mode,
                    dir_mode: mount.dir_mode,
                    since: clock.now(),
                },
                events,
                kernel: Kernel::default(),
                mountpoint: OnceLock::new(),
                documents: Mutex::default(),
                stopped: CancellationToken::new(),
                opener: Opener::new(
                    accounts,
                    Engine::new(ledger.clone(), options, Arc::clone(&clock)),
                    ledger,
                    cache.clone(),
                    Readers::new(cache, budget.clone()),
                    Arc::new(Activity::default()),
                    clock,
                ),
                budget,
            }),
        })
    }
}

/// The tree that `config` describes, for commands that only look: takes neither the ledger nor the
/// lock of the cache, and asks nothing yet.
pub fn tree(config: &Config, clock: SharedClock) -> Result<Tree> {
    let named = config
        .providers
        .iter()
        .map(|provider| {
            let built = providers::build(provider, Arc::clone(&clock))?;
            Ok((Arc::from(&*provider.name), built))
        })
        .collect::<Result<_>>()?;
    Ok(tree_of(named, &config.mount, clock))
}

/// A command's tree over these accounts.
pub(super) fn tree_of(
    named: Vec<(Arc<str>, Arc<dyn Provider>)>,
    mount: &MountConfig,
    clock: SharedClock,
) -> Tree {
    // No kernel waits: the provider's own words, after all its retries, are worth the time.
    let events = Events::unlogged(Arc::clone(&clock));
    let options = tree_options(mount, COMMAND_PATIENCE, &events);
    Tree::new(named, options, clock)
}

fn tree_options(mount: &MountConfig, patience: Duration, events: &Events) -> TreeOptions {
    TreeOptions {
        list_ttl: mount.list_ttl,
        patience,
        events: events.clone(),
    }
}

fn account(config: &ProviderConfig, clock: &SharedClock) -> Result<Account> {
    let exchange = Arc::new(Exchange::new(providers::build(config, Arc::clone(clock))?));
    Ok(Account {
        provider: Arc::clone(&exchange) as Arc<dyn Provider>,
        exchange,
        fetcher: Fetcher::new(FetchOptions {
            allow_http: config.allow_http,
            ca_file: config.ca_file.clone(),
            directory: config.directory().map(Path::to_owned),
            retry_budget: config.retry_budget,
            ..FetchOptions::default()
        })?,
        poll_interval: config.poll_interval,
    })
}
