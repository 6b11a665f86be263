//! Stories of money that needs an operator or a rescan: after reorgs, on sibling chains, behind nodes without balances,
//! of tokens that were listed late.

use std::sync::Arc;

use chain::{Amount, ChainId};
use config::Config;
use envelope::Envelope;
use money::cursors;
use money::ledger::{Account, Suspense};
use records::reviews;
use serde_json::{Value, json};
use settled::commands::context::{Context, RunningDaemon};
use settled::commands::dispatch::execute_named_operation;
use settled::control::ControlRequest;
use settled::workers::rescan::RescanPiece;
use simnet::{NodeFault, ReplacedTxs};

use crate::placed_order::PlacedOrder;
use crate::world::{SETUP, World, accounts};

/// Executes an operation as a request over the control socket does.
pub async fn request(world: &World, operation: &str, arguments: Value) -> Result<Value, String> {
    let daemon = world.daemon.as_ref().unwrap();
    let running = RunningDaemon::from_started_daemon(daemon, world.clock.now());
    let config = std::sync::Arc::new(world.config.clone());
    let offline = Context::without_daemon(config, world.db.clone(), world.clock.clone(), world.envelope.clone());
    let context = Context { daemon: Some(running), ..offline };
    execute_named_operation(&context, ControlRequest { operation: operation.to_owned(), arguments }).await
}

async fn resume(world: &World, chain: &str) -> Result<String, String> {
    let output = request(world, "admin", json!({ "resume-chain": { "chain": chain } })).await?;
    Ok(output.as_str().expect("a sentence").to_owned())
}

/// Rescans from block 1 and returns the number of transfers that were booked, known before, and uncertain.
async fn rescan(world: &World, chain: &ChainId, to: u64) -> Result<(u64, u64, u64), String> {
    let output = request(world, "rescan", json!({ "chain": chain.as_str(), "from": 1, "to": to })).await?;
    let piece: RescanPiece = serde_json::from_value(output).expect("the rescanned blocks");
    assert_eq!(piece.to, to);
    Ok((piece.booked, piece.known, piece.doubtful))
}

/// Pays and mines until the order is completed, but not until the money is final.
async fn pay_until_completed(world: &World, order: &PlacedOrder) -> u64 {
    world.pay_order(order, order.due);
    world.mine(order.coin, 1);
    world.run_until_idle().await;
    let needed = world.required_confirmations(order).await;
    world.mine(order.coin, needed - 1);
    world.run_until_idle().await;
    world.assert_status(order, "completed", "paid").await;
    needed
}

async fn advance_and_mine(world: &World, coin: &str, seconds: i64) {
    world.advance_seconds(seconds);
    world.mine(coin, 1);
    world.run_until_idle().await;
}

/// Closes the review as an operator does after a refund by hand.
pub async fn close_review(world: &World, kind: &'static str) {
    let now = world.clock.now();
    let reviews = world.open_reviews().await;
    let subject = reviews.iter().find(|review| review.kind.as_str() == kind).unwrap().subject.clone();
    let decided = world.db.write("decide", move |tx| {
        Box::pin(async move {
            reviews::close_review_by_operator(tx, now, &SETUP, kind.parse().unwrap(), &subject, "given back by hand")
                .await
        })
    });
    assert!(decided.await.unwrap());
}

both! {
    async fn a_reversed_payment_that_does_not_return_expires(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let needed = pay_until_completed(&world, &order).await;
        world.simnet.reorg(&world.chain_of(order.coin), needed, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "pending").await;
        advance_and_mine(&world, order.coin, 29 * 60).await;
        assert!(world.has_open_review("payment.reversed").await, "it may still come back");
        advance_and_mine(&world, order.coin, 3 * 60).await;
        world.assert_status(&order, "completed", "expired").await;
        assert!(world.has_open_review("order.unpaid").await && !world.has_open_review("payment.reversed").await);

        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert_eq!(world.suspense(order.coin, Suspense::Late).await, order.due);
        world.assert_status(&order, "completed", "expired").await;
    }

    async fn the_rest_of_a_reversed_payment_goes_to_suspense(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let due = order.due;
        let part = due.mul_ratio_rounded_down(1, 3).unwrap();
        world.pay_order(&order, part);
        world.mine(order.coin, 5);
        world.pay_order(&order, due.checked_sub(part).unwrap());
        world.mine(order.coin, 12);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        world.simnet.reorg(&world.chain_of(order.coin), 12, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(world.merchant_incoming(order.coin).await, part);
        advance_and_mine(&world, order.coin, 32 * 60).await;
        world.assert_status(&order, "completed", "expired").await;
        assert_eq!(world.merchant_incoming(order.coin).await, Amount::ZERO);
        assert_eq!(world.suspense(order.coin, Suspense::Short).await, part);
        assert!(world.has_open_review("payment.short").await && world.has_open_review("order.unpaid").await);
    }

    async fn a_reversed_payment_that_returns_in_time_pays(world: World) {
        let order = world.place_order("erc20_usdt").await;
        world.advance_seconds(29 * 60);
        let needed = pay_until_completed(&world, &order).await;
        world.advance_seconds(20 * 60);
        world.simnet.reorg(&world.chain_of(order.coin), needed, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        advance_and_mine(&world, order.coin, 20 * 60).await;
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert!(world.open_reviews().await.is_empty());
    }

    async fn money_on_a_sibling_chain_is_booked_as_foreign(world: World) {
        let order = world.place_order("bnb").await;
        world.pay("eth", &order.address, "0.25");
        world.pay("erc20_usdt", &order.address, "7");
        world.mine("eth", 20);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        let [eth, usdt] = [world.amount("eth", "0.25"), world.amount("erc20_usdt", "7")];
        assert_eq!(world.suspense("eth", Suspense::Foreign).await, eth);
        assert_eq!(world.suspense("erc20_usdt", Suspense::Foreign).await, usdt);
        assert!(world.has_open_review("deposit.unallocated").await);

        world.simnet.reorg(&world.chain_of("eth"), 20, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(world.suspense("eth", Suspense::Foreign).await, Amount::ZERO, "no credit outlives its block");

        world.crash_and_boot().await;
        world.pay("eth", &order.address, "0.25");
        world.mine_deep("eth");
        world.run_until_idle().await;
        assert_eq!(world.suspense("eth", Suspense::Foreign).await, eth, "it is seen after a start too");
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_second_payment_of_a_paid_order_is_surplus(world: World) {
        let (order, second) = place_order_with_two_payments(&world).await;
        let paid = order.due;
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.pay_order(&second, second.due);
        world.mine(order.coin, 15);
        world.run_until_idle().await;
        assert_eq!(world.suspense(order.coin, Suspense::Surplus).await, second.due, "nobody asked for it");
        assert_eq!(world.open_reviews().await.iter().map(|review| review.kind.as_str()).collect::<Vec<_>>(), ["payment.second"]);

        // Its reversal changes nothing about the order, which another payment has paid.
        world.simnet.reorg(&world.chain_of(order.coin), 15, ReplacedTxs::Drop, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(world.suspense(order.coin, Suspense::Surplus).await, Amount::ZERO, "no credit outlives its block");
        assert!(world.open_reviews().await.is_empty());

        world.pay_order(&second, second.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert_eq!(world.suspense(order.coin, Suspense::Surplus).await, second.due);
        assert_eq!(world.merchant_available(order.coin).await, paid, "only one payment is earned");
        assert_eq!(world.merchant_pending(order.coin).await, Amount::ZERO);
        assert!(world.has_open_review("payment.second").await);
    }

    async fn two_payments_of_one_order_in_one_block_are_one_payment_and_a_surplus(world: World) {
        let (order, second) = place_order_with_two_payments(&world).await;
        world.pay_order(&order, order.due);
        world.pay_order(&second, second.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        let (earned, surplus) = (world.merchant_available(order.coin).await, world.suspense(order.coin, Suspense::Surplus).await);
        assert_eq!((earned, surplus), (order.due, second.due));
        assert!(world.has_open_review("payment.second").await);
        assert!(!world.has_open_review("payment.reversed").await);
    }

    async fn a_node_without_balances_delays_expiry_by_ten_minutes_at_most(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let chain = world.chain_of(order.coin);
        world.simnet.set_fault(&chain, NodeFault::NoBalances, true);
        advance_and_mine(&world, order.coin, 32 * 60).await;
        world.assert_status(&order, "pending", "pending").await;
        advance_and_mine(&world, order.coin, 9 * 60).await;
        world.assert_status(&order, "pending", "pending").await;
        advance_and_mine(&world, order.coin, 2 * 60).await;
        world.assert_status(&order, "expired", "expired").await;
        let reviews = world.open_reviews().await;
        let blind = reviews.iter().find(|review| review.kind.as_str() == "balance.unverified").unwrap();
        assert!(blind.subject.starts_with("invoice/") && blind.detail.contains("11 minutes"), "{blind:?}");

        world.simnet.set_fault(&chain, NodeFault::NoBalances, false);
        let next = world.place_order("erc20_usdt").await;
        advance_and_mine(&world, next.coin, 32 * 60).await;
        world.assert_status(&next, "expired", "expired").await;
        assert_eq!(world.open_reviews().await.iter().filter(|review| review.kind.as_str() == "balance.unverified").count(), 1);
    }

    async fn a_token_minted_at_will_does_not_stop_the_chain(world: World = |config: &mut Config| {
        // A token with 30 decimals, so that buyers own huge amounts of base units.
        let token = "[[chains.ethereum.assets]]\ncode = \"usdt\"\nsymbol = \"USDT\"\ndecimals = 30\nquote_decimals = 6
            contract = \"0xdAC17F958D2ee523a2206206994597C13D831ec7\"\n";
        let text = format!("{}\n{token}\n{}", include_str!("world.toml"), accounts());
        *config = Config::parse_and_validate(&config.data.folder.join("settled.toml"), &text, Vec::new()).unwrap();
    }) {
        let hostile = world.place_order("erc20_usdt").await;
        let asset = world.asset(hostile.coin);
        let unbookable = Amount::from_units(1 << 113);
        let movement = || (asset.id.clone(), hostile.address.clone(), unbookable);
        world.simnet.pay_many(&asset.chain, vec![movement(), movement()]).unwrap();
        world.mine(hostile.coin, 20);
        world.run_until_idle().await;
        assert!(world.has_open_review("deposit.out_of_range").await);
        world.assert_status(&hostile, "pending", "pending").await;
        advance_and_mine(&world, hostile.coin, 32 * 60).await;
        world.assert_status(&hostile, "expired", "expired").await;
        assert!(world.has_open_review("balance.out_of_range").await, "what its balance says cannot be booked either");

        let honest = world.place_order("erc20_usdt").await;
        world.pay_order(&honest, honest.due);
        world.mine_deep(honest.coin);
        world.run_until_idle().await;
        world.assert_status(&honest, "completed", "paid").await;
    }

    async fn reviews_close_when_their_money_vanishes(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let due = order.due;
        world.pay_order(&order, due.checked_mul(3).unwrap());
        world.pay("eth", &order.address, "0.25");
        world.mine(order.coin, 12);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert!(world.has_open_review("payment.surplus").await && world.has_open_review("deposit.unallocated").await);
        world.simnet.reorg(&world.chain_of(order.coin), 12, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert!(!world.has_open_review("payment.surplus").await && !world.has_open_review("deposit.unallocated").await);

        // Less money arrives than before, so a new review opens with the new amount.
        world.pay_order(&order, due.checked_mul(2).unwrap());
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        let reviews = world.open_reviews().await;
        let surplus = reviews.iter().find(|review| review.kind.as_str() == "payment.surplus").unwrap();
        assert!(surplus.detail.starts_with(&format!("{due} base units")), "{surplus:?}");
    }

    async fn the_review_of_a_part_payment_follows_its_blocks(world: World) {
        let order = world.place_order("erc20_usdt").await;
        world.advance_seconds(29 * 60);
        world.pay(order.coin, &order.address, "0.05");
        world.mine(order.coin, 1);
        world.pay(order.coin, &order.address, "0.04");
        world.mine(order.coin, 12);
        advance_and_mine(&world, order.coin, 3 * 60).await;
        world.assert_status(&order, "expired", "expired").await;
        assert!(world.has_open_review("payment.short").await);
        let chain = world.chain_of(order.coin);
        for (depth, left) in [(13, Some("50000 of ")), (15, None)] {
            world.simnet.reorg(&chain, depth, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
            world.run_until_idle().await;
            let reviews = world.open_reviews().await;
            let short = reviews.iter().find(|review| review.kind.as_str() == "payment.short");
            assert_eq!(short.map(|short| short.detail.starts_with(left.unwrap_or("?"))), left.map(|_| true), "{reviews:?}");
        }
    }

    async fn a_decided_part_payment_is_not_reviewed_again(world: World) {
        let order = world.place_order("erc20_usdt").await;
        world.advance_seconds(29 * 60);
        world.pay(order.coin, &order.address, "0.05");
        world.mine(order.coin, 1);
        world.pay(order.coin, &order.address, "0.04");
        world.mine(order.coin, 12);
        advance_and_mine(&world, order.coin, 3 * 60).await;
        close_review(&world, "payment.short").await;
        world.simnet.reorg(&world.chain_of(order.coin), 13, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(world.suspense(order.coin, Suspense::Short).await, world.amount(order.coin, "0.05"));
        assert!(!world.has_open_review("payment.short").await);
    }

    async fn a_decided_surplus_is_reviewed_again_only_when_it_grows(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let due = order.due;
        let chain = world.chain_of(order.coin);
        let pay = async |times: u64| {
            let amount = due.checked_mul(times).unwrap();
            world.pay_order(&order, amount);
            world.mine(order.coin, 12);
            world.run_until_idle().await;
            world.assert_status(&order, "completed", "paid").await;
        };
        let vanish = async || {
            world.simnet.reorg(&chain, 12, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
            world.run_until_idle().await;
        };
        pay(3).await;
        close_review(&world, "payment.surplus").await;
        for times in [3, 2] {
            vanish().await;
            pay(times).await;
            assert!(!world.has_open_review("payment.surplus").await, "{times} times what was due");
        }
        vanish().await;
        pay(4).await;
        let reviews = world.open_reviews().await;
        let surplus = reviews.iter().find(|review| review.kind.as_str() == "payment.surplus").unwrap();
        let expected = due.checked_mul(3_u64).unwrap();
        assert!(surplus.detail.starts_with(&format!("{expected} base units")), "{surplus:?}");
    }

    async fn final_money_becomes_available_when_the_rest_vanishes(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let chain = world.chain_of(order.coin);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        let first = world.simnet.tip(&chain).head.height;
        world.pay_order(&order, order.due);
        while world.simnet.tip(&chain).finalized.is_none_or(|last| last.height < first) {
            world.mine(order.coin, 1);
        }
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        let available = Account::MerchantAvailable(world.shop.merchant);
        let asset = world.asset(order.coin).id;
        let earned = || world.account(world.shop.mode, available.clone(), asset.clone());
        assert_eq!(earned().await.available_amount(), Amount::ZERO, "the second payment may still vanish");
        let depth = world.simnet.tip(&chain).head.height - first;
        world.simnet.reorg(&chain, depth, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(earned().await.available_amount(), order.due);
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn an_order_whose_key_is_missing_waits_until_it_is_restored(world: World) {
        let order = world.place_order("trc20_usdt").await;
        let restored = std::mem::replace(&mut world.envelope, Arc::new(Envelope::generate()));
        world.crash_and_boot().await;
        assert!(world.has_open_review("stock.unreadable").await, "a start says so");
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        for _ in 0..12 {
            world.assert_status(&order, "processing", "paid").await;
            advance_and_mine(&world, order.coin, 15 * 60).await;
        }
        assert_eq!(world.open_reviews().await.iter().filter(|review| review.kind.as_str() == "order.unreadable").count(), 1);
        world.envelope = restored;
        world.crash_and_boot().await;
        advance_and_mine(&world, order.coin, 15 * 60).await;
        world.assert_status(&order, "completed", "paid").await;
        assert!(world.open_reviews().await.is_empty());
    }

    async fn dust_is_booked_and_pays_no_invoice(world: World) {
        let order = world.place_order("trc20_usdt").await;
        let due = order.due;
        let dust = async || world.suspense(order.coin, Suspense::Dust).await;
        for booked in [1, 2] {
            world.pay(order.coin, &order.address, "0.000001");
            world.mine_deep(order.coin);
            world.run_until_idle().await;
            let answer = world.assert_status(&order, "pending", "pending").await;
            assert_eq!(answer.text_at("payment.received_amount"), "0");
            assert_eq!(dust().await, Amount::from_units(booked), "what arrived is in the ledger");
        }
        world.pay("trx", &order.address, "0.000001");
        world.mine_deep("trx");
        world.run_until_idle().await;
        assert_eq!(world.suspense("trx", Suspense::Dust).await, Amount::from_units(1), "of any asset");

        // After the first transfer less than a cent is missing. All dust together is less than that. A transfer of exactly
        // the missing amount pays the invoice.
        let rest = Amount::from_units(9_000);
        world.pay_order(&order, due.checked_sub(rest).unwrap());
        world.pay(order.coin, &order.address, "0.008997");
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "underpaid").await;
        assert_eq!(dust().await, Amount::from_units(8_999));
        world.pay_order(&order, rest);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        world.pay(order.coin, &order.address, "0.000001");
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert_eq!(dust().await, Amount::from_units(9_000), "it is no surplus either");
        assert!(world.open_reviews().await.is_empty(), "nobody has to look");
    }

    async fn a_small_first_transfer_counts_when_the_rest_comes(world: World) {
        for confirmed_before in [true, false] {
            let order = world.place_order("erc20_usdt").await;
            let test = world.amount(order.coin, "0.005");
            world.pay_order(&order, test);
            if confirmed_before {
                world.mine_deep(order.coin);
            } else {
                world.mine(order.coin, 1);
            }
            world.run_until_idle().await;
            world.assert_status(&order, "pending", "pending").await;
            world.pay_order(&order, order.due.checked_sub(test).unwrap());
            world.mine_deep(order.coin);
            world.run_until_idle().await;
            world.assert_status(&order, "completed", "paid").await;
            world.assert_received(&order, order.due).await;
            assert_eq!(world.suspense(order.coin, Suspense::Dust).await, Amount::ZERO);
        }
        assert!(world.open_reviews().await.is_empty());
    }

    async fn several_small_transfers_complete_a_payment_together(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let small = world.amount(order.coin, "0.004");
        world.pay_order(&order, small);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        let rest = order.due.checked_sub(small.checked_mul(2).unwrap()).unwrap();
        world.pay_order(&order, rest);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "underpaid").await;
        world.pay_order(&order, small);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_counted_small_transfer_is_reversed_with_its_block(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let test = world.amount(order.coin, "0.005");
        world.pay_order(&order, test);
        world.mine(order.coin, 13);
        world.run_until_idle().await;
        world.pay_order(&order, order.due.checked_sub(test).unwrap());
        world.mine(order.coin, 13);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        world.simnet.reorg(&world.chain_of(order.coin), 26, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(world.merchant_incoming(order.coin).await, Amount::ZERO, "no credit outlives its block");
        assert_eq!(world.suspense(order.coin, Suspense::Dust).await, Amount::ZERO);
    }

    async fn a_surplus_as_small_as_dust_opens_no_review(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let more = world.amount(order.coin, "0.009");
        world.pay_order(&order, order.due.checked_add(more).unwrap());
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.suspense(order.coin, Suspense::Surplus).await, more, "it is in the ledger");
        assert!(world.open_reviews().await.is_empty(), "nobody has to look");
        let order = world.place_order("erc20_usdt").await;
        world.pay_order(&order, order.due.checked_add(world.amount(order.coin, "0.01")).unwrap());
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert!(world.has_open_review("payment.surplus").await);
    }

    async fn dust_is_reversed_with_its_block(world: World) {
        let order = world.place_order("erc20_usdt").await;
        world.pay(order.coin, &order.address, "0.000001");
        world.mine(order.coin, 20);
        world.run_until_idle().await;
        assert_eq!(world.suspense(order.coin, Suspense::Dust).await, Amount::from_units(1));
        world.simnet.reorg(&world.chain_of(order.coin), 20, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(world.suspense(order.coin, Suspense::Dust).await, Amount::ZERO);
        advance_and_mine(&world, order.coin, 32 * 60).await;
        world.assert_status(&order, "expired", "expired").await;
    }

    async fn an_order_for_dust_is_paid_with_dust(world: World) {
        // One fen is 0.0014 USDT.
        let product = world.new_product("sticker", 1, 1, 5).await;
        let body = json!({
            "productId": product.id, "quantity": 1, "contactEmail": "buyer@example.com", "paymentMethod": "crypto",
            "coin": "trc20_usdt",
        });
        let answer = world.post("/api/orders", &body).await;
        let (id, address) = (answer.text_at("order.id"), answer.text_at("payment.address"));
        world.pay("trc20_usdt", &address, "0.0002");
        world.mine_deep("trc20_usdt");
        world.run_until_idle().await;
        assert_eq!(world.status(&id).await.text_at("payment_status"), "underpaid");
        world.pay("trc20_usdt", &address, &answer.text_at("payment.expected_amount"));
        world.mine_deep("trc20_usdt");
        world.run_until_idle().await;
        assert_eq!(world.status(&id).await.text_at("status"), "completed");
    }

    async fn a_halted_chain_continues_after_the_operator_resumes_it(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let chain = world.chain_of(order.coin);
        let (now, halted) = (world.clock.now(), chain.clone());
        world.db.write("halt", move |tx| Box::pin(async move { cursors::halt::halt_chain_and_open_review(tx, now, &halted, "a drill").await })).await.unwrap();
        world.crash_and_boot().await;
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;

        let said = resume(&world, "ethereum").await.unwrap();
        assert!(said.contains("a drill"), "{said}");
        assert!(!world.has_open_review("chain.halted").await);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert!(resume(&world, "ethereum").await.unwrap_err().contains("ethereum is not halted"));
        assert!(resume(&world, "dogecoin").await.unwrap_err().contains("no chain `dogecoin`"));

        // The fork still exists, so the chain halts again and the review opens again.
        world.simnet.reorg(&chain, 120, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert!(world.has_open_review("chain.halted").await);
        resume(&world, "ethereum").await.unwrap();
        world.run_until_idle().await;
        assert!(world.has_open_review("chain.halted").await);
    }

    async fn a_rescan_books_missing_transfers_once(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let (chain, other) = (world.chain_of(order.coin), world.place_order("erc20_usdt").await);
        world.pay_order(&other, other.due);
        world.mine(other.coin, 1);
        world.run_until_idle().await;
        world.simnet.set_fault(&chain, NodeFault::HideTransfers, true);
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.simnet.set_fault(&chain, NodeFault::HideTransfers, false);
        world.assert_status(&order, "pending", "pending").await;

        let head = world.simnet.tip(&chain).head.height;
        assert!(rescan(&world, &chain, head + 1).await.unwrap_err().contains("has not been read yet"));
        assert_eq!(rescan(&world, &chain, head).await, Ok((1, 1, 0)));
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        world.assert_status(&other, "completed", "paid").await;
        assert_eq!(rescan(&world, &chain, head).await, Ok((0, 2, 0)));
        assert!(rescan(&world, &ChainId::parse("dogecoin").unwrap(), 1).await.unwrap_err().contains("does not follow"));
    }

    async fn a_rescan_does_not_book_a_balance_credit_again(world: World) {
        let order = world.place_order("eth").await;
        let chain = world.chain_of("eth");
        world.simnet.set_internal_transfers_hidden(&chain, true);
        world.simnet.pay_from_contract(&chain, &order.address, order.due).unwrap();
        world.mine("eth", 20);
        world.run_until_idle().await;
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        world.simnet.set_internal_transfers_hidden(&chain, false);
        let head = world.simnet.tip(&chain).head.height;
        assert_eq!(rescan(&world, &chain, head).await, Ok((0, 0, 1)));
        assert!(world.has_open_review("rescan.possible_duplicate").await);
        assert_eq!(world.suspense("eth", Suspense::Surplus).await, Amount::ZERO);
    }
}

/// Places an order and gives it the payment of another order as its second payment. Returns both payments as orders.
async fn place_order_with_two_payments(world: &World) -> (PlacedOrder, PlacedOrder) {
    let (order, second) = (world.place_order("erc20_usdt").await, world.place_order("erc20_usdt").await);
    let ids = (order.id.clone(), second.id.clone());
    let moved = world.db.write("move_payment", move |tx| {
        Box::pin(async move {
            db::execute!(
                tx,
                "update payments set order_id = (select id from orders where public_id = $1)
                 where order_id = (select id from orders where public_id = $2)",
                ids.0.as_str(),
                ids.1.as_str()
            )
        })
    });
    assert_eq!(moved.await.expect("the payment is moved"), 1);
    (order, second)
}
