//! Download tasks ahead of any open: what `prepare` does.
//!
//! Needs the ledger, which several processes share, and no cache: it works beside a mount. What is
//! asked for here is wanted by somebody who knows it: `on_open` and `deny_processes` are about
//! opens, the limit and the users who may spend are about money.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::config::{Config, OnOpen};
use crate::error::{Error, Kind, Result};
use crate::model::{Found, Origin, ShardRef, Task};
use crate::providers::{self, Provider};
use crate::tasks::ledger::Ledger;
use crate::tasks::{Engine, EngineOptions, Spender, TaskView, Wait};
use crate::tree::{Node, Tree};

/// The tree and the tasks below it.
pub struct Ahead {
    tree: Tree,
    engine: Engine,
    accounts: HashMap<Arc<str>, (Arc<dyn Provider>, Duration)>,
    spender: Spender,
}

/// One shard whose task is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its path below the mountpoint.
    pub path: String,
    shard: Arc<ShardRef>,
}

/// How it stands with a shard before anything is done.
#[derive(Debug)]
pub enum Outlook {
    /// Its files lie in a store: no task is needed.
    Object,
    /// It cannot be downloaded, for this reason.
    Refused(String),
    /// There is a task, here or at the provider.
    Exists(Task),
    /// One would be created, at this price where it is known.
    Create(Option<&'static str>),
    /// One may have been requested, and the provider cannot tell.
    Doubtful,
}

impl Ahead {
    /// Over the accounts of `config`; asks no provider anything. With `force`, an expired task is
    /// replaced whatever `recreate_expired` says.
    pub fn open(config: &Config, clock: SharedClock, force: bool) -> Result<Self> {
        let mut accounts = HashMap::new();
        for provider in &config.providers {
            let built = providers::build(provider, Arc::clone(&clock))?;
            accounts.insert(Arc::from(&*provider.name), (built, provider.poll_interval));
        }
        let mut options = EngineOptions::from(&config.mount);
        options.on_open = OnOpen::Create;
        options.recreate_expired |= force;
        let ledger = Ledger::open(&config.mount.state_dir)?;
        let named = accounts
            .iter()
            .map(|(name, (provider, _))| (Arc::clone(name), Arc::clone(provider)));
        Ok(Ahead {
            tree: super::build::tree_of(named.collect(), &config.mount, Arc::clone(&clock)),
            engine: Engine::new(ledger, options, clock),
            accounts,
            spender: Spender {
                pid: 0,
                uid: rustix::process::getuid().as_raw(),
                comm: None,
            },
        })
    }

    /// The shards at or below what `pattern` names, in the order of the tree.
    ///
    /// # Errors
    /// As [`Tree::matching`]; [`Kind::Config`] when it names more than backups, which would be all
    /// there are.
    pub async fn wanted(&self, pattern: &str) -> Result<Vec<Wanted>> {
        let mut wanted = BTreeMap::new();
        for child in self.tree.matching(pattern).await? {
            let below = match &child.node {
                Node::Backup { .. } => {
                    let shards = self.tree.children(child.ino).await?;
                    shards.iter().map(|shard| shard.ino).collect()
                }
                Node::Shard(_) | Node::Directory { .. } | Node::File(_) => vec![child.ino],
                _ => {
                    let words = format!(
                        "{} is not a backup: name one, or `…/latest`, so that not every backup \
                         there is gets a download task",
                        self.tree.path(child.ino)
                    );
                    return Err(Error::new(Kind::Config, words));
                }
            };
            for ino in below {
                let found = self.shard_of(ino)?;
                wanted.insert(found.path.clone(), found);
            }
        }
        Ok(wanted.into_values().collect())
    }

    /// The shard that `ino` is, or lies in.
    fn shard_of(&self, mut ino: u64) -> Result<Wanted> {
        loop {
            match self.tree.node(ino)? {
                Node::Shard(shard) => {
                    let path = self.tree.path(ino).trim_start_matches('/').to_owned();
                    return Ok(Wanted { path, shard });
                }
                Node::Directory { .. } | Node::File(_) => ino = self.tree.parent(ino),
                _ => {
                    let words = format!("{} lies in no shard", self.tree.path(ino));
                    return Err(Error::new(Kind::Internal, words));
                }
            }
        }
    }

    /// How it stands with a shard; asks the provider, and changes nothing.
    pub async fn outlook(&self, wanted: &Wanted) -> Result<Outlook> {
        let shard = &*wanted.shard;
        if let Some(reason) = &shard.backup.not_downloadable {
            return Ok(Outlook::Refused(reason.clone()));
        }
        let (provider, _) = self.account(shard)?;
        let files = provider.files(shard).await?;
        if !files.iter().any(|file| file.origin == Origin::Task) {
            return Ok(Outlook::Object);
        }
        let view = self.view(wanted);
        let in_doubt = view.state == "queued" && view.task_id.is_none();
        Ok(match provider.find_task(shard).await? {
            Found::Task(task) => Outlook::Exists(task),
            Found::CannotTell if in_doubt => Outlook::Doubtful,
            Found::Nothing | Found::CannotTell => Outlook::Create(provider.price(shard)),
        })
    }

    /// Adopts or creates the task of a shard and waits as `wait` says.
    ///
    /// # Errors
    /// As [`Engine::ready`].
    pub async fn prepare(&self, wanted: &Wanted, wait: Wait) -> Result<Task> {
        let (provider, first_poll) = self.account(&wanted.shard)?;
        self.engine
            .ready(provider, *first_poll, &wanted.shard, &self.spender, wait)
            .await
    }

    /// Lets a task be created although an earlier request may have been carried out.
    ///
    /// # Errors
    /// As [`Engine::dismiss_doubt`].
    pub async fn dismiss_doubt(&self, wanted: &Wanted) -> Result<()> {
        self.engine.dismiss_doubt(&wanted.shard.key()).await
    }

    /// What is known of a shard's task; from memory.
    pub fn view(&self, wanted: &Wanted) -> TaskView {
        self.engine.view(&wanted.shard.key())
    }

    fn account(&self, shard: &ShardRef) -> Result<&(Arc<dyn Provider>, Duration)> {
        self.accounts.get(&shard.provider).ok_or_else(|| {
            let words = format!("no account `{}` is configured", shard.provider);
            Error::new(Kind::Internal, words)
        })
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead")
            .field("accounts", &self.accounts.keys())
            .finish_non_exhaustive()
    }
}
