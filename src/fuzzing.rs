//! What fuzzers run: one function per target, each with invariants and not only "does not panic".
//!
//! [`TARGETS`] lists them: `fuzz/fuzz_targets` has a file for each, `fuzz/corpus` a directory of
//! inputs worth keeping. A target stands beside what it looks into, in the `fuzzing` module of its
//! room; here is what they share. Compiled for fuzzers and tests only, and the tests run every kept
//! input, so that what a fuzzer once found stays mended.

use jiff::Timestamp;

pub use crate::cache::fuzzing::block_map;
pub use crate::config::fuzzing::{config, mount_options};
pub use crate::fetch::fuzzing::{content_range, redirects, retry_after};
pub use crate::names::fuzzing::names;
pub use crate::providers::aliyun::fuzzing::aliyun;
pub use crate::providers::atlas::fuzzing::atlas;
pub use crate::providers::bucket::fuzzing::pbm;
pub use crate::providers::fuzzing::{links, refusals};
pub use crate::providers::objects::fuzzing::listings;
pub use crate::providers::tencent::fuzzing::tencent;
pub use crate::providers::ucloud::fuzzing::ucloud;
pub use crate::tasks::ledger::fuzzing::ledger;

/// A target: it panics if an invariant does not hold for its input.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("aliyun", aliyun),
    ("atlas", atlas),
    ("block_map", block_map),
    ("config", config),
    ("content_range", content_range),
    ("ledger", ledger),
    ("links", links),
    ("listings", listings),
    ("mount_options", mount_options),
    ("names", names),
    ("pbm", pbm),
    ("redirects", redirects),
    ("refusals", refusals),
    ("retry_after", retry_after),
    ("tencent", tencent),
    ("ucloud", ucloud),
];

/// The time at which everything happens.
pub(crate) const NOW: Timestamp = Timestamp::constant(1_760_000_000, 0);

/// An input taken apart from its beginning; what is used up reads as zeros and empty texts.
#[derive(Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// The next `N` bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    /// A number of eight bytes.
    pub(crate) fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// Whether the next byte is odd.
    pub(crate) fn choice(&mut self) -> bool {
        self.bytes::<1>()[0] % 2 == 1
    }

    /// Text up to the next line break.
    pub(crate) fn line(&mut self) -> String {
        let end = self.0.iter().position(|&byte| byte == b'\n');
        let (line, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest.get(1..).unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }

    /// A line, or nothing.
    pub(crate) fn optional_line(&mut self) -> Option<String> {
        self.choice().then(|| self.line())
    }
}

/// That `text` may stand on one line of a log or a terminal.
pub(crate) fn assert_one_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn fuzz() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
    }

    fn names_in(directory: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn every_kept_input_holds() {
        for (name, target) in TARGETS {
            let directory = fuzz().join("corpus").join(name);
            let inputs = names_in(&directory);
            assert!(inputs.len() > 1, "{name} has no inputs");
            for input in inputs {
                eprintln!("{name}/{input}");
                target(&fs::read(directory.join(input)).unwrap());
            }
            target(b"");
        }
    }

    #[test]
    fn targets_programs_and_inputs_are_the_same() {
        let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
        let programs = names_in(&fuzz().join("fuzz_targets"));
        let programs: BTreeSet<String> = programs
            .iter()
            .map(|program| program.trim_end_matches(".rs").to_owned())
            .collect();
        assert_eq!(programs, names);
        assert_eq!(names_in(&fuzz().join("corpus")), names);
        let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
        for name in names {
            assert!(manifest.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
