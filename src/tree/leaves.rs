//! Everything below a node, for commands that work on whole directories.

use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use super::{Child, Node, Tree};
use crate::error::{Error, Kind, Result};
use crate::names;

/// Listings asked at the same time.
const PARALLEL: usize = 8;

/// A node that has nothing below it: a file, a `latest` link, or an empty directory.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Its path from the root, by components.
    pub path: Vec<String>,
    /// What it is.
    pub child: Child,
}

/// What lies below a node, in the order of the tree.
#[derive(Debug, Default)]
pub struct Leaves {
    /// What was met.
    pub leaves: Vec<Leaf>,
    /// What could not be listed.
    pub failures: Vec<Error>,
}

impl Tree {
    /// As [`Tree::resolve`], for what providers list.
    ///
    /// # Errors
    /// As [`Tree::resolve`]; [`Kind::NotFound`] for the documents of a mount.
    pub async fn resolve_listed(&self, path: &str) -> Result<Child> {
        let found = self.resolve(path).await;
        let found = found.map_err(|error| error.context(names::display(path)))?;
        if matches!(found.node, Node::Meta | Node::MetaFile(_)) {
            let words = format!("{}: exists in a mount only", names::display(path));
            return Err(Error::new(Kind::NotFound, words));
        }
        Ok(found)
    }

    /// Everything at or below `from` that has nothing below it.
    pub async fn leaves(&self, from: &Child) -> Leaves {
        let path = self.path(from.ino);
        let path = path.split('/').filter(|name| !name.is_empty());
        let path = path.map(str::to_owned).collect();
        let turns = Semaphore::new(PARALLEL);
        self.leaves_below(&turns, from, path).await
    }

    fn leaves_below<'a>(
        &'a self,
        turns: &'a Semaphore,
        child: &'a Child,
        path: Vec<String>,
    ) -> BoxFuture<'a, Leaves> {
        Box::pin(async move {
            let leaf = |path| Leaves {
                leaves: vec![Leaf {
                    path,
                    child: child.clone(),
                }],
                failures: Vec::new(),
            };
            if !child.node.is_directory() {
                return leaf(path);
            }
            let listed = {
                let _turn = turns.acquire().await;
                self.children(child.ino).await
            };
            let children = match listed {
                Ok(children) => children,
                Err(error) => {
                    return Leaves {
                        leaves: Vec::new(),
                        failures: vec![error],
                    };
                }
            };
            if children.is_empty() {
                return leaf(path);
            }
            let walks = children.iter().map(|child| {
                let mut path = path.clone();
                path.push(child.name.clone());
                self.leaves_below(turns, child, path)
            });
            let walks: Vec<_> = walks.collect();
            let mut walks = futures::stream::iter(walks).buffered(PARALLEL);
            let mut all = Leaves::default();
            while let Some(found) = walks.next().await {
                all.leaves.extend(found.leaves);
                all.failures.extend(found.failures);
            }
            all
        })
    }
}
