//! The two files of one artifact version: opening, creating, reading, writing, removing.
//!
//! Nothing here decides what is present or how durable it is; see `extents` and `artifact`.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::buffer::spare_capacity;
use rustix::fs::{self, AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, XattrFlags};
use rustix::io::{Errno, pread, pwrite, pwritev, retry_on_intr};

use super::directory::{CAREFULLY, Directory, PRIVATE_FILE, PUNCH, is_own_file, subdirectory};
use super::extents::MapRun;
use super::identity::{Identity, Name};
use super::lock;
use super::map::{self, ENTRY_LEN, HEADER_LEN};
use super::slab::{Piece, Slab};
use super::store::BLOCK_SIZE;

/// Bytes of the map read at once: all of it for an artifact of up to 16 GiB.
const MAP_CHUNK: usize = 1 << 20;

/// Blocks written by one call: 256 KiB. Larger calls make the kernel look for larger runs of free
/// memory, and those are the ones that the host of a virtual machine has taken back: filling them
/// again costs up to four times as much. Smaller calls cost more in calls.
const BLOCKS_A_CALL: usize = 2;

/// Suffixes of the local names. A data file on its way out has the last.
pub(super) const DATA: &str = "data";
pub(super) const MAP: &str = "map";
const GONE: &str = "gone";

/// The open files of one artifact version.
#[derive(Debug)]
pub(super) struct Files {
    data: OwnedFd,
    map: OwnedFd,
    /// The directory that names them.
    shelf: OwnedFd,
    salt: [u8; 8],
    /// Not when the filesystem had become read-only.
    writable: bool,
    /// The data file as this process found or left it: what others do to it shows.
    known: Mutex<Seal>,
}

/// Inode number, size and change time of a data file, which any write, cut or hole changes.
type Seal = [u8; 4 * size_of::<i64>()];

/// The map file's attribute that holds the seal of a data file.
const SEAL: &str = "user.mongo-backupfs.proven";

/// The map file's attribute that marks what cannot be fetched again by ranges. On a filesystem
/// without attributes it leaves the cache like anything else.
pub(super) const DEAR: &str = "user.mongo-backupfs.dear";

fn seal_of(data: &OwnedFd) -> io::Result<Seal> {
    let stat = fs::fstat(data)?;
    let fields = [
        stat.st_ino as i64,
        stat.st_size,
        stat.st_ctime,
        stat.st_ctime_nsec as i64,
    ];
    let mut seal = Seal::default();
    for (bytes, field) in seal.chunks_exact_mut(size_of::<i64>()).zip(fields) {
        bytes.copy_from_slice(&field.to_le_bytes());
    }
    Ok(seal)
}

impl Files {
    /// Opens the files of `name`; `None` if one of them is missing or not a plain file of ours. On
    /// a filesystem that became read-only they can be read only.
    pub(super) fn open(
        directory: &Directory,
        name: &Name,
        salt: [u8; 8],
    ) -> io::Result<Option<Self>> {
        let Some(shelf) = shelf(directory, name)? else {
            return Ok(None);
        };
        let open = |suffix, access| open_own(&shelf, &file_name(name, suffix), access);
        let open_both = |access| -> io::Result<_> { Ok((open(DATA, access)?, open(MAP, access)?)) };
        let (both, writable) = match open_both(OFlags::RDWR) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                (open_both(OFlags::RDONLY)?, false)
            }
            opened => (opened?, true),
        };
        let (Some(data), Some(map)) = both else {
            return Ok(None);
        };
        Ok(Some(Files {
            known: Mutex::new(seal_of(&data)?),
            data,
            map,
            shelf,
            salt,
            writable,
        }))
    }

    /// Creates empty files for `identity`, replacing whatever has their names.
    pub(super) fn create(directory: &Directory, identity: &Identity) -> io::Result<Self> {
        let name = identity.name();
        let shelf = subdirectory(directory.version(), &name.shelf())?;
        // The map goes first: a map without its data would be believed until each block is read.
        for suffix in [MAP, DATA] {
            remove_at(&shelf, &file_name(&name, suffix))?;
        }
        let create = |suffix| -> io::Result<OwnedFd> {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | CAREFULLY;
            let file = file_name(&name, suffix);
            Ok(fs::openat(&shelf, file, flags, PRIVATE_FILE)?)
        };
        let data = create(DATA)?;
        if !identity.is_unsealed() {
            fs::ftruncate(&data, identity.size)?;
        }
        let map = create(MAP)?;
        write_all(&map, &map::encode_header(identity), 0)?;
        mark(&map, identity);
        Ok(Files {
            known: Mutex::new(seal_of(&data)?),
            data,
            map,
            shelf,
            salt: identity.salt(),
            writable: true,
        })
    }

    /// Reads the map; `false` if it is damaged or not a map of `identity`: then what it named
    /// means nothing.
    pub(super) fn load(
        &self,
        identity: &Identity,
        mut entry: impl FnMut(u64, u32),
    ) -> io::Result<bool> {
        let found = read_map(&self.map, |_, block, crc| entry(block, crc))?;
        Ok(found.is_some_and(|found| {
            (found.key, found.validator, found.size)
                == (identity.key, identity.validator, identity.size)
        }))
    }

    /// Appends `len` bytes at `offset` to `slab`, which has room for them; fewer at the end of the
    /// file.
    pub(super) fn read(&self, slab: &mut Slab, offset: u64, len: usize) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let read = retry_on_intr(|| {
                slab.fill(|spare| {
                    let left = &mut spare[..len - done];
                    pread(&self.data, left, offset + done as u64).map(|(read, _)| read)
                })
            })?;
            if read == 0 {
                break;
            }
            done += read;
        }
        Ok(())
    }

    /// Whether anything can be written, for as long as these are open.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Writes `blocks` one after the other from `offset` on.
    pub(super) fn write(&self, blocks: &[Piece], mut offset: u64) -> io::Result<()> {
        self.change(|| {
            for blocks in blocks.chunks(BLOCKS_A_CALL) {
                offset = self.write_at_once(blocks, offset)?;
            }
            Ok(())
        })
    }

    /// Writes `blocks` by one call, if the kernel takes them whole; answers where they end.
    fn write_at_once(&self, blocks: &[Piece], mut offset: u64) -> io::Result<u64> {
        let mut slices: Vec<IoSlice<'_>> = blocks.iter().map(|block| IoSlice::new(block)).collect();
        let mut left = &mut slices[..];
        // Drops leading empty slices.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let written = retry_on_intr(|| pwritev(&self.data, left, offset))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(offset)
    }

    /// Changes the data file. What others did to it before still shows.
    fn change(&self, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let untouched = self.is_untouched();
        change()?;
        if untouched { self.look() } else { Ok(()) }
    }

    /// Makes the data durable.
    pub(super) fn sync_data(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| fs::fdatasync(&self.data))?)
    }

    /// Writes map entries.
    pub(super) fn write_map(&self, runs: &[MapRun]) -> io::Result<()> {
        for run in runs {
            let entries: Vec<u8> = (run.first..)
                .zip(&run.crcs)
                .flat_map(|(block, crc)| map::encode_entry(self.salt, block, *crc))
                .collect();
            write_all(&self.map, &entries, map::entry_offset(run.first))?;
        }
        Ok(())
    }

    /// Makes the map durable.
    pub(super) fn sync_map(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| fs::fdatasync(&self.map))?)
    }

    /// Makes the names of the files durable.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        fs::fsync(&self.map)?;
        Ok(fs::fsync(&self.shelf)?)
    }

    /// Gives the space of `len` bytes at `offset` back to the filesystem.
    pub(super) fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let punch = || fs::fallocate(&self.data, PUNCH, offset, len);
        self.change(|| Ok(retry_on_intr(punch)?))
    }

    /// The data file.
    pub(super) fn data(&self) -> BorrowedFd<'_> {
        self.data.as_fd()
    }

    /// Takes the data file as it is now for known.
    pub(super) fn look(&self) -> io::Result<()> {
        *lock(&self.known) = seal_of(&self.data)?;
        Ok(())
    }

    /// Whether nobody but this process has changed the data file since it was opened or looked at.
    pub(super) fn is_untouched(&self) -> bool {
        seal_of(&self.data).is_ok_and(|seal| seal == *lock(&self.known))
    }

    /// Notes that every byte of the data file is proven, for as long as the file does not change.
    pub(super) fn seal(&self) -> io::Result<()> {
        let seal = *lock(&self.known);
        Ok(fs::fsetxattr(&self.map, SEAL, &seal, XattrFlags::empty())?)
    }

    /// Whether the data file has not changed since it was sealed, by whatever process that was.
    pub(super) fn is_sealed(&self) -> bool {
        let mut noted = [0; size_of::<Seal>()];
        let read = fs::fgetxattr(&self.map, SEAL, &mut noted[..]);
        read == Ok(noted.len()) && noted == *lock(&self.known)
    }

    /// Bytes of disk that both files take.
    pub(super) fn disk(&self) -> io::Result<u64> {
        Ok(blocks_of(&fs::fstat(&self.data)?) + blocks_of(&fs::fstat(&self.map)?))
    }

    /// Notes the use, for eviction after a restart.
    pub(super) fn touch(&self) {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        // Only the order of eviction depends on it.
        let _ = fs::futimens(&self.map, &times);
    }
}

/// Gives the first of the data that `from` names, as long as `crcs` has blocks, to `heir`. Whatever
/// has the heir's names is replaced; nothing is left of `from`.
pub(super) fn inherit(
    directory: &Directory,
    from: &Name,
    heir: &Identity,
    crcs: &[u32],
) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let old = shelf(directory, from)?.ok_or_else(gone)?;
    let name = heir.name();
    let new = subdirectory(directory.version(), &name.shelf())?;
    // A map without its data would be believed until each block is read: it is the first to go and
    // the last to come.
    remove_at(&old, &file_name(from, MAP))?;
    remove_at(&new, &file_name(&name, MAP))?;
    let data = file_name(&name, DATA);
    fs::renameat(&old, file_name(from, DATA), &new, &data)?;
    let file = open_own(&new, &data, OFlags::RDWR)?.ok_or_else(gone)?;
    fs::ftruncate(&file, crcs.len() as u64 * BLOCK_SIZE)?;
    if !heir.is_unsealed() {
        fs::ftruncate(&file, heir.size)?;
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | CAREFULLY;
    let map = fs::openat(&new, file_name(&name, MAP), flags, PRIVATE_FILE)?;
    let salt = heir.salt();
    let entries = (0..).zip(crcs);
    let entries = entries.flat_map(|(block, crc)| map::encode_entry(salt, block, Some(*crc)));
    let page = map::encode_header(heir).into_iter();
    write_all(&map, &page.chain(entries).collect::<Vec<u8>>(), 0)?;
    mark(&map, heir);
    Ok(())
}

fn mark(map: &OwnedFd, identity: &Identity) {
    if identity.is_dear {
        // Only the order of eviction depends on it.
        let _ = fs::fsetxattr(map, DEAR, b"1", XattrFlags::empty());
    }
}

/// Takes the names away at once; the space follows with [`sweep`], which may take long.
pub(super) fn retire(directory: &Directory, name: &Name) -> io::Result<()> {
    let Some(shelf) = shelf(directory, name)? else {
        return Ok(());
    };
    remove_at(&shelf, &file_name(name, MAP))?;
    match fs::renameat(&shelf, file_name(name, DATA), &shelf, file_name(name, GONE)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives the space of a retired artifact version back.
pub(super) fn sweep(directory: &Directory, name: &Name) -> io::Result<()> {
    match shelf(directory, name)? {
        Some(shelf) => remove_at(&shelf, &file_name(name, GONE)),
        None => Ok(()),
    }
}

/// The directory that names the files of `name`, if there is one.
pub(super) fn shelf(directory: &Directory, name: &Name) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | CAREFULLY;
    match fs::openat(directory.version(), name.shelf(), flags, Mode::empty()) {
        Ok(shelf) => Ok(Some(shelf)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn file_name(name: &Name, suffix: &str) -> String {
    format!("{name}.{suffix}")
}

/// The artifact version that a file of this name belongs to, and whether it is on its way out.
pub(super) fn parse_file_name(file: &str) -> Option<(Name, bool)> {
    let (name, suffix) = file.split_once('.')?;
    let gone = match suffix {
        DATA | MAP => false,
        GONE => true,
        _ => return None,
    };
    Some((Name::parse(name)?, gone))
}

/// Opens a plain file of ours; anything else under that name counts as missing.
pub(super) fn open_own(shelf: &OwnedFd, file: &str, access: OFlags) -> io::Result<Option<OwnedFd>> {
    match fs::openat(shelf, file, access | CAREFULLY, Mode::empty()) {
        Ok(fd) => Ok(is_own_file(&fs::fstat(&fd)?).then_some(fd)),
        // A link, a directory, or a socket or FIFO without a peer.
        Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn remove_at(shelf: &OwnedFd, file: &str) -> io::Result<()> {
    match fs::unlinkat(shelf, file, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn blocks_of(stat: &fs::Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

/// Reads a whole map, calling `entry` for each block it names; answers whose map it is.
pub(super) fn read_map(
    map: &OwnedFd,
    mut entry: impl FnMut(&Identity, u64, u32),
) -> io::Result<Option<Identity>> {
    let size = u64::try_from(fs::fstat(map)?.st_size).unwrap_or(0);
    let chunk_len = |offset: u64| size.saturating_sub(offset).min(MAP_CHUNK as u64) as usize;
    let mut chunk = Vec::new();
    read_to(map, &mut chunk, 0, chunk_len(0))?;
    let mut offset = chunk.len() as u64;
    let Some(identity) = chunk.get(..HEADER_LEN).and_then(map::decode_header) else {
        return Ok(None);
    };
    let salt = identity.salt();
    let mut block = 0;
    let mut entries = &chunk[HEADER_LEN..];
    loop {
        // What is left over at the end of a truncated map is no entry.
        for bytes in entries.as_chunks::<ENTRY_LEN>().0 {
            if let Some(crc) = map::decode_entry(salt, block, *bytes) {
                entry(&identity, block, crc);
            }
            block += 1;
        }
        chunk.clear();
        read_to(map, &mut chunk, offset, chunk_len(offset))?;
        if chunk.is_empty() {
            return Ok(Some(identity));
        }
        offset += chunk.len() as u64;
        entries = &chunk;
    }
}

fn read_to(file: &OwnedFd, buffer: &mut Vec<u8>, offset: u64, len: usize) -> io::Result<()> {
    let start = buffer.len();
    buffer.reserve(len);
    while buffer.len() < start + len {
        let done = (buffer.len() - start) as u64;
        if retry_on_intr(|| pread(file, spare_capacity(buffer), offset + done))? == 0 {
            break;
        }
    }
    buffer.truncate(start + len);
    Ok(())
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = retry_on_intr(|| pwrite(file, bytes, offset))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}
