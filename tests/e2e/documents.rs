//! What the program shows agrees with what is published about it: the JSON Schema of its status
//! documents, the list of its metrics, the dashboard and the alert rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mongo_backupfs::sim::Content;
use serde_json::{Value, json};

use crate::world::{World, sh};

/// A file of the repository.
fn published(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Asserts that status.json and tasks.json of a mount are what docs/status.schema.json says, with no
/// member that it does not name.
pub fn assert_status_documents(mountpoint: &Path, status: &[u8], tasks: &[u8]) {
    let document = |text| -> Value { serde_json::from_slice(text).unwrap() };
    assert_status(&json!({ "mounts": [{
        "mountpoint": mountpoint,
        "status": document(status),
        "tasks": document(tasks),
    }]}));
}

/// The same of what `status --json` printed.
pub fn assert_status(answer: &Value) {
    let problems = problems(answer);
    assert!(problems.is_empty(), "{problems:#?}\n{answer:#}");
}

/// What the schema has against a document.
fn problems(answer: &Value) -> Vec<String> {
    let mut schema: Value = serde_json::from_str(&published("docs/status.schema.json")).unwrap();
    close(&mut schema);
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    let errors = validator.iter_errors(answer);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

/// The published schema lets later versions add members; of this version none may be missing.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            if members.contains_key("properties") {
                members.insert("additionalProperties".into(), false.into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// A row of the table in docs/metrics.md, or a metric of the exposition.
type Metric = (String, String, String, String);

/// What `.backupfs/metrics` serves: name, type, label and help of each metric.
fn served(text: &str) -> BTreeSet<Metric> {
    let mut metrics = BTreeSet::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line
            .strip_prefix("# HELP ")
            .unwrap()
            .split_once(' ')
            .unwrap();
        let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
        let kind = kind.strip_prefix(name).unwrap().trim();
        let mut label = "";
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let rest = sample.strip_prefix(name).unwrap();
            label = rest
                .strip_prefix('{')
                .map_or("", |labels| labels.split_once('=').unwrap().0);
        }
        metrics.insert((name.into(), kind.into(), label.into(), help.into()));
    }
    metrics
}

fn documented() -> BTreeSet<Metric> {
    published("docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `mongo_backupfs_"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, name, kind, label, meaning, _] = cells[..] else {
                panic!("{line}");
            };
            let bare = |cell: &str| cell.trim_matches('`').to_owned();
            (bare(name), kind.into(), bare(label), meaning.into())
        })
        .collect()
}

/// Every word that begins with `mongo_backupfs_`.
fn mentioned(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("mongo_backupfs_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_metrics_are_those_that_are_documented_and_watched() {
    let contents = [Content::noise(1, 4096), Content::noise(2, 4096)];
    let mut world = World::with_content(contents).key("deny_processes = [\"head\"]");
    world.mount();
    // Every metric with a label has a sample: a task, an open, and a failed operation.
    let [denied, read] = &world.files()[..] else {
        panic!("two files");
    };
    sh(&format!("! head -c1 '{}'", denied.display()));
    fs::read(read).unwrap();
    let served = served(&fs::read_to_string(world.mountpoint.join(".backupfs/metrics")).unwrap());
    assert_eq!(served, documented());

    let names: BTreeSet<String> = served.into_iter().map(|metric| metric.0).collect();
    for path in [
        "packaging/prometheus/alerts.yml",
        "packaging/grafana/mongo-backupfs.json",
    ] {
        let used = mentioned(&published(path));
        assert!(used.len() >= 8, "{path}: {used:?}");
        let unknown: Vec<_> = used.difference(&names).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
    serde_json::from_str::<Value>(&published("packaging/grafana/mongo-backupfs.json")).unwrap();
}

#[test]
fn a_member_more_or_less_breaks_the_schema() {
    let mut world = World::with_content([Content::noise(1, 4096)]);
    world.mount();
    fs::read(world.latest_file()).unwrap();
    let (stdout, _, code) = world.told("status", &["--json"]);
    assert_eq!(code, 0);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let own = |answer: &Value| {
        let mounts = answer["mounts"].as_array().unwrap();
        let place = world.mountpoint.to_str().unwrap();
        mounts
            .iter()
            .position(|m| m["mountpoint"] == place)
            .unwrap()
    };
    let mount = own(&answer);
    assert_status(&answer);

    let mut more = answer.clone();
    more["mounts"][mount]["status"]["cache"]["novelty"] = json!(1);
    assert_eq!(problems(&more).len(), 1);
    let mut less = answer.clone();
    let status = less["mounts"][mount]["status"].as_object_mut().unwrap();
    status.remove("providers");
    assert_eq!(problems(&less).len(), 1);
    let mut other = answer;
    other["mounts"][mount]["tasks"][0]["state"] = json!("lost");
    assert_eq!(problems(&other).len(), 1);
}
