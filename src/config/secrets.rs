//! Where secrets come from: the environment, a file, a command, or plain text in a private file.
//!
//! A complaint names the place, never the content: not the secret, not a command line (people put
//! tokens there), not what a command wrote to stderr.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use toml::de::DeValue;

use super::Environment;
use super::document::{Entry, OTHERS, Section};
use crate::error::Result;
use crate::names;
use crate::secret::Secret;

/// How long a secret command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Most bytes in one secret.
const LIMIT: usize = 64 * 1024;

impl Section<'_> {
    /// The secret that `key` describes, if the key is there.
    pub(super) fn secret(
        &self,
        key: &'static str,
        environment: &Environment,
    ) -> Result<Option<Secret>> {
        let Some(entry) = self.get(key) else {
            return Ok(None);
        };
        let secret = resolve(&entry, environment)?;
        if secret.expose().chars().any(char::is_control) {
            return Err(entry.error("the secret holds a line break or control character"));
        }
        Ok(Some(secret))
    }

    /// The secret that `key` describes; the key must be there.
    pub(super) fn require_secret(
        &self,
        key: &'static str,
        environment: &Environment,
    ) -> Result<Secret> {
        self.secret(key, environment)?
            .ok_or_else(|| self.missing(key))
    }

    /// A secret that not every account has: a variable that is not set or empty means none.
    pub(super) fn optional_secret(
        &self,
        key: &'static str,
        environment: &Environment,
    ) -> Result<Option<Secret>> {
        let variable = self.get(key).and_then(|entry| match entry.value() {
            DeValue::Table(table) => table.get("env").and_then(|name| name.get_ref().as_str()),
            _ => None,
        });
        match variable {
            Some(name) if environment.get(name).is_none_or(|value| value.is_empty()) => Ok(None),
            _ => self.secret(key, environment),
        }
    }
}

/// The secret that an entry describes.
pub(super) fn resolve(entry: &Entry<'_, '_>, environment: &Environment) -> Result<Secret> {
    resolve_within(entry, environment, COMMAND_TIMEOUT)
}

fn resolve_within(
    entry: &Entry<'_, '_>,
    environment: &Environment,
    command_timeout: Duration,
) -> Result<Secret> {
    let text = match entry.value() {
        DeValue::String(text) => {
            entry.source().demand_private(entry)?;
            text.to_string()
        }
        DeValue::Table(_) => {
            let table = entry.section()?.below(entry.key());
            table.allow_only(&[&["env", "file", "command"]])?;
            let mut sources = table.iter();
            let (Some(source), None) = (sources.next(), sources.next()) else {
                return Err(entry.error("expected exactly one of { env }, { file }, { command }"));
            };
            match source.key() {
                "env" => from_variable(entry, source.filled_text()?, environment)?,
                "file" => from_file(entry, source.filled_text()?)?,
                _ => from_command(entry, &command_line(&source)?, command_timeout)?,
            }
        }
        _ => {
            return Err(entry.expected("a secret: { env }, { file }, { command } or a string"));
        }
    };
    if text.is_empty() {
        return Err(entry.error("the secret is empty"));
    }
    Ok(Secret::new(text))
}

fn from_variable(entry: &Entry<'_, '_>, name: &str, environment: &Environment) -> Result<String> {
    let shown = names::display(name);
    let value = environment
        .get(name)
        .ok_or_else(|| entry.error(&format!("the environment variable {shown} is not set")))?;
    match value.to_str() {
        Some("") => Err(entry.error(&format!("the environment variable {shown} is empty"))),
        Some(text) => Ok(text.to_owned()),
        None => Err(entry.error(&format!("the environment variable {shown} is not UTF-8"))),
    }
}

fn from_file(entry: &Entry<'_, '_>, path: &str) -> Result<String> {
    let path = entry.source().resolve(path);
    let shown = names::display(&path.to_string_lossy());
    let bytes = read_private(&path).map_err(|why| entry.error(&format!("{shown} {why}")))?;
    if bytes.len() > LIMIT {
        return Err(entry.error(&format!("{shown} is too large for a secret")));
    }
    trimmed(bytes).ok_or_else(|| entry.error(&format!("{shown} is not UTF-8 text")))
}

/// The content of a regular file that nobody else may read, at most one byte more than [`LIMIT`];
/// or what is wrong with it.
fn read_private(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    // Without O_NONBLOCK opening a FIFO would wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a regular file".into());
    }
    let mode = metadata.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(format!(
            "can be read by others (mode {:04o}); run `chmod 600` on it",
            mode & 0o7777
        ));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

/// The words of a command: a list as it stands, or a line for sh.
fn command_line(entry: &Entry<'_, '_>) -> Result<Vec<String>> {
    match entry.value() {
        DeValue::Array(_) => entry.texts(),
        DeValue::String(_) => Ok(vec!["sh".into(), "-c".into(), entry.filled_text()?.into()]),
        _ => Err(entry.expected("a line for sh or a list of words")),
    }
}

fn from_command(entry: &Entry<'_, '_>, line: &[String], timeout: Duration) -> Result<String> {
    let Some((program, arguments)) = line.split_first() else {
        return Err(entry.error("the command is empty"));
    };
    // A thread of its own, because the caller may already stand in a runtime.
    let answer = std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| format!("cannot be started: {error}"))?
                .block_on(run(program, arguments, timeout))
        });
        runner.join().unwrap_or_else(|_| Err("panicked".into()))
    });
    let bytes = answer.map_err(|why| entry.error(&format!("the command {why}")))?;
    trimmed(bytes).ok_or_else(|| entry.error("the command's answer is not UTF-8 text"))
}

/// What a command writes to stdout; or what went wrong, in words that follow "the command".
async fn run(program: &str, arguments: &[String], timeout: Duration) -> Result<Vec<u8>, String> {
    use tokio::io::AsyncReadExt as _;

    // A process group of its own, so that a late command ends with all its children.
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let stdout = child.stdout.take();

    let answer = async {
        let mut bytes = Vec::new();
        if let Some(stdout) = stdout {
            let read = stdout.take(LIMIT as u64 + 1).read_to_end(&mut bytes).await;
            read.map_err(|error| format!("cannot be read: {error}"))?;
        }
        if bytes.len() > LIMIT {
            return Err("gave too much for a secret".to_owned());
        }
        let status = child.wait().await;
        let status = status.map_err(|error| format!("cannot be waited for: {error}"))?;
        match status.success() {
            true => Ok(bytes),
            false => Err(format!("failed ({status}); run it by hand to see why")),
        }
    };
    let answer = tokio::time::timeout(timeout, answer)
        .await
        .unwrap_or_else(|_| Err(format!("did not end within {timeout:?}")));
    // A leader that was not waited for still holds its number, so that it cannot mean another.
    if let Some(leader) = child.id().and_then(|id| i32::try_from(id).ok()) {
        if let Some(group) = rustix::process::Pid::from_raw(leader) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.wait().await;
    }
    answer
}

/// Text without the line break that editors and `echo` put at its end.
fn trimmed(bytes: Vec<u8>) -> Option<String> {
    let mut text = String::from_utf8(bytes).ok()?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    /// Whether process `id` has ended, be it collected or not.
    fn has_ended(id: &str) -> bool {
        fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| stat.contains(") Z "))
    }

    #[tokio::test]
    async fn a_late_command_ends_with_all_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("child");
        let script = format!("sleep 600 & echo $! > '{}'; wait", file.display());
        let arguments = ["-c".to_owned(), script];

        // The first try may end before the shell has started anything.
        let mut timeout = Duration::from_millis(100);
        let child = loop {
            let answer = run("sh", &arguments, timeout).await;
            assert_eq!(answer, Err(format!("did not end within {timeout:?}")));
            match fs::read_to_string(&file) {
                Ok(id) if id.ends_with('\n') => break id,
                _ => timeout *= 2,
            }
            assert!(timeout < Duration::from_secs(20), "the shell never started");
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !has_ended(child.trim()) {
            assert!(Instant::now() < deadline, "process {child} lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
