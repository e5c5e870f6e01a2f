//! The command line: one file per command, no logic of the system inside.

use std::process::ExitCode;

/// Parses the arguments, runs the command and tells the exit code.
pub fn main() -> ExitCode {
    todo!()
}
