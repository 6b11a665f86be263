//! Every form of payment is credited once and in full; lookalikes are not.

use alloy_primitives::U256;
use alloy_sol_types::SolCall;
use chain::Amount;
use money::ledger::Suspense;
use provision::contracts::abi;
use tron::transaction::Operation;

use super::node::{LAG, evm};
use super::{Onchain, account, split, sun};

const COINS: [&str; 2] = ["trx", "trc20_usdt"];

both! {
    async fn a_payment_is_shown_at_once_and_counts_when_solidified(world: Onchain) {
        for coin in COINS {
            let order = world.place_order(coin).await;
            world.assert_status(&order, "pending", "pending").await;
            let before = world.merchant_available(coin).await;
            world.pay(&order, order.due);
            world.produce(1).await;
            let answer = world.assert_status(&order, "pending", "confirming").await;
            world.assert_received(&order, order.due).await;
            assert_eq!(answer.body["payment"]["confirmations"], 0, "{}", answer.text);
            assert_eq!(world.merchant_incoming(coin).await, Amount::ZERO, "a head block is no money");
            world.produce(LAG - 1).await;
            world.assert_status(&order, "pending", "confirming").await;
            world.produce(1).await;
            world.assert_status(&order, "completed", "paid").await;
            world.assert_received(&order, order.due).await;
            assert_eq!(world.merchant_available(coin).await, before.checked_add(order.due).unwrap(), "a solidified block is final");
        }
    }

    async fn partial_payments_add_up(world: Onchain) {
        for coin in COINS {
            let order = world.place_order(coin).await;
            let (part, rest) = split(order.due, 1, 3);
            world.pay(&order, part);
            world.settle().await;
            world.assert_status(&order, "pending", "underpaid").await;
            world.assert_received(&order, part).await;
            world.pay(&order, rest);
            world.settle().await;
            world.assert_status(&order, "completed", "paid").await;
            assert_eq!(world.merchant_available(coin).await, order.due);
        }
    }

    async fn an_overpayment_pays_and_the_surplus_goes_to_suspense(world: Onchain) {
        for coin in COINS {
            let order = world.place_order(coin).await;
            world.pay(&order, order.due.checked_add(Amount::from_units(1)).unwrap());
            world.settle().await;
            world.assert_status(&order, "completed", "paid").await;
            assert_eq!(world.suspense(coin, Suspense::Surplus).await, Amount::from_units(1));
            assert_eq!(world.merchant_available(coin).await, order.due);
        }
    }

    async fn a_late_payment_goes_to_suspense_with_a_review(world: Onchain) {
        let (trx, token) = (world.place_order("trx").await, world.place_order("trc20_usdt").await);
        world.advance_seconds(30 * 60 + 61);
        world.settle().await;
        for order in [&trx, &token] {
            world.assert_status(order, "expired", "expired").await;
            world.pay(order, order.due);
        }
        world.settle().await;
        for order in [&trx, &token] {
            world.assert_status(order, "expired", "expired").await;
            assert_eq!(world.suspense(order.coin, Suspense::Late).await, order.due);
        }
    }

    async fn a_payment_in_the_grace_period_counts_although_solidified_later(world: Onchain) {
        let order = world.place_order("trc20_usdt").await;
        // The newest solidified block is about a minute old.
        world.advance_seconds(30 * 60 - 50);
        world.produce(LAG + 1).await;
        world.advance_seconds(50 + 20);
        world.pay(&order, order.due);
        world.produce(1).await;
        world.advance_seconds(45);
        world.produce(1).await;
        let answer = world.status(&order.id).await;
        assert_eq!(answer.text_at("status"), "pending", "{}", answer.text);
        world.produce(LAG - 1).await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_available(order.coin).await, order.due);
    }

    async fn one_transaction_pays_three_orders(world: Onchain) {
        for coin in COINS {
            let orders = [world.place_order(coin).await, world.place_order(coin).await, world.place_order(coin).await];
            let [first, second, third] = &orders;
            let parts = split(first.due, 1, 3);
            // Two of the four transfers pay the same address.
            world.pay_by_contract(&[(first, parts.0), (second, second.due), (third, third.due), (first, parts.1)]);
            world.produce(1).await;
            for order in &orders {
                world.assert_received(order, order.due).await;
            }
            world.settle().await;
            for order in &orders {
                world.assert_status(order, "completed", "paid").await;
            }
            let all = Amount::checked_sum(orders.iter().map(|order| order.due)).unwrap();
            assert_eq!(world.merchant_available(coin).await, all);
        }
    }

    async fn a_third_party_transfer_pays_the_order(world: Onchain) {
        let order = world.place_order("trc20_usdt").await;
        let (payer, mover) = (evm(world.tron.rich[0].account), evm(world.tron.rich[2].account));
        let (to, value) = (evm(account(&order)), order.due.units());
        world.tron.call(0, world.tron.usdt, abi::Trc20Like::approveCall { spender: mover, value });
        world.tron.call(2, world.tron.usdt, abi::Trc20Like::transferFromCall { from: payer, to, value });
        world.settle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_blacklisted_payer_can_pay_after_removal_from_the_list(world: Onchain) {
        let order = world.place_order("trc20_usdt").await;
        let holder = evm(world.tron.rich[0].account);
        let blacklisted = |listed| abi::Trc20Like::setBlackListedCall { holder, listed };
        let paused = |paused| abi::Trc20Like::setPausedCall { paused };
        let ended = |txid: [u8; 32]| {
            let model = world.tron.node.model();
            let (_, included) = model.find(&txid, model.head_height()).unwrap();
            (included.ret.json_name().to_owned(), included.receipt.logs.len())
        };
        world.tron.call(0, world.tron.usdt, blacklisted(true));
        let frozen = world.pay(&order, order.due);
        // A contract with an allowance cannot pay from a blacklisted account either.
        let moved = world.pay_by_contract(&[(&order, order.due)]);
        world.settle().await;
        world.tron.call(0, world.tron.usdt, blacklisted(false));
        world.tron.call(0, world.tron.usdt, paused(true));
        let stopped = world.pay(&order, order.due);
        world.settle().await;
        for txid in [frozen, moved, stopped] {
            assert_eq!(ended(txid), ("REVERT".to_owned(), 0));
        }
        world.assert_status(&order, "pending", "pending").await;
        world.assert_received(&order, Amount::ZERO).await;
        world.tron.call(0, world.tron.usdt, paused(false));
        world.pay(&order, order.due);
        world.settle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.merchant_available(order.coin).await, order.due);
    }

    async fn internal_trx_is_found_and_reverted_calls_are_not(world: Onchain) {
        let (paid, undone, destructed) = (world.place_order("trx").await, world.place_order("trx").await, world.place_order("trx").await);
        world.pay_by_contract(&[(&paid, paid.due)]);
        let batcher = world.tron.batcher;
        let (to, value) = (vec![evm(account(&undone))], vec![undone.due.units()]);
        let call = abi::Batcher::payEtherThroughRevertCall { to, value }.abi_encode();
        world.tron.call_with(1, batcher, sun(undone.due), &call);
        let call = abi::Batcher::payByDestructCall { to: evm(account(&destructed)) }.abi_encode();
        world.tron.call_with(1, batcher, sun(destructed.due), &call);
        world.settle().await;
        world.assert_status(&paid, "completed", "paid").await;
        world.assert_status(&destructed, "completed", "paid").await;
        world.assert_status(&undone, "pending", "pending").await;
        assert_eq!(world.merchant_available("trx").await, paid.due.checked_add(destructed.due).unwrap());
    }

    async fn hidden_trx_is_found_by_balance(world: Onchain) {
        // The default java-tron configuration keeps no internal transactions. This node keeps the history of balances.
        world.tron.node.model().internal_transfers = false;
        world.tron.node.model().history = true;
        let (paid, unpaid) = (world.place_order("trx").await, world.place_order("trx").await);
        world.pay_by_contract(&[(&paid, paid.due)]);
        world.settle().await;
        world.assert_status(&paid, "pending", "pending").await;
        // The balance is read before the invoice expires.
        world.advance_seconds(30 * 60 + 61);
        world.settle().await;
        world.settle().await;
        world.assert_status(&paid, "completed", "paid").await;
        world.assert_status(&unpaid, "expired", "expired").await;
        assert_eq!(world.merchant_available("trx").await, paid.due);
    }

    async fn another_asset_at_the_address_goes_to_suspense(world: Onchain) {
        let order = world.place_order("trc20_usdt").await;
        world.tron.transfer(1, account(&order), 5_000_000);
        world.settle().await;
        world.assert_status(&order, "pending", "pending").await;
        assert_eq!(world.suspense("trx", Suspense::Foreign).await, Amount::from_units(5_000_000));
    }

    async fn lookalike_payments_book_nothing(world: Onchain) {
        let (token, trx) = (world.place_order("trc20_usdt").await, world.place_order("trx").await);
        let (tron, to) = (&world.tron, evm(account(&token)));
        let (from, value) = (evm(tron.rich[0].account), token.due.units());
        // A token transfer of value zero, which any account can send in the name of another account.
        tron.call(3, tron.usdt, abi::Trc20Like::transferFromCall { from, to, value: U256::ZERO });
        // Transfers of a fake token named USDT: a phantom log, a malformed log, and a reverted log.
        tron.call(3, tron.fake, abi::FakeToken::phantomCall { from, to, value });
        tron.call(3, tron.fake, abi::FakeToken::misshapenCall { from, to, value });
        tron.call(3, tron.fake, abi::FakeToken::revertedCall { from, to, value });
        // A transfer that reverts because the payer has no tokens.
        let reverted = tron.call(3, tron.usdt, abi::Trc20Like::transferCall { to, value });
        // A transfer that runs out of energy.
        let data = abi::Trc20Like::transferCall { to, value }.abi_encode();
        let starved = Operation::Trigger { contract: tron.usdt, call_value: 0, data };
        let starved = tron.node.try_send_operation(&tron.rich[0], &starved, 5_000_000).unwrap();
        // The transfer logs of a call and of a contract that both ran out of time.
        let phantom = world.pay(&token, token.due);
        let phantoms = world.pay_by_contract(&[(&token, token.due), (&token, token.due)]);
        let internal = world.pay_by_contract(&[(&trx, trx.due)]);
        for txid in [phantom, phantoms, internal] {
            tron.node.force_out_of_time(txid);
        }
        world.produce(1).await;
        for order in [&token, &trx] {
            world.assert_status(order, "pending", "pending").await;
        }
        world.settle().await;
        let ended = |txid: &[u8; 32]| {
            let model = tron.node.model();
            let (_, included) = model.find(txid, model.head_height()).unwrap();
            (included.ret.json_name().to_owned(), included.receipt.logs.len())
        };
        assert_eq!(ended(&reverted), ("REVERT".to_owned(), 0));
        assert_eq!(ended(&starved), ("OUT_OF_ENERGY".to_owned(), 0));
        assert_eq!(ended(&phantom), ("OUT_OF_TIME".to_owned(), 1));
        assert_eq!(ended(&phantoms), ("OUT_OF_TIME".to_owned(), 2));
        for order in [&token, &trx] {
            world.assert_status(order, "pending", "pending").await;
            world.assert_received(order, Amount::ZERO).await;
        }
        world.assert_nothing_booked().await;
    }

    async fn two_thousand_blocks_of_downtime_lose_nothing(world: Onchain) {
        let (token, trx) = (world.place_order("trc20_usdt").await, world.place_order("trx").await);
        // The chain is one hour behind the clock, because the daemon was down for that hour.
        world.tron.node.produce_blocks(500, 0);
        world.pay(&token, token.due);
        world.tron.node.produce_blocks(600, 0);
        world.pay_by_contract(&[(&trx, trx.due)]);
        world.tron.node.produce_blocks(900, 0);
        world.crash_and_boot().await;
        world.assert_status(&token, "completed", "paid").await;
        world.assert_status(&trx, "completed", "paid").await;
        assert_eq!(world.merchant_available(token.coin).await, token.due);
        assert!(world.gateways[0].request_count("getblockbylimitnext") < 500, "in ranges");
    }
}
