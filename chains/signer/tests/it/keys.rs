//! Tests of `settled-signer keys` as an operator runs it: the real program with real files and a real terminal.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};
use tempfile::TempDir;

const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
const PASSPHRASE: &str = "correct horse";
const EVM_0: &str = "0x9858EfFD232B4033E47d90003D41EC34EcaEda94";
const BIP84_XPUB: &str =
    "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";

/// The account xpub of the BIP86 test vector, for the same mnemonic.
const BIP86_XPUB: &str =
    "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";
const BIP86_0: &str = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr";

/// A temporary folder with a passphrase file, in which the program runs.
struct SignerFolder {
    temp: TempDir,
}

impl SignerFolder {
    fn new() -> SignerFolder {
        let folder = SignerFolder { temp: tempfile::tempdir().unwrap() };
        folder.write_passphrase(&format!("{PASSPHRASE}\n"), 0o600);
        folder
    }

    /// Returns a folder with a seed file of the BIP39 test phrase.
    fn with_seed() -> SignerFolder {
        let folder = SignerFolder::new();
        let output =
            folder.run_with_low_cost(&["import", "seed", "--passphrase-file", "passphrase"], &format!("{WORDS}\n"));
        assert_eq!(code_and_stdout(&output), (Some(0), "Seed 73c5da0a was written to seed.\n".to_owned()));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn write_passphrase(&self, text: &str, mode: u32) {
        let _ = fs::remove_file(self.path("passphrase"));
        let mut file = File::options().write(true).create_new(true).mode(mode).open(self.path("passphrase")).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn build_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_settled-signer"));
        command.current_dir(self.temp.path()).env_remove("CREDENTIALS_DIRECTORY").arg("keys").args(args);
        command
    }

    fn run_program(&self, args: &[&str], stdin: &str) -> Output {
        run_with_stdin(self.build_command(args), stdin)
    }

    /// Runs the program with the smallest parameters of Argon2id that it accepts.
    fn run_with_low_cost(&self, args: &[&str], stdin: &str) -> Output {
        run_with_stdin(with_low_cost(self.build_command(args)), stdin)
    }

    /// Runs the program with the passphrase file.
    fn run_with_passphrase(&self, args: &[&str]) -> Output {
        self.run_program(&[args, &["--passphrase-file", "passphrase"]].concat(), "")
    }
}

fn with_low_cost(mut command: Command) -> Command {
    command.args(["--kdf-memory-mib", "19", "--kdf-passes", "2"]);
    command
}

fn run_with_stdin(mut command: Command, stdin: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that rejects its arguments reads no input and may have closed the pipe, so the error is ignored.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// Returns the exit code and standard output.
fn code_and_stdout(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap())
}

/// Returns the exit code and standard error.
fn code_and_stderr(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn an_imported_seed_has_its_published_keys() {
    let folder = SignerFolder::with_seed();
    let (code, toml) =
        code_and_stdout(&folder.run_with_passphrase(&["xpubs", "seed", "--chain", "bitcoin", "--chain", "evm"]));
    assert_eq!(code, Some(0));
    let bitcoin = format!(
        "[[accounts]]\nchain-family = \"bitcoin\"\npurpose = \"deposit\"\nepoch = 0\npath = \"m/84'/0'/0'\"\nxpub = \"{BIP84_XPUB}\"\n"
    );
    assert!(toml.contains(&bitcoin), "{toml}");
    let taproot = format!(
        "[[accounts]]\nchain-family = \"bitcoin\"\npurpose = \"deposit\"\nepoch = 0\npath = \"m/86'/0'/0'\"\nxpub = \"{BIP86_XPUB}\"\n"
    );
    assert!(toml.contains(&taproot), "{toml}");
    let (_, taproot_only) =
        code_and_stdout(&folder.run_with_passphrase(&["xpubs", "seed", "--chain", "bitcoin", "--kind", "p2tr"]));
    assert!(taproot_only.ends_with(&taproot) && taproot_only.matches("xpub = ").count() == 1, "{taproot_only}");
    assert!(toml.contains("path = \"m/44'/60'/0'\"") && !toml.contains("tron"), "{toml}");

    let (code, addresses) =
        code_and_stdout(&folder.run_with_passphrase(&["derive", "seed", "--chain", "evm", "--index", "0..3"]));
    assert_eq!((code, addresses.lines().count()), (Some(0), 3));
    assert_eq!(addresses.lines().next(), Some(&*format!("0\tm/44'/60'/0'/0/0\t{EVM_0}")));

    let (code, addresses) =
        code_and_stdout(&folder.run_with_passphrase(&["derive", "seed", "--chain", "tron", "--index", "0"]));
    assert_eq!((code, &*addresses), (Some(0), "0\tm/44'/195'/0'/0/0\tTUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH\n"));

    let test =
        ["derive", "seed", "--chain", "bitcoin", "--network", "regtest", "--purpose", "deposit-test", "--index", "7"];
    let (code, addresses) = code_and_stdout(&folder.run_with_passphrase(&test));
    assert!(code == Some(0) && addresses.starts_with("7\tm/84'/1'/1'/0/7\tbcrt1q"), "{addresses}");

    let args = ["derive", "seed", "--chain", "bitcoin", "--kind", "p2tr", "--index", "0"];
    assert_eq!(
        code_and_stdout(&folder.run_with_passphrase(&args)),
        (Some(0), format!("0\tm/86'/0'/0'/0/0\t{BIP86_0}\n"))
    );
}

/// The BIP39 vector with the passphrase `TREZOR`, identified by the fingerprint of its master key.
#[test]
fn a_bip39_passphrase_gives_another_seed_and_is_stored_in_the_file() {
    let folder = SignerFolder::new();
    let args = ["import", "seed", "--ask-bip39-passphrase"];
    let (code, _) = code_and_stdout(&folder.run_with_low_cost(&args, &format!("{WORDS}\nTREZOR\n{PASSPHRASE}\n")));
    assert_eq!(code, Some(0));
    assert_eq!(
        code_and_stdout(&folder.run_with_passphrase(&["check", "seed"])),
        (Some(0), "seed was opened: seed b4e3f5ed\n".to_owned())
    );
}

#[test]
fn check_compares_keys_and_addresses() {
    let folder = SignerFolder::with_seed();
    let matching = [
        &["check", "seed"][..],
        &["check", "seed", "--chain", "bitcoin", "--xpub", BIP84_XPUB],
        &["check", "seed", "--chain", "bitcoin", "--xpub", BIP86_XPUB],
        &["check", "seed", "--chain", "bitcoin", "--kind", "p2tr", "--xpub", BIP86_XPUB],
        &["check", "seed", "--chain", "bitcoin", "--index", "0", "--address", BIP86_0],
        &["check", "seed", "--chain", "evm", "--index", "0", "--address", EVM_0],
        &["check", "seed", "--chain", "evm", "--index", "0", "--address", &EVM_0.to_lowercase()],
    ];
    for args in matching {
        assert_eq!(code_and_stdout(&folder.run_with_passphrase(args)).0, Some(0), "{args:?}");
    }
    let differing = [
        &["check", "seed", "--chain", "bitcoin", "--epoch", "1", "--xpub", BIP84_XPUB][..],
        &["check", "seed", "--chain", "bitcoin", "--kind", "p2tr", "--xpub", BIP84_XPUB],
        &["check", "seed", "--chain", "bitcoin", "--index", "1", "--address", BIP86_0],
        &["check", "seed", "--chain", "bitcoin", "--kind", "p2wpkh", "--index", "0", "--address", BIP86_0],
        &["check", "seed", "--chain", "evm", "--xpub", BIP84_XPUB],
        &["check", "seed", "--chain", "evm", "--index", "1", "--address", EVM_0],
        &["check", "seed", "--chain", "evm", "--purpose", "hot-0", "--index", "0", "--address", EVM_0],
    ];
    for args in differing {
        let (code, text) = code_and_stderr(&folder.run_with_passphrase(args));
        assert!(code == Some(5) && text.contains(", not "), "{args:?}: {text}");
    }
    // An xpub without a chain, or an address without an index, is wrong usage and not a match.
    for args in [&["check", "seed", "--xpub", BIP84_XPUB][..], &["check", "seed", "--chain", "evm", "--address", EVM_0]]
    {
        assert_eq!(code_and_stderr(&folder.run_with_passphrase(args)).0, Some(2), "{args:?}");
    }
}

#[test]
fn a_wrong_passphrase_and_a_damaged_file_have_different_exit_codes() {
    let folder = SignerFolder::with_seed();
    let (code, text) = code_and_stderr(&folder.run_program(&["check", "seed"], "wrong horse\n"));
    assert!(code == Some(3) && text.contains("passphrase is wrong"), "{text}");

    let mut bytes = fs::read(folder.path("seed")).unwrap();
    bytes[100] ^= 1;
    fs::write(folder.path("flipped"), &bytes).unwrap();
    fs::write(folder.path("short"), &bytes[..200]).unwrap();
    fs::write(folder.path("other"), "hello").unwrap();
    for name in ["flipped", "short", "other"] {
        assert_eq!(code_and_stderr(&folder.run_with_passphrase(&["check", name])).0, Some(4), "{name}");
    }
    assert_eq!(code_and_stderr(&folder.run_with_passphrase(&["check", "missing"])).0, Some(1));
    assert_eq!(code_and_stderr(&folder.run_with_passphrase(&["check"])).0, Some(2));
}

#[test]
fn a_seed_file_is_private_and_never_overwritten() {
    let folder = SignerFolder::with_seed();
    let before = fs::read(folder.path("seed")).unwrap();
    assert_eq!(fs::metadata(folder.path("seed")).unwrap().permissions().mode() & 0o777, 0o600);
    for args in
        [["create", "seed", "--passphrase-file", "passphrase"], ["import", "seed", "--passphrase-file", "passphrase"]]
    {
        let (code, text) = code_and_stderr(&folder.run_with_low_cost(&args, &format!("{WORDS}\n")));
        assert!(code == Some(1) && text.contains("never overwritten"), "{text}");
    }
    assert_eq!(fs::read(folder.path("seed")).unwrap(), before);
}

#[test]
fn a_passphrase_file_that_all_users_can_read_is_rejected() {
    let folder = SignerFolder::with_seed();
    folder.write_passphrase(PASSPHRASE, 0o644);
    let (code, text) = code_and_stderr(&folder.run_with_passphrase(&["check", "seed"]));
    assert!(code == Some(1) && text.contains("chmod 600"), "{text}");
}

#[test]
fn the_passphrase_may_come_from_a_systemd_credential() {
    let folder = SignerFolder::with_seed();
    fs::rename(folder.path("passphrase"), folder.path("seed-passphrase")).unwrap();
    let mut command = folder.build_command(&["check", "seed"]);
    command.env("CREDENTIALS_DIRECTORY", folder.temp.path());
    assert_eq!(run_with_stdin(command, "").status.code(), Some(0));
}

#[test]
fn a_short_or_missing_passphrase_creates_no_file() {
    let folder = SignerFolder::new();
    for stdin in ["", "\n", "1234567\n"] {
        assert_eq!(code_and_stderr(&folder.run_with_low_cost(&["create", "seed"], stdin)).0, Some(1), "{stdin:?}");
        assert!(!folder.path("seed").exists());
    }
}

#[test]
fn wrong_words_are_rejected_and_not_printed() {
    let folder = SignerFolder::new();
    let words = WORDS.replace("about", "sekret");
    let (code, text) =
        code_and_stderr(&folder.run_with_low_cost(&["import", "seed"], &format!("{words}\n{PASSPHRASE}\n")));
    assert!(code == Some(1) && text.contains("word 12") && !text.contains("sekret"), "{text}");
}

/// Neither results nor errors contain the words, private keys or the passphrase.
#[test]
fn no_secret_is_printed() {
    let folder = SignerFolder::with_seed();
    let runs = [
        folder.run_with_passphrase(&["xpubs", "seed", "--purpose", "deposit", "--purpose", "hot-0"]),
        folder.run_with_passphrase(&["derive", "seed", "--chain", "bitcoin", "--index", "0..9"]),
        folder.run_with_passphrase(&["check", "seed", "--chain", "evm", "--xpub", "x"]),
        folder.run_program(&["check", "seed"], "wrong horse\n"),
        folder.run_with_low_cost(&["import", "again", "--passphrase-file", "passphrase"], &format!("{WORDS}\n")),
    ];
    for output in runs {
        let text = format!("{}{}", code_and_stdout(&output).1, code_and_stderr(&output).1);
        for secret in ["abandon", "horse", "xprv"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn new_words_are_written_to_a_pipe_only_on_request() {
    let folder = SignerFolder::new();
    let args = ["create", "hidden", "--passphrase-file", "passphrase"];
    let output = folder.run_with_low_cost(&args, "");
    assert_eq!(code_and_stdout(&output), (Some(0), String::new()));
    assert!(code_and_stderr(&output).1.contains("were not shown"));

    let args = ["create", "shown", "--show-mnemonic", "--passphrase-file", "passphrase"];
    let (code, words) = code_and_stdout(&folder.run_with_low_cost(&args, ""));
    assert_eq!((code, words.split_whitespace().count()), (Some(0), 24));
    let (_, opened) = code_and_stdout(&folder.run_with_passphrase(&["check", "shown"]));
    let (_, imported) =
        code_and_stdout(&folder.run_with_low_cost(&["import", "again", "--passphrase-file", "passphrase"], &words));
    let fingerprint = opened.trim().rsplit(' ').next().unwrap();
    assert_eq!(imported, format!("Seed {fingerprint} was written to again.\n"));
}

/// A terminal shows the words but not the typed passphrase, and its settings are restored.
#[test]
fn a_terminal_shows_the_words_and_not_the_passphrase() {
    let folder = SignerFolder::new();
    let (mut terminal, mut child) = spawn_on_terminal(with_low_cost(folder.build_command(&["create", "seed"])));
    let mut seen = Vec::new();
    for prompt in ["New passphrase of the seed file: ", "New passphrase of the seed file, again: "] {
        read_until(&mut terminal, &mut seen, prompt);
        assert!(!has_echo(&terminal));
        // A core dump would contain the seed, so core dumps must be disabled.
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
        terminal.write_all(format!("{PASSPHRASE}\n").as_bytes()).unwrap();
    }
    read_until(&mut terminal, &mut seen, "was written to seed.");
    assert!(child.wait().unwrap().success());
    assert!(has_echo(&terminal));

    let shown = String::from_utf8(seen).unwrap();
    assert!(!shown.contains("horse"), "{shown}");
    let words = shown.lines().map(str::trim).find(|line| line.split(' ').count() == 24 && !line.contains('.'));
    assert!(words.is_some_and(|words| words.chars().all(|c| c.is_ascii_lowercase() || c == ' ')), "{shown}");
    assert_eq!(folder.run_with_passphrase(&["check", "seed"]).status.code(), Some(0));
}

#[test]
fn two_different_passphrases_create_no_file() {
    let folder = SignerFolder::new();
    let (mut terminal, mut child) = spawn_on_terminal(with_low_cost(folder.build_command(&["create", "seed"])));
    let mut seen = Vec::new();
    read_until(&mut terminal, &mut seen, "seed file: ");
    terminal.write_all(b"correct horse\n").unwrap();
    read_until(&mut terminal, &mut seen, "again: ");
    terminal.write_all(b"correct hoarse\n").unwrap();
    read_until(&mut terminal, &mut seen, "differ");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!folder.path("seed").exists());
}

#[test]
fn ctrl_c_restores_the_echo_of_the_terminal() {
    let folder = SignerFolder::with_seed();
    let (mut terminal, mut child) = spawn_on_terminal(folder.build_command(&["check", "seed"]));
    let mut seen = Vec::new();
    read_until(&mut terminal, &mut seen, "Passphrase of the seed file: ");
    terminal.write_all(b"correct\x03").unwrap();
    read_until(&mut terminal, &mut seen, "cancelled");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(has_echo(&terminal));
    assert!(!String::from_utf8(seen).unwrap().contains("correct"));
}

/// Runs a program on a new pseudo-terminal and returns its controlling side. Only the program holds the other side, so
/// reading fails when the program ends.
fn spawn_on_terminal(mut command: Command) -> (File, Child) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    command.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(terminal);
    (File::from(controller), command.spawn().unwrap())
}

fn has_echo(terminal: &File) -> bool {
    tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO)
}

fn read_until(terminal: &mut File, seen: &mut Vec<u8>, text: &str) {
    let mut byte = [0];
    while !seen.ends_with(text.as_bytes()) {
        terminal.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
}
