//! What came of a copy so far, beside the place where the copy shall be.
//!
//! ```text
//! NAME.mongo-backupfs-part  its first bytes
//! NAME.mongo-backupfs-sums  magic, SHA-256 of the version's name, CRC32C of each block so far
//! ```
//!
//! Nothing of a part is believed without proof: an interrupted copy goes on after the last block
//! whose checksum is right, so that neither file need be made durable before the copy is whole. Only
//! then does it get its name, by a rename. The part is locked while it grows.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::cache::BLOCK_SIZE;
use crate::error::{Error, Kind, Result};

const PART: &str = ".mongo-backupfs-part";
const SUMS: &str = ".mongo-backupfs-sums";
/// Longest file name that common filesystems take.
const LONGEST_NAME: usize = 255;

const MAGIC: [u8; 16] = *b"mongo-backupfs 1";
const HEADER: usize = MAGIC.len() + 32;
const SUM: usize = 4;

/// A growing copy.
#[derive(Debug)]
pub(super) struct Part {
    data: File,
    sums: File,
    to: PathBuf,
    len: u64,
    size: u64,
    /// CRC32C of what is there of the block that is not full yet.
    open_block: u32,
}

impl Part {
    /// Takes up what an earlier run left of this version of `size` bytes, or begins anew; a version
    /// without a name is never taken up. `heed` is given what is taken up, piece by piece.
    ///
    /// # Errors
    /// [`Kind::Environment`] when there is no room, another process makes this copy, or the place
    /// cannot be written.
    pub(super) fn open(
        to: &Path,
        version: Option<&str>,
        size: u64,
        heed: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<Self> {
        let data = open_locked(to)?;
        let failed = |error| trouble(to, error);
        let sums = open_own(&beside(to, SUMS)).map_err(failed)?;
        let mut part = Part {
            data,
            sums,
            to: to.to_owned(),
            len: 0,
            size,
            open_block: 0,
        };
        let header = version.map(header);
        part.take_up(header.as_ref(), heed).map_err(failed)?;
        part.has_room()?;
        Ok(part)
    }

    /// Removes what an interrupted run left beside a copy that is whole.
    pub(super) fn sweep(to: &Path) {
        if let Ok(data) = File::open(beside(to, PART))
            && flock(&data, FlockOperation::NonBlockingLockExclusive).is_err()
        {
            return;
        }
        remove(to);
    }

    /// Bytes that are there.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds `bytes` at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let failed = |error| trouble(&self.to, error);
        self.data.write_all_at(bytes, self.len).map_err(failed)?;
        let first = self.len / BLOCK_SIZE;
        let mut sums = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = BLOCK_SIZE - self.len % BLOCK_SIZE;
            let (piece, after) = rest.split_at(rest.len().min(left as usize));
            self.open_block = crc32c::crc32c_append(self.open_block, piece);
            self.len += piece.len() as u64;
            rest = after;
            if self.len.is_multiple_of(BLOCK_SIZE) || self.len == self.size {
                sums.extend(self.open_block.to_le_bytes());
                self.open_block = 0;
            }
        }
        let at = HEADER as u64 + first * SUM as u64;
        let written = self.sums.write_all_at(&sums, at);
        written.map_err(|error| trouble(&self.to, error))
    }

    /// The copy is whole: makes it durable, with this time and its name.
    pub(super) fn finish(self, modified: Timestamp) -> Result<()> {
        let finished = || -> io::Result<()> {
            let times = FileTimes::new().set_modified(SystemTime::from(modified));
            self.data.set_times(times)?;
            self.data.sync_all()?;
            fs::rename(beside(&self.to, PART), &self.to)?;
            let directory = match self.to.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            File::open(directory)?.sync_all()?;
            match fs::remove_file(beside(&self.to, SUMS)) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        finished().map_err(|error| trouble(&self.to, error))
    }

    /// Throws away what came.
    pub(super) fn discard(self) {
        remove(&self.to);
    }

    /// Finds out how much of this version is there, and forgets the rest.
    fn take_up(
        &mut self,
        header: Option<&[u8; HEADER]>,
        heed: &mut dyn FnMut(u64, &[u8]),
    ) -> io::Result<()> {
        let mut known = [0; HEADER];
        let is_ours = self.sums.read_exact_at(&mut known, 0).is_ok() && Some(&known) == header;
        if is_ours {
            let mut block = vec![0; BLOCK_SIZE as usize];
            while self.len < self.size {
                let bytes = &mut block[..BLOCK_SIZE.min(self.size - self.len) as usize];
                let at = HEADER as u64 + self.len / BLOCK_SIZE * SUM as u64;
                let mut sum = [0; SUM];
                let read = self.sums.read_exact_at(&mut sum, at);
                let read = read.and_then(|()| self.data.read_exact_at(bytes, self.len));
                if read.is_err() || crc32c::crc32c(bytes) != u32::from_le_bytes(sum) {
                    break;
                }
                heed(self.len, bytes);
                self.len += bytes.len() as u64;
            }
        } else {
            self.sums.set_len(0)?;
            // A version without a name leaves nothing that could be taken for another one's.
            self.sums.write_all_at(header.unwrap_or(&[0; HEADER]), 0)?;
        }
        self.data.set_len(self.len)?;
        let sums = HEADER as u64 + self.len.div_ceil(BLOCK_SIZE) * SUM as u64;
        self.sums.set_len(sums)
    }

    fn has_room(&self) -> Result<()> {
        let Ok(space) = rustix::fs::fstatvfs(&self.data) else {
            return Ok(());
        };
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let missing = self.size - self.len;
        if missing <= free {
            return Ok(());
        }
        let words = format!(
            "{missing} bytes of {} are missing and its filesystem has {free} free: make room or \
             choose another DEST",
            self.to.display()
        );
        Err(Error::new(Kind::Environment, words))
    }
}

/// What the sums of a version begin with.
fn header(version: &str) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..MAGIC.len()].copy_from_slice(&MAGIC);
    header[MAGIC.len()..].copy_from_slice(&Sha256::digest(version));
    header
}

/// The file beside `to` with this suffix. A name that would be too long is cut and told from
/// others by its hash.
fn beside(to: &Path, suffix: &str) -> PathBuf {
    let name = to.file_name().unwrap_or(OsStr::new("copy"));
    let mut kept = name.as_bytes().to_vec();
    if kept.len() + suffix.len() > LONGEST_NAME {
        let hash = Sha256::digest(&kept);
        let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let room = LONGEST_NAME - suffix.len() - hash.len() - 1;
        // Not within a character, where it is text.
        let cut = String::from_utf8_lossy(&kept).floor_char_boundary(room);
        kept.truncate(cut);
        kept.extend(format!("~{hash}").bytes());
    }
    kept.extend(suffix.bytes());
    to.with_file_name(OsString::from_vec(kept))
}

fn remove(to: &Path) {
    // What stays is never believed without proof.
    let _ = fs::remove_file(beside(to, SUMS));
    let _ = fs::remove_file(beside(to, PART));
}

/// Opens or makes a private file, never through a link.
fn open_own(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// The part of `to`, for us alone.
fn open_locked(to: &Path) -> Result<File> {
    let place = beside(to, PART);
    let failed = |error| trouble(to, error);
    loop {
        let data = open_own(&place).map_err(failed)?;
        if flock(&data, FlockOperation::NonBlockingLockExclusive).is_err() {
            let words = format!("another process is copying to {}", to.display());
            return Err(Error::new(Kind::Environment, words));
        }
        // Whoever had it locked may just have given it its name.
        let ours = data.metadata().map_err(failed)?;
        let there = fs::symlink_metadata(&place);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(data);
        }
    }
}

fn trouble(to: &Path, error: io::Error) -> Error {
    let words = format!("{} cannot be written", to.display());
    Error::new(Kind::Environment, words).with_source(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VERSION: Option<&str> = Some("1\0\"etag\"\0task");

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 7 / 5 % 251) as u8).collect()
    }

    fn open(to: &Path, version: Option<&str>, size: usize) -> Part {
        Part::open(to, version, size as u64, &mut |_, _| {}).unwrap()
    }

    #[test]
    fn a_copy_has_its_name_only_when_whole() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("shard.tar");
        let bytes = content(300_000);
        let mut part = open(&to, VERSION, bytes.len());
        part.append(&bytes).unwrap();
        assert!(!to.exists());
        let time: Timestamp = "2026-01-05T14:00:00Z".parse().unwrap();
        part.finish(time).unwrap();
        assert_eq!(fs::read(&to).unwrap(), bytes);
        let found = fs::metadata(&to).unwrap();
        assert_eq!(found.mtime(), time.as_second());
        assert_eq!(found.mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_second_process_is_refused_and_another_version_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a");
        let bytes = content(400_000);
        let mut part = open(&to, VERSION, bytes.len());
        let busy = Part::open(&to, VERSION, 400_000, &mut |_, _| {}).unwrap_err();
        assert!(busy.to_string().contains("another process"), "{busy}");
        part.append(&bytes[..300_000]).unwrap();
        drop(part);
        assert_eq!(open(&to, VERSION, bytes.len()).len(), 2 * BLOCK_SIZE);
        assert_eq!(open(&to, Some("other"), bytes.len()).len(), 0);
        let mut part = open(&to, None, bytes.len());
        part.append(&bytes).unwrap();
        drop(part);
        assert_eq!(open(&to, None, bytes.len()).len(), 0);
    }

    #[test]
    fn there_must_be_room() {
        let dir = tempfile::tempdir().unwrap();
        let huge = Part::open(&dir.path().join("a"), VERSION, 1 << 60, &mut |_, _| {});
        let words = huge.unwrap_err().to_string();
        assert!(words.contains("free: make room"), "{words}");
    }

    #[test]
    fn names_stay_short_enough() {
        let long = Path::new("/d").join("é".repeat(127));
        let place = beside(&long, PART);
        let name = place.file_name().unwrap();
        assert!(name.len() <= LONGEST_NAME && name.as_bytes().ends_with(PART.as_bytes()));
        assert!(name.to_str().is_some());
        assert_ne!(
            place,
            beside(&Path::new("/d").join("é".repeat(126) + "aa"), PART)
        );
        assert_eq!(
            beside(Path::new("a/b.tar"), PART),
            Path::new("a/b.tar.mongo-backupfs-part")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever was cut off or changed of a part, what is taken up is the beginning of the file.
        #[test]
        fn only_what_is_right_is_taken_up(
            pieces in proptest::collection::vec(1_usize..200_000, 1..6),
            flips in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..3),
            cut in proptest::option::of((any::<bool>(), any::<prop::sample::Index>())),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let to = dir.path().join("a");
            let size = pieces.iter().sum::<usize>();
            let bytes = content(size);
            let mut part = open(&to, VERSION, size);
            let mut at = 0;
            for piece in pieces {
                part.append(&bytes[at..at + piece]).unwrap();
                at += piece;
            }
            drop(part);
            let place = |sums| beside(&to, if sums { SUMS } else { PART });
            let whole = flips.is_empty() && cut.is_none();
            for (sums, index) in flips {
                let mut content = fs::read(place(sums)).unwrap();
                let at = index.index(content.len());
                content[at] ^= 1;
                fs::write(place(sums), content).unwrap();
            }
            if let Some((sums, index)) = cut {
                let file = OpenOptions::new().write(true).open(place(sums)).unwrap();
                let len = file.metadata().unwrap().len() as usize;
                file.set_len(index.index(len) as u64).unwrap();
            }
            let mut heeded = Vec::new();
            let mut part = Part::open(&to, VERSION, size as u64, &mut |at, piece| {
                assert_eq!(at, heeded.len() as u64);
                heeded.extend_from_slice(piece);
            }).unwrap();
            prop_assert_eq!(heeded.len() as u64, part.len());
            prop_assert_eq!(&heeded[..], &bytes[..heeded.len()]);
            prop_assert!(!whole || part.len() == size as u64);
            let rest = part.len() as usize;
            part.append(&bytes[rest..]).unwrap();
            part.finish(Timestamp::UNIX_EPOCH).unwrap();
            prop_assert_eq!(fs::read(&to).unwrap(), bytes);
        }
    }
}
