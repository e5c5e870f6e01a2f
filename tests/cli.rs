//! The command line as a user meets it: exit codes, one line per failure, pipes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

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
fn a_kind_that_is_not_served_yet_is_said() {
    let home = Home::new();
    let bucket = "[[provider]]\nname = 'b'\nkind = 'bucket'\nservice = 'fs'\n";
    home.configure(bucket, 0o600);
    home.run(&["config", "check"]).success();
    let answer = home.run(&["ls"]);
    assert!(
        answer
            .failure(2)
            .contains("kind `bucket` is not served by this version")
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
