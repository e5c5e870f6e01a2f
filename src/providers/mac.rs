//! HMAC-SHA256, which every newer signature of a cloud ends in. Pure.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The code of `text` by `key`.
pub(super) fn hmac_sha256(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
