//! A block map that a sick disk, or somebody else, wrote.

use super::identity::Name;
use super::map::{self, ENTRY_LEN, HEADER_LEN};
use super::store::BLOCK_SIZE;
use crate::fuzzing::Input;

/// A header is believed only if it says again what it was read as; an entry only if it is the one
/// that would have been written.
pub fn block_map(data: &[u8]) {
    let mut input = Input(data);
    let (salt, block, entry) = (input.bytes(), input.number(), input.bytes::<ENTRY_LEN>());
    if let Some(crc) = map::decode_entry(salt, block, entry) {
        assert_eq!(map::encode_entry(salt, block, Some(crc)), entry);
        assert_ne!(entry, [0; ENTRY_LEN], "a hole is no entry");
    }
    let crc = u32::from_le_bytes(input.bytes());
    let written = map::encode_entry(salt, block, Some(crc));
    assert_eq!(map::decode_entry(salt, block, written), Some(crc));

    let mut page = [0; HEADER_LEN];
    let length = input.0.len().min(HEADER_LEN);
    page[..length].copy_from_slice(&input.0[..length]);
    assert_consistent(&page[..length]);
    assert_consistent(&page);
    // What checks and marks would keep out: a header of the right form with any content.
    page[..8].copy_from_slice(b"MBFSMAP\0");
    page[8..12].copy_from_slice(&map::FORMAT_VERSION.to_le_bytes());
    page[12..16].copy_from_slice(&(BLOCK_SIZE as u32).to_le_bytes());
    let sum = crc32c::crc32c(&page[..HEADER_LEN - 4]);
    page[HEADER_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
    assert_consistent(&page);

    let name = String::from_utf8_lossy(data);
    if let Some(parsed) = Name::parse(&name) {
        assert_eq!(parsed.to_string(), name);
    }
}

fn assert_consistent(page: &[u8]) {
    if let Some(identity) = map::decode_header(page) {
        let again = map::decode_header(&map::encode_header(&identity));
        assert_eq!(again.as_ref(), Some(&identity));
        assert_eq!(
            Name::parse(&identity.name().to_string()),
            Some(identity.name())
        );
    }
}
