//! From names to nodes: the rule for "there is no such name", and whole paths for commands.

use std::time::Duration;

use glob::Pattern;

use crate::error::{Error, Kind, Result};
use crate::model::TaskKey;
use crate::names;

use super::inodes::{self, META, ROOT};
use super::listing::Need;
use super::node::{LATEST, META_NAME};
use super::{Child, FIXED_TTL, Node, Tree};

impl Tree {
    /// The node that `path` names, `latest` followed wherever it stands. Counts no reference.
    ///
    /// # Errors
    /// As [`Tree::lookup`].
    pub async fn resolve(&self, path: &str) -> Result<Child> {
        let mut at = Child {
            parent: ROOT,
            name: String::new(),
            ino: ROOT,
            node: Node::Root,
        };
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.follow(at.ino, name).await?;
        }
        Ok(at)
    }

    /// The nodes that `pattern` names: a path whose components may hold `*`, `?` and `[…]`, which
    /// match neither `/` nor the documents, and `latest` only by its name.
    ///
    /// # Errors
    /// As [`Tree::lookup`]; [`Kind::NotFound`] when nothing matches, [`Kind::Config`] for a
    /// malformed pattern.
    pub async fn matching(&self, pattern: &str) -> Result<Vec<Child>> {
        let mut found = vec![self.resolve("").await?];
        let mut is_exact = true;
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let glob = Pattern::new(part).map_err(|error| {
                let words = format!("{}: {}", names::display(part), error.msg);
                Error::new(Kind::Config, words)
            })?;
            let mut below = Vec::new();
            for node in &found {
                if Pattern::escape(part) == part {
                    match self.follow(node.ino, part).await {
                        Ok(child) => below.push(child),
                        // Of what a pattern found, some may lack what follows it.
                        Err(error)
                            if !is_exact
                                && matches!(error.kind(), Kind::NotFound | Kind::NotDirectory) => {}
                        Err(error) => return Err(error),
                    }
                } else if node.node.is_directory() {
                    let children = self.children(node.ino).await?;
                    let named = children.iter().filter(|child| {
                        glob.matches(&child.name) && !matches!(child.node, Node::Latest { .. })
                    });
                    below.extend(named.cloned());
                }
            }
            is_exact &= Pattern::escape(part) == part;
            found = below;
        }
        if found.is_empty() {
            let words = format!("nothing matches {}", names::display(pattern));
            return Err(Error::new(Kind::NotFound, words));
        }
        Ok(found)
    }

    /// The child `name` of `parent`, or what it leads to.
    async fn follow(&self, parent: u64, name: &str) -> Result<Child> {
        let child = self.find(parent, name).await?.0;
        match &child.node {
            Node::Latest { target, .. } => Ok(self.find(child.parent, target).await?.0),
            _ => Ok(child),
        }
    }

    /// The child `name` of `parent` and how long it may be believed.
    pub(super) async fn find(&self, parent: u64, name: &str) -> Result<(Child, Duration)> {
        if name.len() > names::MAX_BYTES {
            return Err(Error::new(
                Kind::NameTooLong,
                format!("a name has at most {} bytes", names::MAX_BYTES),
            ));
        }
        if parent == ROOT && name == META_NAME {
            let node = Node::Meta;
            let child = Child {
                parent,
                name: name.to_owned(),
                ino: META,
                node,
            };
            return Ok((child, FIXED_TTL));
        }
        // What `latest` names may have changed since, and a copy made of it would be the wrong one.
        let at_first = match name {
            LATEST => Need::Any,
            _ => Need::Known,
        };
        for need in [at_first, Need::Current] {
            let served = self.listed(parent, need).await?;
            if let Some(child) = inodes::find(&served.value, name) {
                return Ok((child.clone(), served.fresh_for));
            }
            match served.stale {
                None => break,
                Some(error) if need == Need::Current => {
                    return Err(error.context(format!("looking for {name}")));
                }
                Some(_) => {}
            }
        }
        Err(Error::new(Kind::NotFound, format!("there is no {name}")))
    }

    /// The path of a task's shard, where its backup is listed now; from memory.
    pub fn place_of(&self, key: &TaskKey) -> Option<String> {
        let table = self.shared.table();
        let providers = table.contents(ROOT)?.of(ROOT)?;
        let provider = inodes::find(providers, &names::component(&key.provider))?;
        let instances = table.contents(provider.ino)?.of(provider.ino)?;
        let instance = inodes::find(instances, &names::component(&key.instance))?;
        let backups = table.contents(instance.ino)?.of(instance.ino)?;
        let backup = backups.iter().find(
            |child| matches!(&child.node, Node::Backup { backup, .. } if backup.id == key.backup),
        )?;
        let shard = names::component(&key.shard);
        Some(format!("{}/{shard}", table.path(backup.ino)?))
    }
}
