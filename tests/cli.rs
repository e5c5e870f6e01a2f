//! The command line as a user meets it: exit codes, one line per failure, pipes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use jiff::Timestamp;
use mongo_backupfs::sim::atlas::{Cluster, Project, Snapshot, Tier};
use mongo_backupfs::sim::{Content, Sim, SimBuilder};
use serde_json::Value;
use tempfile::TempDir;

/// A home directory of its own, and nothing else in the environment.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new() -> Self {
        Home {
            directory: TempDir::new().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mongo-backupfs"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.directory.path())
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(&mut self.command(arguments))
    }

    /// Writes the personal configuration.
    fn configure(&self, text: &str, mode: u32) -> PathBuf {
        let path = self
            .directory
            .path()
            .join(".config/mongo-backupfs/config.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

/// What a command answered.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().unwrap();
        Answer {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// The words of a failure that is one line with this exit code and nothing else.
    #[track_caller]
    fn failure(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        let words = self.stderr.strip_prefix("mongo-backupfs: ");
        words.unwrap_or_else(|| panic!("{self:?}")).trim_end()
    }

    #[track_caller]
    fn success(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.stdout
    }
}

/// One Atlas account at an address where nobody listens.
const UNREACHABLE: &str = r#"
[[provider]]
name = "atlas"
kind = "atlas"
project_id = "p"
public_key = "public-canary"
private_key = "private-canary"
endpoint = "http://127.0.0.1:1"
allow_http = true
retry_budget = "0s"
"#;

#[test]
fn help_and_version_work_without_a_configuration() {
    let home = Home::new();
    for arguments in [
        &["--help"][..],
        &["help"],
        &["config", "--help"],
        &["ls", "-h"],
    ] {
        assert!(home.run(arguments).success().contains("Usage:"));
    }
    let version = home.run(&["--version"]);
    let expected = format!("mongo-backupfs {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version.success(), expected);
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let home = Home::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let answer = home.run(&["completions", shell]);
        let script = answer.success();
        for word in ["unmount", "prepare", "dry-run"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    let pages = home.directory.path().join("man1");
    let place = pages.to_str().unwrap();
    let answer = home.run(&["man", place]);
    assert!(answer.failure(1).contains("cannot write the manual pages"));
    fs::create_dir(&pages).unwrap();
    home.run(&["man", place]).success();
    let page = fs::read_to_string(pages.join("mongo-backupfs-prepare.1")).unwrap();
    assert!(page.contains("dry\\-run"), "{page}");
    assert!(pages.join("mongo-backupfs.1").exists());
}

/// The words of `text` that begin like a flag.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let flags = words.filter(|word| word.starts_with("--") && word.len() > 2);
    flags.map(str::to_owned).collect()
}

/// What `COMMAND --help` tells, or the program's own help if there is no command.
fn help(home: &Home, command: &[&str]) -> String {
    let words: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
    home.run(&words).success().to_owned()
}

#[test]
fn the_commands_and_flags_in_the_documents_are_the_programs() {
    let home = Home::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let own = help(&home, &[]);
    let commands = own.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.map_while(|line| line.strip_prefix("  ")?.split(' ').next());
    let mut commands: BTreeSet<&str> = commands.collect();
    commands.remove("help");

    // Each command has its place in README's table, with no flag that it does not take.
    let table = readme.split("| command | does |").nth(1).unwrap();
    let mut documented = BTreeSet::new();
    for row in table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with("| `"))
    {
        let cell = row.split(" | ").next().unwrap();
        for usage in cell.split('`').skip(1).step_by(2) {
            let command = usage.split(' ').next().unwrap();
            let takes = flags(&help(&home, &[command]));
            let unknown: Vec<String> = flags(usage).difference(&takes).cloned().collect();
            assert!(unknown.is_empty(), "{usage}: {unknown:?}");
            documented.insert(command.to_owned());
        }
    }
    assert_eq!(
        documented,
        commands.iter().map(|&name| name.to_owned()).collect()
    );

    // So has each command line that a page shows.
    let mut pages = vec![root.join("README.md"), root.join("SECURITY.md")];
    for directory in ["docs", "docs/clouds"] {
        let entries = fs::read_dir(root.join(directory)).unwrap();
        pages.extend(entries.map(|entry| entry.unwrap().path()));
    }
    pages.retain(|page| page.extension().is_some_and(|kind| kind == "md"));
    let mut checked = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for rest in text.split("mongo-backupfs ").skip(1) {
            let line = rest.split(['`', '\n']).next().unwrap();
            let command = line.split(' ').next().unwrap();
            if !commands.contains(command) {
                continue;
            }
            let takes = flags(&help(&home, &[command]));
            let unknown: Vec<String> = flags(line).difference(&takes).cloned().collect();
            assert!(
                unknown.is_empty(),
                "{}: {line}: {unknown:?}",
                page.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn wrong_usage_exits_2() {
    let home = Home::new();
    for arguments in [
        &[][..],
        &["confg"],
        &["config"],
        &["config", "check", "--log-level", "loud"],
        &["ls", "--json", "-l"],
        &["ls", "a", "b"],
    ] {
        let answer = home.run(arguments);
        assert_eq!(answer.code, Some(2), "{arguments:?}: {answer:?}");
        assert_eq!(answer.stdout, "", "{arguments:?}");
    }
    let variable = Answer::of(
        home.command(&["config", "path"])
            .env("MONGO_BACKUPFS_LOG_LEVEL", "loud"),
    );
    assert_eq!(variable.code, Some(2), "{variable:?}");
}

#[test]
fn without_a_configuration_the_cure_is_named() {
    let home = Home::new();
    let answer = home.run(&["config", "check"]);
    // A machine may have one in /etc.
    if !PathBuf::from("/etc/mongo-backupfs/config.toml").exists() {
        let told = answer.failure(2);
        assert!(told.starts_with("no configuration found at "), "{told}");
        assert!(told.contains("mongo-backupfs config example > "), "{told}");
    }
}

#[test]
fn the_example_can_be_used_at_once() {
    let home = Home::new();
    let example = home.run(&["config", "example"]).success().to_owned();
    let path = home.configure(&example, 0o644);
    let told = home.run(&["config", "check"]);
    assert!(
        told.failure(2).contains("ATLAS_PUBLIC_KEY is not set"),
        "{told:?}"
    );

    let checked = Answer::of(
        home.command(&["config", "check"])
            .env("ATLAS_PUBLIC_KEY", "public-canary")
            .env("ATLAS_PRIVATE_KEY", "private-canary"),
    );
    let told = checked.success();
    assert!(
        told.starts_with(&format!("{}: valid, 1 provider\n", path.display())),
        "{told}"
    );
    assert!(told.contains("\natlas-prod: atlas, project "), "{told}");
    assert!(!told.contains("canary"), "{told}");
}

#[test]
fn config_path_says_which_file_and_why() {
    let home = Home::new();
    let personal = home.configure("", 0o600);
    let answer = home.run(&["config", "path"]);
    assert_eq!(answer.success(), format!("{}\n", personal.display()));
    assert!(
        answer.stderr.contains("--config: not given\n"),
        "{answer:?}"
    );

    let named = Answer::of(
        home.command(&["config", "path"])
            .env("MONGO_BACKUPFS_CONFIG", "/named.toml"),
    );
    assert_eq!(named.success(), "/named.toml\n");
    assert!(
        named.stderr.contains("/named.toml (no such file)"),
        "{named:?}"
    );

    let given = Answer::of(
        home.command(&["config", "path", "--config", "given.toml"])
            .env("MONGO_BACKUPFS_CONFIG", "/named.toml"),
    );
    assert_eq!(given.success(), "given.toml\n");
}

#[test]
fn a_wrong_configuration_is_one_line_and_exit_2() {
    let home = Home::new();
    let path = home.configure(UNREACHABLE, 0o644);
    let answer = home.run(&["config", "check"]);
    let told = answer.failure(2);
    let expected = format!(
        "{}:6: provider \"atlas\": key `public_key`: ",
        path.display()
    );
    assert!(told.starts_with(&expected), "{told}");

    home.configure(&UNREACHABLE.replace("project_id", "projct_id"), 0o600);
    for arguments in [&["config", "check"][..], &["ls"]] {
        let answer = home.run(arguments);
        let told = answer.failure(2);
        assert!(
            told.ends_with("unknown key `projct_id`; did you mean `project_id`?"),
            "{told}"
        );
    }

    home.configure(UNREACHABLE, 0o600);
    let variable = Answer::of(home.command(&["ls"]).env("MONGO_BACKUPFS_MEMORY", "some"));
    let told = variable.failure(2);
    assert!(
        told.starts_with("MONGO_BACKUPFS_MEMORY: expected a size"),
        "{told}"
    );

    let answer = home.run(&["config", "check", "--config", "none.toml"]);
    let told = answer.failure(2);
    assert!(
        told.starts_with("cannot read the configuration none.toml: No such file"),
        "{told}"
    );
}

#[test]
fn ls_says_what_it_cannot_list() {
    let home = Home::new();
    home.configure(UNREACHABLE, 0o600);
    let unknown = home.run(&["ls", "nowhere"]);
    assert_eq!(unknown.failure(1), "nowhere: there is no nowhere");

    for arguments in [
        &["ls", "atlas/c0"][..],
        &["--log-level", "off", "ls", "atlas/c0"],
    ] {
        let answer = home.run(arguments);
        let told = answer.failure(1);
        assert!(told.contains("127.0.0.1:1"), "{told}");
        assert!(!told.contains("canary"), "{told}");
    }
}

/// A simulated Atlas with one cluster `c0` that has two snapshots.
async fn cloud() -> Sim {
    let snapshot = |time: &str| {
        let started: Timestamp = time.parse().unwrap();
        Snapshot::at(started).content(Content::noise(1, 1000))
    };
    let cluster = Cluster::new("c0", Tier::M2)
        .snapshot(snapshot("2024-03-01T02:00:00Z"))
        .snapshot(snapshot("2024-03-02T02:00:00Z"));
    let builder = SimBuilder::new()
        .keys("public-canary", "private-canary")
        .project(Project::new("p").cluster(cluster));
    Sim::start(builder).await.unwrap()
}

/// The account `name` at `sim`.
fn account(name: &str, sim: &Sim) -> String {
    UNREACHABLE
        .replace("\"atlas\"\nkind", &format!("{name:?}\nkind"))
        .replace("http://127.0.0.1:1", sim.base_url())
        .replace("\"p\"", &format!("{:?}", sim.project_id()))
}

#[tokio::test(flavor = "multi_thread")]
async fn ls_lists_files_for_free() {
    let sim = cloud().await;
    let home = Home::new();
    home.configure(&account("shop", &sim), 0o600);
    let [older, newer]: [String; 2] = sim.snapshot_ids("c0").try_into().unwrap();
    let directory = |id: &str, day: u8| format!("shop/c0/202403{day:02}T020000Z-{id}");

    let told = home.run(&["ls"]);
    let lines: Vec<&str> = told.success().lines().collect();
    assert_eq!(lines.len(), 3, "{told:?}");
    assert!(lines[0].starts_with(&directory(&older, 1)), "{told:?}");
    assert!(lines[1].starts_with(&directory(&newer, 2)), "{told:?}");
    assert!(lines[1].ends_with("  unknown  none"), "{told:?}");
    let target = directory(&newer, 2).replace("shop/c0/", "");
    assert_eq!(lines[2], format!("shop/c0/latest -> {target}"));
    assert_eq!(told.stderr, "");

    let told = home.run(&["ls", "shop/c0/latest", "-l"]);
    let lines: Vec<&str> = told.success().lines().collect();
    assert_eq!(lines.len(), 2, "{told:?}");
    assert!(lines[0].starts_with("STATE  "), "{told:?}");
    assert!(lines[1].contains(&directory(&newer, 2)), "{told:?}");

    let told = home.run(&["ls", "--json", "/shop/c0"]);
    let rows: Value = serde_json::from_str(told.success()).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 3);
    let file = &rows[0];
    for (key, value) in [
        ("kind", "file"),
        ("provider", "shop"),
        ("instance", "c0"),
        ("size_is", "unknown"),
        ("state", "none"),
        ("started", "2024-03-01T02:00:00Z"),
    ] {
        assert_eq!(file[key], value, "{key} in {told:?}");
    }
    assert_eq!(file["size"], Value::Null);
    assert_eq!(rows[2]["kind"], "symlink");
    assert_eq!(rows[2]["target"], target.as_str());

    assert_eq!(sim.bill().tasks_created, 0);
    let left: Vec<_> = fs::read_dir(home.directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing but the configuration: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failing_account_does_not_hide_the_other() {
    let sim = cloud().await;
    let home = Home::new();
    home.configure(&format!("{UNREACHABLE}{}", account("shop", &sim)), 0o600);
    let told = home.run(&["ls", "--json"]);
    assert_eq!(told.code, Some(3), "{told:?}");
    let rows: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 3);
    assert_eq!(told.stderr.lines().count(), 1, "{told:?}");
    assert!(told.stderr.starts_with("mongo-backupfs: "), "{told:?}");
    assert!(told.stderr.contains("/atlas: "), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_one_line() {
    let sim = cloud().await;
    let home = Home::new();
    let wrong = account("shop", &sim).replace("private-canary", "wrong-canary");
    home.configure(&wrong, 0o600);
    let answer = home.run(&["ls", "shop/c0"]);
    let told = answer.failure(1);
    assert!(!told.contains("canary"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_at_any_level() {
    let sim = cloud().await;
    let home = Home::new();
    home.configure(&account("shop", &sim), 0o600);
    for format in ["text", "json"] {
        let mut command = home.command(&["ls", "--log-level", "trace", "--log-format", format]);
        let told = Answer::of(command.env("RUST_LOG", "trace"));
        told.success();
        assert!(!told.stderr.contains("canary"), "{told:?}");
        assert!(!told.stderr.contains("Digest"), "{told:?}");
        for line in told.stderr.lines().filter(|_| format == "json") {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(
                line["target"]
                    .as_str()
                    .unwrap()
                    .starts_with("mongo_backupfs")
            );
        }
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let home = Home::new();
    let mut child = home
        .command(&["config", "example"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whether the answer was written before or is written after: nobody is told.
    drop(child.stdout.take());
    let mut told = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert_eq!((child.wait().unwrap().code(), told.as_str()), (Some(0), ""));
}
