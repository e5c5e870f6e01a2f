//! The terminal that bars are drawn on: stderr.
//!
//! The crate that draws fills each line with blanks up to the margin, and lets the terminal wrap. The
//! `^C` that ends a copy would then be echoed on a line of its own, and the bars would be looked for
//! one line too low; in a terminal that is made narrower each line would become two. Here a line ends
//! with its text, which leaves [`ROOM`] behind it.

use std::io::{self, Write};
use std::sync::Mutex;

use indicatif::TermLike;
use rustix::termios::tcgetwinsize;

use crate::sync::lock;

/// Columns for what is typed.
pub(super) const ROOM: usize = 2;
/// The size of a terminal that does not tell it.
const SIZE: (u16, u16) = (80, 24);

/// The terminal. Owns what is not written yet.
#[derive(Debug, Default)]
pub(super) struct Screen {
    drawing: Mutex<Drawing>,
}

/// What is drawn until the next flush. Each line is told as its text, then as the blanks up to the
/// margin.
#[derive(Debug, Default)]
struct Drawing {
    pending: String,
    lines: usize,
    /// Whether the text of a line was told, and its blanks come next.
    told: bool,
}

impl Drawing {
    fn take(&mut self, piece: &str) {
        if piece == "\r" {
            self.pending.push_str(piece);
        } else if self.told {
            self.told = false;
            self.pending.push_str("\x1b[K");
        } else {
            if self.lines > 0 {
                self.pending.push_str("\r\n");
            }
            self.pending.push_str(piece);
            self.lines += 1;
            self.told = true;
        }
    }

    fn code(&mut self, number: usize, letter: char) {
        if number > 0 {
            self.pending.push_str(&format!("\x1b[{number}{letter}"));
        }
    }
}

/// Columns and rows of the terminal.
fn size() -> (u16, u16) {
    let told = tcgetwinsize(io::stderr()).map(|size| (size.ws_col, size.ws_row));
    match told {
        Ok((columns @ 1.., rows @ 1..)) => (columns, rows),
        _ => SIZE,
    }
}

/// How wide the lines of bars may be.
pub(super) fn columns() -> usize {
    usize::from(size().0).saturating_sub(ROOM)
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        size().0
    }

    fn height(&self) -> u16 {
        size().1
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        lock(&self.drawing).code(n, 'A');
        Ok(())
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        lock(&self.drawing).code(n, 'B');
        Ok(())
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        lock(&self.drawing).code(n, 'C');
        Ok(())
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        lock(&self.drawing).code(n, 'D');
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        let pending = &mut lock(&self.drawing).pending;
        pending.push_str(line);
        pending.push_str("\r\n");
        Ok(())
    }

    fn write_str(&self, piece: &str) -> io::Result<()> {
        lock(&self.drawing).take(piece);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        lock(&self.drawing).pending.push_str("\r\x1b[2K");
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let drawing = std::mem::take(&mut *lock(&self.drawing));
        let mut stderr = io::stderr().lock();
        stderr.write_all(drawing.pending.as_bytes())?;
        stderr.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_their_text() {
        let mut drawing = Drawing::default();
        drawing.code(0, 'A');
        drawing.code(1, 'A');
        for piece in ["\r", "one", "     ", "two", ""] {
            drawing.take(piece);
        }
        assert_eq!(drawing.pending, "\x1b[1A\rone\x1b[K\r\ntwo\x1b[K");
    }
}
