//! Secrets that people type: read from standard input, without echo when it is a terminal, into memory that is wiped.
//!
//! Lines are read byte by byte from the descriptor, because the buffer of [`std::io::Stdin`] would keep a copy.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
};

use anyhow::{Context, bail, ensure};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Longest secret in bytes. The buffer has this size from the start, so that it is never moved.
const SECRET_MAX: usize = 1024;

/// One line from standard input. The prompt goes to standard error, and only to a person.
pub(crate) fn read_secret(prompt: &str) -> anyhow::Result<SecretString> {
    let stdin = io::stdin();
    let silence = if isatty(&stdin) {
        // First the silence, then the prompt: nobody types before seeing it.
        let silence = EchoOff::enable(stdin.as_fd()).context("the terminal does not stop to echo")?;
        eprint!("{prompt}: ");
        Some(silence)
    } else {
        None
    };
    let cancel = silence.as_ref().and_then(EchoOff::cancel_key);
    read_line(stdin.as_fd(), cancel).with_context(|| prompt.to_owned())
}

/// The same, asked twice of a person, because a typing error in a new passphrase would lock the seed for ever.
pub(crate) fn read_new_secret(prompt: &str) -> anyhow::Result<SecretString> {
    let secret = read_secret(prompt)?;
    if isatty(io::stdin()) {
        let again = read_secret(&format!("{prompt}, again"))?;
        ensure!(secret.expose_secret() == again.expose_secret(), "the two passphrases differ");
    }
    Ok(secret)
}

/// The content of a file without its last line break. A file that everybody can read holds no secret.
pub(crate) fn read_secret_file(path: &Path) -> anyhow::Result<SecretString> {
    let read = || -> anyhow::Result<SecretString> {
        let file = std::fs::File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        ensure!(mode & 0o007 == 0, "everybody on this machine can read it (mode {:o}): chmod 600 it", mode & 0o777);
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_MAX + 1));
        let bound = u64::try_from(SECRET_MAX + 1)?;
        file.take(bound).read_to_end(&mut bytes)?;
        ensure!(bytes.len() <= SECRET_MAX, "it is longer than {SECRET_MAX} bytes");
        text(&bytes)
    };
    read().with_context(|| format!("secret in {}", path.display()))
}

fn read_line(from: BorrowedFd<'_>, cancel: Option<u8>) -> anyhow::Result<SecretString> {
    let mut line = Zeroizing::new(Vec::with_capacity(SECRET_MAX));
    let mut byte = Zeroizing::new([0u8; 1]);
    loop {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(from, byte.as_mut_slice()))?;
        if count == 0 && line.is_empty() {
            bail!("nothing was given");
        }
        if count == 1 && Some(byte[0]) == cancel {
            eprintln!();
            bail!("cancelled");
        }
        if count == 0 || byte[0] == b'\n' {
            return text(&line);
        }
        ensure!(line.len() < SECRET_MAX, "the line is longer than {SECRET_MAX} bytes");
        line.push(byte[0]);
    }
}

fn text(bytes: &[u8]) -> anyhow::Result<SecretString> {
    let text = std::str::from_utf8(bytes).map_err(|_| anyhow::anyhow!("it is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Ok(SecretString::from(line.strip_suffix('\r').unwrap_or(line)))
}

/// The terminal does not echo while this lives. The key that interrupts a program (Ctrl-C) ends the line instead: a program
/// that it kills could not give the terminal its echo back.
struct EchoOff<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl EchoOff<'_> {
    fn enable(terminal: BorrowedFd<'_>) -> io::Result<EchoOff<'_>> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VEOL] = before.special_codes[SpecialCodeIndex::VINTR];
        // The end of the line is still shown, so that the next prompt starts on a new one.
        silent.local_modes |= LocalModes::ECHONL;
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(EchoOff { terminal, before })
    }

    /// What Ctrl-C sends, unless the terminal has no such key (0).
    fn cancel_key(&self) -> Option<u8> {
        Some(self.before.special_codes[SpecialCodeIndex::VINTR]).filter(|&key| key != 0)
    }
}

impl Drop for EchoOff<'_> {
    fn drop(&mut self) {
        // There is nobody left to tell when the terminal went away.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
