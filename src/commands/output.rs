//! The standard output of commands.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// Prints a line on standard output. When the reader of a pipe, such as `head`, has closed the pipe, the process exits
/// with code 0. On any other error the process exits with code 1.
pub fn print_line_or_exit(line: impl Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("settled: cannot write to standard output: {error}");
        std::process::exit(1);
    }
}
