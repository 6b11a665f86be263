//! A real node of Bitcoin Core for a test: on a network of its own (regtest), mined, reorganised, stopped and started again.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bitcoin::{Address, KnownHrp, WitnessProgram, WitnessVersion};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Error, Result, node, paths, process::ServerProcess};

/// Longer than any answer takes on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const USER: &str = "settled";
const PASSWORD: &str = "of-a-test";
/// The package whose source has the node, too.
const SOURCE: (&str, &str) = ("libbitcoinkernel-sys", "0.4.1");

#[derive(Debug, Clone, Default)]
pub struct BitcoindOptions {
    /// The node's clock, unix seconds; without it the machine's.
    pub time: Option<i64>,
    /// Passed as they are, for example `["-prune=1"]`.
    pub extra: Vec<String>,
}

/// A running node without a wallet; dropping it kills it.
pub struct Bitcoind {
    process: ServerProcess,
    port: u16,
    folder: Arc<TempDir>,
    options: BitcoindOptions,
    client: reqwest::Client,
}

/// A node that was stopped and can be started where it was.
pub struct StoppedNode {
    port: u16,
    folder: Arc<TempDir>,
    options: BitcoindOptions,
}

impl Bitcoind {
    /// Starts the `bitcoind` named by the variable BITCOIND, found on PATH, or built from source once.
    pub async fn start(options: BitcoindOptions) -> Result<Bitcoind> {
        node::run_blocking(move || Bitcoind::start_blocking(options)).await
    }

    /// The same for callers outside a runtime.
    pub fn start_blocking(options: BitcoindOptions) -> Result<Bitcoind> {
        let folder = TempDir::new().map_err(|cause| Error::context("creating a folder for bitcoind", cause))?;
        let mut attempts = 0;
        let folder = Arc::new(folder);
        loop {
            attempts += 1;
            match Bitcoind::open(free_port()?, folder.clone(), options.clone()) {
                // Another program may have taken the port meanwhile.
                Err(_) if attempts < 3 => {}
                opened => return opened,
            }
        }
    }

    fn open(port: u16, folder: Arc<TempDir>, options: BitcoindOptions) -> Result<Bitcoind> {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = paths::folder("logs")?.join(format!("bitcoind-{}-{number}.log", std::process::id()));
        let mut command = vec![binary()?.display().to_string()];
        command.extend(
            [
                "-regtest",
                "-server=1",
                "-listen=0",
                "-dnsseed=0",
                "-fixedseeds=0",
                "-discover=0",
                "-printtoconsole=1",
                "-nodebuglogfile",
                "-dbcache=16",
                "-rpcworkqueue=256",
            ]
            .map(String::from),
        );
        command.push(format!("-datadir={}", folder.path().display()));
        command.push(format!("-rpcport={port}"));
        command.extend([format!("-rpcuser={USER}"), format!("-rpcpassword={PASSWORD}")]);
        command.extend(options.time.map(|time| format!("-mocktime={time}")));
        command.extend(options.extra.iter().cloned());
        let (process, ()) = ServerProcess::start(&command, &log, |line| line.contains("Done loading").then_some(()))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_LIMIT)
            .build()
            .map_err(|cause| Error::context("building an HTTP client", cause))?;
        Ok(Bitcoind { process, port, folder, options, client })
    }

    /// With user and password, as a configuration may have it.
    pub fn url(&self) -> String {
        format!("http://{USER}:{PASSWORD}@127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Writes what it knows and ends.
    pub async fn stop(self) -> Result<StoppedNode> {
        self.rpc("stop", json!([])).await?;
        let Bitcoind { process, port, folder, options, .. } = self;
        node::run_blocking(move || process.wait()).await?;
        Ok(StoppedNode { port, folder, options })
    }

    /// Stops the node where it stands: it accepts connections and answers nobody until [`Bitcoind::resume`].
    pub fn pause(&self) -> Result<()> {
        self.process.freeze()
    }

    pub fn resume(&self) -> Result<()> {
        self.process.thaw()
    }

    /// One JSON-RPC call; `params` is an array. An error of the node is an [`Error`] with its message.
    pub async fn rpc(&self, method: &str, params: Value) -> Result<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let failed =
            |cause: reqwest::Error| self.process.failed(&format!("bitcoind did not answer {method} ({cause})"));
        let response = self.client.post(self.url()).json(&request).send().await.map_err(failed)?;
        let mut answer: Value = response.json().await.map_err(failed)?;
        match answer.get("error").filter(|error| !error.is_null()) {
            Some(error) => Err(Error::new(format!("bitcoind refused {method} {params}: {error}"))),
            None => Ok(answer["result"].take()),
        }
    }

    /// The height of the tip.
    pub async fn height(&self) -> Result<u64> {
        let height = self.rpc("getblockcount", json!([])).await?;
        height.as_u64().ok_or_else(|| Error::new(format!("bitcoind answered {height} where a height was expected")))
    }

    /// From now on the node's clock stands at this second.
    pub async fn set_time(&self, unix_seconds: i64) -> Result<()> {
        self.rpc("setmocktime", json!([unix_seconds])).await.map(drop)
    }

    /// Makes blocks of whatever waits, paid to an address.
    pub async fn mine_to(&self, address: &str, blocks: u64) -> Result<()> {
        // In portions, because the node answers only when all are there.
        let mut left = blocks;
        while left > 0 {
            let now = left.min(100);
            self.rpc("generatetoaddress", json!([now, address])).await?;
            left -= now;
        }
        Ok(())
    }

    /// Makes blocks of whatever waits.
    pub async fn mine(&self, blocks: u64) -> Result<()> {
        self.mine_to(&burn_address(), blocks).await
    }

    /// Makes one block of exactly these transactions, given as hexadecimal bytes or by the names of waiting ones.
    pub async fn mine_only(&self, transactions: &[String]) -> Result<()> {
        self.rpc("generateblock", json!([burn_address(), transactions])).await.map(drop)
    }

    /// Takes the last `depth` blocks away; what was in them waits again.
    pub async fn rollback(&self, depth: u64) -> Result<()> {
        let lowest = self.height().await? + 1 - depth;
        let hash = self.rpc("getblockhash", json!([lowest])).await?;
        self.rpc("invalidateblock", json!([hash])).await.map(drop)
    }

    /// Replaces the last `depth` blocks by one more that are empty; what was in them waits again.
    pub async fn reorg(&self, depth: u64) -> Result<()> {
        self.rollback(depth).await?;
        let nobody = burn_address();
        for _ in 0..=depth {
            self.rpc("generateblock", json!([nobody, []])).await?;
        }
        Ok(())
    }
}

impl StoppedNode {
    pub async fn start(self) -> Result<Bitcoind> {
        let StoppedNode { port, folder, options } = self;
        node::run_blocking(move || Bitcoind::open(port, folder, options)).await
    }

    /// The same with other options.
    pub async fn start_with(mut self, options: BitcoindOptions) -> Result<Bitcoind> {
        self.options = options;
        self.start().await
    }
}

/// Another address each time, so that a block never equals the one that it replaces. Nobody can spend what it gets.
fn burn_address() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let mut program = [0; 20];
    program[12..].copy_from_slice(&NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let program = WitnessProgram::new(WitnessVersion::V0, &program).expect("twenty bytes are a program");
    Address::from_witness_program(program, KnownHrp::Regtest).to_string()
}

fn free_port() -> Result<u16> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|cause| Error::context("looking for a free port", cause))
}

/// The program; built where there is none, which takes a while once.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = paths::program("BITCOIND", "bitcoind")? {
        return Ok(path);
    }
    let (_, version) = SOURCE;
    let folder = cache()?.join(format!("bitcoind-{version}"));
    fs::create_dir_all(&folder).map_err(|cause| Error::context(format!("creating {}", folder.display()), cause))?;
    let _building = paths::exclusive(&folder.join("lock"))?;
    let path = folder.join("bitcoind");
    if !path.is_file() {
        build(&folder, &path)?;
    }
    Ok(path)
}

fn cache() -> Result<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("settled")).ok_or_else(|| Error::new("neither XDG_CACHE_HOME nor HOME is set"))
}

/// Compiles the node out of the source that a package on crates.io carries.
fn build(folder: &Path, path: &Path) -> Result<()> {
    let (package, version) = SOURCE;
    eprintln!(
        "provision: no bitcoind on PATH or in BITCOIND; building one from the source in {package} {version}, once, into {}. \
         That takes about 20 minutes on two cores and needs cmake, a C++20 compiler, libboost-dev and libevent-dev.",
        folder.display()
    );
    let source = source(folder)?;
    let objects = folder.join("build");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(&source).arg("-B").arg(&objects).args([
        "-DCMAKE_BUILD_TYPE=None",
        "-DCMAKE_CXX_FLAGS=-O1",
        "-DENABLE_WALLET=OFF",
        "-DENABLE_IPC=OFF",
        "-DWITH_EMBEDDED_ASMAP=OFF",
        "-DWITH_ZMQ=OFF",
        "-DBUILD_TESTS=OFF",
        "-DBUILD_BENCH=OFF",
        "-DBUILD_FUZZ_BINARY=OFF",
        "-DBUILD_GUI=OFF",
        "-DBUILD_CLI=OFF",
        "-DBUILD_TX=OFF",
        "-DBUILD_UTIL=OFF",
    ]);
    run(
        configure,
        "configuring bitcoind; are libboost-dev and libevent-dev installed?",
        &folder.join("configure.log"),
    )?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let mut compile = Command::new("cmake");
    compile.arg("--build").arg(&objects).args(["--target", "bitcoind", "--parallel", &cores]);
    run(compile, "building bitcoind", &folder.join("build.log"))?;
    let built = objects.join("bin/bitcoind");
    let copied =
        fs::copy(&built, folder.join("bitcoind.new")).and_then(|_| fs::rename(folder.join("bitcoind.new"), path));
    copied.map_err(|cause| Error::context(format!("copying {}", built.display()), cause))?;
    // Objects are of no use any more; what cannot be removed merely lies there.
    let _left = fs::remove_dir_all(&objects);
    Ok(())
}

/// The package's folder `bitcoin`, fetched by cargo with its checksum.
fn source(folder: &Path) -> Result<PathBuf> {
    let (package, version) = SOURCE;
    let project = folder.join("fetch");
    let manifest = project.join("Cargo.toml");
    fs::create_dir_all(project.join("src"))
        .and_then(|()| fs::write(project.join("src/lib.rs"), ""))
        .and_then(|()| {
            let text = format!(
                "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
                 [dependencies]\n{package} = \"={version}\"\n"
            );
            fs::write(&manifest, text)
        })
        .map_err(|cause| Error::context(format!("writing {}", manifest.display()), cause))?;
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(&manifest)
        .output()
        .map_err(|cause| Error::context("running cargo", cause))?;
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        Error::new(format!("cargo could not fetch {package} {version}; is crates.io reachable? {}", paths::tail(&said)))
    })?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let found =
        packages.into_iter().find(|found| found["name"] == package).and_then(|found| found["manifest_path"].as_str());
    let root = found.and_then(|manifest| Path::new(manifest).parent());
    let source = root.map(|root| root.join("bitcoin")).filter(|source| source.join("CMakeLists.txt").is_file());
    source.ok_or_else(|| Error::new(format!("{package} {version} carries no source of Bitcoin Core")))
}

/// Runs a slow program, writes what it says to a log, and shows how far it is at every twentieth part.
fn run(mut command: Command, doing: &str, log: &Path) -> Result<()> {
    let started = Instant::now();
    let file = fs::File::create(log).map_err(|cause| Error::context(format!("creating {}", log.display()), cause))?;
    let errors = file.try_clone().map_err(|cause| Error::context("sharing a log file", cause))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(|cause| Error::new(format!("{doing}: cmake could not be run ({cause}); install cmake")))?;
    let mut log_file = std::io::BufWriter::new(file);
    let mut shown = 0;
    let output = child.stdout.take().expect("the output is piped");
    for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
        use std::io::Write;
        // A log that cannot be written is no reason to stop a build.
        let _logged = writeln!(log_file, "{line}");
        let percent = line.trim_start_matches('[').split('%').next().and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(percent) = percent.filter(|percent| *percent >= shown + 5) {
            shown = percent;
            eprintln!("provision: {doing}: {percent} % after {} s", started.elapsed().as_secs());
        }
    }
    drop(log_file);
    let status = child.wait().map_err(|cause| Error::context(doing, cause))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{doing} ({status}); its last words in {}:\n{}",
        log.display(),
        paths::tail(&paths::read(log)?)
    )))
}
