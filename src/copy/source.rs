//! Where the bytes of copies come from.
//!
//! One process has a cache at a time. When that is a running mount, files are read through it: it
//! has the ledger and the cache, and its rules about spending hold. Otherwise this process opens
//! both itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::plan::Item;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::error::{Error, Kind, Result, one_line};
use crate::fs::{self, Caller, Fs};
use crate::mount;
use crate::tree::Tree;

/// Where bytes come from.
#[derive(Debug)]
pub enum Source {
    /// A filesystem in this process.
    Own(Fs),
    /// A mount of the same cache, and the tree of names without it.
    Mount(PathBuf, Tree),
}

impl Source {
    /// The mount that has the cache of `config`, or else a filesystem of our own. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// As [`Fs::open`]; [`Kind::Environment`] when a process that cannot be asked has the cache.
    pub fn open(config: &Config, clock: SharedClock) -> Result<Self> {
        Ok(match mount::serving(&config.mount.cache_dir)? {
            Some(mountpoint) => Source::Mount(mountpoint, fs::tree(config, clock)?),
            None => Source::Own(Fs::for_command(config, clock)?),
        })
    }

    /// The tree of names.
    pub fn tree(&self) -> &Tree {
        match self {
            Source::Own(fs) => fs.tree(),
            Source::Mount(_, tree) => tree,
        }
    }

    /// The mount, if it is one.
    pub fn mountpoint(&self) -> Option<&Path> {
        match self {
            Source::Own(_) => None,
            Source::Mount(place, _) => Some(place),
        }
    }

    /// Makes everything that came durable.
    pub async fn close(&self) {
        if let Source::Own(fs) = self {
            fs.stop().await;
        }
    }

    /// Opens a file, waiting for its task.
    pub(super) async fn open_file(&self, item: &Item) -> Result<Open> {
        match self {
            Source::Own(fs) => {
                let caller = Caller {
                    pid: 0,
                    uid: rustix::process::getuid().as_raw(),
                    gid: rustix::process::getgid().as_raw(),
                };
                let opened = fs.open_file(item.ino, false, &caller).await?;
                fs.expect_whole(opened.handle);
                let open = OwnFile {
                    fs: fs.clone(),
                    handle: opened.handle,
                };
                Ok(Open {
                    size: opened.size.unwrap_or(0),
                    bytes: Way::Own(open),
                })
            }
            Source::Mount(place, _) => {
                let path = place.join(&item.path);
                let opened = blocking(move || {
                    let file = File::open(path)?;
                    let size = file.metadata()?.len();
                    Ok((file, size))
                });
                match opened.await {
                    Ok((file, size)) => Ok(Open {
                        size,
                        bytes: Way::Mounted(Arc::new(file)),
                    }),
                    Err(error) => Err(self.explained(item, &error).await),
                }
            }
        }
    }

    /// What the filesystem says about a failure through the mount: its reason, where it has one.
    async fn explained(&self, item: &Item, error: &io::Error) -> Error {
        let kind = kind_of(error);
        let reason = match kind {
            // The reason of an earlier failure says nothing about these.
            Kind::Unreachable | Kind::NotFound => None,
            _ => self.attribute(item, "error").await,
        };
        let words = reason.unwrap_or_else(|| one_line(&error.to_string()));
        let place = self.mountpoint().unwrap_or(Path::new("/")).display();
        Error::new(kind, format!("{words} (says the mount at {place})"))
    }

    /// The exact size of a file, if it is known without opening it.
    pub(super) async fn known_size(&self, item: &Item) -> Option<u64> {
        if self.attribute(item, "size").await? != "exact" {
            return None;
        }
        match self {
            Source::Own(fs) => Some(fs.getattr(item.ino, None).await.ok()?.size),
            Source::Mount(place, _) => {
                let path = place.join(&item.path);
                let size = blocking(move || Ok(std::fs::metadata(path)?.len())).await;
                size.ok()
            }
        }
    }

    /// What is known of a file's task.
    pub(super) async fn progress(&self, item: &Item) -> Progress {
        let get = |name| self.attribute(item, name);
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        Progress {
            state: get("state").await.unwrap_or_else(|| "none".to_owned()),
            percent: number(get("percent").await).and_then(|n: u64| u8::try_from(n).ok()),
            estimate: get("estimate").await.and_then(|text| text.parse().ok()),
            cached: number(get("cached").await).unwrap_or(0),
        }
    }

    /// What tells the version of an open file from every other, and the digest that its store
    /// publishes of it.
    pub(super) async fn version(&self, item: &Item, open: &Open) -> Version {
        let etag = self.attribute(item, "etag").await;
        let task = self.attribute(item, "task").await;
        let digest = self.attribute(item, "digest").await;
        let named = etag.is_some() || task.is_some();
        let parts = [etag.unwrap_or_default(), task.unwrap_or_default()];
        Version {
            name: named.then(|| format!("{}\0{}\0{}", open.size, parts[0], parts[1])),
            // `<algorithm>:<number> verified|unverified`
            digest: digest.and_then(|text| fs::promised(text.split(' ').next()?)),
        }
    }

    /// The value of `user.backupfs.<name>`.
    async fn attribute(&self, item: &Item, name: &str) -> Option<String> {
        let name = format!("user.backupfs.{name}");
        match self {
            Source::Own(fs) => {
                let value = fs.getxattr(item.ino, &name).await.ok()?;
                String::from_utf8(value).ok()
            }
            Source::Mount(place, _) => {
                let path = place.join(&item.path);
                let read = blocking(move || {
                    let mut value = vec![0; 4096];
                    let len = rustix::fs::getxattr(&path, &name, &mut value[..])?;
                    value.truncate(len);
                    Ok(value)
                });
                String::from_utf8(read.await.ok()?).ok()
            }
        }
    }
}

/// How it stands with a file that cannot be read yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) state: String,
    pub(super) percent: Option<u8>,
    pub(super) estimate: Option<Timestamp>,
    pub(super) cached: u64,
}

/// Which version of a file is open.
#[derive(Debug)]
pub(super) struct Version {
    /// `None` where its store names none.
    pub(super) name: Option<String>,
    /// CRC-64/XZ of its bytes.
    pub(super) digest: Option<u64>,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Open {
    /// Its exact size.
    pub(super) size: u64,
    bytes: Way,
}

#[derive(Debug)]
enum Way {
    Own(OwnFile),
    Mounted(Arc<File>),
}

/// A handle that is closed when dropped.
#[derive(Debug)]
struct OwnFile {
    fs: Fs,
    handle: u64,
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        self.fs.release(self.handle);
    }
}

impl Open {
    /// `len` bytes at `at`, which lie within the file.
    pub(super) async fn read(&self, at: u64, len: u32) -> Result<Bytes> {
        let bytes = match &self.bytes {
            Way::Own(OwnFile { fs, handle }) => fs.read(*handle, at, len).await?,
            Way::Mounted(file) => {
                let file = Arc::clone(file);
                let read = blocking(move || {
                    let mut bytes = vec![0; len as usize];
                    file.read_exact_at(&mut bytes, at)?;
                    Ok(bytes)
                });
                let failed = |error: io::Error| {
                    Error::new(kind_of(&error), format!("reading at {at}: {error}"))
                };
                read.await.map_err(failed)?.into()
            }
        };
        if bytes.len() != len as usize {
            let words = format!("{} bytes came at {at} instead of {len}", bytes.len());
            return Err(Error::new(Kind::Protocol, words));
        }
        Ok(bytes)
    }
}

/// Asks the kernel, which may have to wait for a mount, on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(io::Error::other("this program is ending")))
}

/// What an errno of a mount means.
fn kind_of(error: &io::Error) -> Kind {
    match error.raw_os_error() {
        Some(libc::ESTALE) => Kind::Changed,
        Some(libc::ENOENT) => Kind::NotFound,
        Some(libc::EACCES) => Kind::Denied,
        Some(libc::EBUSY) => Kind::Busy,
        Some(libc::ETIMEDOUT) => Kind::TimedOut,
        Some(libc::EOPNOTSUPP) => Kind::Unsupported,
        Some(libc::ENOTCONN | libc::ENODEV) => Kind::Unreachable,
        _ => Kind::Unavailable,
    }
}
