//! Keeps the house in order: imports point one way, dangerous things stay in their rooms, files
//! stay short; every case of `tests/README.md` has its tests, what the documents name and explain is
//! the program's, and what the packages are made of agrees. The checks read the source text; those
//! of the code are themselves tested on planted violations.

#[path = "architecture/cases.rs"]
mod cases;
#[path = "architecture/documents.rs"]
mod documents;
#[path = "architecture/errors.rs"]
mod errors;
#[path = "architecture/packages.rs"]
mod packages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The rooms, lowest first. A room may import those of lower layers, never its own neighbours.
const LAYERS: &[&[&str]] = &[
    &["clock", "error", "names", "planted", "secret", "sync"],
    &["config", "directory", "model", "observe"],
    &["cache", "providers"],
    &["links"],
    &["fetch"],
    &["reader", "tasks", "tree"],
    &["fs"],
    &["fuse"],
    &["mount"],
    &["copy", "doctor"],
    &["cli"],
];

/// The simulated clouds stand beside the house: they know nouns only, and nobody knows them.
const SIM: &str = "sim";
const SIM_MAY_IMPORT: &[&str] = &["clock", "error", "model", "names", "secret"];

/// What may be mentioned only in some places: everywhere else it is a parameter or a detail.
const CONFINED: &[(&str, &[&str])] = &[
    ("crate::sim", &["cli/demo", "sim/"]),
    ("fuser::", &["fuse/"]),
    ("reqwest::", &["fetch/", "providers/"]),
    ("rusqlite::", &["tasks/ledger/"]),
    ("axum::", &["observe/metrics.rs", "sim/"]),
    ("clap::", &["cli/", "config/settings.rs", "observe/logs.rs"]),
    // `mount` looks for fusermount3 on the PATH and hands it nothing else.
    // Only builds for `scripts/planted-bugs` have what `planted` reads.
    ("std::env", &["cli/", "mount/", "planted.rs"]),
    ("std::{env", &[]),
    ("SystemTime::now", &["clock.rs"]),
    ("Timestamp::now", &["clock.rs", "sim/"]),
    ("Zoned::now", &[]),
    // Back-off jitter, digest nonces, the name of a ledger's owner, simulated content.
    (
        "getrandom::",
        &["fetch/", "providers/", "tasks/ledger/", "sim/"],
    ),
    ("rand::", &[]),
    // Only who asks a mount twice to end does not wait for its orderly end.
    ("process::exit", &["mount/"]),
];

/// Most lines of code in a file: tests, comments and blank lines are not counted.
const LONGEST: usize = 400;

/// A source file: its path below `src/` and its text without tests, comments and blank lines.
struct File {
    path: String,
    code: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        File {
            path: path.to_owned(),
            code: without_comments(&without_test_modules(text)),
        }
    }

    /// The top-level module it belongs to.
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules deep it is: 1 for `names.rs` and `tree/mod.rs`, 2 for `tree/walk.rs`.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") {
            parts - 1
        } else {
            parts
        }
    }

    fn is_below(&self, place: &str) -> bool {
        match place.strip_suffix('/') {
            Some(room) => self.room() == room || self.path.starts_with(place),
            None => self.path.starts_with(place),
        }
    }
}

/// `text` without its test modules, be they inline or only declared.
fn without_test_modules(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let opens = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        let declares = |next: &&str| next.contains("mod ") && next.ends_with(';');
        if NOT_BUILT.contains(&line) && lines.peek().is_some_and(declares) {
            lines.next();
        } else if line == "#[cfg(test)]" && lines.peek().is_some_and(opens) {
            // Formatted code: the module ends with the first brace in the first column.
            for inside in lines.by_ref() {
                if inside == "}" {
                    break;
                }
            }
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// `text` without the lines that are blank or only a comment.
fn without_comments(text: &str) -> String {
    let code = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"));
    code.map(|line| format!("{line}\n")).collect()
}

/// What stands before a module that is not part of the program.
const NOT_BUILT: [&str; 2] = ["#[cfg(test)]", "#[cfg(any(test, fuzzing))]"];

/// Modules that `text` declares for tests and fuzzers only: `#[cfg(test)] mod fake;`.
fn test_modules(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let declared = lines
        .windows(2)
        .filter(|pair| NOT_BUILT.contains(&pair[0]))
        .filter_map(|pair| {
            let (_, name) = pair[1].split_once("mod ")?;
            name.strip_suffix(';').map(str::to_owned)
        });
    declared.collect()
}

/// The rooms that `code` names as `crate::room` or in `crate::{room, …}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => found.extend(first_word(rest)),
            Some(group) => found.extend(group_members(group)),
        }
    }
    found
}

/// The first word of each member of a `{…}` group that `text` begins in.
fn group_members(text: &str) -> Vec<String> {
    let mut members = Vec::new();
    let (mut depth, mut fresh) = (0, true);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                members.extend(first_word(&text[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    members
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|&c| is_word(c)).collect();
    (!word.is_empty()).then_some(word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

fn may_import(from: &str, to: &str) -> bool {
    if from == to {
        return true;
    }
    if from == SIM {
        return SIM_MAY_IMPORT.contains(&to);
    }
    match (layer(from), layer(to)) {
        (Some(from), Some(to)) => to < from,
        // Who may import `sim` is told by `CONFINED`.
        (Some(_), None) => to == SIM,
        (None, _) => false,
    }
}

fn violations(file: &File) -> Vec<String> {
    let File { path, code } = file;
    let mut found = Vec::new();
    if !matches!(path.as_str(), "lib.rs" | "main.rs") {
        let room = file.room();
        for other in imports(code) {
            if !may_import(room, &other) {
                found.push(format!("{path}: `{room}` must not import `{other}`"));
            }
        }
        if code.contains(&"super::".repeat(file.depth())) {
            found.push(format!(
                "{path}: reach other rooms by `crate::`, not by `super::`"
            ));
        }
    }
    for (name, places) in CONFINED {
        let mentioned = code
            .match_indices(name)
            .any(|(at, _)| !code[..at].ends_with(is_word));
        if mentioned && !places.iter().any(|place| file.is_below(place)) {
            found.push(format!("{path}: `{name}` does not belong here"));
        }
    }
    let lines = code.lines().count();
    if lines > LONGEST {
        found.push(format!(
            "{path}: {lines} lines of code, more than {LONGEST}; split it by reason"
        ));
    }
    found
}

/// A file of the project.
fn published(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The text of each source file below `directory`, a directory of the project, by its path below
/// that.
fn texts(directory: &str) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut texts = BTreeMap::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let below = path.strip_prefix(&root).unwrap().to_str().unwrap();
                texts.insert(below.to_owned(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    texts
}

/// All files below `src/` but those for tests only, by their path below it.
fn sources() -> Vec<File> {
    let texts = texts("src");
    let mut for_tests = Vec::new();
    for (path, text) in &texts {
        let stem = path.strip_suffix(".rs").unwrap();
        let parent = match stem.strip_suffix("/mod") {
            Some(directory) => format!("{directory}/"),
            None if matches!(stem, "lib" | "main") => String::new(),
            None => format!("{stem}/"),
        };
        for module in test_modules(text) {
            for_tests.push(format!("{parent}{module}.rs"));
            for_tests.push(format!("{parent}{module}/"));
        }
    }
    let kept = texts.iter().filter(|(path, _)| {
        !for_tests.iter().any(|place| match place.ends_with('/') {
            true => path.starts_with(place),
            false => *path == place,
        })
    });
    kept.map(|(path, text)| File::new(path, text)).collect()
}

#[test]
fn the_house_is_in_order() {
    let files = sources();
    assert!(files.len() > 20, "the sources were not found");
    let found: Vec<String> = files.iter().flat_map(violations).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_room_has_its_place() {
    let rooms: BTreeSet<String> = sources()
        .iter()
        .map(|file| file.room().to_owned())
        .filter(|room| !matches!(room.as_str(), "lib" | "main"))
        .collect();
    let placed: BTreeSet<String> = LAYERS
        .iter()
        .copied()
        .flatten()
        .copied()
        .chain([SIM])
        .map(str::to_owned)
        .collect();
    assert_eq!(rooms, placed);
}

/// What is found wrong with `text` at `path`.
fn planted(path: &str, text: &str) -> Vec<String> {
    violations(&File::new(path, text))
}

#[test]
fn a_planted_import_is_found() {
    for (path, text, wrong) in [
        ("model.rs", "use crate::tree::Tree;", "`tree`"),
        ("tree/walk.rs", "fn f() { crate::fs::x() }", "`fs`"),
        ("tree/walk.rs", "use crate::tasks::Engine;", "`tasks`"),
        (
            "fetch/part.rs",
            "use crate::{error::{Error, Kind}, reader};",
            "`reader`",
        ),
        (
            "providers/atlas/mod.rs",
            "use crate::{\n    error::Result,\n    links::Links,\n};",
            "`links`",
        ),
        (
            "sim/store.rs",
            "use crate::providers::Provider;",
            "`providers`",
        ),
        ("names.rs", "use super::tree::Tree;", "`super::`"),
        ("tree/mod.rs", "use super::fs::Fs;", "`super::`"),
        ("tree/walk.rs", "use super::super::fs::Fs;", "`super::`"),
        ("new.rs", "use crate::error::Error;", "`new`"),
    ] {
        let found = planted(path, text);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
        assert!(found[0].contains(wrong), "{found:?}");
    }
}

#[test]
fn a_planted_mention_is_found() {
    for (path, text) in [
        ("fs/mod.rs", "use fuser::Errno;"),
        ("reader/mod.rs", "let client = reqwest::Client::new();"),
        ("links.rs", "let home = std::env::var(\"HOME\");"),
        ("links.rs", "use std::env;\nlet home = env::var(\"HOME\");"),
        ("links.rs", "use std::{env, fs};"),
        ("tasks/lifecycle.rs", "let now = Timestamp::now();"),
        ("names.rs", "let now = std::time::SystemTime::now();"),
        ("reader/window.rs", "let dice = getrandom::u32();"),
        ("cli/ls.rs", "use crate::sim::Sim;"),
        ("tree/mod.rs", "use rusqlite::Connection;"),
        ("fs/mod.rs", "std::process::exit(1);"),
    ] {
        assert_eq!(planted(path, text).len(), 1, "{path}: {text}");
    }
}

#[test]
fn a_planted_length_is_found() {
    let long = "let line = 1;\n// with a comment\n\n".repeat(LONGEST);
    assert_eq!(planted("names.rs", &long), Vec::<String>::new());
    assert_eq!(planted("names.rs", &format!("{long}x();\n")).len(), 1);
    let tests = format!("{long}#[cfg(test)]\nmod tests {{\n    x\n}}\n");
    assert_eq!(planted("names.rs", &tests), Vec::<String>::new());
}

#[test]
fn what_is_allowed_is_not_found() {
    for (path, text) in [
        ("fuse/adapter.rs", "use crate::fs::Fs;\nuse fuser::Errno;"),
        (
            "tree/walk.rs",
            "use super::Tree;\nuse crate::providers::Provider;",
        ),
        (
            "error.rs",
            "//! See [`crate::secret::SafeUrl`] and [`crate::fs`].\n",
        ),
        (
            "error.rs",
            "#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::fs::Fs;\n}\n",
        ),
        ("cli/demo.rs", "use crate::sim::Sim;"),
        ("cli/demo/check.rs", "use crate::sim::Sim;"),
        ("clock.rs", "Timestamp::now()"),
        ("tasks/policy.rs", "fn operand::x() {}"),
    ] {
        assert_eq!(planted(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn test_only_files_are_known_by_their_declaration() {
    let text = "#[cfg(test)]\npub(crate) mod fake;\nmod inodes;\n#[cfg(test)]\nmod tests {\n}\n";
    assert_eq!(test_modules(text), ["fake"]);
}
