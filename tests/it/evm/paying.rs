//! Every payment that reaches an address is credited once, whatever its sender and form; lookalikes are not.

use alloy_primitives::U256;
use alloy_sol_types::SolCall;
use chain::Amount;
use money::ledger::Suspense;
use provision::contracts::abi;
use provision::node;
use serde_json::json;

use super::{EndpointFault, NODE, Onchain, PLAIN, PlacedOrder, StorySetup, account, split};

/// Pays with a wallet library from npm, which gets the surface's answer and the token's contract address.
async fn pay_by_wallet(world: &Onchain, library: &str, order: &PlacedOrder) {
    let node = world.node(order.coin);
    let token = if order.coin.ends_with("usdt") { Some(node.usdt) } else { None };
    let mut wish = json!({ "rpc": node.anvil.url(), "library": library, "to": order.address,
        "amount": order.due.to_string() });
    if let Some(token) = token {
        wish["token"] = json!(token);
    }
    let paid = node::run_node_script("pay", wish).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(paid["txid"].as_str().is_some_and(|txid| txid.len() == 66), "{paid}");
}

/// Mines single blocks until the money is final, and asserts the state after each block.
async fn confirm(world: &Onchain, order: &PlacedOrder) {
    world.mine(order.coin, 1).await;
    let answer = world.assert_status(order, "pending", "confirming").await;
    world.assert_received(order, order.due).await;
    let needed = answer.body["payment"]["required_confirmations"].as_u64().unwrap();
    world.mine(order.coin, needed - 2).await;
    let answer = world.assert_status(order, "pending", "confirming").await;
    assert_eq!(answer.body["payment"]["confirmations"], json!(needed - 1), "{}", answer.text);
    world.mine(order.coin, 1).await;
    world.assert_status(order, "completed", "paid").await;
    let query = format!("/api/orders/query?orderNo={}&email=buyer@example.com", order.order_no);
    let found = world.get_from("10.0.0.1", &query).await;
    assert_eq!(found.body["order"]["credentials"].as_array().map(Vec::len), Some(2), "{}", found.text);
    let before = world.merchant_available(order.coin).await;
    world.mine_deep(order.coin).await;
    assert_eq!(world.merchant_available(order.coin).await, before.checked_add(order.due).unwrap());
}

both! {
    async fn ether_from_a_wallet_of_ethers_pays_exactly(world: Onchain) {
        let order = world.place_order("eth").await;
        world.assert_status(&order, "pending", "pending").await;
        pay_by_wallet(&world, "ethers", &order).await;
        confirm(&world, &order).await;
    }

    async fn a_token_without_return_values_from_a_wallet_of_viem_pays_exactly(world: Onchain) {
        let order = world.place_order("erc20_usdt").await;
        pay_by_wallet(&world, "viem", &order).await;
        confirm(&world, &order).await;
    }

    async fn both_coins_of_another_chain_pay_with_eighteen_decimals(world: Onchain = StorySetup { bsc: true, ..PLAIN }) {
        let token = world.place_order("bep20_usdt").await;
        world.pay(&token, token.due).await;
        confirm(&world, &token).await;
        let native = world.place_order("bnb").await;
        world.pay(&native, native.due).await;
        confirm(&world, &native).await;
        assert_eq!(world.merchant_available("erc20_usdt").await, Amount::ZERO, "the same text of a contract elsewhere is another asset");
    }

    async fn a_contract_pays_two_orders_in_one_transaction(world: Onchain) {
        let (first, second) = (world.place_order("erc20_usdt").await, world.place_order("erc20_usdt").await);
        let third = split(first.due, 1, 3);
        // Two of the three transfers pay the same address.
        world.pay_by_contract(&[(&first, third.0), (&second, second.due), (&first, third.1)]).await;
        world.mine(first.coin, 1).await;
        world.assert_received(&first, first.due).await;
        world.mine_deep(first.coin).await;
        world.assert_status(&first, "completed", "paid").await;
        world.assert_status(&second, "completed", "paid").await;
        assert_eq!(world.merchant_available(first.coin).await, first.due.checked_add(second.due).unwrap());
    }

    async fn two_orders_are_paid_in_one_block(world: Onchain) {
        let (token, ether) = (world.place_order("erc20_usdt").await, world.place_order("eth").await);
        world.pay(&token, token.due).await;
        world.pay(&ether, ether.due).await;
        world.mine("eth", 1).await;
        world.assert_status(&token, "pending", "confirming").await;
        world.assert_status(&ether, "pending", "confirming").await;
        world.mine_deep("eth").await;
        world.assert_status(&token, "completed", "paid").await;
        world.assert_status(&ether, "completed", "paid").await;
    }

    async fn internal_ether_is_found_by_debug_traces(world: Onchain = StorySetup { trace: "debug", ..PLAIN }) {
        let (first, second) = (world.place_order("eth").await, world.place_order("eth").await);
        world.pay_by_contract(&[(&first, first.due), (&second, second.due)]).await;
        world.mine("eth", 1).await;
        world.assert_received(&first, first.due).await;
        world.assert_received(&second, second.due).await;
        world.mine_deep("eth").await;
        world.assert_status(&first, "completed", "paid").await;
        world.assert_status(&second, "completed", "paid").await;
        assert_eq!(world.merchant_available("eth").await, first.due.checked_add(second.due).unwrap());
    }

    async fn internal_ether_is_found_by_parity_traces(world: Onchain = StorySetup { trace: "parity", ..PLAIN }) {
        let order = world.place_order("eth").await;
        world.pay_by_contract(&[(&order, order.due)]).await;
        confirm(&world, &order).await;
    }

    async fn internal_ether_is_found_by_balance_checks(world: Onchain = StorySetup { endpoints: 1, ..PLAIN }) {
        world.endpoints[0].set(EndpointFault::NoTraces);
        let order = world.place_order("eth").await;
        let part = split(order.due, 1, 4);
        world.mine("eth", 20).await;
        // A visible transfer comes first, so that the balance is not equal to the missing amount.
        let shown = world.pay(&order, part.0).await;
        world.mine("eth", 3).await;
        world.assert_received(&order, part.0).await;
        world.pay_by_contract(&[(&order, part.1)]).await;
        // The credit is found later, but its confirmations count from the block that contains it.
        world.mine("eth", 7).await;
        let answer = world.assert_status(&order, "pending", "confirming").await;
        world.assert_received(&order, order.due).await;
        assert_eq!(answer.body["payment"]["confirmations"], json!(7), "{}", answer.text);
        assert_eq!(answer.body["payment"]["tx_hash"], json!(shown), "a balance names no transaction: {}", answer.text);
        world.mine("eth", 5).await;
        world.assert_status(&order, "completed", "paid").await;
        world.mine_deep("eth").await;
        assert_eq!(world.merchant_available("eth").await, order.due);
        assert_eq!(world.endpoints[0].proxy.request_count("debug_traceBlockByHash"), 0, "nobody asks for what is not configured");
    }

    async fn internal_ether_is_found_while_traces_fail(world: Onchain = StorySetup { trace: "debug", endpoints: 1, ..PLAIN }) {
        let order = world.place_order("eth").await;
        world.mine("eth", 3).await;
        world.endpoints[0].set(EndpointFault::NoTraces);
        world.pay_by_contract(&[(&order, order.due)]).await;
        world.mine("eth", 1).await;
        world.assert_received(&order, order.due).await;
        world.mine_deep("eth").await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_available("eth").await, order.due);
    }

    async fn partial_payments_add_up(world: Onchain) {
        for coin in ["eth", "erc20_usdt"] {
            let order = world.place_order(coin).await;
            let (part, rest) = split(order.due, 1, 3);
            world.pay(&order, part).await;
            world.mine_deep(coin).await;
            world.assert_status(&order, "pending", "underpaid").await;
            world.assert_received(&order, part).await;
            world.pay(&order, rest).await;
            world.mine_deep(coin).await;
            world.assert_status(&order, "completed", "paid").await;
            assert_eq!(world.merchant_available(coin).await, order.due);
        }
    }

    async fn an_overpayment_pays_and_the_surplus_goes_to_suspense(world: Onchain) {
        for coin in ["eth", "erc20_usdt"] {
            let order = world.place_order(coin).await;
            world.pay(&order, order.due.checked_add(Amount::from_units(1)).unwrap()).await;
            world.mine_deep(coin).await;
            world.assert_status(&order, "completed", "paid").await;
            assert_eq!(world.suspense(coin, Suspense::Surplus).await, Amount::from_units(1));
            assert_eq!(world.merchant_available(coin).await, order.due);
        }
    }

    async fn a_late_payment_goes_to_suspense_with_a_review(world: Onchain) {
        let (ether, token) = (world.place_order("eth").await, world.place_order("erc20_usdt").await);
        world.advance_seconds(30 * 60 + 61);
        world.mine("eth", 1).await;
        for order in [&ether, &token] {
            world.assert_status(order, "expired", "expired").await;
            world.pay(order, order.due).await;
        }
        world.mine_deep("eth").await;
        for order in [&ether, &token] {
            world.assert_status(order, "expired", "expired").await;
            assert_eq!(world.suspense(order.coin, Suspense::Late).await, order.due);
        }
    }

    async fn another_asset_at_the_address_goes_to_suspense(world: Onchain) {
        let order = world.place_order("erc20_usdt").await;
        let wei = Amount::from_units(250_000_000_000_000_000);
        world.ethereum.send(1, account(&order), wei.units(), &[]).await;
        world.mine_deep("eth").await;
        world.assert_status(&order, "pending", "pending").await;
        assert_eq!(world.suspense("eth", Suspense::Foreign).await, wei);
    }

    async fn lookalike_payments_book_nothing(world: Onchain = StorySetup { trace: "debug", ..PLAIN }) {
        let (token, ether) = (world.place_order("erc20_usdt").await, world.place_order("eth").await);
        let (node, to) = (&world.ethereum, account(&token));
        let (from, value) = (node.rich[0], token.due.units());
        // A token transfer of value zero, which any account can send in the name of another account.
        node.call(3, node.usdt, abi::UsdtLike::transferFromCall { from, to, value: U256::ZERO }).await;
        node.send(3, account(&ether), U256::ZERO, &[]).await;
        // Transfers of a fake token named USDT: a phantom log, a malformed log, and a reverted log.
        node.call(3, node.fake, abi::FakeToken::phantomCall { from, to, value }).await;
        node.call(3, node.fake, abi::FakeToken::misshapenCall { from, to, value }).await;
        node.call(3, node.fake, abi::FakeToken::revertedCall { from, to, value }).await;
        // A transfer of tokens that the payer does not have, so that the transaction fails.
        let failed = node.call(5, node.usdt, abi::UsdtLike::transferCall { to, value }).await;
        // Ether sent inside a call that reverts.
        let (to, value) = (vec![account(&ether)], vec![ether.due.units()]);
        let undone = abi::Batcher::payEtherThroughRevertCall { to, value }.abi_encode();
        node.send(3, node.batcher, ether.due.units(), &undone).await;
        world.mine_deep("eth").await;
        let receipt = node.anvil.find_receipt(failed).await.expect(NODE).expect("it was mined");
        assert_eq!(receipt["status"], json!("0x0"));
        for order in [&token, &ether] {
            world.assert_status(order, "pending", "pending").await;
            world.assert_received(order, Amount::ZERO).await;
        }
        world.assert_nothing_booked().await;
    }

    async fn five_hundred_blocks_of_downtime_lose_nothing(world: Onchain) {
        let (token, ether) = (world.place_order("erc20_usdt").await, world.place_order("eth").await);
        world.advance_seconds(60);
        let (node, now) = (&world.ethereum, world.clock.now());
        node.mine(200, now).await;
        world.pay(&token, token.due).await;
        node.mine(150, now).await;
        world.pay(&ether, ether.due).await;
        node.mine(150, now).await;
        world.crash_and_boot().await;
        world.assert_status(&token, "completed", "paid").await;
        world.assert_status(&ether, "completed", "paid").await;
        assert_eq!(world.merchant_available(token.coin).await, token.due);
    }

    async fn money_sent_on_the_wrong_chain_goes_to_suspense(world: Onchain = StorySetup { bsc: true, ..PLAIN }) {
        let order = world.place_order("bnb").await;
        world.ethereum.send(0, account(&order), order.due.units(), &[]).await;
        world.mine_deep("eth").await;
        world.assert_status(&order, "pending", "pending").await;
        assert_eq!(world.suspense("eth", Suspense::Foreign).await, order.due);
        world.pay(&order, order.due).await;
        world.mine_deep("bnb").await;
        world.assert_status(&order, "completed", "paid").await;
    }
}
