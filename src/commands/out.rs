//! Standard output of commands.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// Prints a line on standard output. If the reader of the pipe, such as `head`, has closed it, the process exits with
/// code 0; on any other error it exits with code 1.
pub fn print_line(line: impl Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("settled: cannot write to standard output: {error}");
        std::process::exit(1);
    }
}
