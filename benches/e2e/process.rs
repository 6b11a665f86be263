//! P21 and P23: the start and the idle load of the daemon process, with an empty database and with a million open invoices.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chain::{AddressKey, AssetKind, WatchSet};
use config::Config;
use cpu_time::ThreadTime;
use provision::anvil::{Anvil, AnvilOptions, Mining};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use signer::accounts::{AccountPurpose, KeyAccount};
use signer::seed::Seed;
use tokio::runtime::Runtime;

use crate::databases::{self, fill_sqlite};
use crate::report::{Bounds, Report, nanos, thousandths};
use crate::usdt;

const OPEN: u64 = 1_000_000;
const REST: Duration = Duration::from_secs(5);
const START_LIMIT: Duration = Duration::from_secs(60);
/// The test phrase of BIP39; it is public and holds no money.
const PHRASE: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
/// The code of a contract that returns 6 for every call, as the decimals of a token.
const SIX_DECIMALS_CODE: &str = "0x600660005260206000f3";

/// Measures and reports P21 and P23.
pub fn run(report: &mut Report, runtime: &Runtime) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build folder is writable");
    // anvil stands in for the Ethereum main network, with a block every twelve seconds.
    let options = AnvilOptions { chain_id: 1, mining: Mining::EverySeconds(12), ..AnvilOptions::default() };
    let anvil = runtime.block_on(Anvil::start_node(options)).unwrap_or_else(|e| panic!("{e}"));
    let installation = BenchInstallation::new(folder.path(), &anvil.url());
    runtime.block_on(installation.put_tokens(&anvil));

    let empty = DaemonProcess::start(&installation, "/healthz");
    let bounds = Bounds::AtMost { gate: 1_000_000, goal: 500_000 };
    report.plain("–", "first answer after the start, empty database", "ms", bounds, millis(empty.started_in));
    let bounds = Bounds::AtMost { gate: 128_000, goal: 48_000 };
    report.plain("P23", "memory at rest, nothing watched", "MiB", bounds, empty.mebibytes());
    empty.measure_idle_cpu(report, "nothing watched", Bounds::Informative);
    empty.stop();

    fill_sqlite(&installation.database(), &usdt::asset(), OPEN);
    let load = load_watched(&installation.database());
    let many = DaemonProcess::start(&installation, "/readyz");
    let ratio = thousandths(nanos(many.started_in), nanos(load));
    report.plain(
        "P21",
        "ready after the start, 10⁶ open, by a bare load",
        "×",
        Bounds::AtMost { gate: 3_000, goal: 1_500 },
        ratio,
    );
    let bounds = Bounds::AtMost { gate: 6_000_000, goal: 3_000_000 };
    report.plain("P21", "ready after the start, 10⁶ open", "ms", bounds, millis(many.started_in));
    report.plain("P21", "memory at rest, 10⁶ open", "MiB", Bounds::Informative, many.mebibytes());
    many.measure_idle_cpu(report, "10⁶ open", Bounds::AtMost { gate: 2_000, goal: 500 });
    many.stop();
}

/// A data folder with a configuration.
struct BenchInstallation {
    folder: PathBuf,
    address: SocketAddr,
    config: Config,
}

impl BenchInstallation {
    fn new(folder: &Path, node: &str) -> BenchInstallation {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = port.expect("the machine has a free port");
        let words = PHRASE.to_owned().into();
        let seed = Seed::from_words(&words, String::new().into()).expect("the phrase is valid");
        let account = KeyAccount::with_default_address_kind(
            chain::Family::Evm,
            bitcoin::Network::Bitcoin,
            AccountPurpose::Deposit,
            0,
        )
        .expect("the account exists");
        let xpub = account.derive_xpub(&seed);
        let text = format!(
            r#"
            [server]
            listen = "{address}"
            [data]
            folder = "data"
            [surfaces.checkout]
            merchant = "bench"
            [chains.ethereum]
            enabled = true
            endpoints = [{{ url = "{node}", own = true }}]
            [rates]
            mode = "fixed"
            [rates.fixed]
            "ETH/USD" = "3200"
            "USDT/USD" = "1"
            [[accounts]]
            chain-family = "evm"
            purpose = "deposit"
            xpub = "{xpub}"
            "#
        );
        let file = folder.join("settled.toml");
        std::fs::write(&file, text).expect("the file is writable");
        let config = Config::load_file_and_environment(&file).unwrap_or_else(|e| panic!("{e}"));
        BenchInstallation { folder: folder.to_owned(), address, config }
    }

    fn database(&self) -> PathBuf {
        self.folder.join("data/settled.db")
    }

    /// Puts code at the addresses of all configured tokens, because the daemon checks their decimals at the start.
    async fn put_tokens(&self, anvil: &Anvil) {
        let chains = self.config.chains.values().filter(|chain| chain.enabled);
        for (_, asset) in chains.flat_map(|chain| chain.assets()) {
            if let AssetKind::Token { contract } = &asset.kind {
                anvil
                    .call_rpc("anvil_setCode", json!([contract, SIX_DECIMALS_CODE]))
                    .await
                    .expect("the contract is valid");
            }
        }
    }
}

/// A running daemon. Dropping it kills the process.
struct DaemonProcess {
    child: Child,
    started_in: Duration,
}

impl DaemonProcess {
    fn start(installation: &BenchInstallation, path: &str) -> DaemonProcess {
        let start = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_settled"))
            .arg("serve")
            .arg("--config")
            .arg(installation.folder.join("settled.toml"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(installation.folder.join("log")).expect("the file is writable"))
            .spawn();
        let child = child.expect("the program runs");
        let mut running = DaemonProcess { child, started_in: Duration::ZERO };
        while !is_answering(installation.address, path) {
            let log = || std::fs::read_to_string(installation.folder.join("log")).unwrap_or_default();
            assert!(start.elapsed() < START_LIMIT, "the daemon is not ready:\n{}", log());
            assert!(running.child.try_wait().is_ok_and(|ended| ended.is_none()), "the daemon ended:\n{}", log());
            std::thread::sleep(Duration::from_millis(1));
        }
        running.started_in = start.elapsed();
        running
    }

    /// Returns the resident memory in thousandths of a MiB.
    fn mebibytes(&self) -> u64 {
        std::thread::sleep(Duration::from_secs(2));
        databases::resident_bytes(&self.child.id().to_string()) * 1_000 / (1 << 20)
    }

    fn measure_idle_cpu(&self, report: &mut Report, state: &str, bounds: Bounds) {
        let before = self.cpu_ticks();
        std::thread::sleep(REST);
        // A tick is a hundredth of a second. The result is in thousandths of a percent.
        let share = (self.cpu_ticks() - before) * 100_000 / (REST.as_secs() * 100);
        report.plain("P23", format!("CPU at rest, {state}"), "%", bounds, share);
    }

    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the daemon runs");
        // User and system time are fields 14 and 15. Field 2, the name, ends with a parenthesis.
        let fields = stat.rsplit_once(')').expect("the chain id is valid").1.split_whitespace();
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("the field is a number")).sum()
    }

    fn stop(mut self) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("the process id is valid");
        kill_process(id, Signal::TERM).expect("the daemon is a child of this process");
        let ended = self.child.wait().expect("the daemon ends");
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Returns true when the daemon answers with status 200.
fn is_answering(address: SocketAddr, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut answer = [0; 12];
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).and_then(|()| stream.read_exact(&mut answer)).is_ok()
        && answer.ends_with(b"200")
}

/// Returns the time of the work that no start can avoid: reading every address from the table into a set.
fn load_watched(database: &Path) -> Duration {
    let start = ThreadTime::now();
    let connection = rusqlite::Connection::open(database).expect("the database opens");
    let watched = WatchSet::default();
    let mut select =
        connection.prepare("select key from addresses where chain = 'ethereum'").expect("the statement is valid");
    let mut rows = select.query([]).expect("the rows are valid");
    while let Some(row) = rows.next().expect("the row is readable") {
        watched.insert(AddressKey(row.get(0).expect("the column is a key")));
    }
    assert_eq!(u64::try_from(watched.len()).expect("the number fits 64 bits"), OPEN);
    start.elapsed()
}

/// Returns a time in thousandths of a millisecond.
fn millis(time: Duration) -> u64 {
    nanos(time) / 1_000
}
