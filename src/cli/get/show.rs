//! How copies are shown: bars on a terminal, lines elsewhere, JSON for programs.
//!
//! Owns the bars, behind one lock that is held for moments; [`line`] lays them out. Files that are
//! done are told on stdout, everything that passes on stderr.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::line;
use super::screen::{self, Screen};
use super::wait::Wait;
use crate::cli::table::{counted, short_size, short_time};
use crate::clock::{Clock, SystemClock};
use crate::copy::Event;
use crate::sync::lock;

/// How often a file's progress is told where it makes a line.
const PAUSE: Duration = Duration::from_secs(10);
/// The same for programs.
const PAUSE_JSON: Duration = Duration::from_secs(1);

/// How often a second bars are drawn at most.
const HZ: u8 = 15;

/// Shows events.
#[derive(Debug)]
pub(super) struct Show {
    json: bool,
    bars: Option<MultiProgress>,
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    count: Count,
    /// Of each file that is under way.
    under_way: HashMap<String, UnderWay>,
    total: Option<ProgressBar>,
}

/// How many files, and what became of them.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    files: usize,
    copied: usize,
    skipped: usize,
    failed: usize,
    /// Files that are being copied, whose sizes are known therefore.
    copying: usize,
    /// Bytes that came for copies that are whole.
    bytes: u64,
}

impl Count {
    fn ended(&self) -> usize {
        self.copied + self.skipped + self.failed
    }
}

#[derive(Debug)]
struct UnderWay {
    begun: Instant,
    told: Instant,
    /// Whether its bytes are coming.
    copying: bool,
    /// Bytes that were there at the beginning, and are now.
    resumed: u64,
    here: u64,
    bar: Option<ProgressBar>,
}

impl UnderWay {
    fn new(resumed: u64, bar: Option<ProgressBar>) -> Self {
        let now = Instant::now();
        UnderWay {
            begun: now,
            told: now,
            copying: false,
            resumed,
            here: resumed,
            bar,
        }
    }
}

impl Show {
    /// Shows events as JSON, else as bars if stderr is a terminal that can `draw`, else as lines.
    pub(super) fn new(json: bool, draw: bool) -> Self {
        let bars = || {
            let target = ProgressDrawTarget::term_like_with_hz(Box::<Screen>::default(), HZ);
            MultiProgress::with_draw_target(target)
        };
        Show {
            json,
            bars: (!json && draw).then(bars),
            begun: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// Shows one event.
    pub(super) fn tell(&self, event: &Event<'_>) {
        let mut state = lock(&self.state);
        match event {
            Event::Plan { files, mount } => {
                state.count.files = *files;
                if let Some(bars) = &self.bars {
                    let bar = ProgressBar::new(0).with_style(total(state.count));
                    state.total = Some(bars.add(bar));
                    state.renew_total();
                }
                if let Some(mount) = mount
                    && !self.json
                {
                    self.say(&format!("reading through the mount at {}", mount.display()));
                }
            }
            Event::Waiting { path, .. } => {
                let wait = Wait::of(event);
                match &self.bars {
                    Some(bars) => {
                        let bar = bar_of(&mut state, bars, path);
                        bar.set_style(waiting(path, wait));
                        bar.tick();
                    }
                    None if !self.json => self.say(&format!("{path}: {}", wait.in_words())),
                    None => {}
                }
            }
            Event::Started {
                path,
                size,
                resumed,
                ..
            } => {
                let bar = self.bars.as_ref().map(|bars| {
                    let bar = bar_of(&mut state, bars, path);
                    bar.set_style(copying(path));
                    bar.set_length(*size);
                    bar.set_position(*resumed);
                    // What an earlier run left tells nothing of the rate.
                    bar.tick();
                    bar.reset_eta();
                    bar
                });
                let mut file = UnderWay::new(*resumed, bar);
                file.copying = true;
                // A file that changed on its way is begun anew.
                if let Some(before) = state.under_way.insert((*path).to_owned(), file) {
                    state.forget(&before);
                }
                if let Some(bar) = &state.total {
                    bar.inc_length(size - resumed);
                    // Neither does the time in which nothing was to come.
                    if state.count.copying == 0 {
                        bar.reset_eta();
                    }
                }
                state.count.copying += 1;
                state.renew_total();
            }
            Event::Progress { path, bytes, size } => {
                if self.progressed(&mut state, path, *bytes, *size) {
                    return;
                }
            }
            Event::Skipped { path, to, size } => {
                state.count.skipped += 1;
                self.ended(&mut state, path);
                let size = short_size(*size);
                self.done(&format!("{path}: {size} are at {} already", to.display()));
            }
            Event::Done {
                path,
                to,
                size,
                verified,
            } => {
                state.count.copied += 1;
                let file = self.ended(&mut state, path);
                let came = file.as_ref().map_or(0, |file| file.here - file.resumed);
                state.count.bytes += came;
                let rate = file.map_or(String::new(), |file| {
                    let time = file.begun.elapsed().as_secs_f64();
                    let rate = short_size((came as f64 / time.max(0.001)) as u64);
                    format!(", {rate}/s")
                });
                let verified = match verified {
                    Some(true) => ", digest verified",
                    _ => "",
                };
                let (size, to) = (short_size(*size), destination(path, to).display());
                self.done(&format!("{path}: {size} to {to}{rate}{verified}"));
            }
            // Told at the end, with the exit code.
            Event::Failed { path, .. } => {
                state.count.failed += 1;
                self.ended(&mut state, path);
            }
        }
        if self.json {
            // Strings and numbers can always be written.
            let line = serde_json::to_string(event).unwrap_or_default();
            let mut stdout = io::stdout().lock();
            let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        }
    }

    /// Takes the bars away for good.
    pub(super) fn end(&self) {
        if let Some(bars) = &self.bars {
            // What stays on the screen is no failure.
            let _ = bars.clear();
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
    }

    /// Tells what became of more files than one.
    pub(super) fn sum_up(&self) {
        let count = lock(&self.state).count;
        if self.json || count.files < 2 {
            return;
        }
        let time = short_time(i64::try_from(self.begun.elapsed().as_secs()).unwrap_or(i64::MAX));
        let mut words = format!(
            "{}: {} copied, {} in {time}",
            counted(count.files, "file"),
            count.copied,
            short_size(count.bytes)
        );
        for (number, what) in [(count.skipped, "there already"), (count.failed, "failed")] {
            if number > 0 {
                words += &format!("; {number} {what}");
            }
        }
        self.say(&words);
    }

    /// A line on stderr.
    pub(super) fn say(&self, words: &str) {
        let line = || {
            let _ = writeln!(io::stderr(), "{words}");
        };
        match &self.bars {
            Some(bars) => bars.suspend(line),
            None => line(),
        }
    }

    /// A line on stdout, unless that is for programs.
    fn done(&self, words: &str) {
        if self.json {
            return;
        }
        let line = || {
            let mut stdout = io::stdout().lock();
            // A reader that has gone does not end a copy.
            let _ = writeln!(stdout, "{words}").and_then(|()| stdout.flush());
        };
        match &self.bars {
            Some(bars) => bars.suspend(line),
            None => line(),
        }
    }

    /// Takes in progress; whether it is too soon to tell a program of it.
    fn progressed(&self, state: &mut State, path: &str, bytes: u64, size: u64) -> bool {
        let Some(file) = state.under_way.get_mut(path) else {
            return false;
        };
        if let Some(total) = &state.total {
            total.inc(bytes - file.here);
        }
        file.here = bytes;
        if let Some(bar) = &file.bar {
            bar.set_position(bytes);
            return true;
        }
        let pause = if self.json { PAUSE_JSON } else { PAUSE };
        if file.told.elapsed() < pause {
            return true;
        }
        file.told = Instant::now();
        if !self.json {
            let percent = bytes * 100 / size.max(1);
            self.say(&format!("{path}: {percent} % of {}", short_size(size)));
        }
        false
    }

    fn ended(&self, state: &mut State, path: &str) -> Option<UnderWay> {
        let file = state.under_way.remove(path);
        if let Some(file) = &file {
            state.count.copying -= usize::from(file.copying);
        }
        if let Some(bars) = &self.bars
            && let Some(bar) = file.as_ref().and_then(|file| file.bar.as_ref())
        {
            bar.finish_and_clear();
            bars.remove(bar);
        }
        state.renew_total();
        file
    }
}

impl State {
    /// Takes a copy that is begun anew out of the total.
    fn forget(&mut self, before: &UnderWay) {
        if !before.copying {
            return;
        }
        self.count.copying -= 1;
        if let Some(total) = &self.total {
            let came = before.here - before.resumed;
            total.set_position(total.position().saturating_sub(came));
            let length = before.bar.as_ref().and_then(ProgressBar::length);
            total.dec_length(length.unwrap_or_default().saturating_sub(before.resumed));
        }
    }

    fn renew_total(&self) {
        if let Some(bar) = &self.total {
            bar.set_style(total(self.count));
            bar.tick();
        }
    }
}

/// The bar of a file, below that of the total: where there are more files than lines, that one stays.
fn bar_of(state: &mut State, bars: &MultiProgress, path: &str) -> ProgressBar {
    if let Some(bar) = state.under_way.get(path).and_then(|file| file.bar.clone()) {
        return bar;
    }
    let bar = ProgressBar::new(0).with_style(waiting(path, Wait::default()));
    let bar = bars.add(bar);
    let file = UnderWay::new(0, Some(bar.clone()));
    state.under_way.insert(path.to_owned(), file);
    bar
}

/// The directory below which `path` is mirrored to `to`, else that itself.
fn destination<'a>(path: &str, to: &'a Path) -> &'a Path {
    match to.ends_with(path) {
        true => to.ancestors().nth(Path::new(path).iter().count()),
        false => None,
    }
    .unwrap_or(to)
}

fn waiting(path: &str, wait: Wait) -> ProgressStyle {
    let path = path.to_owned();
    drawn(move |width, _| line::file(width, &path, &wait.details(SystemClock.now())))
}

fn copying(path: &str) -> ProgressStyle {
    let path = path.to_owned();
    drawn(move |width, bar| {
        let size = bar.len().unwrap_or_default();
        let details = line::details(bar.pos(), size, bar.per_sec());
        line::file(width, &path, &details)
    })
}

/// Sizes of files that still wait are unknown: until the last of them began, each file is taken
/// for as large as the others.
fn total(count: Count) -> ProgressStyle {
    drawn(move |width, bar| {
        let files = format!("{} of {}", count.ended(), counted(count.files, "file"));
        let (here, size) = (bar.pos(), bar.len().unwrap_or_default());
        let known = count.ended() + count.copying;
        let whole = known == count.files;
        let done = (here as f64 / size.max(1) as f64) * known as f64 / count.files.max(1) as f64;
        let mut details = match size {
            0 => Vec::new(),
            _ => line::details(here, size, bar.per_sec()),
        };
        if !whole {
            // Neither the share nor the end of what is known tells those of everything.
            details = details.into_iter().skip(1).take(2).collect();
        }
        details.insert(usize::from(whole && !details.is_empty()), files);
        line::total(width, done, &details)
    })
}

/// A bar that is one line, written for the width of the terminal whenever it is drawn.
fn drawn(
    line: impl Fn(usize, &ProgressState) -> String + Clone + Send + Sync + 'static,
) -> ProgressStyle {
    let style = ProgressStyle::with_template("{line}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key(
        "line",
        move |bar: &ProgressState, out: &mut dyn fmt::Write| {
            // Writing to a string cannot fail.
            let _ = out.write_str(&line(screen::columns(), bar));
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mirrored_is_told_by_where_it_is_mirrored_to() {
        for (to, told) in [
            ("/home/ana/copies/a/b/c.tgz", "/home/ana/copies"),
            ("/home/ana/c.tgz", "/home/ana/c.tgz"),
            ("a/b/c.tgz", ""),
        ] {
            assert_eq!(destination("a/b/c.tgz", Path::new(to)), Path::new(told));
        }
    }
}
