//! Which files hold an artifact version: remote text never becomes a local name.
//!
//! The name is a SHA-256 over everything that tells one version from another, each part preceded by
//! its length so that no two different keys give the same text. Pure.

use std::fmt::{self, Write};

use sha2::{Digest, Sha256};

use crate::model::{ArtifactKey, Validator};

/// The size of an artifact whose length is not known yet: more than any file on a common filesystem
/// has.
pub const UNSEALED: u64 = 1 << 44;

/// The local name of one artifact version: 64 hexadecimal digits on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name([u8; 32]);

impl Name {
    /// The name that `text` spells, if it is one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = lower_hex(pair[0])? << 4 | lower_hex(pair[1])?;
        }
        Some(Name(bytes))
    }

    /// The sub-directory it lives in: its first two digits.
    pub(super) fn shelf(&self) -> String {
        format!("{:02x}", self.0[0])
    }
}

fn lower_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a block map says it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Hash of the artifact's key.
    pub(super) key: [u8; 32],
    /// Hash of the validator.
    pub(super) validator: [u8; 32],
    /// The file's size in bytes.
    pub(super) size: u64,
    /// Whether its bytes cost a new download task when they are gone. Not part of a map.
    pub(super) is_dear: bool,
    /// For people: provider, instance, backup, shard and file.
    pub(super) label: String,
}

impl Identity {
    /// The identity of `key` at the version `validator`.
    pub(super) fn of(key: &ArtifactKey, validator: &Validator) -> Self {
        let task = &key.task;
        let parts = [
            &task.provider,
            &task.instance,
            &task.backup,
            &task.shard,
            &key.file,
        ];
        let mut label = String::new();
        for part in parts {
            let separator = if label.is_empty() { "" } else { "/" };
            let _ = write!(label, "{separator}{part}");
        }
        let size = validator.size.to_string();
        let version = [
            validator.etag.as_deref(),
            validator.last_modified.as_deref(),
            Some(size.as_str()),
        ];
        let download = validator.download.as_deref().map(Some);
        let version: Vec<Option<&str>> = version.into_iter().chain(download).collect();
        Identity {
            key: digest("key", &parts.map(|part| Some(part.as_str()))),
            validator: digest("validator", &version),
            size: validator.size,
            is_dear: validator.download.is_some(),
            label,
        }
    }

    /// Whether its size is not known yet.
    pub(super) fn is_unsealed(&self) -> bool {
        self.size == UNSEALED
    }

    /// The local name.
    pub(super) fn name(&self) -> Name {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(self.validator);
        Name(hash.finalize().into())
    }

    /// Distinguishes the entries of this map from those of every other.
    pub(super) fn salt(&self) -> [u8; 8] {
        let Name(name) = self.name();
        let mut salt = [0; 8];
        salt.copy_from_slice(&name[..8]);
        salt
    }
}

/// Hash of `parts` in this order; an absent part differs from an empty one.
fn digest(purpose: &str, parts: &[Option<&str>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(&Some(purpose)).chain(parts) {
        match part {
            None => hash.update([0]),
            Some(text) => {
                hash.update([1]);
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            }
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    use std::collections::HashSet;

    use crate::model::TaskKey;

    pub(in crate::cache) fn key(file: &str) -> ArtifactKey {
        ArtifactKey {
            task: TaskKey {
                provider: "atlas-prod".into(),
                instance: "cluster0".into(),
                backup: "5f1a".into(),
                shard: "shard-00".into(),
            },
            file: file.into(),
        }
    }

    pub(in crate::cache) fn version(etag: &str, size: u64) -> Validator {
        Validator {
            etag: Some(etag.into()),
            last_modified: None,
            size,
            download: None,
        }
    }

    #[test]
    fn every_part_makes_another_name() {
        let base = Identity::of(&key("a.tar"), &version("\"1\"", 10)).name();
        let mut names = HashSet::from([base]);
        let mut other = key("a.tar");
        other.task.provider = "atlas-pro".into();
        other.task.instance = "dcluster0".into();
        assert!(names.insert(Identity::of(&other, &version("\"1\"", 10)).name()));
        for validator in [
            version("\"2\"", 10),
            version("\"1\"", 11),
            version("", 10),
            Validator {
                etag: None,
                last_modified: None,
                size: 10,
                download: None,
            },
            Validator {
                etag: None,
                last_modified: Some("\"1\"".into()),
                size: 10,
                download: None,
            },
        ] {
            assert!(names.insert(Identity::of(&key("a.tar"), &validator).name()));
        }
        assert_eq!(
            base,
            Identity::of(&key("a.tar"), &version("\"1\"", 10)).name()
        );
    }

    #[test]
    fn hostile_text_becomes_digits() {
        let hostile = key("../../etc/\0\n\u{202e}passwd");
        let identity = Identity::of(&hostile, &version("/", 1));
        let name = identity.name().to_string();
        assert_eq!(name.len(), 64);
        assert!(name.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(Name::parse(&name), Some(identity.name()));
        assert!(name.starts_with(&identity.name().shelf()));
    }

    #[test]
    fn only_names_of_ours_parse() {
        let good = "0123456789abcdef".repeat(4);
        assert!(Name::parse(&good).is_some());
        for bad in [
            "",
            "ab",
            &good.to_uppercase(),
            &good[1..],
            &format!("{good}0"),
        ] {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
    }
}
