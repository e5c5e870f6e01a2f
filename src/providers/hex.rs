//! Bytes as lower-case hex, the form in which clouds write digests and signatures. Pure.

/// `bytes` in lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
