//! Stories of money on its way in, on model chains: what arrives is booked, whatever it is, and nothing outlives its block.

use chain::Amount;
use config::Config;
use money::ledger::{Account, Suspense};
use simnet::{NodeFault, ReplacedTxs};

use crate::world::{Answer, World};

const COINS: [&str; 7] = ["trc20_usdt", "erc20_usdt", "bep20_usdt", "btc", "eth", "trx", "bnb"];

pub struct Placed {
    pub id: String,
    pub order_no: String,
    pub coin: &'static str,
    pub address: String,
    pub due: String,
}

pub async fn place(world: &World, coin: &'static str) -> Placed {
    let answer = world.order(2, coin).await;
    Placed {
        id: answer.text_at("order.id"),
        order_no: answer.text_at("order.order_no"),
        coin,
        address: answer.text_at("payment.address"),
        due: answer.text_at("payment.expected_amount"),
    }
}

pub async fn expect(world: &World, placed: &Placed, status: &str, payment_status: &str) -> Answer {
    let answer = world.status(&placed.id).await;
    assert_eq!(answer.text_at("status"), status, "{}", answer.text);
    assert_eq!(answer.text_at("payment_status"), payment_status, "{}", answer.text);
    answer
}

/// So many whole coins, in base units of the coin.
pub fn units(world: &World, coin: &str, amount: &str) -> Amount {
    Amount::parse_decimal(amount, world.asset(coin).decimals).unwrap()
}

fn decimal(world: &World, coin: &str, amount: Amount) -> String {
    amount.to_decimal(world.asset(coin).decimals)
}

pub async fn suspense(world: &World, coin: &str, kind: Suspense) -> Amount {
    let account = Account::Suspense(world.shop.merchant, kind);
    world.account(world.shop.mode, account, world.asset(coin).id).await.available()
}

both! {
    async fn an_exact_payment_completes_the_order_on_every_coin(world: World) {
        for coin in COINS {
            let placed = place(&world, coin).await;
            expect(&world, &placed, "pending", "pending").await;
            world.pay(coin, &placed.address, &placed.due);
            world.mine(coin, 1);
            world.run_until_idle().await;
            let needed = world.status(&placed.id).await.body["payment"]["required_confirmations"].as_u64().unwrap();
            if needed > 1 {
                expect(&world, &placed, "pending", "confirming").await;
                world.mine(coin, needed - 2);
                world.run_until_idle().await;
                expect(&world, &placed, "pending", "confirming").await;
                world.mine(coin, 1);
                world.run_until_idle().await;
            }
            expect(&world, &placed, "completed", "paid").await;
            let found = world.get_from("10.0.0.1", &format!("/api/orders/query?orderNo={}&email=BUYER@example.com", placed.order_no)).await;
            assert_eq!(found.body["order"]["credentials"].as_array().map(Vec::len), Some(2), "{}", found.text);
            world.mine_deep(coin);
            world.run_until_idle().await;
            let earned = world.account(world.shop.mode, Account::MerchantAvailable(world.shop.merchant), world.asset(coin).id).await;
            assert_eq!(earned.available(), units(&world, coin, &placed.due), "final money is the merchant's: {coin}");
            world.advance_seconds(60);
        }
    }

    async fn a_part_and_the_rest_pay_together(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let due = units(&world, placed.coin, &placed.due);
        let part = due.checked_mul_ratio(1, 3).unwrap();
        world.pay(placed.coin, &placed.address, &decimal(&world, placed.coin, part));
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        let answer = expect(&world, &placed, "pending", "underpaid").await;
        assert_eq!(answer.text_at("payment.received_amount"), decimal(&world, placed.coin, part));
        assert_eq!(answer.text_at("payment.qr_code"), placed.address, "the rest is asked for");
        world.pay(placed.coin, &placed.address, &decimal(&world, placed.coin, due.checked_sub(part).unwrap()));
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        let answer = expect(&world, &placed, "completed", "paid").await;
        assert!(answer.body["payment"]["qr_code"].is_null(), "nothing is asked for any more: {}", answer.text);
    }

    async fn a_little_too_little_pays_within_the_tolerance(world: World = |config: &mut Config| {
        config.policy.tolerance_basis_points = 50;
        config.policy.tolerance_usd_cents = 5;
    }) {
        // 0.138122 USDT: five cents are more than half a percent, and less than half of it.
        let placed = place(&world, "trc20_usdt").await;
        let due = units(&world, placed.coin, &placed.due);
        for (missing, states) in [(50_001, ("pending", "underpaid")), (50_000, ("completed", "paid"))] {
            let paid = world.status(&placed.id).await.text_at("payment.received_amount");
            let so_far = units(&world, placed.coin, &paid);
            let next = due.checked_sub(Amount::from_units(missing)).and_then(|sum| sum.checked_sub(so_far)).unwrap();
            world.pay(placed.coin, &placed.address, &decimal(&world, placed.coin, next));
            world.mine_deep(placed.coin);
            world.run_until_idle().await;
            expect(&world, &placed, states.0, states.1).await;
        }
    }

    async fn a_tolerance_in_value_forgives_half_of_a_small_amount_at_most(world: World = |config: &mut Config| {
        config.policy.tolerance_usd_cents = 500;
    }) {
        let placed = place(&world, "trc20_usdt").await;
        let due = units(&world, placed.coin, &placed.due);
        let less = due.checked_mul_ratio(1, 2).and_then(|half| half.checked_sub(Amount::from_units(1))).unwrap();
        world.pay(placed.coin, &placed.address, &decimal(&world, placed.coin, less));
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "underpaid").await;
    }

    async fn too_much_pays_and_the_surplus_is_kept(world: World) {
        let placed = place(&world, "eth").await;
        let due = units(&world, placed.coin, &placed.due);
        let twice = due.checked_mul(2).unwrap();
        world.pay(placed.coin, &placed.address, &decimal(&world, placed.coin, twice));
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        assert_eq!(suspense(&world, placed.coin, Suspense::Surplus).await, due);
        world.pay(placed.coin, &placed.address, &decimal(&world, placed.coin, due));
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        assert_eq!(suspense(&world, placed.coin, Suspense::Surplus).await, twice, "what comes after payment is surplus too");
    }

    async fn a_second_payment_on_its_way_becomes_surplus_and_a_reorg_takes_it_back(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let due = units(&world, placed.coin, &placed.due);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 1);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        for _ in 0..11 {
            world.mine(placed.coin, 1);
            world.run_until_idle().await;
        }
        expect(&world, &placed, "completed", "paid").await;
        assert_eq!(suspense(&world, placed.coin, Suspense::Surplus).await, due, "the second payment is nobody's incoming money");
        let incoming = Account::MerchantIncoming(world.shop.merchant);
        let asset = world.asset(placed.coin).id;
        assert_eq!(world.account(world.shop.mode, incoming.clone(), asset.clone()).await.available(), Amount::ZERO);

        world.simnet.reorg(&world.chain_of(placed.coin), 12, ReplacedTxs::Drop, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(suspense(&world, placed.coin, Suspense::Surplus).await, Amount::ZERO);
        let pending = Account::MerchantPending(world.shop.merchant);
        assert_eq!(world.account(world.shop.mode, pending, asset.clone()).await.available(), due, "the first payment stands");
        assert_eq!(world.account(world.shop.mode, incoming, asset).await.available(), Amount::ZERO);
    }

    async fn a_payment_in_time_stays_in_time_when_it_is_mined_again(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        world.advance_seconds(29 * 60);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "confirming").await;
        world.advance_seconds(5 * 60);
        world.simnet.reorg(&world.chain_of(placed.coin), 1, ReplacedTxs::Remine, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn a_payment_that_a_fork_takes_back_after_its_window_is_awaited(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let chain = world.chain_of(placed.coin);
        world.advance_seconds(29 * 60);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(5 * 60);
        world.simnet.set_mempool_held(&chain, true);
        world.simnet.reorg(&chain, 1, ReplacedTxs::Remine, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        world.advance_seconds(20 * 60);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        assert_eq!(world.status(&placed.id).await.text_at("status"), "pending", "it was in time, and nobody could mine it");
        world.simnet.set_mempool_held(&chain, false);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn a_payment_that_a_fork_took_back_for_good_is_awaited_as_long_as_its_window_was(world: World) {
        let before = world.stock(&world.product).await;
        let placed = place(&world, "erc20_usdt").await;
        world.advance_seconds(29 * 60);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(5 * 60);
        world.simnet.reorg(&world.chain_of(placed.coin), 1, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        for (seconds, status) in [(29 * 60, "pending"), (3 * 60, "expired")] {
            world.advance_seconds(seconds);
            world.mine(placed.coin, 1);
            world.run_until_idle().await;
            assert_eq!(world.status(&placed.id).await.text_at("status"), status);
        }
        assert_eq!(world.stock(&world.product).await, before);
    }

    async fn a_tip_that_stands_still_ends_no_window(world: World) {
        let placed = place(&world, "eth").await;
        world.advance_seconds(2 * 3_600);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "pending").await;
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        expect(&world, &placed, "expired", "expired").await;
    }

    async fn an_unpaid_order_expires_and_late_money_is_kept(world: World) {
        let before = world.stock(&world.product).await;
        let placed = place(&world, "bnb").await;
        assert_eq!(world.stock(&world.product).await, before - 2);
        world.advance_seconds(30 * 60 + 61);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        expect(&world, &placed, "expired", "expired").await;
        assert_eq!(world.stock(&world.product).await, before, "the stock is free again");
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "expired", "expired").await;
        assert_eq!(suspense(&world, placed.coin, Suspense::Late).await, units(&world, placed.coin, &placed.due));
    }

    async fn a_part_payment_that_expires_is_kept(world: World) {
        let placed = place(&world, "trx").await;
        world.pay(placed.coin, &placed.address, "0.5");
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "underpaid").await;
        world.advance_seconds(30 * 60 + 61);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        let answer = expect(&world, &placed, "expired", "expired").await;
        assert_eq!(answer.text_at("payment.received_amount"), "0.5", "what arrived is still shown");
        assert_eq!(suspense(&world, placed.coin, Suspense::Short).await, units(&world, placed.coin, "0.5"));
    }

    async fn money_in_time_holds_the_window_open(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        world.advance_seconds(29 * 60);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(10 * 60);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "confirming").await;
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn nothing_expires_while_the_chain_is_behind(world: World) {
        let placed = place(&world, "eth").await;
        world.advance_seconds(20 * 60);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 1);
        world.simnet.set_fault(&world.chain_of(placed.coin), NodeFault::Unavailable, true);
        world.run_until_idle().await;
        world.advance_seconds(3 * 3_600);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "pending").await;
        world.simnet.set_fault(&world.chain_of(placed.coin), NodeFault::Unavailable, false);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn what_is_no_payment_is_ignored(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let asset = world.asset(placed.coin);
        let due = units(&world, placed.coin, &placed.due);
        world.simnet.pay_zero(&asset.chain, &asset.id, &placed.address).unwrap();
        world.simnet.pay_fake_token(&asset.chain, &placed.address, due).unwrap();
        world.simnet.pay_reverting(&asset.chain, &asset.id, &placed.address, due).unwrap();
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "pending").await;
    }

    async fn another_coin_to_the_address_is_kept_apart(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        world.pay("eth", &placed.address, "0.25");
        world.mine_deep("eth");
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "pending").await;
        assert_eq!(suspense(&world, "eth", Suspense::Foreign).await, units(&world, "eth", "0.25"));
    }

    async fn one_transaction_pays_two_orders(world: World) {
        let (first, second) = (place(&world, "bep20_usdt").await, place(&world, "bep20_usdt").await);
        let asset = world.asset("bep20_usdt");
        let movement = |placed: &Placed| (asset.id.clone(), placed.address.clone(), units(&world, "bep20_usdt", &placed.due));
        world.simnet.pay_many(&asset.chain, vec![movement(&first), movement(&second)]).unwrap();
        world.mine_deep("bep20_usdt");
        world.run_until_idle().await;
        expect(&world, &first, "completed", "paid").await;
        expect(&world, &second, "completed", "paid").await;
    }

    async fn two_orders_are_paid_in_one_block(world: World) {
        let (first, second) = (place(&world, "btc").await, place(&world, "btc").await);
        world.pay("btc", &first.address, &first.due);
        world.pay("btc", &second.address, &second.due);
        world.mine_deep("btc");
        world.run_until_idle().await;
        expect(&world, &first, "completed", "paid").await;
        expect(&world, &second, "completed", "paid").await;
    }

    async fn internal_transfers_count(world: World) {
        let placed = place(&world, "eth").await;
        world.simnet.pay_internal(&world.chain_of("eth"), &placed.address, units(&world, "eth", &placed.due)).unwrap();
        world.mine_deep("eth");
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn internal_transfers_are_found_by_balance(world: World) {
        let chain = world.chain_of("eth");
        world.simnet.set_internal_by_balance(&chain, true);
        let placed = place(&world, "eth").await;
        world.mine("eth", 40);
        world.run_until_idle().await;
        world.simnet.pay_internal(&chain, &placed.address, units(&world, "eth", &placed.due)).unwrap();
        world.mine("eth", 20);
        world.run_until_idle().await;
        world.mine_deep("eth");
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn an_endpoint_that_hides_transfers_is_caught_before_the_window_ends(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let chain = world.chain_of(placed.coin);
        world.advance_seconds(60);
        world.simnet.set_fault(&chain, NodeFault::HideTransfers, true);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 40);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "pending").await;
        world.advance_seconds(31 * 60);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn five_hundred_blocks_of_downtime_lose_nothing(world: World) {
        let placed = place(&world, "trc20_usdt").await;
        world.advance_seconds(60);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 1);
        world.advance_seconds(1_500);
        world.mine(placed.coin, 500);
        world.crash_and_boot().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn a_crash_between_block_and_credit_loses_nothing(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        world.pay(placed.coin, &placed.address, &placed.due);
        world.crash_and_boot().await;
        world.mine(placed.coin, 1);
        world.crash_and_boot().await;
        expect(&world, &placed, "pending", "confirming").await;
        world.mine(placed.coin, 40);
        world.crash_and_boot().await;
        expect(&world, &placed, "completed", "paid").await;
        world.crash_and_boot().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn a_reorg_before_confirmation_moves_the_deposit(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let chain = world.chain_of(placed.coin);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 3);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "confirming").await;
        world.simnet.reorg(&chain, 3, ReplacedTxs::Remine, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "confirming").await;
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn a_reorg_that_drops_the_payment_takes_it_back(world: World) {
        let placed = place(&world, "eth").await;
        let chain = world.chain_of(placed.coin);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 4);
        world.run_until_idle().await;
        world.simnet.reorg(&chain, 4, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        let answer = world.status(&placed.id).await;
        assert_eq!(answer.text_at("payment.received_amount"), "0", "{}", answer.text);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        assert_eq!(world.status(&placed.id).await.text_at("status"), "pending");
    }

    async fn a_reorg_after_credit_reverses_and_pays_again(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let chain = world.chain_of(placed.coin);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 1);
        world.run_until_idle().await;
        let needed = world.status(&placed.id).await.body["payment"]["required_confirmations"].as_u64().unwrap();
        world.mine(placed.coin, needed - 1);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        let pending = Account::MerchantPending(world.shop.merchant);
        let asset = world.asset(placed.coin).id;
        let due = units(&world, placed.coin, &placed.due);
        assert_eq!(world.account(world.shop.mode, pending.clone(), asset.clone()).await.available(), due);

        world.simnet.reorg(&chain, needed, ReplacedTxs::Drop, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(world.account(world.shop.mode, pending.clone(), asset.clone()).await.available(), Amount::ZERO, "no credit outlives its block");
        assert_eq!(world.status(&placed.id).await.text_at("status"), "completed", "what was delivered stays delivered");

        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        let available = Account::MerchantAvailable(world.shop.merchant);
        assert_eq!(world.account(world.shop.mode, available, asset).await.available(), due, "money that comes again settles it again");
    }

    async fn every_depth_of_reorganisation_is_followed(world: World) {
        let placed = place(&world, "bnb").await;
        let chain = world.chain_of(placed.coin);
        for depth in 1..=64 {
            world.mine(placed.coin, 1);
            world.run_until_idle().await;
            let most = world.simnet.tip(&chain).finalized.map_or(64, |mark| world.simnet.tip(&chain).head.height - mark.height);
            world.simnet.reorg(&chain, depth.min(most), ReplacedTxs::Remine, world.clock.now().unix_seconds());
            world.run_until_idle().await;
        }
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn a_node_that_lags_or_lies_about_links_changes_nothing(world: World) {
        let placed = place(&world, "eth").await;
        let chain = world.chain_of(placed.coin);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 20);
        for fault in [NodeFault::Stale(5), NodeFault::WrongParent, NodeFault::MissingBlocks, NodeFault::FinalityRegresses] {
            world.simnet.set_fault(&chain, fault, true);
            world.run_until_idle().await;
            world.simnet.set_fault(&chain, fault, false);
        }
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn a_fork_below_the_final_mark_stops_the_chain(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let chain = world.chain_of(placed.coin);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        world.simnet.reorg(&chain, 120, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        let reviews = world.db.read("reviews", |tx| Box::pin(async move { records::reviews::list_open(tx, 10).await })).await.unwrap();
        assert!(reviews.iter().any(|review| review.kind == "chain.halted"), "{reviews:?}");
    }

    async fn the_audit_fails_after_a_change_by_sql_and_names_the_posting(world: World) {
        let placed = place(&world, "eth").await;
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        assert!(world.audit().await.is_clean());
        world.db.write("corrupt", |tx| Box::pin(async move {
            tx.execute("update postings set reason = 'gift' where entry = 'deposit/1/confirmed'", Vec::new()).await
        })).await.unwrap();
        let report = world.audit().await;
        assert!(report.findings.iter().any(|finding| finding.contains("deposit/1/confirmed")), "{report}");
        world.db.write("mend", |tx| Box::pin(async move {
            tx.execute("update postings set reason = 'deposit confirmed' where entry = 'deposit/1/confirmed'", Vec::new()).await
        })).await.unwrap();
    }
}
