//! The live links of opened artifacts: one per artifact and task, for as long as somebody reads by
//! it, so that every reader shares one renewal.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;

use crate::clock::SharedClock;
use crate::error::Result;
use crate::links::{LinkSource, Links, ProviderLinks};
use crate::model::{ArtifactKey, Link, Task};
use crate::observe::metrics::Activity;
use crate::providers::Provider;
use crate::tasks::Engine;
use crate::tree::FileNode;

/// One link of one artifact: its key and its task's id.
pub(super) type LinkKey = (ArtifactKey, String);

/// Whether the remembered version was seen behind the live link of its artifact. What is merely
/// remembered may have been replaced or removed while nobody had it open.
pub(super) type Proven = Arc<AtomicBool>;

/// The links that somebody reads by.
pub(super) struct LiveLinks {
    engine: Engine,
    activity: Arc<Activity>,
    clock: SharedClock,
    live: Mutex<HashMap<LinkKey, (Weak<Links>, Proven)>>,
}

impl LiveLinks {
    pub(super) fn new(engine: Engine, activity: Arc<Activity>, clock: SharedClock) -> Self {
        LiveLinks {
            engine,
            activity,
            clock,
            live: Mutex::default(),
        }
    }

    /// The live link of an artifact of one task, and whether its version was seen behind it.
    pub(super) fn of(
        &self,
        provider: &Arc<dyn Provider>,
        node: &FileNode,
        key: &ArtifactKey,
        task: Option<Task>,
    ) -> (Arc<Links>, Proven) {
        let task_id = task
            .as_ref()
            .map_or_else(String::new, |task| task.id.clone());
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (key.clone(), task_id);
        if let Some((links, proven)) = live.get(&name)
            && let Some(links) = links.upgrade()
        {
            return (links, Arc::clone(proven));
        }
        live.retain(|_, (links, _)| links.strong_count() > 0);
        let source = CountedLinks {
            links: ProviderLinks {
                provider: Arc::clone(provider),
                target: (*node.shard).clone(),
                file: node.file.clone(),
                task,
            },
            again: AtomicBool::new(false),
            activity: Arc::clone(&self.activity),
            engine: self.engine.clone(),
        };
        let links = Arc::new(Links::new(source, Arc::clone(&self.clock)));
        let proven = Proven::default();
        live.insert(name, (Arc::downgrade(&links), Arc::clone(&proven)));
        (links, proven)
    }
}

impl fmt::Debug for LiveLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveLinks").finish_non_exhaustive()
    }
}

/// The provider's links, with every one but the first counted. Where the artifact ends with them,
/// the first one may have been asked for already, and the ledger remembers it.
#[derive(Debug)]
struct CountedLinks {
    links: ProviderLinks,
    again: AtomicBool,
    activity: Arc<Activity>,
    engine: Engine,
}

#[async_trait]
impl LinkSource for CountedLinks {
    async fn fresh(&self) -> Result<Link> {
        let key = self.links.target.key();
        let task = self.links.task.as_ref();
        let task = task.filter(|_| self.links.provider.ends_with_link());
        if let Some(task) = task.filter(|_| !self.again.load(Ordering::Relaxed))
            && let Some(link) = self.engine.remembered_link(&key, &task.id).await
        {
            self.again.store(true, Ordering::Relaxed);
            return Ok(link);
        }
        let link = self.links.fresh().await?;
        if let Some(task) = task {
            self.engine.remember_link(&key, &task.id, &link).await;
        }
        if self.again.swap(true, Ordering::Relaxed) {
            self.activity.link_refreshes.add(1);
        }
        Ok(link)
    }

    fn refusal_hint(&self) -> Option<&'static str> {
        self.links.refusal_hint()
    }
}
