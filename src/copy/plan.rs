//! Which files go where.
//!
//! One path that names one file is copied as `cp` copies it: into a directory, or to the very name.
//! Everything else is mirrored with its whole path below the destination, so that no two files
//! meet at one name, whatever was named. `latest` is followed and not copied.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, FileTimes};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use glob::Pattern;
use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::tree::{Node, Tree};

/// One file to copy.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its path in the tree.
    pub path: String,
    /// Its number in the tree.
    pub ino: u64,
    /// Where its copy shall be.
    pub to: PathBuf,
    /// Its time as the tree shows it.
    pub modified: Timestamp,
}

/// All that is to be copied.
#[derive(Debug, Default)]
pub struct Plan {
    /// By path.
    pub items: Vec<Item>,
    /// Directories that mirror those of the tree, parents first, with their times.
    directories: Vec<(PathBuf, Timestamp)>,
}

impl Plan {
    /// What `patterns` (as [`Tree::matching`] has them) name, to be copied to `to`; and what of it
    /// could not be found or listed.
    pub async fn new(tree: &Tree, patterns: &[String], to: &Path) -> (Self, Vec<Error>) {
        let mut failures = Vec::new();
        let mut named = Vec::new();
        for pattern in patterns {
            match tree.matching(pattern).await {
                Ok(found) => named.extend(found),
                Err(error) => failures.push(error),
            }
        }
        if let ([pattern], [only]) = (patterns, named.as_slice())
            && Pattern::escape(pattern) == *pattern
            && matches!(only.node, Node::File(_))
        {
            let item = Item {
                path: tree.path(only.ino).trim_start_matches('/').to_owned(),
                ino: only.ino,
                to: place_of_one(&only.name, to),
                modified: fs::modified(&only.node),
            };
            let plan = Plan {
                items: vec![item],
                directories: Vec::new(),
            };
            return (plan, failures);
        }
        let mut items = BTreeMap::new();
        let mut directories = BTreeMap::new();
        for start in &named {
            let below = tree.leaves(start).await;
            failures.extend(below.failures);
            for leaf in below.leaves {
                let path = leaf.path.join("/");
                let mut whole = leaf.path.as_slice();
                match leaf.child.node {
                    Node::File(_) => {
                        let item = Item {
                            to: to.join(&path),
                            path: path.clone(),
                            ino: leaf.child.ino,
                            modified: fs::modified(&leaf.child.node),
                        };
                        items.insert(path, item);
                        whole = &whole[..whole.len() - 1];
                    }
                    Node::Meta | Node::MetaFile(_) => {
                        let words = format!("{path}: exists in a mount only");
                        failures.push(Error::new(Kind::NotFound, words));
                        continue;
                    }
                    Node::Latest { .. } => continue,
                    _ => {}
                }
                for depth in 1..=whole.len() {
                    let above = whole[..depth].join("/");
                    if directories.contains_key(&to.join(&above)) {
                        continue;
                    }
                    // Known from the walk: this asks nobody.
                    if let Ok(found) = tree.resolve(&above).await {
                        directories.insert(to.join(above), fs::modified(&found.node));
                    }
                }
            }
        }
        let plan = Plan {
            items: items.into_values().collect(),
            directories: directories.into_iter().collect(),
        };
        (plan, failures)
    }

    /// Makes the directories: private, as what they will hold.
    ///
    /// # Errors
    /// [`Kind::Environment`] when one cannot be made.
    pub fn make_directories(&self) -> Result<()> {
        let above = self.items.iter().filter_map(|item| item.to.parent());
        let mirrored = self.directories.iter().map(|(path, _)| path.as_path());
        for directory in above.chain(mirrored) {
            if directory.as_os_str().is_empty() {
                continue;
            }
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory);
            made.map_err(|error| {
                let words = format!(
                    "{} cannot be made: choose another DEST",
                    directory.display()
                );
                Error::new(Kind::Environment, words).with_source(error)
            })?;
        }
        Ok(())
    }

    /// Gives the directories their times, once nothing is added to them any more.
    pub(super) fn finish_directories(&self) -> Vec<Error> {
        let failures = self.directories.iter().rev().filter_map(|(path, time)| {
            let error = set_time(path, *time).err()?;
            let words = format!("the time of {} cannot be set", path.display());
            Some(Error::new(Kind::Environment, words).with_source(error))
        });
        failures.collect()
    }
}

fn set_time(path: &Path, time: Timestamp) -> io::Result<()> {
    let times = FileTimes::new().set_modified(SystemTime::from(time));
    File::open(path)?.set_times(times)
}

/// Where the copy of the one file `name` goes, as with `cp`.
fn place_of_one(name: &str, to: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;

    let is_directory = to.is_dir() || to.as_os_str().as_bytes().ends_with(b"/");
    if is_directory {
        to.join(name)
    } else {
        to.to_owned()
    }
}
