//! Contiguous memory for adjacent blocks: one copy from the network, none on the way to a reader.
//!
//! A [`Slab`] is written once, from its start to its end, and hands out what was written as
//! [`Piece`]s while it goes on: so a block can be read the moment it is complete, and a reader of
//! several adjacent blocks gets them as one piece. Memory is recycled, because fresh pages cost the
//! kernel more than the bytes that go into them. [`Slabs`] owns what is unused; one lock, held for
//! moments.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::lock;

/// Bytes of a slab: as much as the kernel reads at once, aligned in the file like its reads.
pub const SLAB_SIZE: u64 = 1 << 20;

/// Most unused slabs kept: 32 MiB.
const MOST_IDLE: usize = 32;

type Raw = Box<[MaybeUninit<u8>]>;

/// Unused slabs. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Slabs(Arc<Mutex<Vec<Raw>>>);

impl Slabs {
    /// A slab for `capacity` bytes.
    pub(super) fn take(&self, capacity: usize) -> Slab {
        let whole = SLAB_SIZE as usize;
        // Less than half a slab is not worth a whole one.
        let raw = match capacity <= whole && capacity > whole / 2 {
            true => lock(&self.0)
                .pop()
                .unwrap_or_else(|| Box::new_uninit_slice(whole)),
            false => Box::new_uninit_slice(capacity),
        };
        Slab {
            memory: Arc::new(Memory::new(raw, self.clone())),
            capacity,
            handed: 0,
            filled: 0,
        }
    }

    fn give_back(&self, raw: Raw) {
        if raw.len() == SLAB_SIZE as usize {
            let mut idle = lock(&self.0);
            if idle.len() < MOST_IDLE {
                idle.push(raw);
            }
        }
    }
}

/// The memory of a slab, shared by whoever writes it and whoever reads pieces of it.
struct Memory {
    /// From `Box::into_raw`.
    start: NonNull<[MaybeUninit<u8>]>,
    home: Slabs,
}

// SAFETY: the bytes are plain data. Only the one `Slab` of this memory writes, and only bytes that
// no `Piece` covers yet; pieces only read. Whatever hands a piece to another thread orders the two.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(raw: Raw, home: Slabs) -> Self {
        let start = NonNull::from(Box::leak(raw));
        Memory { start, home }
    }

    fn at(&self, offset: usize) -> *mut MaybeUninit<u8> {
        assert!(offset <= self.start.len());
        // SAFETY: within the allocation, or one past its end, as was just asserted.
        unsafe { self.start.as_ptr().cast::<MaybeUninit<u8>>().add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: leaked from a box in `new`. The slab and each piece own a share of this memory, and
        // what they lend does not outlive them, so that nobody refers to it any more.
        let raw = unsafe { Box::from_raw(self.start.as_ptr()) };
        self.home.give_back(raw);
    }
}

/// Memory being filled. Invariant: bytes before `filled` are initialised; pieces cover only bytes
/// before `handed`, and `handed <= filled <= capacity`.
pub struct Slab {
    memory: Arc<Memory>,
    capacity: usize,
    handed: usize,
    filled: usize,
}

impl Slab {
    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.capacity - self.filled
    }

    /// Bytes written but not handed out yet.
    pub fn pending(&self) -> usize {
        self.filled - self.handed
    }

    /// What was written but not handed out yet.
    pub(super) fn written(&self) -> &[u8] {
        let start = self.memory.at(self.handed);
        // SAFETY: `handed..filled` lies within the allocation and is initialised; to write takes the
        // slab mutably, and bytes before `filled` are never written again.
        unsafe { std::slice::from_raw_parts(start.cast(), self.pending()) }
    }

    /// Writes `bytes`, which must fit, behind what was written before.
    pub fn append(&mut self, bytes: &[u8]) {
        let spare = &mut self.spare()[..bytes.len()];
        spare.write_copy_of_slice(bytes);
        self.filled += bytes.len();
    }

    /// Lets `read` write the first bytes of what is left; answers how many.
    pub(super) fn fill<E>(
        &mut self,
        read: impl for<'a> FnOnce(&'a mut [MaybeUninit<u8>]) -> Result<&'a mut [u8], E>,
    ) -> Result<usize, E> {
        let spare = self.spare();
        let (start, room) = (spare.as_ptr().cast::<u8>(), spare.len());
        let written = read(spare)?;
        // Initialised, as its type says, and a part of the spare bytes: what follows rests on it.
        assert!(std::ptr::eq(written.as_ptr(), start) && written.len() <= room);
        let written = written.len();
        self.filled += written;
        Ok(written)
    }

    fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        let start = self.memory.at(self.filled);
        // SAFETY: within the allocation (`capacity` is at most its length); no piece covers bytes
        // from `filled` on, and no other slab has this memory.
        unsafe { std::slice::from_raw_parts_mut(start, self.room()) }
    }

    /// Hands out what was written since the last time.
    pub fn split(&mut self) -> Piece {
        let range = self.handed..self.filled;
        self.handed = self.filled;
        Piece {
            memory: self.memory.clone(),
            range,
        }
    }
}

/// A part of a slab that is complete. Cheap to clone.
#[derive(Clone)]
pub struct Piece {
    memory: Arc<Memory>,
    range: Range<usize>,
}

impl Piece {
    /// The bytes of `range` within this piece.
    pub fn slice(&self, range: Range<usize>) -> Piece {
        assert!(range.start <= range.end && range.end <= self.range.len());
        Piece {
            memory: self.memory.clone(),
            range: self.range.start + range.start..self.range.start + range.end,
        }
    }

    /// This piece and `next` as one, if `next` follows it in memory.
    pub(super) fn joined(self, next: &Piece) -> Option<Piece> {
        let adjacent =
            Arc::ptr_eq(&self.memory, &next.memory) && self.range.end == next.range.start;
        adjacent.then_some(Piece {
            range: self.range.start..next.range.end,
            memory: self.memory,
        })
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.memory.at(self.range.start);
        // SAFETY: within the allocation; bytes that a piece covers are initialised and no longer
        // written.
        unsafe { std::slice::from_raw_parts(start.cast(), self.range.len()) }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Piece> for Bytes {
    fn from(piece: Piece) -> Self {
        Bytes::from_owner(piece)
    }
}

impl From<&[u8]> for Piece {
    /// A copy.
    fn from(bytes: &[u8]) -> Self {
        let mut slab = Slabs::default().take(bytes.len());
        slab.append(bytes);
        slab.split()
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("capacity", &self.capacity)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Piece").field(&self.range).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_join_and_strangers_do_not() {
        let slabs = Slabs::default();
        let mut slab = slabs.take(10);
        slab.append(b"abc");
        let first = slab.split();
        slab.append(b"defg");
        let second = slab.split();
        assert_eq!(slab.room(), 3);
        let both = first.clone().joined(&second).unwrap();
        assert_eq!(&*both, b"abcdefg");
        assert_eq!(&*both.slice(2..4), b"cd");
        assert!(second.clone().joined(&first).is_none());
        assert!(first.joined(&Piece::from(&b"defg"[..])).is_none());
        assert_eq!(Bytes::from(second), &b"defg"[..]);
    }

    #[test]
    fn memory_is_used_again_only_when_nobody_reads_it() {
        let slabs = Slabs::default();
        let idle = || lock(&slabs.0).len();
        let mut slab = slabs.take(SLAB_SIZE as usize);
        slab.append(&[7; 100]);
        let piece = slab.split();
        drop(slab);
        assert_eq!(idle(), 0);
        let bytes = Bytes::from(piece.slice(10..20));
        drop(piece);
        assert_eq!((idle(), &*bytes), (0, &[7; 10][..]));
        drop(bytes);
        assert_eq!(idle(), 1);
        let again = slabs.take(SLAB_SIZE as usize - 1);
        assert_eq!((idle(), again.room()), (0, SLAB_SIZE as usize - 1));
        drop((again, slabs.take(100)));
        assert_eq!(idle(), 1);
        drop(
            (0..2 * MOST_IDLE)
                .map(|_| slabs.take(SLAB_SIZE as usize))
                .collect::<Vec<_>>(),
        );
        assert_eq!(idle(), MOST_IDLE);
    }

    #[test]
    fn pieces_are_read_while_the_rest_is_written() {
        let mut slab = Slabs::default().take(1 << 16);
        let (hand, taken) = std::sync::mpsc::channel::<Piece>();
        let reader = std::thread::spawn(move || {
            let sum = |piece: Piece| piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            taken.into_iter().map(sum).sum::<u64>()
        });
        while slab.room() > 0 {
            slab.append(&[1; 64]);
            hand.send(slab.split()).unwrap();
        }
        drop(hand);
        assert_eq!(reader.join().unwrap(), 1 << 16);
    }

    proptest! {
        /// However it is written and split, the pieces are what was written.
        #[test]
        fn pieces_hold_what_was_written(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..50), any::<bool>()), 0..40)
        ) {
            let all: Vec<u8> = steps.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            let mut slab = Slabs::default().take(all.len());
            let mut pieces = Vec::new();
            for (bytes, split) in &steps {
                let written = slab.fill(|spare| {
                    Ok::<_, ()>(spare[..bytes.len()].write_copy_of_slice(bytes))
                });
                prop_assert_eq!(written, Ok(bytes.len()));
                if *split {
                    pieces.push(slab.split());
                }
            }
            pieces.push(slab.split());
            prop_assert_eq!(slab.room(), 0);
            let pieced: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            prop_assert_eq!(&pieced, &all);
            let whole = pieces.into_iter().try_fold(None::<Piece>, |whole, next| match whole {
                None => Some(Some(next)),
                Some(whole) => whole.joined(&next).map(Some),
            });
            prop_assert_eq!(whole.flatten().unwrap().to_vec(), all);
        }
    }
}
