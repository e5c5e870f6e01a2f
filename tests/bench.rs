//! `scripts/bench` runs: every kind of row, once and small, on the binary under test. What it
//! measures is not looked at.

use std::path::Path;
use std::process::{Command, Stdio};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;

const ROWS: [&str; 6] = [
    "cold",
    "cold-20",
    "warm",
    "first-byte",
    "random-4k",
    "eight",
];

#[test]
fn the_measurements_can_be_made() {
    let examples = ["simulated-clouds", "shaping-proxy", "ranged-download"];
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked"])
        .args(examples.map(|example| format!("--example={example}")))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "{built}");

    let binary = cargo_bin("mongo-backupfs");
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("bench.json");
    let run = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bench"))
        .args(["--rounds=1", "--size=8", "--peers=bare download"])
        .arg(format!("--rows={}", ROWS.join(",")))
        .arg("--binary")
        .arg(&binary)
        .arg("--examples")
        .arg(binary.with_file_name("examples"))
        .arg("--dir")
        .arg(dir.path())
        .arg("--json")
        .arg(&json)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    // 1: a goal was missed, as may be; 2: something failed or was wrong.
    assert!(matches!(run.status.code(), Some(0 | 1)), "{said}");

    let document: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    for row in ROWS {
        let ours = &document["rows"][row]["samples"]["mongo-backupfs"];
        let value = ours[0]["value"].as_f64();
        assert!(value.is_some_and(|value| value > 0.0), "{row}: {said}");
        assert!(said.contains(document["rows"][row]["title"].as_str().unwrap()));
    }
    // Nothing is left: no mount, no file of ours but the report.
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
