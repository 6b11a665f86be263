//! `settled-signer keys` as an operator runs it: the real program, real files, a real terminal.

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

/// Of BIP86, for the same words.
const BIP86_XPUB: &str =
    "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";
const BIP86_0: &str = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr";

/// A folder with a passphrase file in it, and room for seed files.
struct SignerFolder {
    folder: TempDir,
}

impl SignerFolder {
    fn new() -> SignerFolder {
        let desk = SignerFolder { folder: tempfile::tempdir().unwrap() };
        desk.write_passphrase(&format!("{PASSPHRASE}\n"), 0o600);
        desk
    }

    /// One with a seed file of the BIP39 test phrase.
    fn with_seed() -> SignerFolder {
        let desk = SignerFolder::new();
        let output = desk.run_cheaply(&["import", "seed", "--passphrase-file", "passphrase"], &format!("{WORDS}\n"));
        assert_eq!(answer(&output), (Some(0), "Seed 73c5da0a was written to seed.\n".to_owned()));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_passphrase(&self, text: &str, mode: u32) {
        let _ = fs::remove_file(self.path("passphrase"));
        let mut file = File::options().write(true).create_new(true).mode(mode).open(self.path("passphrase")).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_settled-signer"));
        command.current_dir(self.folder.path()).env_remove("CREDENTIALS_DIRECTORY").arg("keys").args(args);
        command
    }

    fn run(&self, args: &[&str], stdin: &str) -> Output {
        feed(self.command(args), stdin)
    }

    /// With the least that the program takes for Argon2id.
    fn run_cheaply(&self, args: &[&str], stdin: &str) -> Output {
        feed(cheaply(self.command(args)), stdin)
    }

    fn open(&self, args: &[&str]) -> Output {
        self.run(&[args, &["--passphrase-file", "passphrase"]].concat(), "")
    }
}

fn cheaply(mut command: Command) -> Command {
    command.args(["--kdf-memory-mib", "19", "--kdf-passes", "2"]);
    command
}

fn feed(mut command: Command, stdin: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that refuses its arguments reads nothing: the pipe may be closed already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn answer(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap())
}

fn complaint(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn an_imported_seed_gives_its_published_keys() {
    let desk = SignerFolder::with_seed();
    let (code, toml) = answer(&desk.open(&["xpubs", "seed", "--chain", "bitcoin", "--chain", "evm"]));
    assert_eq!(code, Some(0));
    let bitcoin = format!(
        "[[accounts]]\nchain-family = \"bitcoin\"\npurpose = \"deposit\"\nepoch = 0\npath = \"m/84'/0'/0'\"\nxpub = \"{BIP84_XPUB}\"\n"
    );
    assert!(toml.contains(&bitcoin), "{toml}");
    let taproot = format!(
        "[[accounts]]\nchain-family = \"bitcoin\"\npurpose = \"deposit\"\nepoch = 0\npath = \"m/86'/0'/0'\"\nxpub = \"{BIP86_XPUB}\"\n"
    );
    assert!(toml.contains(&taproot), "{toml}");
    let (_, one) = answer(&desk.open(&["xpubs", "seed", "--chain", "bitcoin", "--kind", "p2tr"]));
    assert!(one.ends_with(&taproot) && one.matches("xpub = ").count() == 1, "{one}");
    assert!(toml.contains("path = \"m/44'/60'/0'\"") && !toml.contains("tron"), "{toml}");

    let (code, addresses) = answer(&desk.open(&["derive", "seed", "--chain", "evm", "--index", "0..3"]));
    assert_eq!((code, addresses.lines().count()), (Some(0), 3));
    assert_eq!(addresses.lines().next(), Some(&*format!("0\tm/44'/60'/0'/0/0\t{EVM_0}")));

    let (code, addresses) = answer(&desk.open(&["derive", "seed", "--chain", "tron", "--index", "0"]));
    assert_eq!((code, &*addresses), (Some(0), "0\tm/44'/195'/0'/0/0\tTUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH\n"));

    let test =
        ["derive", "seed", "--chain", "bitcoin", "--network", "regtest", "--purpose", "deposit-test", "--index", "7"];
    let (code, addresses) = answer(&desk.open(&test));
    assert!(code == Some(0) && addresses.starts_with("7\tm/84'/1'/1'/0/7\tbcrt1q"), "{addresses}");

    let args = ["derive", "seed", "--chain", "bitcoin", "--kind", "p2tr", "--index", "0"];
    assert_eq!(answer(&desk.open(&args)), (Some(0), format!("0\tm/86'/0'/0'/0/0\t{BIP86_0}\n")));
}

/// BIP39's own vector for the passphrase `TREZOR`, by the fingerprint of its master key.
#[test]
fn a_bip39_passphrase_makes_another_seed_and_is_kept_in_the_file() {
    let desk = SignerFolder::new();
    let args = ["import", "seed", "--ask-bip39-passphrase"];
    let (code, _) = answer(&desk.run_cheaply(&args, &format!("{WORDS}\nTREZOR\n{PASSPHRASE}\n")));
    assert_eq!(code, Some(0));
    assert_eq!(answer(&desk.open(&["check", "seed"])), (Some(0), "seed opens: seed b4e3f5ed\n".to_owned()));
}

#[test]
fn check_compares_keys_and_addresses() {
    let desk = SignerFolder::with_seed();
    let good = [
        &["check", "seed"][..],
        &["check", "seed", "--chain", "bitcoin", "--xpub", BIP84_XPUB],
        &["check", "seed", "--chain", "bitcoin", "--xpub", BIP86_XPUB],
        &["check", "seed", "--chain", "bitcoin", "--kind", "p2tr", "--xpub", BIP86_XPUB],
        &["check", "seed", "--chain", "bitcoin", "--index", "0", "--address", BIP86_0],
        &["check", "seed", "--chain", "evm", "--index", "0", "--address", EVM_0],
        &["check", "seed", "--chain", "evm", "--index", "0", "--address", &EVM_0.to_lowercase()],
    ];
    for args in good {
        assert_eq!(answer(&desk.open(args)).0, Some(0), "{args:?}");
    }
    let bad = [
        &["check", "seed", "--chain", "bitcoin", "--epoch", "1", "--xpub", BIP84_XPUB][..],
        &["check", "seed", "--chain", "bitcoin", "--kind", "p2tr", "--xpub", BIP84_XPUB],
        &["check", "seed", "--chain", "bitcoin", "--index", "1", "--address", BIP86_0],
        &["check", "seed", "--chain", "bitcoin", "--kind", "p2wpkh", "--index", "0", "--address", BIP86_0],
        &["check", "seed", "--chain", "evm", "--xpub", BIP84_XPUB],
        &["check", "seed", "--chain", "evm", "--index", "1", "--address", EVM_0],
        &["check", "seed", "--chain", "evm", "--purpose", "hot-0", "--index", "0", "--address", EVM_0],
    ];
    for args in bad {
        let (code, text) = complaint(&desk.open(args));
        assert!(code == Some(5) && text.contains(", not "), "{args:?}: {text}");
    }
    // Half a question is wrong usage, not agreement.
    for args in [&["check", "seed", "--xpub", BIP84_XPUB][..], &["check", "seed", "--chain", "evm", "--address", EVM_0]]
    {
        assert_eq!(complaint(&desk.open(args)).0, Some(2), "{args:?}");
    }
}

#[test]
fn exit_codes_tell_a_wrong_passphrase_from_a_damaged_file() {
    let desk = SignerFolder::with_seed();
    let (code, text) = complaint(&desk.run(&["check", "seed"], "wrong horse\n"));
    assert!(code == Some(3) && text.contains("passphrase is wrong"), "{text}");

    let mut bytes = fs::read(desk.path("seed")).unwrap();
    bytes[100] ^= 1;
    fs::write(desk.path("flipped"), &bytes).unwrap();
    fs::write(desk.path("short"), &bytes[..200]).unwrap();
    fs::write(desk.path("other"), "hello").unwrap();
    for name in ["flipped", "short", "other"] {
        assert_eq!(complaint(&desk.open(&["check", name])).0, Some(4), "{name}");
    }
    assert_eq!(complaint(&desk.open(&["check", "missing"])).0, Some(1));
    assert_eq!(complaint(&desk.open(&["check"])).0, Some(2));
}

#[test]
fn nothing_is_overwritten_and_nobody_else_can_read() {
    let desk = SignerFolder::with_seed();
    let before = fs::read(desk.path("seed")).unwrap();
    assert_eq!(fs::metadata(desk.path("seed")).unwrap().permissions().mode() & 0o777, 0o600);
    for args in
        [["create", "seed", "--passphrase-file", "passphrase"], ["import", "seed", "--passphrase-file", "passphrase"]]
    {
        let (code, text) = complaint(&desk.run_cheaply(&args, &format!("{WORDS}\n")));
        assert!(code == Some(1) && text.contains("never overwritten"), "{text}");
    }
    assert_eq!(fs::read(desk.path("seed")).unwrap(), before);
}

#[test]
fn a_passphrase_that_everybody_can_read_is_none() {
    let desk = SignerFolder::with_seed();
    desk.write_passphrase(PASSPHRASE, 0o644);
    let (code, text) = complaint(&desk.open(&["check", "seed"]));
    assert!(code == Some(1) && text.contains("chmod 600"), "{text}");
}

#[test]
fn systemd_hands_the_passphrase_over_as_a_credential() {
    let desk = SignerFolder::with_seed();
    fs::rename(desk.path("passphrase"), desk.path("seed-passphrase")).unwrap();
    let mut command = desk.command(&["check", "seed"]);
    command.env("CREDENTIALS_DIRECTORY", desk.folder.path());
    assert_eq!(feed(command, "").status.code(), Some(0));
}

#[test]
fn a_short_or_missing_passphrase_makes_no_file() {
    let desk = SignerFolder::new();
    for stdin in ["", "\n", "1234567\n"] {
        assert_eq!(complaint(&desk.run_cheaply(&["create", "seed"], stdin)).0, Some(1), "{stdin:?}");
        assert!(!desk.path("seed").exists());
    }
}

#[test]
fn wrong_words_are_refused_and_not_repeated() {
    let desk = SignerFolder::new();
    let words = WORDS.replace("about", "sekret");
    let (code, text) = complaint(&desk.run_cheaply(&["import", "seed"], &format!("{words}\n{PASSPHRASE}\n")));
    assert!(code == Some(1) && text.contains("word 12") && !text.contains("sekret"), "{text}");
}

/// What the program prints, in success and in failure, never has the words, the private keys or the passphrase in it.
#[test]
fn no_secret_is_ever_printed() {
    let desk = SignerFolder::with_seed();
    let runs = [
        desk.open(&["xpubs", "seed", "--purpose", "deposit", "--purpose", "hot-0"]),
        desk.open(&["derive", "seed", "--chain", "bitcoin", "--index", "0..9"]),
        desk.open(&["check", "seed", "--chain", "evm", "--xpub", "x"]),
        desk.run(&["check", "seed"], "wrong horse\n"),
        desk.run_cheaply(&["import", "again", "--passphrase-file", "passphrase"], &format!("{WORDS}\n")),
    ];
    for output in runs {
        let text = format!("{}{}", answer(&output).1, complaint(&output).1);
        for secret in ["abandon", "horse", "xprv"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn new_words_are_shown_to_a_pipe_only_on_request() {
    let desk = SignerFolder::new();
    let args = ["create", "hidden", "--passphrase-file", "passphrase"];
    let output = desk.run_cheaply(&args, "");
    assert_eq!(answer(&output), (Some(0), String::new()));
    assert!(complaint(&output).1.contains("were not shown"));

    let args = ["create", "shown", "--show-mnemonic", "--passphrase-file", "passphrase"];
    let (code, words) = answer(&desk.run_cheaply(&args, ""));
    assert_eq!((code, words.split_whitespace().count()), (Some(0), 24));
    let (_, opened) = answer(&desk.open(&["check", "shown"]));
    let (_, imported) = answer(&desk.run_cheaply(&["import", "again", "--passphrase-file", "passphrase"], &words));
    let fingerprint = opened.trim().rsplit(' ').next().unwrap();
    assert_eq!(imported, format!("Seed {fingerprint} was written to again.\n"));
}

/// On a terminal the words are shown, what is typed is not, and the terminal is left as it was.
#[test]
fn a_terminal_shows_the_words_and_never_the_passphrase() {
    let desk = SignerFolder::new();
    let (mut terminal, mut child) = on_a_terminal(cheaply(desk.command(&["create", "seed"])));
    let mut seen = Vec::new();
    for prompt in ["New passphrase of the seed file: ", "New passphrase of the seed file, again: "] {
        read_until(&mut terminal, &mut seen, prompt);
        assert!(!echoes(&terminal));
        // A core dump would have the seed in it.
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
        terminal.write_all(format!("{PASSPHRASE}\n").as_bytes()).unwrap();
    }
    read_until(&mut terminal, &mut seen, "was written to seed.");
    assert!(child.wait().unwrap().success());
    assert!(echoes(&terminal));

    let shown = String::from_utf8(seen).unwrap();
    assert!(!shown.contains("horse"), "{shown}");
    let words = shown.lines().map(str::trim).find(|line| line.split(' ').count() == 24 && !line.contains('.'));
    assert!(words.is_some_and(|words| words.chars().all(|c| c.is_ascii_lowercase() || c == ' ')), "{shown}");
    assert_eq!(desk.open(&["check", "seed"]).status.code(), Some(0));
}

#[test]
fn two_passphrases_that_differ_make_no_file() {
    let desk = SignerFolder::new();
    let (mut terminal, mut child) = on_a_terminal(cheaply(desk.command(&["create", "seed"])));
    let mut seen = Vec::new();
    read_until(&mut terminal, &mut seen, "seed file: ");
    terminal.write_all(b"correct horse\n").unwrap();
    read_until(&mut terminal, &mut seen, "again: ");
    terminal.write_all(b"correct hoarse\n").unwrap();
    read_until(&mut terminal, &mut seen, "differ");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!desk.path("seed").exists());
}

#[test]
fn ctrl_c_gives_the_terminal_its_echo_back() {
    let desk = SignerFolder::with_seed();
    let (mut terminal, mut child) = on_a_terminal(desk.command(&["check", "seed"]));
    let mut seen = Vec::new();
    read_until(&mut terminal, &mut seen, "Passphrase of the seed file: ");
    terminal.write_all(b"correct\x03").unwrap();
    read_until(&mut terminal, &mut seen, "cancelled");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(echoes(&terminal));
    assert!(!String::from_utf8(seen).unwrap().contains("correct"));
}

/// Our side of a new terminal, and a program on the other one. Nobody else holds that: when the program dies, reading
/// fails instead of waiting for ever.
fn on_a_terminal(mut command: Command) -> (File, Child) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
    (File::from(ours), command.spawn().unwrap())
}

fn echoes(terminal: &File) -> bool {
    tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO)
}

fn read_until(terminal: &mut File, seen: &mut Vec<u8>, text: &str) {
    let mut byte = [0];
    while !seen.ends_with(text.as_bytes()) {
        terminal.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
}
