//! Standard output of commands.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// Prints a line. Whoever closed the pipe, such as `head`, has read enough, and the command ends quietly.
pub fn print_line(line: impl Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("settled: standard output cannot be written: {error}");
        std::process::exit(1);
    }
}
