//! Stories of money that a reorganisation, another chain, a blind node or a late list of tokens left behind, and of the
//! operator who puts it right.

use std::sync::Arc;

use chain::{Amount, ChainId};
use config::Config;
use envelope::Envelope;
use money::deposits;
use money::ledger::{Account, Suspense};
use records::reviews::{self, Review};
use serde_json::{Value, json};
use settled::commands::context::{Context, RunningDaemon};
use settled::commands::dispatch::dispatch;
use settled::control::Request;
use settled::workers::rescan::Piece;
use simnet::{Fault, Keep};

use crate::receiving::{Placed, expect, place, suspense, units};
use crate::world::{World, accounts};

async fn open_reviews(world: &World) -> Vec<Review> {
    world.db.read("reviews", |tx| Box::pin(async move { reviews::list_open(tx, 100).await })).await.unwrap()
}

async fn has_review(world: &World, kind: &str) -> bool {
    open_reviews(world).await.iter().any(|review| review.kind == kind)
}

/// Executes an operation as a request over the control socket does.
pub async fn request(world: &World, operation: &str, arguments: Value) -> Result<Value, String> {
    let daemon = world.daemon.as_ref().unwrap();
    let running = RunningDaemon::new(daemon, world.clock.now());
    let config = std::sync::Arc::new(world.config.clone());
    let offline = Context::offline(config, world.db.clone(), world.clock.clone(), world.envelope.clone());
    let context = Context { daemon: Some(running), ..offline };
    dispatch(&context, Request { operation: operation.to_owned(), arguments }).await
}

async fn resume(world: &World, chain: &str) -> Result<String, String> {
    let output = request(world, "admin", json!({ "resume-chain": { "chain": chain } })).await?;
    Ok(output.as_str().expect("a sentence").to_owned())
}

/// How many transfers were booked, were there before, and may be either.
async fn rescan(world: &World, chain: &ChainId, to: u64) -> Result<(u64, u64, u64), String> {
    let output = request(world, "rescan", json!({ "chain": chain.as_str(), "from": 1, "to": to })).await?;
    let piece: Piece = serde_json::from_value(output).expect("the rescanned blocks");
    assert_eq!(piece.to, to);
    Ok((piece.booked, piece.known, piece.doubtful))
}

/// Pays, and mines until the order is complete, but not until the money is final.
async fn complete(world: &World, placed: &Placed) -> u64 {
    world.pay(placed.coin, &placed.address, &placed.due);
    world.mine(placed.coin, 1);
    world.run_until_idle().await;
    let needed = world.status(&placed.id).await.body["payment"]["required_confirmations"].as_u64().unwrap();
    world.mine(placed.coin, needed - 1);
    world.run_until_idle().await;
    expect(world, placed, "completed", "paid").await;
    needed
}

async fn pass(world: &World, coin: &str, seconds: i64) {
    world.advance_seconds(seconds);
    world.mine(coin, 1);
    world.run_until_idle().await;
}

async fn incoming(world: &World, coin: &str) -> Amount {
    let account = Account::MerchantIncoming(world.shop.merchant);
    world.account(world.shop.mode, account, world.asset(coin).id).await.available()
}

/// As a person does who has given the money back.
async fn decide(world: &World, kind: &'static str) {
    let now = world.clock.now();
    let reviews = open_reviews(world).await;
    let subject = reviews.iter().find(|review| review.kind == kind).unwrap().subject.clone();
    let decided = world.db.write("decide", move |tx| {
        Box::pin(async move { reviews::close_by_operator(tx, now, &SETUP, kind, &subject, "given back by hand").await })
    });
    assert!(decided.await.unwrap());
}

both! {
    async fn a_reversed_payment_that_does_not_come_back_ends(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let needed = complete(&world, &placed).await;
        world.simnet.reorg(&world.chain_of(placed.coin), needed, Keep::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "pending").await;
        pass(&world, placed.coin, 29 * 60).await;
        assert!(has_review(&world, "payment.reversed").await, "it may still come back");
        pass(&world, placed.coin, 3 * 60).await;
        expect(&world, &placed, "completed", "expired").await;
        assert!(has_review(&world, "order.unpaid").await && !has_review(&world, "payment.reversed").await);

        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        assert_eq!(suspense(&world, placed.coin, Suspense::Late).await, units(&world, placed.coin, &placed.due));
        expect(&world, &placed, "completed", "expired").await;
    }

    async fn what_is_left_of_a_reversed_payment_is_kept_apart(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let due = units(&world, placed.coin, &placed.due);
        let part = due.checked_mul_ratio(1, 3).unwrap();
        let decimal = |amount: Amount| amount.to_decimal(world.asset(placed.coin).decimals);
        world.pay(placed.coin, &placed.address, &decimal(part));
        world.mine(placed.coin, 5);
        world.pay(placed.coin, &placed.address, &decimal(due.checked_sub(part).unwrap()));
        world.mine(placed.coin, 12);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        world.simnet.reorg(&world.chain_of(placed.coin), 12, Keep::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(incoming(&world, placed.coin).await, part);
        pass(&world, placed.coin, 32 * 60).await;
        expect(&world, &placed, "completed", "expired").await;
        assert_eq!(incoming(&world, placed.coin).await, Amount::ZERO);
        assert_eq!(suspense(&world, placed.coin, Suspense::Short).await, part);
        assert!(has_review(&world, "payment.short").await && has_review(&world, "order.unpaid").await);
    }

    async fn a_reversed_payment_that_comes_back_late_in_its_wait_pays(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        world.advance_seconds(29 * 60);
        let needed = complete(&world, &placed).await;
        world.advance_seconds(20 * 60);
        world.simnet.reorg(&world.chain_of(placed.coin), needed, Keep::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        pass(&world, placed.coin, 20 * 60).await;
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        assert!(open_reviews(&world).await.is_empty());
    }

    async fn money_on_another_chain_of_the_family_is_seen_and_kept(world: World) {
        let placed = place(&world, "bnb").await;
        world.pay("eth", &placed.address, "0.25");
        world.pay("erc20_usdt", &placed.address, "7");
        world.mine("eth", 20);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "pending").await;
        let [eth, usdt] = [units(&world, "eth", "0.25"), units(&world, "erc20_usdt", "7")];
        assert_eq!(suspense(&world, "eth", Suspense::Foreign).await, eth);
        assert_eq!(suspense(&world, "erc20_usdt", Suspense::Foreign).await, usdt);
        assert!(has_review(&world, "deposit.apart").await);

        world.simnet.reorg(&world.chain_of("eth"), 20, Keep::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(suspense(&world, "eth", Suspense::Foreign).await, Amount::ZERO, "no credit outlives its block");

        world.crash_and_boot().await;
        world.pay("eth", &placed.address, "0.25");
        world.mine_deep("eth");
        world.run_until_idle().await;
        assert_eq!(suspense(&world, "eth", Suspense::Foreign).await, eth, "it is seen after a start too");
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn a_node_that_tells_no_balances_does_not_hold_windows_open_for_ever(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let chain = world.chain_of(placed.coin);
        world.simnet.set_fault(&chain, Fault::NoBalances, true);
        pass(&world, placed.coin, 32 * 60).await;
        expect(&world, &placed, "pending", "pending").await;
        pass(&world, placed.coin, 9 * 60).await;
        expect(&world, &placed, "pending", "pending").await;
        pass(&world, placed.coin, 2 * 60).await;
        expect(&world, &placed, "expired", "expired").await;
        let reviews = open_reviews(&world).await;
        let blind = reviews.iter().find(|review| review.kind == "probe.blind").unwrap();
        assert!(blind.subject.starts_with("invoice/") && blind.detail.contains("11 minutes"), "{blind:?}");

        world.simnet.set_fault(&chain, Fault::NoBalances, false);
        let next = place(&world, "erc20_usdt").await;
        pass(&world, next.coin, 32 * 60).await;
        expect(&world, &next, "expired", "expired").await;
        assert_eq!(open_reviews(&world).await.iter().filter(|review| review.kind == "probe.blind").count(), 1);
    }

    async fn a_token_that_is_minted_at_will_stops_nothing(world: World = |config: &mut Config| {
        // Buyers own a lot of a token with many decimals.
        let token = "[[chains.ethereum.assets]]\ncode = \"usdt\"\nsymbol = \"USDT\"\ndecimals = 30\nquote_decimals = 6
            contract = \"0xdAC17F958D2ee523a2206206994597C13D831ec7\"\n";
        let text = format!("{}\n{token}\n{}", include_str!("world.toml"), accounts());
        *config = Config::parse(&config.data.folder.join("settled.toml"), &text, Vec::new()).unwrap();
    }) {
        let hostile = place(&world, "erc20_usdt").await;
        let asset = world.asset(hostile.coin);
        let absurd = Amount::from_units(1 << 113);
        let movement = || (asset.id.clone(), hostile.address.clone(), absurd);
        world.simnet.pay_many(&asset.chain, vec![movement(), movement()]).unwrap();
        world.mine(hostile.coin, 20);
        world.run_until_idle().await;
        assert!(has_review(&world, "deposit.absurd").await);
        expect(&world, &hostile, "pending", "pending").await;
        pass(&world, hostile.coin, 32 * 60).await;
        expect(&world, &hostile, "expired", "expired").await;
        assert!(has_review(&world, "balance.absurd").await, "what its balance says cannot be booked either");

        let honest = place(&world, "erc20_usdt").await;
        world.pay(honest.coin, &honest.address, &honest.due);
        world.mine_deep(honest.coin);
        world.run_until_idle().await;
        expect(&world, &honest, "completed", "paid").await;
    }

    async fn nobody_is_asked_about_money_that_vanished(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let due = units(&world, placed.coin, &placed.due);
        let decimal = |amount: Amount| amount.to_decimal(world.asset(placed.coin).decimals);
        world.pay(placed.coin, &placed.address, &decimal(due.checked_mul(3).unwrap()));
        world.pay("eth", &placed.address, "0.25");
        world.mine(placed.coin, 12);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        assert!(has_review(&world, "payment.surplus").await && has_review(&world, "deposit.apart").await);
        world.simnet.reorg(&world.chain_of(placed.coin), 12, Keep::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert!(!has_review(&world, "payment.surplus").await && !has_review(&world, "deposit.apart").await);

        // Less comes than came before: the question is asked with the new figure.
        world.pay(placed.coin, &placed.address, &decimal(due.checked_mul(2).unwrap()));
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        let reviews = open_reviews(&world).await;
        let surplus = reviews.iter().find(|review| review.kind == "payment.surplus").unwrap();
        assert!(surplus.detail.starts_with(&format!("{due} base units")), "{surplus:?}");
    }

    async fn part_payments_that_vanish_are_not_asked_about(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        world.advance_seconds(29 * 60);
        world.pay(placed.coin, &placed.address, "0.05");
        world.mine(placed.coin, 1);
        world.pay(placed.coin, &placed.address, "0.04");
        world.mine(placed.coin, 12);
        pass(&world, placed.coin, 3 * 60).await;
        expect(&world, &placed, "expired", "expired").await;
        assert!(has_review(&world, "payment.short").await);
        let chain = world.chain_of(placed.coin);
        for (depth, left) in [(13, Some("50000 of ")), (15, None)] {
            world.simnet.reorg(&chain, depth, Keep::DoubleSpend, world.clock.now().unix_seconds());
            world.run_until_idle().await;
            let reviews = open_reviews(&world).await;
            let short = reviews.iter().find(|review| review.kind == "payment.short");
            assert_eq!(short.map(|short| short.detail.starts_with(left.unwrap_or("?"))), left.map(|_| true), "{reviews:?}");
        }
    }

    async fn what_a_person_decided_about_part_payments_is_not_asked_again(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        world.advance_seconds(29 * 60);
        world.pay(placed.coin, &placed.address, "0.05");
        world.mine(placed.coin, 1);
        world.pay(placed.coin, &placed.address, "0.04");
        world.mine(placed.coin, 12);
        pass(&world, placed.coin, 3 * 60).await;
        decide(&world, "payment.short").await;
        world.simnet.reorg(&world.chain_of(placed.coin), 13, Keep::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(suspense(&world, placed.coin, Suspense::Short).await, units(&world, placed.coin, "0.05"));
        assert!(!has_review(&world, "payment.short").await);
    }

    async fn what_a_person_decided_about_a_surplus_is_asked_again_only_for_more(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let due = units(&world, placed.coin, &placed.due);
        let chain = world.chain_of(placed.coin);
        let pay = async |times: u64| {
            let amount = due.checked_mul(times).unwrap();
            world.pay(placed.coin, &placed.address, &amount.to_decimal(world.asset(placed.coin).decimals));
            world.mine(placed.coin, 12);
            world.run_until_idle().await;
            expect(&world, &placed, "completed", "paid").await;
        };
        let vanish = async || {
            world.simnet.reorg(&chain, 12, Keep::DoubleSpend, world.clock.now().unix_seconds());
            world.run_until_idle().await;
        };
        pay(3).await;
        decide(&world, "payment.surplus").await;
        for times in [3, 2] {
            vanish().await;
            pay(times).await;
            assert!(!has_review(&world, "payment.surplus").await, "{times} times what was due");
        }
        vanish().await;
        pay(4).await;
        let reviews = open_reviews(&world).await;
        let surplus = reviews.iter().find(|review| review.kind == "payment.surplus").unwrap();
        let expected = due.checked_mul(3_u64).unwrap();
        assert!(surplus.detail.starts_with(&format!("{expected} base units")), "{surplus:?}");
    }

    async fn what_is_final_is_the_merchants_when_the_rest_vanishes(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let chain = world.chain_of(placed.coin);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine(placed.coin, 1);
        let first = world.simnet.head(&chain).head.height;
        world.pay(placed.coin, &placed.address, &placed.due);
        while world.simnet.head(&chain).finalized.is_none_or(|last| last.height < first) {
            world.mine(placed.coin, 1);
        }
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        let available = Account::MerchantAvailable(world.shop.merchant);
        let asset = world.asset(placed.coin).id;
        let earned = || world.account(world.shop.mode, available.clone(), asset.clone());
        assert_eq!(earned().await.available(), Amount::ZERO, "the second payment may still vanish");
        let depth = world.simnet.head(&chain).head.height - first;
        world.simnet.reorg(&chain, depth, Keep::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(earned().await.available(), units(&world, placed.coin, &placed.due));
        expect(&world, &placed, "completed", "paid").await;
    }

    async fn an_order_whose_key_is_missing_waits_until_it_is_restored(world: World) {
        let placed = place(&world, "trc20_usdt").await;
        let restored = std::mem::replace(&mut world.envelope, Arc::new(Envelope::generate()));
        world.crash_and_boot().await;
        assert!(has_review(&world, "stock.unreadable").await, "a start says so");
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        for _ in 0..12 {
            expect(&world, &placed, "processing", "paid").await;
            pass(&world, placed.coin, 15 * 60).await;
        }
        assert_eq!(open_reviews(&world).await.iter().filter(|review| review.kind == "order.unreadable").count(), 1);
        world.envelope = restored;
        world.crash_and_boot().await;
        pass(&world, placed.coin, 15 * 60).await;
        expect(&world, &placed, "completed", "paid").await;
        assert!(open_reviews(&world).await.is_empty());
    }

    async fn dust_is_booked_and_is_nobodys_payment(world: World) {
        let placed = place(&world, "trc20_usdt").await;
        let due = units(&world, placed.coin, &placed.due);
        let decimal = |amount: Amount| amount.to_decimal(world.asset(placed.coin).decimals);
        let dust = async || suspense(&world, placed.coin, Suspense::Dust).await;
        for booked in [1, 2] {
            world.pay(placed.coin, &placed.address, "0.000001");
            world.mine_deep(placed.coin);
            world.run_until_idle().await;
            let answer = expect(&world, &placed, "pending", "pending").await;
            assert_eq!(answer.text_at("payment.received_amount"), "0");
            assert_eq!(dust().await, Amount::from_units(booked), "what arrived is in the ledger");
        }
        world.pay("trx", &placed.address, "0.000001");
        world.mine_deep("trx");
        world.run_until_idle().await;
        assert_eq!(suspense(&world, "trx", Suspense::Dust).await, Amount::from_units(1), "of any asset");

        // All but a cent's part is a payment, dust that does not reach the rest is dust, and the rest pays.
        let rest = Amount::from_units(9_000);
        world.pay(placed.coin, &placed.address, &decimal(due.checked_sub(rest).unwrap()));
        world.pay(placed.coin, &placed.address, "0.008999");
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "underpaid").await;
        assert_eq!(dust().await, Amount::from_units(9_001));
        world.pay(placed.coin, &placed.address, &decimal(rest));
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        world.pay(placed.coin, &placed.address, "0.000001");
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        assert_eq!(dust().await, Amount::from_units(9_002), "it is no surplus either");
        assert!(open_reviews(&world).await.is_empty(), "nobody has to look");
    }

    async fn dust_that_loses_its_block_is_taken_back(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        world.pay(placed.coin, &placed.address, "0.000001");
        world.mine(placed.coin, 20);
        world.run_until_idle().await;
        assert_eq!(suspense(&world, placed.coin, Suspense::Dust).await, Amount::from_units(1));
        world.simnet.reorg(&world.chain_of(placed.coin), 20, Keep::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert_eq!(suspense(&world, placed.coin, Suspense::Dust).await, Amount::ZERO);
        pass(&world, placed.coin, 32 * 60).await;
        expect(&world, &placed, "expired", "expired").await;
    }

    async fn an_order_for_dust_is_paid_with_dust(world: World) {
        // A fen is 0.0014 USDT.
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

    async fn a_halted_chain_goes_on_when_a_person_says_so(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let chain = world.chain_of(placed.coin);
        let (now, halted) = (world.clock.now(), chain.clone());
        world.db.write("halt", move |tx| Box::pin(async move { deposits::halt(tx, now, &halted, "a drill").await })).await.unwrap();
        world.crash_and_boot().await;
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        expect(&world, &placed, "pending", "pending").await;

        let said = resume(&world, "ethereum").await.unwrap();
        assert!(said.contains("a drill"), "{said}");
        assert!(!has_review(&world, "chain.halted").await);
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        assert!(resume(&world, "ethereum").await.unwrap_err().contains("ethereum is not halted"));
        assert!(resume(&world, "dogecoin").await.unwrap_err().contains("no chain `dogecoin`"));

        // A fork that is still there halts it again, and the review opens again.
        world.simnet.reorg(&chain, 120, Keep::DoubleSpend, world.clock.now().unix_seconds());
        world.run_until_idle().await;
        assert!(has_review(&world, "chain.halted").await);
        resume(&world, "ethereum").await.unwrap();
        world.run_until_idle().await;
        assert!(has_review(&world, "chain.halted").await);
    }

    async fn a_rescan_books_what_is_missing_once(world: World) {
        let placed = place(&world, "erc20_usdt").await;
        let (chain, other) = (world.chain_of(placed.coin), place(&world, "erc20_usdt").await);
        world.pay(other.coin, &other.address, &other.due);
        world.mine(other.coin, 1);
        world.run_until_idle().await;
        world.simnet.set_fault(&chain, Fault::HideTransfers, true);
        world.pay(placed.coin, &placed.address, &placed.due);
        world.mine_deep(placed.coin);
        world.run_until_idle().await;
        world.simnet.set_fault(&chain, Fault::HideTransfers, false);
        expect(&world, &placed, "pending", "pending").await;

        let head = world.simnet.head(&chain).head.height;
        assert!(rescan(&world, &chain, head + 1).await.unwrap_err().contains("was not read yet"));
        assert_eq!(rescan(&world, &chain, head).await, Ok((1, 1, 0)));
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        expect(&world, &other, "completed", "paid").await;
        assert_eq!(rescan(&world, &chain, head).await, Ok((0, 2, 0)));
        assert!(rescan(&world, &ChainId::new("dogecoin").unwrap(), 1).await.unwrap_err().contains("does not follow"));
    }

    async fn a_rescan_does_not_book_again_what_the_balance_showed(world: World) {
        let placed = place(&world, "eth").await;
        let chain = world.chain_of("eth");
        world.simnet.internals_by_balance(&chain, true);
        world.simnet.pay_internal(&chain, &placed.address, units(&world, "eth", &placed.due)).unwrap();
        world.mine("eth", 20);
        world.run_until_idle().await;
        world.mine_deep("eth");
        world.run_until_idle().await;
        expect(&world, &placed, "completed", "paid").await;
        world.simnet.internals_by_balance(&chain, false);
        let head = world.simnet.head(&chain).head.height;
        assert_eq!(rescan(&world, &chain, head).await, Ok((0, 0, 1)));
        assert!(has_review(&world, "rescan.doubtful").await);
        assert_eq!(suspense(&world, "eth", Suspense::Surplus).await, Amount::ZERO);
    }
}
