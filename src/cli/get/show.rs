//! How copies are shown: bars on a terminal, lines elsewhere, JSON for programs.
//!
//! Owns the bars, behind one lock that is held for moments. Files that are done are told on stdout,
//! everything that passes on stderr.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::table::short_size;
use crate::copy::Event;
use crate::sync::lock;

/// How often a file's progress is told where it makes a line.
const PAUSE: Duration = Duration::from_secs(10);
/// The same for programs.
const PAUSE_JSON: Duration = Duration::from_secs(1);

const FILE: &str = "{wide_msg} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
const WAITING: &str = "{wide_msg} {prefix}";
const TOTAL: &str = "[{wide_bar:.green}] {percent}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {prefix}";

/// Shows events.
#[derive(Debug)]
pub(super) struct Show {
    json: bool,
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: usize,
    ended: usize,
    /// Of each file that is under way.
    under_way: HashMap<String, UnderWay>,
    total: Option<ProgressBar>,
}

#[derive(Debug)]
struct UnderWay {
    begun: Instant,
    told: Instant,
    /// Bytes that were there at the beginning, and are now.
    resumed: u64,
    here: u64,
    bar: Option<ProgressBar>,
}

impl Show {
    pub(super) fn new(json: bool) -> Self {
        let bars = !json && io::stderr().is_terminal();
        Show {
            json,
            bars: bars.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())),
            state: Mutex::default(),
        }
    }

    /// Shows one event.
    pub(super) fn tell(&self, event: &Event<'_>) {
        let mut state = lock(&self.state);
        match event {
            Event::Plan { files, mount } => {
                state.files = *files;
                if let Some(bars) = &self.bars {
                    let bar = ProgressBar::new(0).with_style(style(TOTAL));
                    state.total = Some(bars.add(bar));
                }
                if let Some(mount) = mount
                    && !self.json
                {
                    self.say(&format!("reading through the mount at {}", mount.display()));
                }
            }
            Event::Waiting {
                path,
                state: word,
                percent,
                estimate,
                cached,
            } => {
                let percent = percent.map(|p| format!(" {p} %")).unwrap_or_default();
                let estimate = estimate.map(|at| format!(", expected ready at {at:.0}"));
                let cached = match cached {
                    0 => String::new(),
                    bytes => format!(", {} so far", short_size(*bytes)),
                };
                let words = format!("{word}{percent}{}{cached}", estimate.unwrap_or_default());
                match &self.bars {
                    Some(bars) => {
                        let bar = bar_of(&mut state, bars, path);
                        bar.set_style(style(WAITING));
                        bar.set_prefix(words);
                    }
                    None if !self.json => self.say(&format!("{path}: {words}")),
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
                    bar.set_style(style(FILE));
                    bar.set_length(*size);
                    bar.set_position(*resumed);
                    bar.reset_eta();
                    bar
                });
                if let Some(total) = &state.total {
                    total.inc_length(size - resumed);
                }
                let now = Instant::now();
                let under_way = UnderWay {
                    begun: now,
                    told: now,
                    resumed: *resumed,
                    here: *resumed,
                    bar,
                };
                state.under_way.insert((*path).to_owned(), under_way);
            }
            Event::Progress { path, bytes, size } => {
                if self.progressed(&mut state, path, *bytes, *size) {
                    return;
                }
            }
            Event::Skipped { path, to, size } => {
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
                let under_way = self.ended(&mut state, path);
                let rate = under_way.map_or(String::new(), |file| {
                    let time = file.begun.elapsed().as_secs_f64();
                    let bytes = (file.here - file.resumed) as f64;
                    let rate = short_size((bytes / time.max(0.001)) as u64);
                    format!(", {rate}/s")
                });
                let verified = match verified {
                    Some(true) => ", digest verified",
                    _ => "",
                };
                let size = short_size(*size);
                self.done(&format!(
                    "{path}: {size} to {}{rate}{verified}",
                    to.display()
                ));
            }
            // Told at the end, with the exit code.
            Event::Failed { path, .. } => {
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

    /// Takes the bars away.
    pub(super) fn end(&self) {
        if let Some(bars) = &self.bars {
            // What stays on the screen is no failure.
            let _ = bars.clear();
        }
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
        if let Some(bars) = &self.bars
            && let Some(bar) = file.as_ref().and_then(|file| file.bar.as_ref())
        {
            bar.finish_and_clear();
            bars.remove(bar);
        }
        state.ended += 1;
        if let Some(total) = &state.total {
            total.set_prefix(format!("{} of {} files", state.ended, state.files));
        }
        file
    }
}

/// The bar of a file, above that of the total.
fn bar_of(state: &mut State, bars: &MultiProgress, path: &str) -> ProgressBar {
    if let Some(bar) = state.under_way.get(path).and_then(|file| file.bar.clone()) {
        return bar;
    }
    let bar = bars.insert_from_back(1, ProgressBar::new(0));
    bar.set_message(path.to_owned());
    let now = Instant::now();
    let under_way = UnderWay {
        begun: now,
        told: now,
        resumed: 0,
        here: 0,
        bar: Some(bar.clone()),
    };
    state.under_way.insert(path.to_owned(), under_way);
    bar
}

/// A layout written here, which is well-formed.
fn style(layout: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(layout);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
