//! Reads secrets from the terminal, from standard input and from files. A terminal does not show the typed secret.
//! Secrets are kept in memory that is wiped.
//!
//! Lines are read byte by byte from the file descriptor, because the buffer of [`std::io::Stdin`] would keep a copy.

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

/// The maximum length of a secret, in bytes. Buffers are allocated with this size, because a buffer that grows would
/// leave a copy of the secret in memory.
const SECRET_MAX: usize = 1024;

/// Reads a secret from one line of standard input. If standard input is a terminal, the prompt is written to standard
/// error, and the typed text is not shown.
pub(crate) fn prompt_for_secret(prompt: &str) -> anyhow::Result<SecretString> {
    let stdin = io::stdin();
    let echo_off = if isatty(&stdin) {
        // The echo is switched off before the prompt appears, so that the terminal shows no part of the secret.
        let echo_off =
            EchoOff::disable_echo_and_interrupt(stdin.as_fd()).context("cannot switch off the echo of the terminal")?;
        eprint!("{prompt}: ");
        Some(echo_off)
    } else {
        None
    };
    let cancel = echo_off.as_ref().and_then(EchoOff::interrupt_key);
    read_secret_line_or_cancel(stdin.as_fd(), cancel).with_context(|| prompt.to_owned())
}

/// Reads a new secret from standard input. On a terminal the operator must type the secret twice, because a seed file
/// with a mistyped passphrase could never be opened again.
pub(crate) fn prompt_for_new_secret(prompt: &str) -> anyhow::Result<SecretString> {
    let secret = prompt_for_secret(prompt)?;
    if isatty(io::stdin()) {
        let again = prompt_for_secret(&format!("{prompt}, again"))?;
        ensure!(secret.expose_secret() == again.expose_secret(), "the two passphrases differ; try again");
    }
    Ok(secret)
}

/// Reads a secret from a file, without the last line break. Fails if all users of this machine can access the file.
pub(crate) fn read_secret_file_unless_public(path: &Path) -> anyhow::Result<SecretString> {
    let read_bounded = || -> anyhow::Result<SecretString> {
        let file = std::fs::File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        ensure!(
            mode & 0o007 == 0,
            "all users of this machine can access it (mode {:o}); run chmod 600 on it",
            mode & 0o777
        );
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_MAX + 1));
        let bound = u64::try_from(SECRET_MAX + 1)?;
        file.take(bound).read_to_end(&mut bytes)?;
        ensure!(bytes.len() <= SECRET_MAX, "it is longer than {SECRET_MAX} bytes");
        parse_secret_without_line_break(&bytes)
    };
    read_bounded().with_context(|| format!("reading the secret in {}", path.display()))
}

/// Reads one line as a secret. Fails if the input is empty, if the line is too long, or if it contains the byte
/// `cancel`, which the terminal sends when the operator presses the interrupt key.
fn read_secret_line_or_cancel(from: BorrowedFd<'_>, cancel: Option<u8>) -> anyhow::Result<SecretString> {
    let mut line = Zeroizing::new(Vec::with_capacity(SECRET_MAX));
    let mut byte = Zeroizing::new([0u8; 1]);
    loop {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(from, byte.as_mut_slice()))?;
        if count == 0 && line.is_empty() {
            bail!("the input is empty");
        }
        if count == 1 && Some(byte[0]) == cancel {
            eprintln!();
            bail!("cancelled");
        }
        if count == 0 || byte[0] == b'\n' {
            return parse_secret_without_line_break(&line);
        }
        ensure!(line.len() < SECRET_MAX, "the line is longer than {SECRET_MAX} bytes");
        line.push(byte[0]);
    }
}

/// Returns the bytes as the text of a secret, without the line break at its end. Fails if they are not UTF-8.
fn parse_secret_without_line_break(bytes: &[u8]) -> anyhow::Result<SecretString> {
    let text = std::str::from_utf8(bytes).map_err(|_| anyhow::anyhow!("it is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Ok(SecretString::from(line.strip_suffix('\r').unwrap_or(line)))
}

/// Keeps the terminal from showing typed text (echo) until this value is dropped. Meanwhile the interrupt key (Ctrl-C)
/// only ends the line: a killed program could not switch the echo on again.
struct EchoOff<'a> {
    terminal: BorrowedFd<'a>,
    /// The settings of the terminal before the echo was switched off.
    before: Termios,
}

impl EchoOff<'_> {
    /// Switches off the echo of a terminal, and makes the interrupt key end the line.
    fn disable_echo_and_interrupt(terminal: BorrowedFd<'_>) -> io::Result<EchoOff<'_>> {
        let before = tcgetattr(terminal)?;
        let mut without_echo = before.clone();
        without_echo.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
        without_echo.special_codes[SpecialCodeIndex::VEOL] = before.special_codes[SpecialCodeIndex::VINTR];
        // The line break that the operator types is still echoed, so that the next prompt starts on a new line.
        without_echo.local_modes |= LocalModes::ECHONL;
        tcsetattr(terminal, OptionalActions::Flush, &without_echo)?;
        Ok(EchoOff { terminal, before })
    }

    /// Returns the byte that the interrupt key sends, or `None` when the terminal has no interrupt key (0).
    fn interrupt_key(&self) -> Option<u8> {
        Some(self.before.special_codes[SpecialCodeIndex::VINTR]).filter(|&key| key != 0)
    }
}

impl Drop for EchoOff<'_> {
    fn drop(&mut self) {
        // An error means that the terminal no longer exists, so its settings need not be restored.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
