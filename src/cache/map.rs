//! The block map on disk: a header page, then eight bytes per block. Pure.
//!
//! ```text
//! 0     magic "MBFSMAP\0"            56    SHA-256 of the validator
//! 8     format version, u32          88    length of the label, u32
//! 12    block size, u32              92    label, UTF-8, zero padded
//! 16    file size, u64               4092  CRC32C of bytes 0..4092, u32
//! 24    SHA-256 of the key           4096  one entry per block
//! ```
//!
//! Numbers are little-endian. An entry is the block's CRC32C and a check over (salt of the map,
//! block, CRC): a torn write, a flipped bit, an entry in the wrong place or of another map is not
//! an entry, and its block simply absent. Any change of the format needs a new
//! [`FORMAT_VERSION`] and thereby a new directory.

use super::identity::Identity;
use super::store::BLOCK_SIZE;

/// Version of the format of maps and data files, and of the directory that holds them.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Bytes before the first entry.
pub(super) const HEADER_LEN: usize = 4096;

/// Bytes per block.
pub(super) const ENTRY_LEN: usize = 8;

const MAGIC: [u8; 8] = *b"MBFSMAP\0";
const LABEL_AT: usize = 92;
const CRC_AT: usize = HEADER_LEN - 4;

/// The header page for `identity`; a label too long is cut.
pub(super) fn encode_header(identity: &Identity) -> [u8; HEADER_LEN] {
    let label = &identity.label[..identity.label.floor_char_boundary(CRC_AT - LABEL_AT)];
    let mut page = [0; HEADER_LEN];
    page[..8].copy_from_slice(&MAGIC);
    page[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    page[12..16].copy_from_slice(&(BLOCK_SIZE as u32).to_le_bytes());
    page[16..24].copy_from_slice(&identity.size.to_le_bytes());
    page[24..56].copy_from_slice(&identity.key);
    page[56..88].copy_from_slice(&identity.validator);
    page[88..92].copy_from_slice(&(label.len() as u32).to_le_bytes());
    page[LABEL_AT..LABEL_AT + label.len()].copy_from_slice(label.as_bytes());
    let crc = crc32c::crc32c(&page[..CRC_AT]);
    page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    page
}

/// What the header page says; `None` if it is damaged or of another format.
pub(super) fn decode_header(page: &[u8]) -> Option<Identity> {
    let page: &[u8; HEADER_LEN] = page.try_into().ok()?;
    let crc = u32::from_le_bytes(field(page, CRC_AT));
    let genuine = page[..8] == MAGIC
        && u32::from_le_bytes(field(page, 8)) == FORMAT_VERSION
        && u64::from(u32::from_le_bytes(field(page, 12))) == BLOCK_SIZE
        && crc32c::crc32c(&page[..CRC_AT]) == crc;
    if !genuine {
        return None;
    }
    let label_len = u32::from_le_bytes(field(page, 88)) as usize;
    let label = page[LABEL_AT..CRC_AT].get(..label_len)?;
    Some(Identity {
        is_dear: false,
        size: u64::from_le_bytes(field(page, 16)),
        key: field(page, 24),
        validator: field(page, 56),
        label: String::from_utf8(label.to_vec()).ok()?,
    })
}

fn field<const N: usize>(page: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&page[at..at + N]);
    field
}

/// Where the entry of `block` lies in the map file.
pub(super) fn entry_offset(block: u64) -> u64 {
    HEADER_LEN as u64 + block * ENTRY_LEN as u64
}

/// The entry of `block`; absent is all zeros.
pub(super) fn encode_entry(salt: [u8; 8], block: u64, crc: Option<u32>) -> [u8; ENTRY_LEN] {
    let mut entry = [0; ENTRY_LEN];
    if let Some(crc) = crc {
        entry[..4].copy_from_slice(&crc.to_le_bytes());
        entry[4..].copy_from_slice(&check(salt, block, crc).to_le_bytes());
    }
    entry
}

/// The CRC32C of `block` if the entry says that it is present.
pub(super) fn decode_entry(salt: [u8; 8], block: u64, entry: [u8; ENTRY_LEN]) -> Option<u32> {
    let [a, b, c, d, check_bytes @ ..] = entry;
    let crc = u32::from_le_bytes([a, b, c, d]);
    (check(salt, block, crc) == u32::from_le_bytes(check_bytes)).then_some(crc)
}

/// Never zero, so that a hole in the map is never an entry.
fn check(salt: [u8; 8], block: u64, crc: u32) -> u32 {
    let state = crc32c::crc32c(&salt);
    let state = crc32c::crc32c_append(state, &block.to_le_bytes());
    crc32c::crc32c_append(state, &crc.to_le_bytes()).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::identity::tests::{key, version};
    use super::*;

    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    fn identity() -> Identity {
        Identity::of(&key("shard-00.tar.gz"), &version("\"abc\"", 300_000))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// If this fails the format has changed: old caches would be misread. Raise `FORMAT_VERSION`.
    #[test]
    fn the_format_is_pinned() {
        let page = encode_header(&identity());
        assert_eq!(
            hex(&page[..92]),
            concat!(
                "4d4246534d415000",
                "01000000",
                "00000200",
                "e093040000000000",
                "c3eeebe1d4970eccce2f6b55a1a23439b9d746ec27c02a0adb13839444ce0460",
                "b8bbb709689ac3ddc04b9ccc91dc8f9d15026b97cdd426f20567a58c0ce9326d",
                "31000000",
            )
        );
        assert_eq!(
            &page[92..141],
            b"atlas-prod/cluster0/5f1a/shard-00/shard-00.tar.gz"
        );
        assert_eq!(
            hex(&Sha256::digest(page)),
            "444e70797e963d254c9f6253ebe013b1b242da27ff9c79f2c4fece4e1ae7326a"
        );
        assert_eq!(
            identity().name().to_string(),
            "36ed9b5a945e9699df566f713d7745294fc2f21522c0b2221060331efe758c12"
        );
        let salt = *b"saltsalt";
        assert_eq!(
            hex(&encode_entry(salt, 7, Some(0xdead_beef))),
            "efbeadde2a2b891a"
        );
        assert_eq!(encode_entry(salt, 7, None), [0; 8]);
        assert_eq!(entry_offset(0), 4096);
        assert_eq!(entry_offset(1000), 12096);
    }

    #[test]
    fn the_header_round_trips() {
        assert_eq!(decode_header(&encode_header(&identity())), Some(identity()));
        let mut long = identity();
        long.label = "é".repeat(5000);
        let read = decode_header(&encode_header(&long)).unwrap();
        assert_eq!(read.label, "é".repeat(2000));
    }

    #[test]
    fn case_42_every_flipped_bit_of_the_header_is_noticed() {
        let page = encode_header(&identity());
        for byte in 0..HEADER_LEN {
            for bit in 0..8 {
                let mut damaged = page;
                damaged[byte] ^= 1 << bit;
                assert_eq!(decode_header(&damaged), None, "byte {byte} bit {bit}");
            }
        }
        for len in [0, 1, 91, HEADER_LEN - 1] {
            assert_eq!(decode_header(&page[..len]), None);
        }
    }

    #[test]
    fn a_hole_is_no_entry() {
        for block in 0..10_000 {
            assert_eq!(decode_entry(*b"saltsalt", block, [0; 8]), None);
        }
    }

    proptest! {
        #[test]
        fn entries_round_trip_and_notice_damage(
            salt: [u8; 8], block: u64, elsewhere in 1u32.., crc: u32, bit in 0usize..64,
        ) {
            let entry = encode_entry(salt, block, Some(crc));
            prop_assert_eq!(decode_entry(salt, block, entry), Some(crc));
            let mut damaged = entry;
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode_entry(salt, block, damaged), None);
            prop_assert_eq!(decode_entry(salt, block ^ u64::from(elsewhere), entry), None);
            let mut torn = entry;
            torn[4..].fill(0);
            prop_assert_eq!(decode_entry(salt, block, torn), None);
        }
    }
}
