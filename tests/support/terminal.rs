//! A pseudo-terminal for what people see: programs run in it, and what they draw is kept as the lines
//! of a screen without a bottom.
//!
//! It understands what progress bars and prompts write: text, line ends, moves of the cursor, and the
//! erasure of lines and of the screen. Anything else is a mistake that fails the test. A line that is
//! wider than the terminal wraps, as in a real one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A terminal with what runs in it.
pub struct Terminal {
    master: File,
    slave: OwnedFd,
    output: Receiver<Vec<u8>>,
    columns: usize,
    /// All that was written, escape codes included.
    pub raw: Vec<u8>,
    screen: Screen,
}

impl Terminal {
    pub fn new(columns: u16) -> Self {
        // Neither end is inherited, or a program would keep its own terminal open.
        let master = File::options()
            .read(true)
            .write(true)
            .open("/dev/ptmx")
            .unwrap();
        let own = master.as_raw_fd();
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: the descriptor is open and the number outlives the calls, which keep neither.
        let peer = unsafe {
            assert_eq!(
                libc::ioctl(own, libc::TIOCSPTLCK, &0),
                0,
                "{}",
                last_error()
            );
            libc::ioctl(own, libc::TIOCGPTPEER, flags)
        };
        assert!(peer >= 0, "{}", last_error());
        // SAFETY: it was opened just now, and nobody else has it.
        let slave = unsafe { OwnedFd::from_raw_fd(peer) };
        let (sender, output) = channel();
        let mut reader = master.try_clone().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut terminal = Terminal {
            master,
            slave,
            output,
            columns: 0,
            raw: Vec::new(),
            screen: Screen::default(),
        };
        terminal.resize(columns);
        terminal
    }

    /// Starts `command` with this as its controlling terminal; what of its standard streams is not
    /// set otherwise is this terminal.
    pub fn spawn(&self, mut command: Command, streams: &[Stream]) -> Child {
        for stream in streams {
            let end = self.slave.try_clone().unwrap();
            match stream {
                Stream::In => command.stdin(end),
                Stream::Out => command.stdout(end),
                Stream::Err => command.stderr(end),
            };
        }
        let terminal = self.slave.as_fd().as_raw_fd();
        // SAFETY: setsid, ioctl and signal may be called between fork and exec, and touch no memory;
        // the descriptor is open in the child until it executes another program.
        unsafe {
            command.pre_exec(move || {
                if libc::setsid() < 0 || libc::ioctl(terminal, libc::TIOCSCTTY, 0) < 0 {
                    return Err(last_error());
                }
                // What runs in the background of a shell ignores Ctrl-C, and hands that on.
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        command.spawn().unwrap()
    }

    /// Makes the terminal this wide, as dragging its corner does.
    pub fn resize(&mut self, columns: u16) {
        let size = libc::winsize {
            ws_row: 50,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the size outlives the call.
        let done = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(done, 0, "{}", last_error());
        self.columns = columns.into();
    }

    /// Types `keys`; `\x03` is Ctrl-C.
    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// How the terminal is set: input modes, echo and the like.
    pub fn modes(&self) -> [u32; 4] {
        // SAFETY: all of `termios` is plain numbers, for which zero is a value.
        let mut modes: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, and `modes` outlives the call.
        let told = unsafe { libc::tcgetattr(self.slave.as_raw_fd(), &mut modes) };
        assert_eq!(told, 0, "{}", last_error());
        [modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag]
    }

    /// The lines on the screen, without blanks at their ends; those that were wrapped are one again, as
    /// they are when they are copied off a screen.
    pub fn lines(&self) -> Vec<String> {
        self.screen.lines()
    }

    /// Takes in what is written until `seen` has found what it looks for; it is asked each time that
    /// the screen has changed.
    pub fn until<T>(&mut self, what: &str, mut seen: impl FnMut(&[String]) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = seen(&self.lines()) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!(
                        "never seen: {what}; the screen:\n{}",
                        self.lines().join("\n")
                    )
                }
            }
        }
    }

    /// Takes in what is written until a line has ended.
    pub fn until_line_ends(&mut self) {
        while !self.raw.ends_with(b"\n") {
            let bytes = self.output.recv_timeout(Duration::from_secs(60));
            self.take(&bytes.expect("the line never ended"));
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        self.screen.write(bytes, self.columns);
    }
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    In,
    Out,
    Err,
}

fn last_error() -> std::io::Error {
    std::io::Error::last_os_error()
}

/// What is drawn, and where the cursor is.
#[derive(Debug, Default)]
struct Screen {
    lines: Vec<Vec<char>>,
    /// Rows that go on with what did not fit in the one above.
    wrapped: BTreeSet<usize>,
    row: usize,
    column: usize,
    /// Bytes of a character or an escape code that has not ended yet.
    pending: Vec<u8>,
}

impl Screen {
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for (row, line) in self.lines.iter().enumerate() {
            match lines.last_mut() {
                Some(above) if self.wrapped.contains(&row) => above.extend(line),
                _ => lines.push(line.iter().collect()),
            }
        }
        let mut lines: Vec<String> = lines
            .iter()
            .map(|line| line.trim_end().to_owned())
            .collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    fn write(&mut self, bytes: &[u8], columns: usize) {
        for &byte in bytes {
            self.pending.push(byte);
            let whole = match self.pending[0] {
                0x1b => {
                    let code = self.pending.len() > 2 && (0x40..0x7f).contains(&byte);
                    if code {
                        let code = std::mem::take(&mut self.pending);
                        self.obey(std::str::from_utf8(&code[1..]).unwrap());
                    }
                    continue;
                }
                _ => std::str::from_utf8(&self.pending),
            };
            if let Ok(text) = whole {
                let character = text.chars().next().unwrap();
                self.pending.clear();
                self.put(character, columns);
            }
        }
    }

    fn put(&mut self, character: char, columns: usize) {
        match character {
            '\r' => self.column = 0,
            '\n' => self.row += 1,
            '\x08' => self.column = self.column.saturating_sub(1),
            character => {
                assert!(!character.is_control(), "{character:?} was written");
                if self.column >= columns {
                    (self.row, self.column) = (self.row + 1, 0);
                    self.wrapped.insert(self.row);
                } else if self.column == 0 {
                    self.wrapped.remove(&self.row);
                }
                let column = self.column;
                let line = self.line();
                if line.len() <= column {
                    line.resize(column + 1, ' ');
                }
                line[column] = character;
                self.column += 1;
            }
        }
    }

    /// The line of the cursor.
    fn line(&mut self) -> &mut Vec<char> {
        if self.lines.len() <= self.row {
            self.lines.resize(self.row + 1, Vec::new());
        }
        &mut self.lines[self.row]
    }

    /// Does what an escape code says, given without its first character.
    fn obey(&mut self, code: &str) {
        let (numbers, end) = code.split_at(code.len() - 1);
        let number: Option<usize> = numbers.strip_prefix('[').and_then(|n| n.parse().ok());
        let by = number.unwrap_or(1);
        match (end, number) {
            ("A", _) => self.row = self.row.saturating_sub(by),
            ("B", _) => self.row += by,
            ("C", _) => self.column += by,
            ("D", _) => self.column = self.column.saturating_sub(by),
            // Colours are not kept.
            ("m", _) => {}
            ("H", None) => (self.row, self.column) = (0, 0),
            ("K", Some(2)) => self.line().clear(),
            ("K", None | Some(0)) => {
                let column = self.column;
                self.line().truncate(column);
            }
            ("J", Some(2)) => self.lines.clear(),
            ("J", None | Some(0)) => {
                let (row, column) = (self.row, self.column);
                self.line().truncate(column);
                self.lines.truncate(row + 1);
            }
            _ => panic!("the escape code {code:?} was written"),
        }
    }
}

#[test]
fn what_is_drawn_over_is_gone() {
    let drawn = |text: &str| {
        let mut screen = Screen::default();
        screen.write(text.as_bytes(), 10);
        screen.lines()
    };
    assert_eq!(drawn("one\r\ntwo\r\n"), ["one", "two"]);
    assert_eq!(
        drawn("one\r\ntwo\x1b[1A\rO\x1b[1B\x1b[2K\rthree"),
        ["One", "three"]
    );
    assert_eq!(drawn("012345678 é\r\nnext"), ["012345678 é", "next"]);
    assert_eq!(drawn("a\r\nb\r\nc\x1b[2A\r\x1b[J"), [""; 0]);
    assert_eq!(drawn("a\x1b[2J\x1b[Hb"), ["b"]);
}
