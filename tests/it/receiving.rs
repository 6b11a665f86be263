//! Stories of incoming money on model chains: every deposit is booked, and no credit outlives its block.

use chain::Amount;
use config::{Config, Confirmation};
use money::ledger::{Account, Suspense};
use simnet::{NodeFault, ReplacedTxs};

use crate::placed_order::PlacedOrder;
use crate::world::World;

const COINS: [&str; 7] = ["trc20_usdt", "erc20_usdt", "bep20_usdt", "btc", "eth", "trx", "bnb"];

both! {
    async fn an_exact_payment_completes_the_order_on_every_coin(world: World) {
        for coin in COINS {
            let order = world.place_order(coin).await;
            world.assert_status(&order, "pending", "pending").await;
            world.pay_order(&order, order.due);
            world.mine(coin, 1);
            world.run_until_idle().await;
            let needed = world.required_confirmations(&order).await;
            if needed > 1 {
                world.assert_status(&order, "pending", "confirming").await;
                world.mine(coin, needed - 2);
                world.run_until_idle().await;
                world.assert_status(&order, "pending", "confirming").await;
                world.mine(coin, 1);
                world.run_until_idle().await;
            }
            world.assert_status(&order, "completed", "paid").await;
            let found = world.get_from("10.0.0.1", &format!("/api/orders/query?orderNo={}&email=BUYER@example.com", order.order_no)).await;
            assert_eq!(found.body["order"]["credentials"].as_array().map(Vec::len), Some(2), "{}", found.text);
            world.mine_deep(coin);
            world.run_until_idle().await;
            let earned = world.account(world.shop.mode, Account::MerchantAvailable(world.shop.merchant), world.asset(coin).id).await;
            assert_eq!(earned.available_amount(), order.due, "final money is the merchant's: {coin}");
            world.advance_seconds(60);
        }
    }

    async fn a_payment_wakes_the_delivery_when_it_commits(world: World) {
        let mut woken = world.daemon.as_ref().expect("the daemon runs").wake.subscribe();
        let order = world.place_order("eth").await;
        let needed = world.required_confirmations(&order).await;
        assert!(needed > 1);
        world.pay_order(&order, order.due);
        world.mine(order.coin, needed - 1);
        world.run_until_idle().await;
        assert!(!woken.clear_wakes_and_tell_if_any(), "no payment is made yet");
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        assert!(woken.clear_wakes_and_tell_if_any());
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn partial_payments_add_up(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let due = order.due;
        let part = due.mul_ratio_rounded_down(1, 3).unwrap();
        world.pay_order(&order, part);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        let answer = world.assert_status(&order, "pending", "underpaid").await;
        assert_eq!(answer.text_at("payment.received_amount"), world.decimal(order.coin, part));
        assert_eq!(answer.text_at("payment.qr_code"), order.address, "the rest is asked for");
        world.pay_order(&order, due.checked_sub(part).unwrap());
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        let answer = world.assert_status(&order, "completed", "paid").await;
        assert!(answer.body["payment"]["qr_code"].is_null(), "nothing is asked for any more: {}", answer.text);
    }

    async fn a_small_underpayment_pays_within_the_tolerance(world: World = |config: &mut Config| {
        config.policy.tolerance_basis_points = 50;
        config.policy.tolerance_usd_cents = 5;
    }) {
        // Due are 0.13813 USDT: five cents are more than 0.5 % of it and less than half of it.
        let order = world.place_order("trc20_usdt").await;
        let due = order.due;
        for (missing, states) in [(50_001, ("pending", "underpaid")), (50_000, ("completed", "paid"))] {
            let paid = world.status(&order.id).await.text_at("payment.received_amount");
            let so_far = world.amount(order.coin, &paid);
            let next = due.checked_sub(Amount::from_units(missing)).and_then(|sum| sum.checked_sub(so_far)).unwrap();
            world.pay_order(&order, next);
            world.mine_deep(order.coin);
            world.run_until_idle().await;
            world.assert_status(&order, states.0, states.1).await;
        }
    }

    async fn the_absolute_tolerance_is_at_most_half_of_the_amount(world: World = |config: &mut Config| {
        config.policy.tolerance_usd_cents = 500;
    }) {
        let order = world.place_order("trc20_usdt").await;
        let due = order.due;
        let less = due.mul_ratio_rounded_down(1, 2).and_then(|half| half.checked_sub(Amount::from_units(1))).unwrap();
        world.pay_order(&order, less);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "underpaid").await;
    }

    async fn an_overpayment_pays_and_the_surplus_goes_to_suspense(world: World) {
        let order = world.place_order("eth").await;
        let due = order.due;
        let twice = due.checked_mul(2).unwrap();
        world.pay_order(&order, twice);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.suspense(order.coin, Suspense::Surplus).await, due);
        world.pay_order(&order, due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert_eq!(world.suspense(order.coin, Suspense::Surplus).await, twice, "what comes after payment is surplus too");
    }

    async fn a_second_payment_becomes_surplus_and_a_reorg_reverses_it(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let due = order.due;
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        for _ in 0..11 {
            world.mine(order.coin, 1);
            world.run_until_idle().await;
        }
        world.assert_status(&order, "completed", "paid").await;
        assert_eq!(world.suspense(order.coin, Suspense::Surplus).await, due, "the second payment is nobody's incoming money");
        let incoming = Account::MerchantIncoming(world.shop.merchant);
        let asset = world.asset(order.coin).id;
        assert_eq!(world.account(world.shop.mode, incoming.clone(), asset.clone()).await.available_amount(), Amount::ZERO);

        world.simnet.reorg(&world.chain_of(order.coin), 12, ReplacedTxs::Drop, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(world.suspense(order.coin, Suspense::Surplus).await, Amount::ZERO);
        let pending = Account::MerchantPending(world.shop.merchant);
        assert_eq!(world.account(world.shop.mode, pending, asset.clone()).await.available_amount(), due, "the first payment stands");
        assert_eq!(world.account(world.shop.mode, incoming, asset).await.available_amount(), Amount::ZERO);
    }

    async fn a_payment_in_time_stays_in_time_after_a_reorg(world: World) {
        let order = world.place_order("erc20_usdt").await;
        world.advance_seconds(29 * 60);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        world.advance_seconds(5 * 60);
        world.simnet.reorg(&world.chain_of(order.coin), 1, ReplacedTxs::Remine, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn an_invoice_waits_for_a_payment_that_a_reorg_returned_to_the_mempool(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let chain = world.chain_of(order.coin);
        world.advance_seconds(29 * 60);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(5 * 60);
        world.simnet.set_mempool_held(&chain, true);
        world.simnet.reorg(&chain, 1, ReplacedTxs::Remine, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        world.advance_seconds(20 * 60);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        assert_eq!(world.status(&order.id).await.text_at("status"), "pending", "it was in time, and nobody could mine it");
        world.simnet.set_mempool_held(&chain, false);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn an_invoice_waits_one_window_for_a_payment_lost_in_a_reorg(world: World) {
        let before = world.stock(&world.product).await;
        let order = world.place_order("erc20_usdt").await;
        world.advance_seconds(29 * 60);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(5 * 60);
        world.simnet.reorg(&world.chain_of(order.coin), 1, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        for (seconds, status) in [(29 * 60, "pending"), (3 * 60, "expired")] {
            world.advance_seconds(seconds);
            world.mine(order.coin, 1);
            world.run_until_idle().await;
            assert_eq!(world.status(&order.id).await.text_at("status"), status);
        }
        assert_eq!(world.stock(&world.product).await, before);
    }

    async fn a_stalled_tip_does_not_expire_invoices(world: World) {
        let order = world.place_order("eth").await;
        world.advance_seconds(2 * 3_600);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.assert_status(&order, "expired", "expired").await;
    }

    async fn an_unpaid_order_expires_and_late_money_goes_to_suspense(world: World) {
        let before = world.stock(&world.product).await;
        let order = world.place_order("bnb").await;
        assert_eq!(world.stock(&world.product).await, before - 2);
        world.advance_seconds(30 * 60 + 61);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.assert_status(&order, "expired", "expired").await;
        assert_eq!(world.stock(&world.product).await, before, "the stock is free again");
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "expired", "expired").await;
        assert_eq!(world.suspense(order.coin, Suspense::Late).await, order.due);
    }

    async fn an_expired_part_payment_goes_to_suspense(world: World) {
        let order = world.place_order("trx").await;
        world.pay(order.coin, &order.address, "0.5");
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "underpaid").await;
        world.advance_seconds(30 * 60 + 61);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        let answer = world.assert_status(&order, "expired", "expired").await;
        assert_eq!(answer.text_at("payment.received_amount"), "0.5", "what arrived is still shown");
        assert_eq!(world.suspense(order.coin, Suspense::Short).await, world.amount(order.coin, "0.5"));
    }

    async fn an_unconfirmed_payment_keeps_the_invoice_open(world: World) {
        let order = world.place_order("erc20_usdt").await;
        world.advance_seconds(29 * 60);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.advance_seconds(10 * 60);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn no_invoice_expires_while_the_chain_is_behind(world: World) {
        let order = world.place_order("eth").await;
        world.advance_seconds(20 * 60);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        world.simnet.set_fault(&world.chain_of(order.coin), NodeFault::Unavailable, true);
        world.run_until_idle().await;
        world.advance_seconds(3 * 3_600);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        world.simnet.set_fault(&world.chain_of(order.coin), NodeFault::Unavailable, false);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn lookalike_payments_book_nothing(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let asset = world.asset(order.coin);
        let due = order.due;
        world.simnet.pay_zero(&asset.chain, &asset.id, &order.address).unwrap();
        world.simnet.pay_fake_token(&asset.chain, &order.address, due).unwrap();
        world.simnet.pay_reverting(&asset.chain, &asset.id, &order.address, due).unwrap();
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        world.assert_nothing_booked().await;
    }

    async fn another_asset_at_the_address_goes_to_suspense(world: World) {
        let order = world.place_order("erc20_usdt").await;
        world.pay("eth", &order.address, "0.25");
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        assert_eq!(world.suspense("eth", Suspense::Foreign).await, world.amount("eth", "0.25"));
    }

    async fn one_transaction_pays_two_orders(world: World) {
        let (first, second) = (world.place_order("bep20_usdt").await, world.place_order("bep20_usdt").await);
        let asset = world.asset("bep20_usdt");
        let movement = |order: &PlacedOrder| (asset.id.clone(), order.address.clone(), order.due);
        world.simnet.pay_many(&asset.chain, vec![movement(&first), movement(&second)]).unwrap();
        world.mine_deep("bep20_usdt");
        world.run_until_idle().await;
        world.assert_status(&first, "completed", "paid").await;
        world.assert_status(&second, "completed", "paid").await;
    }

    async fn two_orders_are_paid_in_one_block(world: World) {
        let (first, second) = (world.place_order("btc").await, world.place_order("btc").await);
        world.pay_order(&first, first.due);
        world.pay_order(&second, second.due);
        world.mine_deep("btc");
        world.run_until_idle().await;
        world.assert_status(&first, "completed", "paid").await;
        world.assert_status(&second, "completed", "paid").await;
    }

    async fn the_payments_of_one_block_need_the_confirmations_of_their_sum(world: World = |config: &mut Config| {
        let bitcoin = config.chains.values_mut().find(|chain| chain.id.as_str() == "bitcoin").unwrap();
        bitcoin.confirmations = vec![
            Confirmation { below_usd: Some(1.into()), depth: 1 },
            Confirmation { below_usd: None, depth: 4 },
        ];
    }) {
        // Each order costs 0.69 dollars. One alone needs a single confirmation.
        let alone = world.place_order_of(10, "btc").await;
        world.pay_order(&alone, alone.due);
        world.mine("btc", 1);
        world.run_until_idle().await;
        world.assert_status(&alone, "completed", "paid").await;
        let (first, second) = (world.place_order_of(10, "btc").await, world.place_order_of(10, "btc").await);
        assert_eq!(world.required_confirmations(&first).await, 1);
        for order in [&first, &second] {
            world.pay_order(order, order.due);
        }
        world.mine("btc", 3);
        world.run_until_idle().await;
        for order in [&first, &second] {
            world.assert_status(order, "pending", "confirming").await;
            assert_eq!(world.required_confirmations(order).await, 4, "the buyer sees what it takes");
        }
        world.mine("btc", 1);
        world.run_until_idle().await;
        for order in [&first, &second] {
            world.assert_status(order, "completed", "paid").await;
        }
    }

    async fn internal_transfers_count(world: World) {
        let order = world.place_order("eth").await;
        world.simnet.pay_from_contract(&world.chain_of("eth"), &order.address, order.due).unwrap();
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn internal_transfers_are_found_by_balance(world: World) {
        let chain = world.chain_of("eth");
        world.simnet.set_internal_transfers_hidden(&chain, true);
        let order = world.place_order("eth").await;
        world.mine("eth", 40);
        world.run_until_idle().await;
        world.simnet.pay_from_contract(&chain, &order.address, order.due).unwrap();
        world.mine("eth", 20);
        world.run_until_idle().await;
        world.mine_deep("eth");
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn hidden_transfers_are_found_before_the_invoice_expires(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let chain = world.chain_of(order.coin);
        world.advance_seconds(60);
        world.simnet.set_fault(&chain, NodeFault::HideTransfers, true);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 40);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "pending").await;
        world.advance_seconds(31 * 60);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn five_hundred_blocks_of_downtime_lose_nothing(world: World) {
        let order = world.place_order("trc20_usdt").await;
        world.advance_seconds(60);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        world.advance_seconds(1_500);
        world.mine(order.coin, 500);
        world.crash_and_boot().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_crash_between_block_and_credit_loses_nothing(world: World) {
        let order = world.place_order("erc20_usdt").await;
        world.pay_order(&order, order.due);
        world.crash_and_boot().await;
        world.mine(order.coin, 1);
        world.crash_and_boot().await;
        world.assert_status(&order, "pending", "confirming").await;
        world.mine(order.coin, 40);
        world.crash_and_boot().await;
        world.assert_status(&order, "completed", "paid").await;
        world.crash_and_boot().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_reorg_before_confirmation_moves_the_deposit(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let chain = world.chain_of(order.coin);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 3);
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        world.simnet.reorg(&chain, 3, ReplacedTxs::Remine, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        world.assert_status(&order, "pending", "confirming").await;
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_reorg_that_drops_the_payment_takes_it_back(world: World) {
        let order = world.place_order("eth").await;
        let chain = world.chain_of(order.coin);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 4);
        world.run_until_idle().await;
        world.simnet.reorg(&chain, 4, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        let answer = world.status(&order.id).await;
        assert_eq!(answer.text_at("payment.received_amount"), "0", "{}", answer.text);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert_eq!(world.status(&order.id).await.text_at("status"), "pending");
    }

    async fn a_reorg_after_credit_reverses_and_pays_again(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let chain = world.chain_of(order.coin);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 1);
        world.run_until_idle().await;
        let needed = world.required_confirmations(&order).await;
        world.mine(order.coin, needed - 1);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        let pending = Account::MerchantPending(world.shop.merchant);
        let asset = world.asset(order.coin).id;
        let due = order.due;
        assert_eq!(world.account(world.shop.mode, pending.clone(), asset.clone()).await.available_amount(), due);

        world.simnet.reorg(&chain, needed, ReplacedTxs::Drop, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(world.account(world.shop.mode, pending.clone(), asset.clone()).await.available_amount(), Amount::ZERO, "no credit outlives its block");
        assert_eq!(world.status(&order.id).await.text_at("status"), "completed", "what was delivered stays delivered");

        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        let available = Account::MerchantAvailable(world.shop.merchant);
        assert_eq!(world.account(world.shop.mode, available, asset).await.available_amount(), due, "money that comes again settles it again");
    }

    async fn reorgs_of_every_depth_up_to_64_are_followed(world: World) {
        let order = world.place_order("bnb").await;
        let chain = world.chain_of(order.coin);
        for depth in 1..=64 {
            world.mine(order.coin, 1);
            world.run_until_idle().await;
            let most = world.simnet.tip(&chain).finalized.map_or(64, |mark| world.simnet.tip(&chain).head.height - mark.height);
            world.simnet.reorg(&chain, depth.min(most), ReplacedTxs::Remine, world.clock.now().unix_seconds());
            world.run_until_idle().await;
        }
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_node_that_lags_or_lies_about_links_changes_nothing(world: World) {
        let order = world.place_order("eth").await;
        let chain = world.chain_of(order.coin);
        world.pay_order(&order, order.due);
        world.mine(order.coin, 20);
        for fault in [NodeFault::Stale(5), NodeFault::WrongParent, NodeFault::MissingBlocks, NodeFault::FinalityRegresses] {
            world.simnet.set_fault(&chain, fault, true);
            world.run_until_idle().await;
            world.simnet.set_fault(&chain, fault, false);
        }
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
    }

    async fn a_fork_below_the_final_mark_halts_the_chain(world: World) {
        let order = world.place_order("erc20_usdt").await;
        let chain = world.chain_of(order.coin);
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        world.assert_status(&order, "completed", "paid").await;
        world.simnet.reorg(&chain, 120, ReplacedTxs::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert!(world.has_open_review("chain.halted").await);
    }

    async fn the_audit_names_a_posting_changed_by_sql(world: World) {
        let order = world.place_order("eth").await;
        world.pay_order(&order, order.due);
        world.mine_deep(order.coin);
        world.run_until_idle().await;
        assert!(world.audit().await.has_no_findings());
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
