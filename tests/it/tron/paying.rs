//! Whatever form a payment has, it is found once and in full; whatever only looks like one is not.

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
    async fn a_payment_is_seen_at_once_and_counts_when_its_block_is_solidified(world: Onchain) {
        for coin in COINS {
            let placed = world.place(coin).await;
            world.expect(&placed, "pending", "pending").await;
            let before = world.earned(coin).await;
            world.pay(&placed, placed.due);
            world.produce(1).await;
            let answer = world.expect(&placed, "pending", "confirming").await;
            world.expect_received(&placed, placed.due).await;
            assert_eq!(answer.body["payment"]["confirmations"], 0, "{}", answer.text);
            assert_eq!(world.incoming(coin).await, Amount::ZERO, "a head block is no money");
            world.produce(LAG - 1).await;
            world.expect(&placed, "pending", "confirming").await;
            world.produce(1).await;
            world.expect(&placed, "completed", "paid").await;
            world.expect_received(&placed, placed.due).await;
            assert_eq!(world.earned(coin).await, before.checked_add(placed.due).unwrap(), "a solidified block is final");
        }
    }

    async fn a_part_and_the_rest_pay_together(world: Onchain) {
        for coin in COINS {
            let placed = world.place(coin).await;
            let (part, rest) = split(placed.due, 1, 3);
            world.pay(&placed, part);
            world.settle().await;
            world.expect(&placed, "pending", "underpaid").await;
            world.expect_received(&placed, part).await;
            world.pay(&placed, rest);
            world.settle().await;
            world.expect(&placed, "completed", "paid").await;
            assert_eq!(world.earned(coin).await, placed.due);
        }
    }

    async fn too_much_pays_and_the_surplus_is_kept(world: Onchain) {
        for coin in COINS {
            let placed = world.place(coin).await;
            world.pay(&placed, placed.due.checked_add(Amount::from_units(1)).unwrap());
            world.settle().await;
            world.expect(&placed, "completed", "paid").await;
            assert_eq!(world.held_apart(coin, Suspense::Surplus).await, Amount::from_units(1));
            assert_eq!(world.earned(coin).await, placed.due);
        }
    }

    async fn what_comes_late_is_kept_for_a_person(world: Onchain) {
        let (trx, token) = (world.place("trx").await, world.place("trc20_usdt").await);
        world.advance_seconds(30 * 60 + 61);
        world.settle().await;
        for placed in [&trx, &token] {
            world.expect(placed, "expired", "expired").await;
            world.pay(placed, placed.due);
        }
        world.settle().await;
        for placed in [&trx, &token] {
            world.expect(placed, "expired", "expired").await;
            assert_eq!(world.held_apart(placed.coin, Suspense::Late).await, placed.due);
        }
    }

    async fn what_is_paid_in_the_grace_counts_although_it_is_solidified_a_minute_later(world: Onchain) {
        let placed = world.place("trc20_usdt").await;
        // The newest solidified block is a minute old, as always.
        world.advance_seconds(30 * 60 - 50);
        world.produce(LAG + 1).await;
        world.advance_seconds(50 + 20);
        world.pay(&placed, placed.due);
        world.produce(1).await;
        world.advance_seconds(45);
        world.produce(1).await;
        let answer = world.status(&placed.id).await;
        assert_eq!(answer.text_at("status"), "pending", "{}", answer.text);
        world.produce(LAG - 1).await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.earned(placed.coin).await, placed.due);
    }

    async fn one_transaction_pays_three_orders(world: Onchain) {
        for coin in COINS {
            let orders = [world.place(coin).await, world.place(coin).await, world.place(coin).await];
            let [first, second, third] = &orders;
            let parts = split(first.due, 1, 3);
            // Two of the four transfers go to one address.
            world.pay_by_contract(&[(first, parts.0), (second, second.due), (third, third.due), (first, parts.1)]);
            world.produce(1).await;
            for placed in &orders {
                world.expect_received(placed, placed.due).await;
            }
            world.settle().await;
            for placed in &orders {
                world.expect(placed, "completed", "paid").await;
            }
            let all = Amount::checked_sum(orders.iter().map(|placed| placed.due)).unwrap();
            assert_eq!(world.earned(coin).await, all);
        }
    }

    async fn somebody_else_moves_the_payers_tokens(world: Onchain) {
        let placed = world.place("trc20_usdt").await;
        let (payer, mover) = (evm(world.tron.rich[0].account), evm(world.tron.rich[2].account));
        let (to, value) = (evm(account(&placed)), placed.due.units());
        world.tron.call(0, world.tron.usdt, abi::Trc20Like::approveCall { spender: mover, value });
        world.tron.call(2, world.tron.usdt, abi::Trc20Like::transferFromCall { from: payer, to, value });
        world.settle().await;
        world.expect(&placed, "completed", "paid").await;
    }

    async fn a_frozen_payer_pays_when_the_issuer_relents(world: Onchain) {
        let placed = world.place("trc20_usdt").await;
        let holder = evm(world.tron.rich[0].account);
        let blacklisted = |listed| abi::Trc20Like::setBlackListedCall { holder, listed };
        let paused = |paused| abi::Trc20Like::setPausedCall { paused };
        let ended = |txid: [u8; 32]| {
            let model = world.tron.node.model();
            let (_, included) = model.find(&txid, model.head_height()).unwrap();
            (included.ret.name().to_owned(), included.receipt.logs.len())
        };
        world.tron.call(0, world.tron.usdt, blacklisted(true));
        let frozen = world.pay(&placed, placed.due);
        // Nor does a contract that may move his tokens.
        let moved = world.pay_by_contract(&[(&placed, placed.due)]);
        world.settle().await;
        world.tron.call(0, world.tron.usdt, blacklisted(false));
        world.tron.call(0, world.tron.usdt, paused(true));
        let stopped = world.pay(&placed, placed.due);
        world.settle().await;
        for txid in [frozen, moved, stopped] {
            assert_eq!(ended(txid), ("REVERT".to_owned(), 0));
        }
        world.expect(&placed, "pending", "pending").await;
        world.expect_received(&placed, Amount::ZERO).await;
        world.tron.call(0, world.tron.usdt, paused(false));
        world.pay(&placed, placed.due);
        world.settle().await;
        world.expect(&placed, "completed", "paid").await;
        assert_eq!(world.earned(placed.coin).await, placed.due);
    }

    async fn trx_that_contracts_send_is_found_and_what_is_undone_is_not(world: Onchain) {
        let (paid, undone, destructed) = (world.place("trx").await, world.place("trx").await, world.place("trx").await);
        world.pay_by_contract(&[(&paid, paid.due)]);
        let batcher = world.tron.batcher;
        let (to, value) = (vec![evm(account(&undone))], vec![undone.due.units()]);
        let call = abi::Batcher::payEtherThroughRevertCall { to, value }.abi_encode();
        world.tron.call_with(1, batcher, sun(undone.due), &call);
        let call = abi::Batcher::payByDestructCall { to: evm(account(&destructed)) }.abi_encode();
        world.tron.call_with(1, batcher, sun(destructed.due), &call);
        world.settle().await;
        world.expect(&paid, "completed", "paid").await;
        world.expect(&destructed, "completed", "paid").await;
        world.expect(&undone, "pending", "pending").await;
        assert_eq!(world.earned("trx").await, paid.due.checked_add(destructed.due).unwrap());
    }

    async fn trx_that_a_node_does_not_show_is_found_by_the_balance(world: Onchain) {
        // As java-tron is installed: it keeps nothing of what contracts call. It does keep balances here.
        world.tron.node.model().internal_transfers = false;
        world.tron.node.model().history = true;
        let (paid, unpaid) = (world.place("trx").await, world.place("trx").await);
        world.pay_by_contract(&[(&paid, paid.due)]);
        world.settle().await;
        world.expect(&paid, "pending", "pending").await;
        // Before its window ends, the balance is asked for.
        world.advance_seconds(30 * 60 + 61);
        world.settle().await;
        world.settle().await;
        world.expect(&paid, "completed", "paid").await;
        world.expect(&unpaid, "expired", "expired").await;
        assert_eq!(world.earned("trx").await, paid.due);
    }

    async fn another_coin_to_the_address_is_kept_apart(world: Onchain) {
        let placed = world.place("trc20_usdt").await;
        world.tron.transfer(1, account(&placed), 5_000_000);
        world.settle().await;
        world.expect(&placed, "pending", "pending").await;
        assert_eq!(world.held_apart("trx", Suspense::Foreign).await, Amount::from_units(5_000_000));
    }

    async fn what_only_looks_like_a_payment_is_ignored(world: Onchain) {
        let (token, trx) = (world.place("trc20_usdt").await, world.place("trx").await);
        let (tron, to) = (&world.tron, evm(account(&token)));
        let (from, value) = (evm(tron.rich[0].account), token.due.units());
        // Of nothing, which anybody can send in anybody's name.
        tron.call(3, tron.usdt, abi::Trc20Like::transferFromCall { from, to, value: U256::ZERO });
        // Of a token that calls itself USDT, in every shape, and of one that takes its log back.
        tron.call(3, tron.fake, abi::FakeToken::phantomCall { from, to, value });
        tron.call(3, tron.fake, abi::FakeToken::misshapenCall { from, to, value });
        tron.call(3, tron.fake, abi::FakeToken::revertedCall { from, to, value });
        // Of tokens that the payer does not have.
        let reverted = tron.call(3, tron.usdt, abi::Trc20Like::transferCall { to, value });
        // With less energy than it takes.
        let data = abi::Trc20Like::transferCall { to, value }.abi_encode();
        let starved = Operation::Trigger { contract: tron.usdt, call_value: 0, data };
        let starved = tron.node.try_send(&tron.rich[0], &starved, 5_000_000).unwrap();
        // Logs of transfers by a call and by a contract that ran out of time.
        let phantom = world.pay(&token, token.due);
        let phantoms = world.pay_by_contract(&[(&token, token.due), (&token, token.due)]);
        let internal = world.pay_by_contract(&[(&trx, trx.due)]);
        for txid in [phantom, phantoms, internal] {
            tron.node.force_out_of_time(txid);
        }
        world.produce(1).await;
        for placed in [&token, &trx] {
            world.expect(placed, "pending", "pending").await;
        }
        world.settle().await;
        let ended = |txid: &[u8; 32]| {
            let model = tron.node.model();
            let (_, included) = model.find(txid, model.head_height()).unwrap();
            (included.ret.name().to_owned(), included.receipt.logs.len())
        };
        assert_eq!(ended(&reverted), ("REVERT".to_owned(), 0));
        assert_eq!(ended(&starved), ("OUT_OF_ENERGY".to_owned(), 0));
        assert_eq!(ended(&phantom), ("OUT_OF_TIME".to_owned(), 1));
        assert_eq!(ended(&phantoms), ("OUT_OF_TIME".to_owned(), 2));
        for placed in [&token, &trx] {
            world.expect(placed, "pending", "pending").await;
            world.expect_received(placed, Amount::ZERO).await;
        }
    }

    async fn two_thousand_blocks_of_downtime_lose_nothing(world: Onchain) {
        let (token, trx) = (world.place("trc20_usdt").await, world.place("trx").await);
        // The chain is an hour behind the clock, which is how long the daemon is away.
        world.tron.node.produce(500, 0);
        world.pay(&token, token.due);
        world.tron.node.produce(600, 0);
        world.pay_by_contract(&[(&trx, trx.due)]);
        world.tron.node.produce(900, 0);
        world.crash_and_boot().await;
        world.expect(&token, "completed", "paid").await;
        world.expect(&trx, "completed", "paid").await;
        assert_eq!(world.earned(token.coin).await, token.due);
        assert!(world.gateways[0].request_count("getblockbylimitnext") < 500, "in ranges");
    }
}
