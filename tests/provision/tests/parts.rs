//! Tests of the provided programs: they start, support what other tests need, and end.

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolCall;
use provision::{
    anvil::{Anvil, AnvilOptions, MNEMONIC, Mining},
    contracts::{
        self,
        abi::{Batcher, Bep20Like, FakeToken, Reverter, UsdtLike},
    },
    node, postgres,
};
use serde_json::json;
use sqlx::{Connection, PgConnection, Row};

#[tokio::test]
async fn anvil_mines_manually_and_a_reorg_removes_a_transaction() {
    let anvil = Anvil::start_node(AnvilOptions { chain_id: 1337, mining: Mining::Manual, ..AnvilOptions::default() })
        .await
        .unwrap();
    assert_eq!(anvil.call_rpc("eth_chainId", json!([])).await.unwrap(), "0x539");
    let accounts = anvil.list_accounts().await.unwrap();
    let before = anvil.fetch_balance(accounts[1]).await.unwrap();

    let payment = anvil.send_transaction(accounts[0], accounts[1], U256::from(7), &[]).await.unwrap();
    assert_eq!(anvil.find_receipt(payment).await.unwrap(), None);
    anvil.mine(3).await.unwrap();
    assert_eq!(anvil.fetch_height().await.unwrap(), 3);
    assert_eq!(anvil.find_receipt(payment).await.unwrap().unwrap()["blockNumber"], "0x1");
    assert_eq!(anvil.fetch_balance(accounts[1]).await.unwrap(), before + U256::from(7));

    let replaced = anvil.call_rpc("eth_getBlockByNumber", json!(["0x1", false])).await.unwrap();
    anvil.reorg(3).await.unwrap();
    assert_eq!(anvil.fetch_height().await.unwrap(), 3);
    let replacing = anvil.call_rpc("eth_getBlockByNumber", json!(["0x1", false])).await.unwrap();
    assert_ne!(replaced["hash"], replacing["hash"]);
    assert_eq!(anvil.fetch_balance(accounts[1]).await.unwrap(), before);

    anvil.rollback(2).await.unwrap();
    assert_eq!(anvil.fetch_height().await.unwrap(), 1);
    anvil.set_automine(true).await.unwrap();
    anvil.send_transaction(accounts[0], accounts[1], U256::from(1), &[]).await.unwrap();
    assert_eq!(anvil.fetch_height().await.unwrap(), 2);
}

#[tokio::test]
async fn a_dropped_anvil_ends_and_another_can_use_its_port() {
    let anvil = Anvil::start_node(AnvilOptions::default()).await.unwrap();
    let port = anvil.port();
    drop(anvil);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    let again = Anvil::start_node(AnvilOptions { port: Some(port), ..AnvilOptions::default() }).await.unwrap();
    assert_eq!(again.port(), port);
    again.pause().unwrap();
    again.resume().unwrap();
    assert_eq!(again.fetch_height().await.unwrap(), 0);
}

#[tokio::test]
async fn an_error_contains_the_output_of_anvil() {
    let extra = vec![String::from("--no-such-option")];
    let error = Anvil::start_node(AnvilOptions { extra, ..AnvilOptions::default() }).await.err().unwrap().to_string();
    assert!(error.contains("ended before it was ready") && error.contains("--no-such-option"), "{error}");
}

#[tokio::test]
async fn postgres_is_a_shared_cluster_with_synchronous_commits() {
    let url = postgres::start_shared_cluster().unwrap();
    assert_eq!(postgres::start_shared_cluster().unwrap(), url);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let setting: String = sqlx::query("show synchronous_commit").fetch_one(&mut connection).await.unwrap().get(0);
    assert_eq!(setting, "on");
    let name = format!("parts_{}", std::process::id());
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("drop database {name}"))).execute(&mut connection).await.unwrap();
}

#[tokio::test]
async fn contracts_compile_and_behave_as_documented() {
    let anvil = Anvil::start_node(AnvilOptions::default()).await.unwrap();
    let accounts = anvil.list_accounts().await.unwrap();
    let (owner, buyer) = (accounts[0], accounts[1]);
    let stranger = Address::repeat_byte(0x51);
    let contract =
        async |name| anvil.deploy_contract(&contracts::compile_contract(name).await.unwrap(), &[]).await.unwrap();
    let balance = async |token, of| {
        let answer = anvil.call_contract(token, &UsdtLike::balanceOfCall { owner: of }.abi_encode()).await.unwrap();
        U256::from_be_slice(&answer)
    };
    let send = async |from, to, wei: u64, call: Vec<u8>| {
        let hash = anvil.send_transaction(from, to, U256::from(wei), &call).await.unwrap();
        anvil.find_receipt(hash).await.unwrap().unwrap()
    };
    let amount = |value: u64| U256::from(value);

    let usdt = contract("UsdtLike").await;
    let batcher = contract("Batcher").await;
    send(owner, usdt, 0, UsdtLike::mintCall { to: buyer, value: amount(100) }.abi_encode()).await;
    send(buyer, usdt, 0, UsdtLike::approveCall { spender: batcher, value: amount(100) }.abi_encode()).await;
    let batch = Batcher::payTokenCall { token: usdt, to: vec![stranger, owner], value: vec![amount(30), amount(20)] };
    let receipt = send(buyer, batcher, 0, batch.abi_encode()).await;
    assert_eq!(receipt["logs"].as_array().unwrap().len(), 2);
    assert_eq!(balance(usdt, stranger).await, amount(30));

    send(owner, usdt, 0, UsdtLike::setParamsCall { basisPoints: amount(1000), maximumFee: amount(5) }.abi_encode())
        .await;
    let receipt = send(buyer, usdt, 0, UsdtLike::transferCall { to: stranger, value: amount(20) }.abi_encode()).await;
    assert_eq!(receipt["logs"].as_array().unwrap().len(), 2);
    assert_eq!(balance(usdt, stranger).await, amount(48));
    send(owner, usdt, 0, UsdtLike::setBlockedCall { holder: buyer, blocked: true }.abi_encode()).await;
    let receipt = send(buyer, usdt, 0, UsdtLike::transferCall { to: stranger, value: amount(1) }.abi_encode()).await;
    assert_eq!(receipt["status"], "0x0");

    let bsc = contract("Bep20Like").await;
    send(owner, bsc, 0, Bep20Like::mintCall { to: buyer, value: amount(5) }.abi_encode()).await;
    send(buyer, bsc, 0, Bep20Like::transferCall { to: stranger, value: amount(5) }.abi_encode()).await;
    assert_eq!(balance(bsc, stranger).await, amount(5));

    let (to, value) = (vec![stranger, Address::repeat_byte(0x52)], vec![amount(7), amount(8)]);
    send(buyer, batcher, 15, Batcher::payEtherCall { to: to.clone(), value: value.clone() }.abi_encode()).await;
    assert_eq!(anvil.fetch_balance(stranger).await.unwrap(), amount(7));
    let undone = send(buyer, batcher, 15, Batcher::payEtherThroughRevertCall { to, value }.abi_encode()).await;
    assert_eq!(undone["status"], "0x1");
    assert_eq!(anvil.fetch_balance(stranger).await.unwrap(), amount(7));
    send(buyer, batcher, 2, Batcher::payByDestructCall { to: stranger }.abi_encode()).await;
    assert_eq!(anvil.fetch_balance(stranger).await.unwrap(), amount(9));

    let fake = contract("FakeToken").await;
    let phantoms = FakeToken::phantomsCall { from: buyer, to: stranger, value: U256::ZERO, count: amount(3) };
    assert_eq!(send(buyer, fake, 0, phantoms.abi_encode()).await["logs"].as_array().unwrap().len(), 3);
    let misshapen = FakeToken::misshapenCall { from: buyer, to: stranger, value: amount(1) };
    assert_eq!(send(buyer, fake, 0, misshapen.abi_encode()).await["logs"].as_array().unwrap().len(), 5);
    let reverted = FakeToken::revertedCall { from: buyer, to: stranger, value: amount(1) };
    let receipt = send(buyer, fake, 0, reverted.abi_encode()).await;
    assert_eq!((&receipt["status"], &receipt["logs"]), (&json!("0x1"), &json!([])));

    let reverter = contract("Reverter").await;
    for (mode, status) in [(0, "0x0"), (1, "0x1"), (2, "0x1"), (3, "0x0")] {
        send(buyer, reverter, 0, Reverter::setCall { mode }.abi_encode()).await;
        assert_eq!(send(buyer, reverter, 1, Vec::new()).await["status"], status, "mode {mode}");
    }
}

#[tokio::test]
async fn third_party_wallets_pay_and_derive_addresses() {
    let anvil = Anvil::start_node(AnvilOptions { chain_id: 56, ..AnvilOptions::default() }).await.unwrap();
    let owner = anvil.list_accounts().await.unwrap()[0];
    let shop = Address::repeat_byte(0x53);
    let token = anvil.deploy_contract(&contracts::compile_contract("UsdtLike").await.unwrap(), &[]).await.unwrap();
    let mint = UsdtLike::mintCall { to: owner, value: U256::from(100) }.abi_encode();
    anvil.send_transaction(owner, token, U256::ZERO, &mint).await.unwrap();

    for library in ["ethers", "viem"] {
        for token in [None, Some(token)] {
            let payment = json!({ "rpc": anvil.url(), "library": library, "to": shop, "amount": "25", "token": token });
            let paid = node::run_node_script("pay", payment).await.unwrap();
            assert_eq!(paid["from"].as_str().unwrap(), owner.to_checksum(None));
            assert_eq!(paid["txid"].as_str().unwrap().len(), 66);
        }
    }
    anvil.mine(1).await.unwrap();
    assert_eq!(anvil.fetch_balance(shop).await.unwrap(), U256::from(50));
    let tokens = anvil.call_contract(token, &UsdtLike::balanceOfCall { owner: shop }.abi_encode()).await.unwrap();
    assert_eq!(U256::from_be_slice(&tokens), U256::from(50));

    let derived = node::run_node_script("derive", json!({ "mnemonic": MNEMONIC, "count": 2 })).await.unwrap();
    assert_eq!(derived["evm"]["addresses"][0].as_str().unwrap(), owner.to_checksum(None));
    assert_eq!(derived["btc"]["addresses"].as_array().unwrap().len(), 2);
    let error = node::run_node_script("derive", json!({ "mnemonic": "none" })).await.unwrap_err().to_string();
    assert!(error.contains("wrong word or checksum"), "{error}");
}
