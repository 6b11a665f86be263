//! Compiles the contracts in `tests/standins/contracts` with solc from npm, when a test needs the first one.

use std::{collections::BTreeMap, fs};

use alloy_primitives::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Error, Result, node, paths};

/// The functions and events of the contracts as Rust types: `UsdtLike::mintCall { to, value }.abi_encode()`.
pub mod abi {
    alloy_sol_types::sol! {
        interface UsdtLike {
            event Transfer(address indexed from, address indexed to, uint256 value);
            function mint(address to, uint256 value) external;
            function transfer(address to, uint256 value) external;
            function approve(address spender, uint256 value) external;
            function transferFrom(address from, address to, uint256 value) external;
            function balanceOf(address owner) external view returns (uint256);
            function setParams(uint256 basisPoints, uint256 maximumFee) external;
            function setPaused(bool paused) external;
            function setBlocked(address holder, bool blocked) external;
        }

        interface Bep20Like {
            event Transfer(address indexed from, address indexed to, uint256 value);
            function mint(address to, uint256 value) external;
            function transfer(address to, uint256 value) external returns (bool);
            function approve(address spender, uint256 value) external returns (bool);
            function transferFrom(address from, address to, uint256 value) external returns (bool);
            function balanceOf(address owner) external view returns (uint256);
        }

        interface Trc20Like {
            event Transfer(address indexed from, address indexed to, uint256 value);
            function mint(address to, uint256 value) external;
            function transfer(address to, uint256 value) external returns (bool);
            function approve(address spender, uint256 value) external returns (bool);
            function transferFrom(address from, address to, uint256 value) external returns (bool);
            function balanceOf(address owner) external view returns (uint256);
            function setPaused(bool paused) external;
            function setBlackListed(address holder, bool listed) external;
        }

        interface FakeToken {
            event Transfer(address indexed from, address indexed to, uint256 value);
            function phantom(address from, address to, uint256 value) external;
            function phantoms(address from, address to, uint256 value, uint256 count) external;
            function reverted(address from, address to, uint256 value) external;
            function misshapen(address from, address to, uint256 value) external;
        }

        interface Batcher {
            function payToken(address token, address[] to, uint256[] value) external;
            function payEther(address[] to, uint256[] value) external payable;
            function payEtherThroughRevert(address[] to, uint256[] value) external payable;
            function payByDestruct(address to) external payable;
        }

        interface Reverter {
            function set(uint8 mode) external;
        }
    }
}

/// A compiled contract.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Artifact {
    pub name: String,
    pub abi: Value,
    /// The code that creates the contract. ABI-encoded constructor arguments are appended to it.
    pub bytecode: Bytes,
}

/// Returns the contract `name`, from the cache or from the compiler.
pub async fn compile_contract(name: &str) -> Result<Artifact> {
    let name = name.to_owned();
    node::run_on_blocking_thread(move || compile_contract_blocking(&name)).await
}

/// Does the same as [`compile_contract`], for callers without an async runtime.
pub fn compile_contract_blocking(name: &str) -> Result<Artifact> {
    let mut all = compile_all_contracts()?;
    let known = all.keys().cloned().collect::<Vec<_>>().join(", ");
    all.remove(name).ok_or_else(|| Error::new(format!("tests/standins/contracts has no contract {name}, only {known}")))
}

fn compile_all_contracts() -> Result<BTreeMap<String, Artifact>> {
    let repository = paths::repository_root();
    let sources = read_sources()?;
    let compiler = paths::read_text(&repository.join("tests/oracles/solc.mjs"))?;
    let versions = paths::read_text(&repository.join("tests/oracles/package-lock.json"))?;
    let texts = sources.iter().flat_map(|(name, text)| [name.as_str(), text.as_str()]);
    let fingerprint =
        paths::fingerprint(&[compiler.as_str(), versions.as_str()].into_iter().chain(texts).collect::<Vec<_>>());

    let cache = paths::create_cache_folder("contracts")?;
    let file = cache.join(format!("{fingerprint}.json"));
    let _compiling = paths::lock_exclusive(&cache.join("lock"))?;
    if !file.is_file() {
        eprintln!("provision: compiling {} contracts with solc, once", sources.len());
        let output = node::run_node_script_blocking("solc", &json!({ "sources": sources }))?;
        paths::write_atomically(&file, &output.to_string())?;
    }
    serde_json::from_str(&paths::read_text(&file)?)
        .map_err(|cause| Error::context(format!("reading {}", file.display()), cause))
}

fn read_sources() -> Result<BTreeMap<String, String>> {
    let folder = paths::repository_root().join("tests/standins/contracts");
    let failed = |cause: std::io::Error| Error::context(format!("listing {}", folder.display()), cause);
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "sol") {
            let name = path.file_name().expect("a directory entry has a file name").to_string_lossy().into_owned();
            sources.insert(name, paths::read_text(&path)?);
        }
    }
    Ok(sources)
}
