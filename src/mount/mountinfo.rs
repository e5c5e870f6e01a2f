//! The kernel's list of mounts, `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! Questions about mounts are answered from here and not by touching paths: a path below a mount
//! whose process hangs would hang the asker too.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, path};

use crate::error::{Error, Kind, Result};
use crate::fuse::FILESYSTEM_NAME;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountEntry {
    /// `major:minor` of its device, which also names its `/sys/class/bdi` directory.
    pub(crate) device: String,
    /// Where it is mounted.
    pub(crate) mountpoint: PathBuf,
    /// Type, with subtype: `fuse.mongo-backupfs`.
    pub(crate) kind: String,
    /// The uid that mounted it, for FUSE.
    pub(crate) user: Option<u32>,
}

impl MountEntry {
    /// Whether this program mounted it.
    pub(crate) fn is_ours(&self) -> bool {
        self.kind.strip_prefix("fuse.") == Some(FILESYSTEM_NAME)
    }
}

/// Symlinks followed before giving up, as many as the kernel follows.
const MOST_LINKS: usize = 40;

/// `path` without symlinks. Neither its last component need exist, nor is it touched if something
/// is mounted there.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    let unusable = |path: &Path, error: io::Error| {
        let cure = match error.kind() {
            io::ErrorKind::NotFound => "does not exist: create it first",
            _ => "cannot be used",
        };
        Error::new(Kind::Environment, format!("{} {cure}", path.display())).with_source(error)
    };
    let mut path = path::absolute(path).map_err(|error| unusable(path, error))?;
    for _ in 0..MOST_LINKS {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return fs::canonicalize(&path).map_err(|error| unusable(&path, error));
        };
        let parent = fs::canonicalize(parent).map_err(|error| unusable(parent, error))?;
        let place = parent.join(name);
        if mount_at(&place)?.is_some() {
            return Ok(place);
        }
        match fs::read_link(&place) {
            Ok(target) => path = parent.join(target),
            Err(_) => return Ok(place),
        }
    }
    Err(Error::new(
        Kind::Environment,
        format!("{} is behind too many symlinks", path.display()),
    ))
}

/// The topmost mount at exactly `path`, which must be absolute and free of symlinks.
pub(crate) fn mount_at(path: &Path) -> Result<Option<MountEntry>> {
    Ok(topmost(&table()?, path))
}

/// Every mount that is not covered by another at the same place, in the order of their making.
pub(crate) fn mounts() -> Result<Vec<MountEntry>> {
    let text = table()?;
    let entries = || text.split(|&byte| byte == b'\n').filter_map(parse);
    Ok(entries()
        .filter(|entry| topmost(&text, &entry.mountpoint).as_ref() == Some(entry))
        .collect())
}

fn table() -> Result<Vec<u8>> {
    fs::read("/proc/self/mountinfo").map_err(|error| {
        Error::new(
            Kind::Environment,
            "cannot read /proc/self/mountinfo: mount /proc",
        )
        .with_source(error)
    })
}

/// Later lines lie above earlier ones.
fn topmost(text: &[u8], path: &Path) -> Option<MountEntry> {
    text.split(|&byte| byte == b'\n')
        .filter_map(parse)
        .rfind(|entry| entry.mountpoint == path)
}

/// One line: `id parent major:minor root mountpoint options [tag…] - type source superoptions`.
fn parse(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let mountpoint = PathBuf::from(unescape(fields.nth(1)?));
    fields.find(|field| field == b"-")?;
    let kind = String::from_utf8_lossy(unescape(fields.next()?).as_bytes()).into_owned();
    let user = fields
        .nth(1)?
        .split(|&byte| byte == b',')
        .find_map(|option| option.strip_prefix(b"user_id="))
        .and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    Some(MountEntry {
        device,
        mountpoint,
        kind,
        user,
    })
}

/// The kernel writes space, tab, newline, `#` and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'\\'
            && let Some((digits, after)) = after.split_first_chunk::<3>()
            && let Some(escaped) = octal(digits)
        {
            text.push(escaped);
            rest = after;
        } else {
            text.push(byte);
        }
    }
    OsString::from_vec(text)
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
30 22 0:26 / /proc rw,nosuid - proc proc rw\n\
41 22 0:51 / /mnt/a\\040b\\134c\\011d rw,relatime shared:9 master:2 - tmpfs tmpfs rw\n\
52 22 0:52 / /mnt/backups ro,nosuid - fuse.sshfs sshfs rw,user_id=0,group_id=0\n\
60 22 0:63 / /mnt/backups ro,nosuid,nodev - fuse.mongo-backupfs mongo-backupfs ro,user_id=1000,group_id=100,default_permissions\n\
malformed line\n";

    #[test]
    fn the_topmost_mount_is_found_by_its_path() {
        let entry = topmost(TABLE, Path::new("/mnt/backups")).unwrap();
        assert!(entry.is_ours());
        assert_eq!((entry.device.as_str(), entry.user), ("0:63", Some(1000)));
        assert_eq!(topmost(TABLE, Path::new("/mnt")), None);
        assert_eq!(topmost(TABLE, Path::new("/mnt/backups/x")), None);
    }

    #[test]
    fn escapes_are_undone() {
        let entry = topmost(TABLE, Path::new("/mnt/a b\\c\td")).unwrap();
        assert_eq!((entry.kind.as_str(), entry.user), ("tmpfs", None));
        assert_eq!(unescape(b"a\\04"), "a\\04");
        assert_eq!(unescape(b"a\\999\\777"), "a\\999\\777");
    }

    #[test]
    fn only_our_subtype_is_ours() {
        for (kind, ours) in [
            ("fuse.mongo-backupfs", true),
            ("fuse", false),
            ("fuse.sshfs", false),
            ("mongo-backupfs", false),
        ] {
            let line = format!("1 2 0:3 / /m ro - {kind} s ro");
            assert_eq!(parse(line.as_bytes()).unwrap().is_ours(), ours, "{kind}");
        }
    }

    #[test]
    fn symlinks_are_resolved_and_the_last_component_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(base.join("real")).unwrap();
        for (target, link) in [("real", "one"), ("one", "two"), ("loop", "loop")] {
            std::os::unix::fs::symlink(target, base.join(link)).unwrap();
        }
        for (path, resolved) in [
            ("real", "real"),
            ("two", "real"),
            ("two/", "real"),
            ("./one/../real/.", "real"),
            ("one/missing", "real/missing"),
            ("real/..", ""),
        ] {
            assert_eq!(
                resolve(&base.join(path)).unwrap(),
                base.join(resolved),
                "{path}"
            );
        }
        assert_eq!(resolve(Path::new("/")).unwrap(), Path::new("/"));
        for bad in ["loop", "missing/child"] {
            let error = resolve(&base.join(bad)).unwrap_err();
            assert_eq!(error.kind(), Kind::Environment, "{bad}: {error}");
        }
    }

    #[test]
    fn the_kernels_own_table_has_a_root() {
        assert!(mount_at(Path::new("/")).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn any_escaped_path_comes_back(path in proptest::collection::vec(1_u8..=255, 0..40)) {
            let escaped: Vec<u8> = path
                .iter()
                .flat_map(|&byte| match byte {
                    b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                    other => vec![other],
                })
                .collect();
            prop_assert_eq!(unescape(&escaped).into_vec(), path);
        }

        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&line);
        }
    }
}
