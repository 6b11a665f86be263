//! A TRON for the development machine, by `cargo xtask tron`: the node at a port, with blocks by the clock, a token and two
//! rich accounts.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolCall;
use anyhow::Context;
use chain::derive::tron_address;
use provision::contracts::{abi, artifact_blocking};
use tron::transaction::Operation;
use tronnode::{FundedAccount, TronNode, model::BLOCK_MS};

/// No network's.
const CHAIN_ID: u32 = 0x5e77_1ed0;
/// Base units of the token that each account has: a billion USDT.
const PLENTY: u64 = 1_000_000_000_000_000;
/// The penalty of USDT at its cap, in thousandths.
const FACTOR: u64 = 3_400;
/// So that a solidified block is there from the start.
const BLOCKS_BEFORE: u64 = 40;

fn main() -> anyhow::Result<()> {
    let port = std::env::args().nth(1).context("the port to listen on is missing")?.parse()?;
    let token = artifact_blocking("Trc20Like")?;
    let before = i64::try_from(BLOCKS_BEFORE)? * BLOCK_MS;
    let node = TronNode::new(CHAIN_ID, now_ms()? - before);
    let rich = [1, 2].map(|number| FundedAccount::new([number; 32]));
    rich.iter().for_each(|rich| node.fund(rich.account));
    let usdt = node.deploy(&rich[0], "TetherToken", &token.abi, &token.bytecode, FACTOR);
    for holder in &rich {
        let mint = abi::Trc20Like::mintCall { to: Address::from(holder.account.0), value: U256::from(PLENTY) };
        node.send(&rich[0], &Operation::Trigger { contract: usdt, call_value: 0, data: mint.abi_encode() });
    }
    node.produce(BLOCKS_BEFORE, 0);

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let taken = || format!("port {port} cannot be listened on; choose another with --port");
    let gateway = runtime.block_on(node.gateway_at(port)).with_context(taken)?;
    let (url, usdt) = (&gateway.url, tron_address(usdt).text);
    println!(
        "A TRON node for development listens on {url}, with a block every three seconds. In settled.toml, beside
mode = \"test\" under [surfaces.checkout] and what `settled-signer keys xpubs SEED --purpose deposit-test` prints:

[chains.tron]
enabled = true
mode = \"test\"
identity = \"{CHAIN_ID}\"
endpoints = [{{ url = \"{url}\" }}]
assets = [
    {{ code = \"trx\", symbol = \"TRX\", decimals = 6, quote_decimals = 6 }},
    {{ code = \"usdt\", contract = \"{usdt}\", symbol = \"USDT\", decimals = 6, quote_decimals = 6 }},
]

Accounts with a billion TRX and a billion USDT each, and their secrets, which are worthless:
"
    );
    for (number, rich) in (1u8..).zip(&rich) {
        println!("{}  {}", rich.text(), format!("{number:02x}").repeat(32));
    }
    println!(
        "\nAny wallet that can be given a node pays from them: new TronWeb({{ fullHost: '{url}', privateKey: '0101…' }})."
    );
    loop {
        thread::sleep(Duration::from_millis(BLOCK_MS.unsigned_abs()));
        node.produce(1, now_ms()?);
    }
}

fn now_ms() -> anyhow::Result<i64> {
    #[expect(clippy::disallowed_methods, reason = "blocks of this chain follow the machine's clock")]
    let now = SystemTime::now();
    Ok(i64::try_from(now.duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}
