//! What people see on a terminal: bars that fit it, whatever its width, nothing but lines where it
//! cannot be drawn over, and a clean end.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use jiff::SignedDuration;
use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use crate::paid::clouds::Cloud;
use crate::terminal::{Stream, Terminal};
use crate::world::{World, wait};

const ALL: &[Stream] = &[Stream::In, Stream::Out, Stream::Err];
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A command of `world` as it runs in a terminal of that kind.
fn in_terminal(world: &World, kind: &str, args: &[&str]) -> Command {
    let mut command = world.command(args);
    command.env("TERM", kind).env_remove("NO_COLOR");
    command
}

/// Two backups of Tencent Cloud whose tasks take an hour, and then bring their bytes slowly.
fn waiting_world() -> World {
    let cloud = Cloud::Tencent;
    let world = cloud.world(&[Content::noise(1, 12 << 20), Content::noise(2, 10 << 20)]);
    cloud.task_time(&world, HOUR);
    let bytes_per_second = 256 << 10;
    let slow = Rule::new(Fault::Throttle { bytes_per_second }).on(Side::Data);
    world.sim.faults().add(slow);
    world
}

fn assert_fit(lines: &[String], columns: usize) {
    for line in lines {
        assert!(line.chars().count() <= columns, "{lines:#?}");
        let whole = line.starts_with("tencent/") || line.starts_with('[');
        assert!(
            whole,
            "{line:?} is the end of a line that did not fit\n{lines:#?}"
        );
    }
}

#[test]
fn bars_fit_the_terminal_and_ctrl_c_takes_them_away() {
    let world = waiting_world();
    let to = world.dir.path().join("copies");
    let args = ["get", "tencent", to.to_str().unwrap()];
    for (columns, then) in [(80, 40), (40, 120)] {
        let mut terminal = Terminal::new(columns);
        let modes = terminal.modes();
        let mut getting = terminal.spawn(in_terminal(&world, "xterm", &args), ALL);
        let all_are = |waiting: bool| {
            move |lines: &[String]| {
                let waits = |line: &String| ["queued", "running"].iter().any(|w| line.contains(w));
                let is = |line: &&String| line.contains(" %") && waits(line) == waiting;
                let is = |line: &&String| line.starts_with("tencent/") && is(line);
                let files = lines.iter().filter(is).count();
                (files == 2 && lines.len() == 3 && lines[0].contains("of 2 files"))
                    .then(|| lines.to_vec())
            }
        };
        // The first round waits for its tasks, the second finds them made.
        if columns == 80 {
            let lines = terminal.until("both files wait", all_are(true));
            assert!(lines[0].starts_with("[>"), "{lines:#?}");
            assert!(lines[0].ends_with("] 0 of 2 files"), "{lines:#?}");
            for line in &lines[1..] {
                assert!(line.contains(".tar  "), "{line}");
            }
            assert_fit(&lines, columns.into());
            world.sim.advance(HOUR);
        }
        let lines = terminal.until("bytes come", all_are(false));
        assert_fit(&lines, columns.into());

        terminal.resize(then);
        let wide = then > 100;
        // What was wider than the terminal may stay above.
        let lines = terminal.until("they fit the new width", |lines| {
            let last = lines.last_chunk::<3>()?;
            let fit = last.iter().all(|line| line.chars().count() <= then.into());
            let told = last[0].contains("of 2 files") && last[1].contains("/s") == wide;
            (fit && told).then(|| last.to_vec())
        });
        assert_fit(&lines, then.into());

        terminal.type_keys("\x03");
        let status = wait(&mut getting).expect("it ends");
        assert_eq!(status.code(), Some(130));
        let words = "interrupted: the same command goes on from here";
        terminal.until("it says how to go on", |lines| {
            lines.iter().any(|line| line == words).then_some(())
        });
        // What it drew while it was wider than the terminal cannot be taken away by anybody.
        if wide {
            assert_eq!(terminal.lines(), [words]);
        }
        // The prompt has a line of its own.
        terminal.until_line_ends();
        assert_eq!(terminal.modes(), modes);
        assert!(!to.join("tencent").exists() || no_whole_file(&to));
    }

    world.sim.faults().clear();
    let mut terminal = Terminal::new(100);
    let mut getting = terminal.spawn(in_terminal(&world, "xterm", &args), ALL);
    assert!(wait(&mut getting).expect("it ends").success());
    let sum = |lines: &[String]| {
        let told = lines
            .last()
            .is_some_and(|line| line.starts_with("2 files: 2 copied"));
        told.then(|| lines.to_vec())
    };
    let lines = terminal.until("the sum", sum);
    let joined = lines.concat();
    let dest = to.to_str().unwrap();
    for size in ["12MiB", "10MiB"] {
        assert!(
            joined.contains(&format!("{size} to {dest}, ")),
            "{lines:#?}"
        );
    }
    // Bars have no colours.
    assert!(!colored(&terminal.raw));
}

/// Whether all files below `dir` are parts.
fn no_whole_file(dir: &std::path::Path) -> bool {
    let files = crate::world::digests(dir);
    files.keys().all(|name| name.contains(".mongo-backupfs-"))
}

/// Whether something switches colours on or off.
fn colored(raw: &[u8]) -> bool {
    let text = String::from_utf8_lossy(raw);
    text.split("\x1b[").skip(1).any(|code| {
        let end = code.find(|c: char| !c.is_ascii_digit() && c != ';');
        end.is_some_and(|at| code[at..].starts_with('m'))
    })
}

#[test]
fn where_nothing_can_be_drawn_there_are_lines() {
    let world = waiting_world();
    let to = world.dir.path().join("copies");
    let args = ["get", "tencent", to.to_str().unwrap()];
    for (kind, streams) in [("dumb", ALL), ("", ALL), ("xterm", &[Stream::In][..])] {
        let mut terminal = Terminal::new(400);
        let mut command = in_terminal(&world, kind, &args);
        let log = world.dir.path().join("log");
        if streams.len() == 1 {
            let file = std::fs::File::create(&log).unwrap();
            command.stdout(file.try_clone().unwrap()).stderr(file);
        }
        let mut getting = terminal.spawn(command, streams);
        let waits = |line: &String| line.ends_with(" %") || line.contains(" %, expected");
        if streams.len() == 1 {
            crate::world::eventually("both files wait", || {
                let told = std::fs::read_to_string(&log).unwrap();
                told.lines()
                    .filter(|line| waits(&(*line).to_owned()))
                    .count()
                    >= 2
            });
            assert!(!std::fs::read_to_string(&log).unwrap().contains('\x1b'));
        } else {
            terminal.until("both files wait", |lines| {
                (lines.iter().filter(|line| waits(line)).count() >= 2).then_some(())
            });
            assert!(!terminal.raw.contains(&0x1b), "{:?}", terminal.lines());
        }
        crate::world::kill(getting.id(), libc::SIGTERM);
        assert_eq!(wait(&mut getting).expect("it ends").code(), Some(143));
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let mut world = Cloud::Atlas.world(&[Content::noise(1, 1000)]);
    // Other tests may have left something to complain of for a moment.
    let ends = |lines: &[String]| {
        let sums = ["all is well", "it works, ", "mongo-backupfs: "];
        let last = lines.last()?;
        sums.iter().any(|sum| last.starts_with(sum)).then_some(())
    };
    for (kind, refused, colours) in [
        ("xterm", "", true),
        ("xterm", "1", false),
        ("dumb", "", false),
    ] {
        let mut terminal = Terminal::new(200);
        let mut command = in_terminal(&world, kind, &["doctor"]);
        command.env("NO_COLOR", refused);
        let mut doctor = terminal.spawn(command, ALL);
        terminal.until("it ends", ends);
        wait(&mut doctor).expect("it ends");
        assert_eq!(colored(&terminal.raw), colours, "{kind} {refused}");
    }

    // What is watched is drawn over, or follows where that cannot be.
    world.mount();
    let place = world.mountpoint.to_str().unwrap().to_owned();
    for (kind, drawn) in [("xterm", true), ("dumb", false)] {
        let mut terminal = Terminal::new(120);
        let command = in_terminal(&world, kind, &["status", "--watch", &place]);
        let mut watching = terminal.spawn(command, ALL);
        let lines = terminal.until("the second look", |lines| {
            let told = lines.iter().any(|line| line.contains("/s now"));
            let all = lines.iter().any(|line| line.starts_with("download tasks"));
            (told && all).then(|| lines.to_vec())
        });
        let looks = lines.iter().filter(|line| line.starts_with(&place)).count();
        assert_eq!(looks, if drawn { 1 } else { 2 }, "{lines:#?}");
        assert_eq!(terminal.raw.contains(&0x1b), drawn);
        terminal.type_keys("\x03");
        let status = wait(&mut watching).expect("it ends");
        assert_eq!(status.signal(), Some(libc::SIGINT));
    }
    world.unmount();
}
