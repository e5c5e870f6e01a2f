//! The session that README.md shows happened: every command that it shows after a `$` runs, in its
//! order, in one shell on one terminal, and prints what is shown below it.
//!
//! What differs from run to run is not compared ([`normal`]). `RECORD_SESSION=1` writes what was
//! printed into README.md instead, which is what `scripts/record-session` does.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::terminal::{Stream, Terminal};
use crate::world::{binary, wait};

/// How wide the terminal is.
const COLUMNS: u16 = 110;
/// The home directory, as it is shown.
const HOME: &str = "/home/ana";
/// The demo's own directory begins with this, and how it is shown.
const DEMO: &str = "/tmp/mongo-backupfs-demo-";
const SHOWN_DEMO: &str = "/tmp/mongo-backupfs-demo-x7Kq2a";
/// Stands between two looks at one screen.
const LATER: &str = "⋮";

#[test]
fn the_session_in_the_readme_happened() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&place).unwrap();
    let mut shell = Shell::new();
    let mut recorded = String::new();
    let mut wrong = Vec::new();
    let mut steps = 0;
    for piece in pieces(&readme) {
        let Piece::Step { command, shown } = piece else {
            recorded += &piece.text();
            continue;
        };
        let printed = shell.run(&command);
        // A machine that is very busy may draw no moment in which all files are under way.
        let looked = printed.iter().any(|line| line == LATER);
        let expected = match looked {
            true => shown.clone(),
            false => without_looks(&shown),
        };
        if normal(&command, &expected) != normal(&command, &printed) {
            let (shown, printed) = (shown.join("\n"), printed.join("\n"));
            wrong.push(format!(
                "$ {command}\n--- shown\n{shown}\n--- printed\n{printed}"
            ));
        }
        steps += 1;
        let shown = printed;
        recorded += &Piece::Step { command, shown }.text();
    }
    shell.end();
    assert!(steps >= 8, "{steps} commands");
    if std::env::var_os("RECORD_SESSION").is_some() {
        assert!(!recorded.contains("see above"), "doctor found something");
        assert!(
            recorded.contains(LATER),
            "no moment was drawn in which all files were under way"
        );
        return fs::write(place, recorded).unwrap();
    }
    let cure = "scripts/record-session writes what is printed now";
    assert!(wrong.is_empty(), "{cure}\n{}", wrong.join("\n"));
}

/// A part of README.md.
enum Piece {
    /// Lines that show no command.
    Words(Vec<String>),
    /// A command, and the lines below it that show what it prints.
    Step { command: String, shown: Vec<String> },
}

impl Piece {
    fn text(&self) -> String {
        let lines: Vec<String> = match self {
            Piece::Words(lines) => lines.clone(),
            Piece::Step { command, shown } => {
                let command = format!("$ {command}");
                [command].into_iter().chain(shown.iter().cloned()).collect()
            }
        };
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// `readme` as its steps and what is between them.
fn pieces(readme: &str) -> Vec<Piece> {
    let mut pieces = vec![Piece::Words(Vec::new())];
    let mut in_session = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            in_session = line == "```console";
        }
        let last = pieces.last_mut().unwrap();
        match (line.strip_prefix("$ "), last) {
            (Some(command), _) if in_session => pieces.push(Piece::Step {
                command: command.to_owned(),
                shown: Vec::new(),
            }),
            (_, Piece::Step { shown, .. }) if in_session => shown.push(line.to_owned()),
            (_, Piece::Words(lines)) => lines.push(line.to_owned()),
            (_, Piece::Step { .. }) => pieces.push(Piece::Words(vec![line.to_owned()])),
        }
    }
    pieces
}

/// A shell whose commands come through a pipe and write to a terminal.
struct Shell {
    terminal: Terminal,
    bash: Child,
    home: tempfile::TempDir,
    /// The demo's own directory, once it told.
    demo: Option<String>,
}

impl Shell {
    fn new() -> Self {
        let home = tempfile::Builder::new()
            .prefix("backupfs-e2e-")
            .tempdir()
            .unwrap();
        fs::create_dir(home.path().join("backups")).unwrap();
        let path = Path::new(binary()).parent().unwrap().to_owned();
        let others = std::env::var_os("PATH").unwrap();
        let path = std::iter::once(path).chain(std::env::split_paths(&others));
        let mut bash = Command::new("bash");
        bash.arg("-s")
            .stdin(Stdio::piped())
            .current_dir(home.path());
        for (name, _) in std::env::vars() {
            let ours = name.starts_with("MONGO_BACKUPFS_") || name.starts_with("XDG_");
            if ours || name.to_ascii_lowercase().ends_with("_proxy") {
                bash.env_remove(name);
            }
        }
        bash.env("HOME", home.path())
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("TMPDIR", "/tmp")
            .env("TERM", "xterm")
            .env("LC_ALL", "C.UTF-8");
        let terminal = Terminal::new(COLUMNS);
        let bash = terminal.spawn(bash, &[Stream::Out, Stream::Err]);
        Shell {
            terminal,
            bash,
            home,
            demo: None,
        }
    }

    /// Runs a command that must succeed; what it printed, as README.md shows that.
    fn run(&mut self, command: &str) -> Vec<String> {
        let from = self.terminal.lines().len();
        let said = match &self.demo {
            Some(demo) => command.replace(SHOWN_DEMO, demo),
            None => command.to_owned(),
        };
        let stdin = self.bash.stdin.as_mut().unwrap();
        writeln!(stdin, "{said}\necho \"<ended with $?>\"").unwrap();
        let in_background = command.ends_with('&');
        let mut looks = Looks::default();
        let printed = self.terminal.until(command, |screen| {
            let printed = &screen[from.min(screen.len())..];
            looks.take(printed);
            let is_end = |line: &String| line.starts_with("<ended with ");
            let end = printed.iter().find(|line| is_end(line))?;
            let well = end == "<ended with 0>" || is_of_machine(command);
            assert!(well, "{command}: {end}\n{}", printed.join("\n"));
            let whole = printed.iter().filter(|line| !is_end(line));
            let mut printed: Vec<String> = whole.cloned().collect();
            while printed.last().is_some_and(String::is_empty) {
                printed.pop();
            }
            let ready = printed
                .last()
                .is_some_and(|line| line.starts_with("Ctrl-C"));
            (!in_background || ready).then_some(printed)
        });
        if let Some(at) = printed
            .iter()
            .find_map(|line| line.find(DEMO).map(|at| &line[at..]))
        {
            let end = at[1..]
                .match_indices('/')
                .nth(1)
                .map_or(at.len(), |(end, _)| end + 1);
            self.demo.get_or_insert(at[..end].to_owned());
        }
        let home = self.home.path().to_str().unwrap();
        let shown = looks.shown(printed).into_iter();
        shown
            .map(|line| {
                let line = line.replace(home, HOME);
                match &self.demo {
                    Some(demo) => line.replace(demo, SHOWN_DEMO),
                    None => line,
                }
            })
            .collect()
    }

    /// Waits for what was begun in the background, and for the shell.
    fn end(mut self) {
        writeln!(self.bash.stdin.take().unwrap(), "wait").unwrap();
        assert!(wait(&mut self.bash).expect("the shell ends").success());
        let left = fs::read_dir(self.home.path().join("backups")).unwrap();
        assert_eq!(left.count(), 0, "it is unmounted");
        let demo = self.demo.take().expect("the demo told its directory");
        assert!(!PathBuf::from(demo).exists(), "nothing is left behind");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let place = self.home.path().join("backups");
        if crate::world::is_mounted(&place) {
            let _ = Command::new(binary()).arg("unmount").arg(&place).status();
        }
        let _ = self.bash.kill();
        let _ = self.bash.wait();
    }
}

/// Two looks at bars: while all files wait, and while bytes of all are coming.
#[derive(Default)]
struct Looks {
    waiting: Vec<String>,
    coming: Vec<String>,
}

impl Looks {
    fn take(&mut self, screen: &[String]) {
        let bars: Vec<&String> = screen.iter().filter(|line| line.contains(" %")).collect();
        let count = |word: &str| bars.iter().filter(|line| line.contains(word)).count();
        let total = screen.iter().find(|line| line.starts_with('['));
        let Some(total) = total.filter(|total| total.contains(" of 3 files")) else {
            return;
        };
        let whole = screen.iter().filter(|line| !line.starts_with('<'));
        if self.waiting.is_empty() && count("running ") == 3 {
            self.waiting = whole.cloned().collect();
        } else if count(" left") == 4 && total.contains(" 0 of 3") {
            let bars = whole.skip_while(|line| !line.starts_with('['));
            self.coming = bars.cloned().collect();
        }
    }

    /// What is shown of a command that printed `printed`: what was above the bars once.
    fn shown(self, printed: Vec<String>) -> Vec<String> {
        if self.waiting.is_empty() || self.coming.is_empty() {
            return printed;
        }
        let above = self.waiting.iter().zip(&printed);
        let above = above.take_while(|(before, after)| before == after).count();
        let later = || [LATER.to_owned()];
        let looks = self.waiting.into_iter().chain(later());
        let looks = looks.chain(self.coming).chain(later());
        looks.chain(printed.into_iter().skip(above)).collect()
    }
}

/// Whether `command` also tells of what is on this machine besides: mounts that other tests have
/// just killed, for `doctor`.
fn is_of_machine(command: &str) -> bool {
    command.ends_with(" doctor")
}

/// `shown` without the looks at bars before its end.
fn without_looks(shown: &[String]) -> Vec<String> {
    let Some(last) = shown.iter().rposition(|line| line == LATER) else {
        return shown.to_vec();
    };
    let above = shown.iter().take_while(|line| !line.starts_with('['));
    above.chain(&shown[last + 1..]).cloned().collect()
}

/// What must be the same in every run of what `command` prints: without times and what is counted in
/// them, sizes, the ids that the clouds draw, and what the machine is. The order of files that are
/// copied at once is left open.
fn normal(command: &str, printed: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = printed.iter().map(|line| normal_line(line)).collect();
    if command.contains(" get ") {
        lines.sort();
    }
    if is_of_machine(command) {
        lines.dedup();
    }
    lines
}

fn normal_line(line: &str) -> String {
    let of_machine = ["/dev/fuse", "fusermount3", "mounts", "cache", "passthrough"];
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["ok" | "warning" | "failure", subject, ..]
            if of_machine.contains(&subject.trim_end_matches(':')) =>
        {
            return (*subject).to_owned();
        }
        ["all", "is", "well"] | ["it", "works,", ..] | ["mongo-backupfs:", .., "see", "above"] => {
            return "the sum".to_owned();
        }
        _ => {}
    }
    let words = words.iter().map(|word| normal_word(word));
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// One word: numbers with a unit are their unit, and what follows from the time of the run is left
/// out.
fn normal_word(word: &str) -> String {
    let bar = word.starts_with(['[', ']']) || word.chars().all(|c| c == '=' || c == '>');
    if bar {
        return String::new();
    }
    if let Some((name, _)) = word.split_once("=\"") {
        let drawn = ["etag", "expires", "task"]
            .iter()
            .any(|what| name.ends_with(what));
        if drawn {
            return format!("{name}=");
        }
    }
    let is_apart = |c: char| !c.is_ascii_alphanumeric() && c != '.';
    let pieces = word.split_inclusive(is_apart).map(|piece| {
        let part = piece.trim_end_matches(is_apart);
        format!("{}{}", normal_part(part), &piece[part.len()..])
    });
    pieces.collect()
}

fn normal_part(part: &str) -> String {
    let digits = part.chars().filter(char::is_ascii_digit).count();
    let time = part.len() == 16 && digits == 14 && part.ends_with('Z');
    let id = part.len() == 24 && part.chars().all(|c| c.is_ascii_hexdigit());
    let unit = part.trim_matches(|c: char| c.is_ascii_digit() || c == '.');
    let size = ["B", "KiB", "MiB", "GiB"].contains(&unit);
    match part {
        _ if digits == 0 => part.to_owned(),
        _ if time => "TIME".to_owned(),
        _ if id => "ID".to_owned(),
        _ if size => "SIZE".to_owned(),
        _ if part
            .chars()
            .all(|c| c.is_ascii_digit() || "dhms".contains(c))
            && digits < part.len() =>
        {
            "SPAN".to_owned()
        }
        // Shares, process ids, and what else a number may be that stands by itself.
        _ if digits == part.len() => "N".to_owned(),
        _ => part.to_owned(),
    }
}

#[test]
fn what_differs_from_run_to_run_is_not_compared() {
    for (one, other) in [
        (
            "[===>   ]  25 %  3.0MiB of 12MiB  1.4MiB/s  7s left",
            "[>] 7 % 1B of 12KiB 1B/s 1m3s left",
        ),
        (
            "a/20261122T050000Z-6b024ca0234ab2692316cafa/b  running 3 %",
            "a/20270101T060000Z-6b024ca0234ab2692316caff/b running 99 %",
        ),
        ("ok      cache: is on ext4", "warning cache: is nearly full"),
        ("user.backupfs.task=\"17\"", "user.backupfs.task=\"6b02\""),
    ] {
        assert_eq!(normal_line(one), normal_line(other));
    }
    for (one, other) in [
        ("running 3 %", "queued 3 %"),
        ("ok atlas: 7 instances", "failure atlas: 7 instances"),
        (
            "user.backupfs.state=\"ready\"",
            "user.backupfs.state=\"none\"",
        ),
        ("cmgo-ledger01_0.tar", "cmgo-ledger01_1.tar"),
    ] {
        assert_ne!(normal_line(one), normal_line(other));
    }
}

#[test]
fn a_page_is_taken_apart_and_put_together_again() {
    let page = "# A\n\n```console\n$ ls\na\nb\n$ cd\n```\n\n```sh\n$ no\n```\n";
    let pieces = pieces(page);
    let commands: Vec<(&str, usize)> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Step { command, shown } => Some((command.as_str(), shown.len())),
            Piece::Words(_) => None,
        })
        .collect();
    assert_eq!(commands, [("ls", 2), ("cd", 0)]);
    assert_eq!(pieces.iter().map(Piece::text).collect::<String>(), page);
}
