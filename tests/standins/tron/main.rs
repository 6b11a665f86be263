//! A TRON node for the development machine, started by `cargo xtask tron`: it listens on a port and produces blocks by the
//! clock. It has a token and two funded accounts.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolCall;
use anyhow::Context;
use chain::address::encode_tron_address;
use provision::contracts::{abi, compile_contract_blocking};
use tron::transaction::Operation;
use tronnode::{FundedAccount, TronNode, model::BLOCK_MS};

/// A chain id that no public network uses.
const CHAIN_ID: u32 = 0x5e77_1ed0;
/// The balance of each account in the token: a billion USDT, in base units.
const TOKEN_BALANCE: u64 = 1_000_000_000_000_000;
/// The maximum energy penalty of USDT, in thousandths of the energy.
const FACTOR: u64 = 3_400;
/// The number of blocks produced at the start, so that a solidified block exists.
const INITIAL_BLOCKS: u64 = 40;

fn main() -> anyhow::Result<()> {
    let port = std::env::args()
        .nth(1)
        .context("the port is missing; start this program with `cargo xtask tron --port PORT`")?
        .parse()?;
    let token = compile_contract_blocking("Trc20Like")?;
    let before = i64::try_from(INITIAL_BLOCKS)? * BLOCK_MS;
    let node = TronNode::new(CHAIN_ID, now_ms()? - before);
    let accounts = [1, 2].map(|number| FundedAccount::new([number; 32]));
    accounts.iter().for_each(|account| node.fund_account(account.account));
    let usdt = node.deploy_contract(&accounts[0], "TetherToken", &token.abi, &token.bytecode, FACTOR);
    for holder in &accounts {
        let mint = abi::Trc20Like::mintCall { to: Address::from(holder.account.0), value: U256::from(TOKEN_BALANCE) };
        node.send_operation(
            &accounts[0],
            &Operation::Trigger { contract: usdt, call_value: 0, data: mint.abi_encode() },
        );
    }
    node.produce_blocks(INITIAL_BLOCKS, 0);

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cannot_listen = || format!("cannot listen on port {port}; choose another with `cargo xtask tron --port PORT`");
    let gateway = runtime.block_on(node.start_gateway_at(port)).with_context(cannot_listen)?;
    let (url, usdt) = (&gateway.url, encode_tron_address(usdt).text);
    println!(
        "A TRON node for development listens on {url} and produces a block every three seconds. To use it, set
mode = \"test\" under [surfaces.checkout] in settled.toml, add the output of
`settled-signer keys xpubs SEED --purpose deposit-test`, and add:

[chains.tron]
enabled = true
mode = \"test\"
identity = \"{CHAIN_ID}\"
endpoints = [{{ url = \"{url}\" }}]
assets = [
    {{ code = \"trx\", symbol = \"TRX\", decimals = 6, quote_decimals = 6 }},
    {{ code = \"usdt\", contract = \"{usdt}\", symbol = \"USDT\", decimals = 6, quote_decimals = 6 }},
]

Each of these accounts has a billion TRX and a billion USDT. The private key stands beside the address; neither is worth
anything on a real network:
"
    );
    for (number, account) in (1u8..).zip(&accounts) {
        println!("{}  {}", account.address(), format!("{number:02x}").repeat(32));
    }
    println!(
        "\nTo pay from them, use any wallet with a configurable node: new TronWeb({{ fullHost: '{url}', privateKey: '0101…' }})."
    );
    loop {
        thread::sleep(Duration::from_millis(BLOCK_MS.unsigned_abs()));
        node.produce_blocks(1, now_ms()?);
    }
}

fn now_ms() -> anyhow::Result<i64> {
    #[expect(clippy::disallowed_methods, reason = "this chain produces blocks by the machine's clock")]
    let now = SystemTime::now();
    Ok(i64::try_from(now.duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}
