//! What reaches an address is credited, once, whoever sent it and however; what only looks like it is not.

use alloy_primitives::U256;
use alloy_sol_types::SolCall;
use chain::Amount;
use money::ledger::Suspense;
use provision::contracts::abi;
use provision::node;
use serde_json::json;

use super::{Fault, NODE, Onchain, PLAIN, Placed, Plan, account, split};

/// A wallet from npm pays what the surface asked for, knowing the coin's contract as everybody does.
async fn pay_by_wallet(world: &Onchain, library: &str, placed: &Placed) {
    let node = world.node(placed.coin);
    let token = if placed.coin.ends_with("usdt") { Some(node.usdt) } else { None };
    let mut wish = json!({ "rpc": node.anvil.url(), "library": library, "to": placed.address,
        "amount": placed.due.to_string() });
    if let Some(token) = token {
        wish["token"] = json!(token);
    }
    let paid = node::run_script("pay", wish).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(paid["txid"].as_str().is_some_and(|txid| txid.len() == 66), "{paid}");
}

/// From the first block to final money, confirmation by confirmation.
async fn confirm(world: &Onchain, placed: &Placed) {
    world.mine(placed.coin, 1).await;
    let answer = world.expect(placed, "pending", "confirming").await;
    world.expect_received(placed, placed.due).await;
    let needed = answer.body["payment"]["required_confirmations"].as_u64().unwrap();
    world.mine(placed.coin, needed - 2).await;
    let answer = world.expect(placed, "pending", "confirming").await;
    assert_eq!(answer.body["payment"]["confirmations"], json!(needed - 1), "{}", answer.text);
    world.mine(placed.coin, 1).await;
    world.expect(placed, "completed", "paid").await;
    let query = format!("/api/orders/query?orderNo={}&email=buyer@example.com", placed.order_no);
    let found = world.get_from("10.0.0.1", &query).await;
    assert_eq!(found.body["order"]["credentials"].as_array().map(Vec::len), Some(2), "{}", found.text);
    let before = world.earned(placed.coin).await;
    world.mine_deep(placed.coin).await;
    assert_eq!(world.earned(placed.coin).await, before.checked_add(placed.due).unwrap());
}

both! {
    async fn ether_from_a_wallet_of_ethers_pays_exactly(world: Onchain) {
        let placed = world.place("eth").await;
        world.expect(&placed, "pending", "pending").await;
        pay_by_wallet(&world, "ethers", &placed).await;
        confirm(&world, &placed).await;
    }

    async fn a_token_without_return_values_from_a_wallet_of_viem_pays_exactly(world: Onchain) {
        let placed = world.place("erc20_usdt").await;
        pay_by_wallet(&world, "viem", &placed).await;
        confirm(&world, &placed).await;
    }

    async fn both_coins_of_another_chain_pay_with_eighteen_decimals(world: Onchain = Plan { bsc: true, ..PLAIN }) {
        let token = world.place("bep20_usdt").await;
        world.pay(&token, token.due).await;
        confirm(&world, &token).await;
        let native = world.place("bnb").await;
        world.pay(&native, native.due).await;
        confirm(&world, &native).await;
        assert_eq!(world.earned("erc20_usdt").await, Amount::ZERO, "the same text of a contract elsewhere is another asset");
    }

    async fn a_contract_pays_two_orders_in_one_transaction(world: Onchain) {
        let (first, second) = (world.place("erc20_usdt").await, world.place("erc20_usdt").await);
        let third = split(first.due, 1, 3);
        // Two of the three transfers go to one address.
        world.pay_by_contract(&[(&first, third.0), (&second, second.due), (&first, third.1)]).await;
        world.mine(first.coin, 1).await;
        world.expect_received(&first, first.due).await;
        world.mine_deep(first.coin).await;
        world.expect(&first, "completed", "paid").await;
        world.expect(&second, "completed", "paid").await;
        assert_eq!(world.earned(first.coin).await, first.due.checked_add(second.due).unwrap());
    }

    async fn two_orders_are_paid_in_one_block(world: Onchain) {
        let (token, ether) = (world.place("erc20_usdt").await, world.place("eth").await);
        world.pay(&token, token.due).await;
        world.pay(&ether, ether.due).await;
        world.mine("eth", 1).await;
        world.expect(&token, "pending", "confirming").await;
        world.expect(&ether, "pending", "confirming").await;
        world.mine_deep("eth").await;
        world.expect(&token, "completed", "paid").await;
        world.expect(&ether, "completed", "paid").await;
    }

    async fn ether_sent_by_a_contract_is_found_by_traces(world: Onchain = Plan { trace: "debug", ..PLAIN }) {
        let (first, second) = (world.place("eth").await, world.place("eth").await);
        world.pay_by_contract(&[(&first, first.due), (&second, second.due)]).await;
        world.mine("eth", 1).await;
        world.expect_received(&first, first.due).await;
        world.expect_received(&second, second.due).await;
        world.mine_deep("eth").await;
        world.expect(&first, "completed", "paid").await;
        world.expect(&second, "completed", "paid").await;
        assert_eq!(world.earned("eth").await, first.due.checked_add(second.due).unwrap());
    }

    async fn ether_sent_by_a_contract_is_found_by_flat_traces(world: Onchain = Plan { trace: "parity", ..PLAIN }) {
        let placed = world.place("eth").await;
        world.pay_by_contract(&[(&placed, placed.due)]).await;
        confirm(&world, &placed).await;
    }

    async fn ether_sent_by_a_contract_is_found_by_balances(world: Onchain = Plan { endpoints: 1, ..PLAIN }) {
        world.endpoints[0].set(Fault::NoTraces);
        let placed = world.place("eth").await;
        let part = split(placed.due, 1, 4);
        world.mine("eth", 20).await;
        // A transfer that every block shows comes first, so that the balance is not what is missing.
        let shown = world.pay(&placed, part.0).await;
        world.mine("eth", 3).await;
        world.expect_received(&placed, part.0).await;
        world.pay_by_contract(&[(&placed, part.1)]).await;
        // Noticed only later, it still counts from the block that it came in.
        world.mine("eth", 7).await;
        let answer = world.expect(&placed, "pending", "confirming").await;
        world.expect_received(&placed, placed.due).await;
        assert_eq!(answer.body["payment"]["confirmations"], json!(7), "{}", answer.text);
        assert_eq!(answer.body["payment"]["tx_hash"], json!(shown), "a balance names no transaction: {}", answer.text);
        world.mine("eth", 5).await;
        world.expect(&placed, "completed", "paid").await;
        world.mine_deep("eth").await;
        assert_eq!(world.earned("eth").await, placed.due);
        assert_eq!(world.endpoints[0].proxy.request_count("debug_traceBlockByHash"), 0, "nobody asks for what is not configured");
    }

    async fn ether_sent_by_a_contract_is_found_while_traces_fail(world: Onchain = Plan { trace: "debug", endpoints: 1, ..PLAIN }) {
        let placed = world.place("eth").await;
        world.mine("eth", 3).await;
        world.endpoints[0].set(Fault::NoTraces);
        world.pay_by_contract(&[(&placed, placed.due)]).await;
        world.mine("eth", 1).await;
        world.expect_received(&placed, placed.due).await;
        world.mine_deep("eth").await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.earned("eth").await, placed.due);
    }

    async fn a_part_and_the_rest_pay_together(world: Onchain) {
        for coin in ["eth", "erc20_usdt"] {
            let placed = world.place(coin).await;
            let (part, rest) = split(placed.due, 1, 3);
            world.pay(&placed, part).await;
            world.mine_deep(coin).await;
            world.expect(&placed, "pending", "underpaid").await;
            world.expect_received(&placed, part).await;
            world.pay(&placed, rest).await;
            world.mine_deep(coin).await;
            world.expect(&placed, "completed", "paid").await;
            assert_eq!(world.earned(coin).await, placed.due);
        }
    }

    async fn too_much_pays_and_the_surplus_is_kept(world: Onchain) {
        for coin in ["eth", "erc20_usdt"] {
            let placed = world.place(coin).await;
            world.pay(&placed, placed.due.checked_add(Amount::from_units(1)).unwrap()).await;
            world.mine_deep(coin).await;
            world.expect(&placed, "completed", "paid").await;
            assert_eq!(world.held_apart(coin, Suspense::Surplus).await, Amount::from_units(1));
            assert_eq!(world.earned(coin).await, placed.due);
        }
    }

    async fn what_comes_late_is_kept_for_a_person(world: Onchain) {
        let (ether, token) = (world.place("eth").await, world.place("erc20_usdt").await);
        world.advance_seconds(30 * 60 + 61);
        world.mine("eth", 1).await;
        for placed in [&ether, &token] {
            world.expect(placed, "expired", "expired").await;
            world.pay(placed, placed.due).await;
        }
        world.mine_deep("eth").await;
        for placed in [&ether, &token] {
            world.expect(placed, "expired", "expired").await;
            assert_eq!(world.held_apart(placed.coin, Suspense::Late).await, placed.due);
        }
    }

    async fn another_coin_to_the_address_is_kept_apart(world: Onchain) {
        let placed = world.place("erc20_usdt").await;
        let wei = Amount::from_units(250_000_000_000_000_000);
        world.ethereum.send(1, account(&placed), wei.units(), &[]).await;
        world.mine_deep("eth").await;
        world.expect(&placed, "pending", "pending").await;
        assert_eq!(world.held_apart("eth", Suspense::Foreign).await, wei);
    }

    async fn what_only_looks_like_a_payment_is_ignored(world: Onchain = Plan { trace: "debug", ..PLAIN }) {
        let (token, ether) = (world.place("erc20_usdt").await, world.place("eth").await);
        let (node, to) = (&world.ethereum, account(&token));
        let (from, value) = (node.rich[0], token.due.units());
        // Of nothing, which anybody can send in anybody's name.
        node.call(3, node.usdt, abi::UsdtLike::transferFromCall { from, to, value: U256::ZERO }).await;
        node.send(3, account(&ether), U256::ZERO, &[]).await;
        // Of a token that calls itself USDT, in every shape, and of one that takes its log back.
        node.call(3, node.fake, abi::FakeToken::phantomCall { from, to, value }).await;
        node.call(3, node.fake, abi::FakeToken::misshapenCall { from, to, value }).await;
        node.call(3, node.fake, abi::FakeToken::revertedCall { from, to, value }).await;
        // Of tokens that the payer does not have, so that the transaction fails.
        let failed = node.call(5, node.usdt, abi::UsdtLike::transferCall { to, value }).await;
        // Of ether inside a call that is undone.
        let (to, value) = (vec![account(&ether)], vec![ether.due.units()]);
        let undone = abi::Batcher::payEtherThroughRevertCall { to, value }.abi_encode();
        node.send(3, node.batcher, ether.due.units(), &undone).await;
        world.mine_deep("eth").await;
        let receipt = node.anvil.receipt(failed).await.expect(NODE).expect("it was mined");
        assert_eq!(receipt["status"], json!("0x0"));
        for placed in [&token, &ether] {
            world.expect(placed, "pending", "pending").await;
            world.expect_received(placed, Amount::ZERO).await;
        }
    }

    async fn five_hundred_blocks_of_downtime_lose_nothing(world: Onchain) {
        let (token, ether) = (world.place("erc20_usdt").await, world.place("eth").await);
        world.advance_seconds(60);
        let (node, now) = (&world.ethereum, world.clock.now());
        node.mine(200, now).await;
        world.pay(&token, token.due).await;
        node.mine(150, now).await;
        world.pay(&ether, ether.due).await;
        node.mine(150, now).await;
        world.crash_and_boot().await;
        world.expect(&token, "completed", "paid").await;
        world.expect(&ether, "completed", "paid").await;
        assert_eq!(world.earned(token.coin).await, token.due);
    }

    async fn money_for_an_address_of_another_chain_is_kept_apart(world: Onchain = Plan { bsc: true, ..PLAIN }) {
        let placed = world.place("bnb").await;
        world.ethereum.send(0, account(&placed), placed.due.units(), &[]).await;
        world.mine_deep("eth").await;
        world.expect(&placed, "pending", "pending").await;
        assert_eq!(world.held_apart("eth", Suspense::Foreign).await, placed.due);
        world.pay(&placed, placed.due).await;
        world.mine_deep("bnb").await;
        world.expect(&placed, "completed", "paid").await;
    }
}
