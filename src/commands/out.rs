//! Standard output of commands.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// Prints a line on standard output. When a reader such as `head` has closed the pipe, the process exits with code 0;
/// on any other error it exits with code 1.
pub fn print_line(line: impl Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("settled: cannot write to standard output: {error}");
        std::process::exit(1);
    }
}
