//! A local directory listed like a bucket: keys are paths below it. Symlinks to files inside it
//! count as files; no symlink is followed to a directory, and none out of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat};
use tracing::warn;

use super::store::{Listed, Object};
use crate::directory::{Directory, Version, beneath, failed};
use crate::error::{Error, Kind, Result};
use crate::model::{Link, LinkMode};
use crate::secret::SafeUrl;

/// The largest object that [`Local::read`] brings.
const LARGEST: u64 = 16 << 20;

/// The directory.
#[derive(Debug)]
pub(super) struct Local {
    directory: Directory,
}

impl Local {
    pub(super) fn new(path: &Path) -> Self {
        Local {
            directory: Directory::new(path),
        }
    }

    /// Everything below `prefix`, or only what is directly there.
    pub(super) async fn list(&self, prefix: &str, all_below: bool) -> Result<Listed> {
        let (directory, prefix) = (self.directory.clone(), prefix.to_owned());
        let listed = blocking(move || list(&directory, &prefix, all_below)).await?;
        listed.map_err(|error| {
            let path = self.directory.path().display();
            failed(error).context(format!("reading the directory {path}"))
        })
    }

    /// The content of the file at `key`.
    pub(super) async fn read(&self, key: &str) -> Result<Bytes> {
        let (directory, key) = (self.directory.clone(), key.to_owned());
        blocking(move || read(&directory, &key)).await?
    }

    /// A link to the file at `key`, whether or not there is one.
    pub(super) fn link(&self, key: &str) -> Link {
        Link {
            url: SafeUrl::of_file(key),
            headers: Vec::new(),
            expires: None,
            mode: LinkMode::Ranged,
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|_| Error::new(Kind::Internal, "reading a local directory ended by a bug"))
}

fn read(directory: &Directory, key: &str) -> Result<Bytes> {
    let (file, version) = directory.open_file(key)?;
    if version.size > LARGEST {
        let words = format!("it has {} bytes, more than are read at once", version.size);
        return Err(Error::new(Kind::Protocol, words));
    }
    let mut content = Vec::new();
    let file = std::fs::File::from(file);
    io::Read::read_to_end(&mut io::Read::take(file, LARGEST), &mut content).map_err(failed)?;
    Ok(content.into())
}

fn list(directory: &Directory, prefix: &str, all_below: bool) -> io::Result<Listed> {
    let top = directory.open("", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let folder = prefix.rfind('/').map_or("", |at| &prefix[..=at]);
    let mut listed = Listed::default();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        let opened = beneath(
            &top,
            folder.trim_end_matches('/'),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        );
        let opened = match opened {
            Ok(opened) => opened,
            // Removed meanwhile, or never there: a store has no empty folders either.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            Err(error) => return Err(error),
        };
        for (name, kind, stat) in entries(&opened)? {
            let key = format!("{folder}{name}");
            if !key.starts_with(prefix) {
                continue;
            }
            match kind {
                FileType::Directory if all_below => left.push(format!("{key}/")),
                FileType::Directory => listed.folders.push(format!("{key}/")),
                FileType::Symlink => listed.objects.extend(pointed_to(&top, key)),
                _ => listed.objects.extend(object(key, &stat)),
            }
        }
    }
    listed.folders.sort();
    listed.objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(listed)
}

/// The entries of an open directory, symlinks as themselves.
fn entries(directory: &OwnedFd) -> io::Result<Vec<(String, FileType, Stat)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(text) = name.to_str() else {
            warn!(name = %name.to_string_lossy(), "a local file is not shown: its name is not UTF-8");
            continue;
        };
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let kind = FileType::from_raw_mode(stat.st_mode);
                entries.push((text.to_owned(), kind, stat));
            }
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(entries)
}

/// The file that the symlink at `key` leads to, if it is one and lies within.
fn pointed_to(top: impl AsFd, key: String) -> Option<Object> {
    let file = beneath(top, &key, OFlags::PATH).ok()?;
    object(key, &rustix::fs::fstat(file).ok()?)
}

fn object(key: String, stat: &Stat) -> Option<Object> {
    let version = Version::from_stat(stat)?;
    Some(Object {
        key,
        size: version.size,
        modified: version.modified(),
        etag: Some(version.etag()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn a_directory_is_listed_like_a_bucket() {
        let around = tempfile::tempdir().unwrap();
        let root = around.path().join("root");
        fs::create_dir_all(root.join("a/b/empty")).unwrap();
        fs::create_dir_all(around.path().join("outside/deep")).unwrap();
        fs::write(around.path().join("outside/deep/secret"), "x").unwrap();
        fs::write(root.join("a/1"), "one").unwrap();
        fs::write(root.join("a/b/2"), "two!").unwrap();
        fs::write(root.join("ab"), "").unwrap();
        symlink("b/2", root.join("a/link")).unwrap();
        symlink("../../outside", root.join("a/out")).unwrap();
        symlink("../../outside/deep/secret", root.join("a/leak")).unwrap();
        symlink("b", root.join("a/again")).unwrap();
        let local = Local::new(&root);
        let keys = |listed: &Listed| {
            let objects = listed.objects.iter().map(|object| object.key.clone());
            objects.collect::<Vec<_>>()
        };
        let top = local.list("", false).await.unwrap();
        assert_eq!(
            (top.names(""), keys(&top)),
            (vec!["a".into()], vec!["ab".into()])
        );
        let begun = local.list("a", true).await.unwrap();
        assert_eq!(keys(&begun), ["a/1", "a/b/2", "a/link", "ab"]);
        assert_eq!(begun.objects[1].size, 4);
        assert_eq!(begun.objects[1].etag, begun.objects[2].etag, "one file");
        let below = local.list("a/", false).await.unwrap();
        assert_eq!(
            (below.names("a/"), keys(&below)),
            (vec!["b".into()], vec!["a/1".into(), "a/link".into()])
        );
        for none in ["none/", "ab/", "a/out/", "a/again/", "../outside/"] {
            let listed = local.list(none, true).await;
            assert!(
                listed.is_err() || listed.unwrap().objects.is_empty(),
                "{none}"
            );
        }
        assert_eq!(local.read("a/1").await.unwrap(), "one");
        assert_eq!(local.read("a/leak").await.unwrap_err().kind(), Kind::Denied);
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_an_error() {
        let local = Local::new(Path::new("/nowhere/at/all"));
        let error = local.list("", false).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
