//! The canary of all tests that run the program over simulated clouds: nothing that these told in
//! confidence (keys, tokens, nonces, what proves a link) may be in anything that the program prints,
//! shows or leaves behind.
//!
//! One exception is part of the design: the link of a task whose artifact ends with it is asked for
//! once and must outlive the process, so that the ledger, which only its owner can read, keeps it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mongo_backupfs::sim::Secrets;

/// How every store calls the proof in its links: `q-signature`, `x-oss-signature`, `Signature` …
const MARK: &str = "signature=";

/// Files that the exception is about.
const LEDGER: &str = "ledger.sqlite3*";

/// Holds for everything below `places`, files or directories, that is there. What artifacts hold is
/// not looked at. `ledger_keeps_links` is the exception.
#[track_caller]
pub fn assert_kept(secrets: &Secrets, places: &[PathBuf], ledger_keeps_links: bool) {
    let places: Vec<&PathBuf> = places.iter().filter(|place| place.exists()).collect();
    let links: Vec<String> = secrets.proofs().into_iter().chain([MARK.into()]).collect();
    let found = match ledger_keeps_links {
        true => {
            places.iter().for_each(|place| assert_private(place));
            let exclude = format!("--exclude={LEDGER}");
            found(&secrets.credentials(), &places, &[]) + &found(&links, &places, &[&exclude])
        }
        false => found(&[secrets.credentials(), links].concat(), &places, &[]),
    };
    assert!(found.is_empty(), "secrets were left behind:\n{found}");
}

#[test]
fn case_56_the_canary_sings() {
    let secrets = Secrets::default();
    secrets.add("c4+ary/key=");
    let dir = tempfile::tempdir().unwrap();
    let singing = |ledger_keeps_links: bool| {
        let places = [dir.path().to_owned()];
        let search = || assert_kept(&secrets, &places, ledger_keeps_links);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(search)).is_err()
    };
    let plant = |path: &str, content: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    plant("v1/ab/1.data", "c4+ary/key= of an artifact");
    plant("mount.log", "nothing");
    assert!(!singing(false) && !singing(true));
    for (path, content) in [
        ("mount.log", "INFO the key is c4+ary/key=."),
        ("mount.log", "GET https://host/?k=c4%2Bary%2Fkey%3D"),
        ("v1/ab/1.map", "\0\0C4+ARY/KEY=\0"),
        ("state/ledger.sqlite3-wal", "\0c4+ary/key="),
        ("cache/https:?Signature=x", ""),
    ] {
        let path = plant(path, content);
        assert!(singing(false) && singing(true), "{}", path.display());
        fs::remove_file(path).unwrap();
    }
    // The exception: what is called a link there, in a file that is its owner's alone.
    let ledger = plant("ledger.sqlite3", "https://host/?Signature=abc");
    assert!(singing(false) && !singing(true));
    fs::set_permissions(&ledger, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(singing(true));
}

/// Where any of `words`, as it is or escaped for an address, is in content or name of a file.
fn found(words: &[String], places: &[&PathBuf], options: &[&str]) -> String {
    let escaped = words
        .iter()
        .map(|word| url::form_urlencoded::byte_serialize(word.as_bytes()).collect());
    let mut patterns: Vec<String> = words.iter().cloned().chain(escaped).collect();
    patterns.dedup();
    let mut names = String::new();
    places.iter().for_each(|place| list(place, &mut names));
    let names = names.to_lowercase();
    let inside = patterns
        .iter()
        .filter(|pattern| names.contains(&pattern.to_lowercase()));
    let named: String = inside.map(|word| format!("name: {word}\n")).collect();
    if places.is_empty() {
        return named;
    }
    let mut grep = Command::new("grep")
        .args(["-r", "-a", "-i", "-F", "-o", "-H", "-D", "skip", "-f", "-"])
        .arg("--exclude=*.data")
        .args(options)
        .arg("--")
        .args(places)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("grep is installed");
    let mut input = grep.stdin.take().expect("piped");
    input.write_all(patterns.join("\n").as_bytes()).unwrap();
    drop(input);
    let output = grep.wait_with_output().unwrap();
    let content = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(if content.is_empty() { 1 } else { 0 }),
        "grep could not look everywhere"
    );
    named + &content
}

/// Adds all paths below `place`, a line each.
fn list(place: &Path, names: &mut String) {
    *names += &format!("{}\n", place.display());
    if place.is_dir() && !place.is_symlink() {
        for entry in fs::read_dir(place).unwrap() {
            list(&entry.unwrap().path(), names);
        }
    }
}

/// Files of the ledger at or below `place` are their owner's alone.
fn assert_private(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy();
        if name.starts_with(LEDGER.trim_end_matches('*')) {
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
    }
}
