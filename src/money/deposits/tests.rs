//! Compares the booking of whole blocks with a model that handles one transfer, one deposit and one invoice at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use chain::{
    AddressKey, Amount, Asset, AssetId, AssetKind, Block, BlockHash, ChainId, Family, Header, Transfer, TransferIndex,
    TxId, TxPart,
};
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::assets::{Depths, Dust};
use crate::cursors::{Position, compute_final_height, compute_position, start_following_chain};
use crate::invoices::machine::{self as invoice_machine, Input};
use crate::invoices::{Arrival, decide_disposition_ignoring_dust};
use crate::ledger::{self, Account};
use crate::payments::PaymentChange;
use crate::pricing::{Currency, Fiat, Rate, RateBook};
use db::{Backend, Db, execute, rows, testing};
use ids::{MerchantId, Mode, PaymentId};

const INVOICES: i64 = 4;
const DUE: u64 = 100;
const TOLERANCE: u64 = 5;
const GRACE: Grace = Grace { ms: 2_000 };
/// The time between two blocks, in seconds.
const BLOCK_S: i64 = 10;
/// The Unix time in seconds at which the payment window of every invoice ends.
const WINDOW_S: i64 = 95;
const MERCHANT: MerchantId = MerchantId(1);

/// A transfer to the address of invoice number `to`.
#[derive(Debug, Clone)]
struct Move {
    to: i64,
    amount: u64,
    foreign: bool,
    txid: u8,
}

/// A step of the property test.
#[derive(Debug, Clone)]
enum Act {
    /// Stores blocks with these transfers in one transaction.
    Extend(Vec<Vec<Move>>),
    /// Rewinds the cursor by this number of blocks, but not below the final height.
    Rewind(u64),
}

fn random_steps() -> impl Strategy<Value = Vec<Act>> {
    let amount = prop_oneof![4 => 1u64..150, 1 => Just(0)];
    let movement = (1i64..=INVOICES, amount, prop::bool::weighted(0.1), 0u8..8)
        .prop_map(|(to, amount, foreign, txid)| Move { to, amount, foreign, txid });
    let blocks = prop::collection::vec(prop::collection::vec(movement, 0..5), 1..4);
    let act = prop_oneof![4 => blocks.prop_map(Act::Extend), 1 => (1u64..4).prop_map(Act::Rewind)];
    prop::collection::vec(act, 1..14)
}

fn model_chain() -> FollowedChain {
    FollowedChain {
        id: ChainId::parse("model").unwrap(),
        family: Family::Evm,
        mode: Mode::Test,
        depths: Depths::depths_without_tiers(1, 5),
        watched: std::sync::Arc::default(),
        siblings: Vec::new(),
        dust: Dust::default(),
    }
}

const LIMITS: DepositLimits = DepositLimits { grace: GRACE, keep: 64 };

/// A listener that records the payment changes.
#[derive(Default)]
struct Recorder(Mutex<Vec<PaymentChange>>);

impl Recorder {
    fn take_changes(&self) -> Vec<PaymentChange> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl PaymentListener for Recorder {
    fn on_payment_changes<'a>(
        &'a self,
        _: &'a mut Tx,
        _: Instant,
        changes: &'a [PaymentChange],
    ) -> BoxFuture<'a, Result<(), db::Error>> {
        self.0.lock().unwrap().extend_from_slice(changes);
        Box::pin(std::future::ready(Ok(())))
    }
}

fn new_deposit_service(chain: FollowedChain) -> DepositService {
    DepositService::new(chain, LIMITS, Arc::new(Recorder::default()))
}

fn model_asset(foreign: bool) -> AssetId {
    AssetId::from_stored(if foreign { "model/other" } else { "model/token" })
}

fn address_key(invoice: i64) -> AddressKey {
    AddressKey([u8::try_from(invoice).unwrap(); 20])
}

/// Returns the header of the block at `height`. Blocks of different branches have different hashes.
fn model_header(height: u64, branch: u8) -> Header {
    let hash = |height: u64| {
        let mut hash = [branch; 32];
        hash[..8].copy_from_slice(&height.to_be_bytes());
        BlockHash(hash)
    };
    let time = i64::try_from(height).unwrap() * BLOCK_S;
    Header { height, hash: hash(height), parent: hash(height.saturating_sub(1)), time }
}

/// Inserts the orders, payments, addresses and invoices of the model.
async fn insert_model_rows(tx: &mut Tx) -> Result<(), db::Error> {
    let at = Instant(0);
    execute!(tx, "insert into merchants (public_id, slug, name, created_at) values ('m', 'm', 'm', $1)", at)?;
    execute!(
        tx,
        "insert into address_accounts (family, key, purpose, mode, path, next_index) values ('evm', $1, 'deposit-test', 'test', '', 0)",
        [1_u8; 65]
    )?;
    for n in 1..=INVOICES {
        let id = n.to_string();
        execute!(
            tx,
            "insert into orders (public_id, order_no, merchant_id, mode, surface, state, currency, original_amount,
             discount_amount, amount, created_at) values ($1, $1, 1, 'test', 'x', 'awaiting_payment', 'CNY', 1, 0, 1, $2)",
            &id,
            at
        )?;
        execute!(
            tx,
            "insert into payments (public_id, order_id, merchant_id, mode, method, state, created_at)
             values ($1, $2, 1, 'test', 'crypto', 'pending', $3)",
            &id,
            n,
            at
        )?;
        execute!(
            tx,
            "insert into addresses (chain, key, text, account_id, derivation_index, issued_at) values ('model', $1, $2, 1, $3, $4)",
            address_key(n).0,
            &id,
            n,
            at
        )?;
        execute!(
            tx,
            "insert into invoices (public_id, payment_id, merchant_id, mode, chain, asset, address_id, state, amount_due, tolerance,
             currency, price, rate, rate_source, rated_at, confirmations, created_at, expires_at, settlement_count)
             values ($1, $2, 1, 'test', 'model', 'model/token', $2, 'open', $3, $4, 'CNY', 1, '1', 'x', 0, $5, 0, $6, 0)",
            &id,
            n,
            Amount::from(DUE),
            Amount::from(TOLERANCE),
            required_confirmations(n),
            Instant::from_unix_seconds(WINDOW_S)
        )?;
    }
    Ok(())
}

/// Returns the confirmations that the deposits of an invoice need, which equal the number of the invoice. A deposit for
/// invoice 1 is confirmed by its own block.
fn required_confirmations(invoice: i64) -> u32 {
    u32::try_from(invoice).unwrap()
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelInvoice {
    state: invoices::State,
    settled: Option<u64>,
    settlements: i64,
    released: bool,
    payment: &'static str,
}

#[derive(Debug, Clone)]
struct ModelDeposit {
    invoice: i64,
    height: u64,
    tx_index: u32,
    txid: u8,
    amount: u64,
    foreign: bool,
    state: State,
    used: Disposition,
    time: i64,
}

/// The expected database rows, computed without batches.
#[derive(Debug)]
struct Model {
    invoices: BTreeMap<i64, ModelInvoice>,
    deposits: Vec<ModelDeposit>,
    /// The details of the open reviews, by review kind and id of the deposit or invoice.
    reviews: BTreeMap<(String, i64), String>,
    /// The posted credits minus the posted debits, by account code and asset. True stands for the foreign asset.
    balances: BTreeMap<(String, bool), i128>,
    last: u64,
    changes: Vec<PaymentChange>,
}

impl Model {
    fn new() -> Model {
        let state = invoices::State::Open;
        let open = ModelInvoice { state, settled: None, settlements: 0, released: false, payment: "pending" };
        Model {
            invoices: (1..=INVOICES).map(|n| (n, open.clone())).collect(),
            deposits: Vec::new(),
            reviews: BTreeMap::new(),
            balances: BTreeMap::new(),
            last: 0,
            changes: Vec::new(),
        }
    }

    fn post_amount(&mut self, debit: &Account, credit: &Account, foreign: bool, amount: u64) {
        *self.balances.entry((debit.account_code(), foreign)).or_default() -= i128::from(amount);
        *self.balances.entry((credit.account_code(), foreign)).or_default() += i128::from(amount);
    }

    fn add_transfer(&mut self, header: &Header, tx_index: u32, movement: &Move) {
        let Some(invoice) = self.invoices.get_mut(&movement.to) else { return };
        if movement.amount == 0 {
            return;
        }
        let window_end = WINDOW_S + GRACE.ms / 1_000;
        let in_time = header.time <= window_end
            || self.deposits.iter().any(|earlier| {
                (earlier.invoice, earlier.txid, earlier.state) == (movement.to, movement.txid, State::Orphaned)
                    && earlier.time <= window_end
            });
        let arrival = if in_time { Arrival::InTime } else { Arrival::Late };
        let used = decide_disposition_ignoring_dust(invoice.state, !movement.foreign, arrival);
        if used == Disposition::Counted && invoice.state == invoices::State::Open {
            invoice.payment = "confirming";
            self.changes.push(PaymentChange::Confirming(PaymentId(movement.to)));
        }
        self.deposits.push(ModelDeposit {
            invoice: movement.to,
            height: header.height,
            tx_index,
            txid: movement.txid,
            amount: movement.amount,
            foreign: movement.foreign,
            state: State::Seen,
            used,
            time: header.time,
        });
    }

    fn advance_deposits(&mut self, cursor: u64, depth: u32) {
        self.last = self.last.max(compute_final_height(cursor, None, depth, 0));
        let position = Position { cursor, last: self.last };
        let (mut settle, mut release) = (BTreeSet::new(), BTreeSet::new());
        for place in 0..self.deposits.len() {
            let mut deposit = self.deposits[place].clone();
            let confirm_height = deposit.height + u64::from(required_confirmations(deposit.invoice)) - 1;
            let to = machine::next_deposit_state(deposit.state, deposit.height, confirm_height, position);
            if deposit.state == State::Seen && to != State::Seen {
                self.post_amount(
                    &Account::OnChain(model_chain().id),
                    &incoming_account(),
                    deposit.foreign,
                    deposit.amount,
                );
                if deposit.used == Disposition::Counted
                    && self.invoices[&deposit.invoice].state == invoices::State::Paid
                {
                    deposit.used = Disposition::Surplus;
                }
                match suspense_account(deposit.used) {
                    None => _ = settle.insert(deposit.invoice),
                    Some(suspense) => {
                        self.post_amount(&incoming_account(), &suspense, deposit.foreign, deposit.amount);
                        let used = deposit.used.as_str();
                        let detail =
                            format!("{} base units of {} ({used})", deposit.amount, model_asset(deposit.foreign));
                        self.reviews.insert(("deposit.unallocated".into(), deposit_id_at(place)), detail);
                    }
                }
            }
            if to == State::Final && deposit.state != State::Final {
                release.insert(deposit.invoice);
            }
            deposit.state = to;
            self.deposits[place] = deposit;
        }
        for invoice in settle {
            if self.settle_invoice(invoice) {
                self.changes.push(PaymentChange::Paid(PaymentId(invoice)));
            }
        }
        for number in release {
            self.release_invoice(number);
        }
    }

    fn release_invoice(&mut self, number: i64) {
        let counted = |deposit: &&ModelDeposit| deposit.invoice == number && deposit.used == Disposition::Counted;
        let open = |deposit: &ModelDeposit| matches!(deposit.state, State::Seen | State::Confirmed);
        let invoice = &self.invoices[&number];
        let waits = invoice.state == invoices::State::Paid && !invoice.released;
        if !waits || self.deposits.iter().filter(counted).any(open) {
            return;
        }
        let settled = invoice.settled.unwrap();
        self.post_amount(&Account::MerchantPending(MERCHANT), &Account::MerchantAvailable(MERCHANT), false, settled);
        self.invoices.get_mut(&number).unwrap().released = true;
    }

    fn sum_confirmed(&self, invoice: i64) -> u64 {
        let counts = |deposit: &&ModelDeposit| {
            deposit.invoice == invoice
                && deposit.used == Disposition::Counted
                && matches!(deposit.state, State::Confirmed | State::Final)
        };
        self.deposits.iter().filter(counts).map(|deposit| deposit.amount).sum()
    }

    fn settle_invoice(&mut self, number: i64) -> bool {
        let confirmed = self.sum_confirmed(number);
        let state = self.invoices[&number].state;
        let happened = Input::Confirmed(Amount::from(confirmed));
        let next = invoice_machine::next_invoice_state(state, happened, Amount::from(DUE), Amount::from(TOLERANCE));
        let Some(next) = next else { return false };
        let earned = confirmed.min(DUE);
        self.post_amount(&incoming_account(), &Account::MerchantPending(MERCHANT), false, earned);
        if confirmed > earned {
            self.post_amount(
                &incoming_account(),
                &Account::Suspense(MERCHANT, Suspense::Surplus),
                false,
                confirmed - earned,
            );
            let detail = format!("{} base units of model/token above what was due", confirmed - earned);
            self.reviews.insert(("payment.surplus".into(), number), detail);
        }
        let invoice = self.invoices.get_mut(&number).unwrap();
        let settlements = invoice.settlements + 1;
        *invoice =
            ModelInvoice { state: next, settled: Some(earned), settlements, released: false, payment: "success" };
        true
    }

    fn rewind_to_height(&mut self, to: u64) {
        for place in (0..self.deposits.len()).rev() {
            let deposit = self.deposits[place].clone();
            if deposit.height <= to {
                continue;
            }
            let number = deposit.invoice;
            let before = self.sum_confirmed(number);
            match deposit.state {
                State::Seen => self.deposits[place].state = State::Orphaned,
                State::Confirmed => {
                    self.deposits[place].state = State::Orphaned;
                    let lost = deposit.used == Disposition::Counted
                        && self.unsettle_invoice(number, before, before - deposit.amount);
                    let from = suspense_account(deposit.used).unwrap_or_else(incoming_account);
                    self.post_amount(&from, &Account::OnChain(model_chain().id), deposit.foreign, deposit.amount);
                    self.reviews.remove(&("deposit.unallocated".into(), deposit_id_at(place)));
                    if deposit.used == Disposition::Counted && !lost {
                        self.settle_invoice(number);
                    }
                }
                State::Final | State::Orphaned => continue,
            }
            self.release_invoice(number);
        }
    }

    fn unsettle_invoice(&mut self, number: i64, before: u64, left: u64) -> bool {
        let invoice = self.invoices.get_mut(&number).unwrap();
        let Some(settled) = invoice.settled.filter(|_| invoice.state == invoices::State::Paid) else { return false };
        let earned = match invoice.released {
            true => Account::MerchantAvailable(MERCHANT),
            false => Account::MerchantPending(MERCHANT),
        };
        invoice.state = invoices::State::Reversed;
        invoice.settled = None;
        invoice.released = false;
        self.post_amount(&earned, &incoming_account(), false, settled);
        if before > settled {
            self.post_amount(
                &Account::Suspense(MERCHANT, Suspense::Surplus),
                &incoming_account(),
                false,
                before - settled,
            );
            self.reviews.remove(&("payment.surplus".into(), number));
        }
        let lost = left < DUE - TOLERANCE || left == 0;
        if lost {
            self.changes.push(PaymentChange::Reversed(PaymentId(number)));
        }
        lost
    }
}

/// Returns the id of the deposit at this index of the model: the index plus 1, because ids are assigned in the order of
/// insertion.
fn deposit_id_at(place: usize) -> i64 {
    i64::try_from(place).unwrap() + 1
}

fn incoming_account() -> Account {
    Account::MerchantIncoming(MERCHANT)
}

fn suspense_account(used: Disposition) -> Option<Account> {
    let suspense = match used {
        Disposition::Counted => return None,
        Disposition::Short => Suspense::Short,
        Disposition::Surplus => Suspense::Surplus,
        Disposition::Late => Suspense::Late,
        Disposition::Foreign | Disposition::BeforeLease => Suspense::Foreign,
        Disposition::Dust => Suspense::Dust,
    };
    Some(Account::Suspense(MERCHANT, suspense))
}

/// Asserts that the stored rows match the model.
async fn assert_rows_match_model(tx: &mut Tx, model: &Model) -> Result<(), db::Error> {
    let found = rows!(tx, "select invoice_id, height, tx_index, state, disposition from deposits order by id")?;
    let stored: Vec<(i64, u64, u32, State, Disposition)> = found
        .iter()
        .map(|row| {
            (
                row.get("invoice_id").unwrap(),
                row.get("height").unwrap(),
                row.get("tx_index").unwrap(),
                row.get("state").unwrap(),
                row.get("disposition").unwrap(),
            )
        })
        .collect();
    let expected = model.deposits.iter();
    let expected: Vec<_> = expected.map(|d| (d.invoice, d.height, d.tx_index, d.state, d.used)).collect();
    assert_eq!(stored, expected);

    let found = rows!(
        tx,
        "select i.id, i.state, i.credited_amount, i.settlement_count, i.finalized_at, p.state as payment
         from invoices i join payments p on p.id = i.payment_id order by i.id"
    )?;
    for row in &found {
        let expected = &model.invoices[&row.get("id")?];
        assert_eq!(row.get::<invoices::State>("state")?, expected.state);
        assert_eq!(row.get::<Option<Amount>>("credited_amount")?, expected.settled.map(Amount::from));
        assert_eq!(row.get::<i64>("settlement_count")?, expected.settlements);
        assert_eq!(row.get::<Option<Instant>>("finalized_at")?.is_some(), expected.released);
        assert_eq!(row.get::<String>("payment")?, expected.payment);
    }

    let found = rows!(tx, "select kind, subject, detail from reviews where closed_at is null")?;
    let stored: BTreeMap<(String, i64), String> = found
        .iter()
        .map(|row| {
            let subject: String = row.get("subject").unwrap();
            let number = subject.split_once('/').unwrap().1.parse().unwrap();
            ((row.get("kind").unwrap(), number), row.get("detail").unwrap())
        })
        .collect();
    assert_eq!(stored, model.reviews);

    let suspenses = [Disposition::Short, Disposition::Surplus, Disposition::Late, Disposition::Foreign]
        .into_iter()
        .filter_map(suspense_account);
    let (pending, available) = (Account::MerchantPending(MERCHANT), Account::MerchantAvailable(MERCHANT));
    let accounts = suspenses.chain([Account::OnChain(model_chain().id), incoming_account(), pending, available]);
    for (account, foreign) in accounts.flat_map(|account| [(account.clone(), false), (account, true)]) {
        let balance = ledger::find_balance_or_zero(tx, Mode::Test, &account, &model_asset(foreign)).await?;
        let sum = |amount: Amount| i128::try_from(u128::try_from(amount.units()).unwrap()).unwrap();
        let expected = model.balances.get(&(account.account_code(), foreign)).copied().unwrap_or_default();
        assert_eq!(sum(balance.credits_posted) - sum(balance.debits_posted), expected, "{}", account.account_code());
    }
    let report = crate::audit::audit_ledger(tx).await?;
    assert!(report.has_no_findings(), "{report}");
    Ok(())
}

async fn run_steps_against_model(db: &Db, acts: Vec<Act>) {
    let (mut model, mut branch, mut height) = (Model::new(), 0u8, 0u64);
    let mut hashes = vec![model_header(0, 0)];
    db.write("start", |tx| {
        Box::pin(async move {
            insert_model_rows(tx).await?;
            start_following_chain(tx, &model_chain().id, &model_header(0, 0)).await
        })
    })
    .await
    .unwrap();
    let recorder = Arc::new(Recorder::default());
    let service = DepositService::new(model_chain(), LIMITS, recorder.clone());
    for act in acts {
        let from = hashes.last().unwrap().block_ref();
        match act {
            Act::Extend(blocks) => {
                let mut read = Vec::new();
                for moves in blocks {
                    height += 1;
                    let header = model_header(height, branch);
                    hashes.push(header);
                    let mut transfers = Vec::new();
                    for (tx_index, movement) in (0u32..).zip(&moves) {
                        model.add_transfer(&header, tx_index, movement);
                        transfers.push(Transfer {
                            txid: TxId([movement.txid; 32]),
                            index: TransferIndex { tx_index, part: TxPart::Value },
                            asset: model_asset(movement.foreign),
                            to: address_key(movement.to),
                            from: None,
                            amount: Amount::from(movement.amount),
                        });
                    }
                    read.push(Block { header, transfers, spends: Vec::new() });
                }
                model.advance_deposits(height, 5);
                let reached = compute_position(&model_chain(), height, None);
                let service = service.clone();
                let applied = db.write("apply", move |tx| {
                    Box::pin(async move { service.apply_blocks(tx, Instant(1), from, &read, Some(reached)).await })
                });
                let applied = applied.await.unwrap();
                assert_eq!(applied.final_height, model.last);
                let unfinished = model.deposits.iter().any(|d| matches!(d.state, State::Seen | State::Confirmed));
                assert_eq!(applied.unfinished, unfinished);
            }
            Act::Rewind(blocks) => {
                height = height.saturating_sub(blocks).max(model.last);
                branch += 1;
                hashes.truncate(usize::try_from(height).unwrap() + 1);
                let to = hashes.last().unwrap().block_ref();
                model.rewind_to_height(height);
                let service = service.clone();
                let rewound = db.write("rewind", move |tx| {
                    Box::pin(async move { service.rewind_cursor_and_deposits(tx, Instant(1), from, to).await })
                });
                rewound.await.unwrap();
            }
        }
        assert_eq!(recorder.take_changes(), std::mem::take(&mut model.changes));
    }
    db.write("seal", |tx| Box::pin(async move { ledger::append_postings_to_hash_chain(tx, 10_000).await }))
        .await
        .unwrap();
    db.write("compare", |tx| {
        Box::pin(async move {
            assert_rows_match_model(tx, &model).await?;
            Ok::<_, db::Error>(())
        })
    })
    .await
    .unwrap();
}

/// Returns a block with transfers of these amounts of the token to the address of the first invoice.
fn block_with_transfers(header: Header, amounts: &[Amount]) -> Block {
    let transfers = (0u32..).zip(amounts).map(|(tx_index, amount)| Transfer {
        txid: TxId([1; 32]),
        index: TransferIndex { tx_index, part: TxPart::Value },
        asset: model_asset(false),
        to: address_key(1),
        from: None,
        amount: *amount,
    });
    Block { header, transfers: transfers.collect(), spends: Vec::new() }
}

/// Returns 2^`bits` base units.
fn power_of_two(bits: u32) -> Amount {
    Amount::from_units(1 << bits)
}

/// Returns 2^`bits` − 1 base units.
fn power_of_two_minus_one(bits: u32) -> Amount {
    power_of_two(bits).checked_sub(Amount::from_units(1)).unwrap()
}

/// Returns the chain of the model with a dust limit of ten base units of the token.
fn model_chain_with_dust_limit() -> FollowedChain {
    let rates = RateBook::new(60_000, 0);
    rates.set_rate("TOK", "USD", Rate { value: 1.into(), source: "fixed".into(), observed_at: Instant(0) });
    let token = AssetKind::Token { contract: "token".into() };
    let token = Asset { id: model_asset(false), ..Asset::new(model_chain().id, token, "TOK", 3, 3) };
    FollowedChain { dust: Dust::new_dust_limit(Fiat::new(Currency::USD, 1), rates, [(&token, "TOK")]), ..model_chain() }
}

/// Stores a block with transfers to the first invoice. Each pair in `payments` is a byte that fills the transaction id,
/// and the amount in base units.
async fn apply_block_with_payments(
    tx: &mut Tx,
    from: Header,
    at: Header,
    payments: &[(u8, u64)],
) -> Result<(), PostError> {
    let mut block =
        block_with_transfers(at, &payments.iter().map(|(_, amount)| Amount::from(*amount)).collect::<Vec<_>>());
    for (transfer, (txid, _)) in block.transfers.iter_mut().zip(payments) {
        transfer.txid = TxId([*txid; 32]);
    }
    let reached = Some(compute_position(&model_chain(), at.height, None));
    new_deposit_service(model_chain_with_dust_limit())
        .apply_blocks(tx, Instant(1), from.block_ref(), &[block], reached)
        .await?;
    Ok(())
}

/// Stores a lease of all addresses of the model at `height`, whose initial balances were zero.
async fn lease_model_addresses_at(tx: &mut Tx, height: Height) -> Result<(), db::Error> {
    execute!(
        tx,
        "insert into address_leases (account_id, first_index, index_count, chain, height, balances_height)
         values (1, 0, 64, 'model', $1, $1)",
        height
    )?;
    Ok(())
}

/// Returns the state of the first invoice, and the amounts of its counted deposits.
async fn load_first_invoice(tx: &mut Tx) -> Result<(invoices::State, Vec<Amount>), db::Error> {
    let found =
        rows!(tx, "select amount from deposits where state <> 'orphaned' and disposition = 'counted' order by id")?;
    let counted = found.iter().map(|row| row.get("amount")).collect::<Result<_, _>>()?;
    let state = rows!(tx, "select state from invoices where id = 1")?.first().unwrap().get("state")?;
    Ok((state, counted))
}

db::both! {
    async fn a_transfer_that_completes_a_payment_is_not_dust_in_any_block_order(db: Db) {
        let outcome = db.write("mine", move |tx| {
            Box::pin(async move {
                insert_model_rows(tx).await?;
                start_following_chain(tx, &model_chain().id, &model_header(0, 0)).await?;
                // Each of the two small transfers alone could complete the payment. The larger of them counts, and the
                // smaller one is dust.
                apply_block_with_payments(tx, model_header(0, 0), model_header(1, 0), &[(1, 3), (2, 9), (3, 88)]).await?;
                let expected = [9, 88].map(Amount::from_units).to_vec();
                assert_eq!(load_first_invoice(tx).await?, (invoices::State::Paid, expected));
                let uses = rows!(tx, "select disposition from deposits order by tx_index")?;
                let uses: Vec<Disposition> = uses.iter().map(|row| row.get("disposition")).collect::<Result<_, _>>()?;
                assert_eq!(uses, [Disposition::Dust, Disposition::Counted, Disposition::Counted]);
                Ok::<_, PostError>(())
            })
        });
        outcome.await.unwrap();
    }

    async fn counted_transfers_to_the_receiver_are_asked_about_again_before_an_unchecked_one(db: Db) {
        let outcome = db.write("mine", move |tx| {
            Box::pin(async move {
                insert_model_rows(tx).await?;
                start_following_chain(tx, &model_chain().id, &model_header(0, 0)).await?;
                apply_block_with_payments(tx, model_header(0, 0), model_header(1, 0), &[(7, 50), (7, 50)]).await?;
                apply_block_with_payments(tx, model_header(1, 0), model_header(2, 0), &[(8, 50)]).await?;
                execute!(tx, "update deposits set state = 'seen', corroboration = 'contradicted' where id = 1")?;
                let position = Position { cursor: 99, last: 99 };
                let blocks = list_blocks_to_corroborate(tx, Instant(1), &model_chain().id, position, 10).await?;
                let found: Vec<_> = blocks.iter().map(|block| (block.block.height, block.deposits.clone())).collect();
                assert_eq!(found, [(1, vec![DepositId(1)])]);
                let stored = rows!(tx, "select part from deposits where height = 1 order by id")?;
                let parts: Vec<i64> = stored.iter().map(|row| row.get("part")).collect::<Result<_, _>>()?;
                let asked: Vec<i64> = blocks[0].transfers.iter().map(|transfer| transfer.index.part.code()).collect();
                assert_eq!(asked, [parts[1], parts[0]], "the deposit that counts already comes first");
                Ok::<_, PostError>(())
            })
        });
        outcome.await.unwrap();
    }

    async fn dust_from_before_the_lease_never_completes_a_payment(db: Db) {
        let outcome = db.write("mine", move |tx| {
            Box::pin(async move {
                insert_model_rows(tx).await?;
                lease_model_addresses_at(tx, 1).await?;
                start_following_chain(tx, &model_chain().id, &model_header(0, 0)).await?;
                apply_block_with_payments(tx, model_header(0, 0), model_header(1, 0), &[(1, 9)]).await?;
                apply_block_with_payments(tx, model_header(1, 0), model_header(2, 0), &[(2, 88)]).await?;
                let new_money = vec![Amount::from_units(88)];
                assert_eq!(load_first_invoice(tx).await?, (invoices::State::Open, new_money));
                let uses = rows!(tx, "select disposition from deposits order by height")?;
                let uses: Vec<Disposition> = uses.iter().map(|row| row.get("disposition")).collect::<Result<_, _>>()?;
                assert_eq!(uses, [Disposition::BeforeLease, Disposition::Counted]);
                Ok::<_, PostError>(())
            })
        });
        outcome.await.unwrap();
    }

    async fn money_that_came_before_the_address_was_issued_explains_its_balance(db: Db) {
        let outcome = db.write("check", move |tx| {
            Box::pin(async move {
                insert_model_rows(tx).await?;
                lease_model_addresses_at(tx, 1).await?;
                execute!(
                    tx,
                    "insert into unclaimed_transfers (chain, height, tx_index, part, txid, asset, address_key, amount, state, seen_at)
                     values ('model', 3, 0, 0, $1, 'model/token', $2, $3, 'seen', 0)",
                    [7_u8; 32],
                    address_key(1).0,
                    Amount::from(DUE)
                )?;
                let check = store::find_balance_check_in_range(tx, InvoiceId(1)).await?.unwrap();
                assert_eq!(check.initial, Some(Amount::ZERO));
                assert_eq!((check.explained_amount_at(2), check.explained_amount_at(3)), (Amount::ZERO, Amount::from(DUE)));
                Ok::<_, db::Error>(())
            })
        });
        outcome.await.unwrap();
    }

    async fn a_counted_small_transfer_counts_again_after_a_reorg(db: Db) {
        let outcome = db.write("mine", move |tx| {
            Box::pin(async move {
                insert_model_rows(tx).await?;
                start_following_chain(tx, &model_chain().id, &model_header(0, 0)).await?;
                apply_block_with_payments(tx, model_header(0, 0), model_header(1, 0), &[(1, 88)]).await?;
                apply_block_with_payments(tx, model_header(1, 0), model_header(2, 0), &[(2, 9)]).await?;
                let both = [88, 9].map(Amount::from_units).to_vec();
                assert_eq!(load_first_invoice(tx).await?, (invoices::State::Paid, both));
                let (from, fork) = (model_header(2, 0).block_ref(), model_header(0, 0).block_ref());
                new_deposit_service(model_chain_with_dust_limit()).rewind_cursor_and_deposits(tx, Instant(1), from, fork).await?;
                assert_eq!(load_first_invoice(tx).await?, (invoices::State::Reversed, Vec::new()));

                // The same transfers are mined in another order, together with two transfers that never counted.
                apply_block_with_payments(tx, model_header(0, 0), model_header(1, 1), &[(2, 9), (7, 9), (2, 8)]).await?;
                let rest = vec![Amount::from_units(9)];
                assert_eq!(load_first_invoice(tx).await?, (invoices::State::Reversed, rest));
                apply_block_with_payments(tx, model_header(1, 1), model_header(2, 1), &[(1, 88)]).await?;
                let both = [9, 88].map(Amount::from_units).to_vec();
                assert_eq!(load_first_invoice(tx).await?, (invoices::State::Paid, both));
                let report = crate::audit::audit_ledger(tx).await?;
                assert!(report.has_no_findings(), "{report}");
                Ok::<_, PostError>(())
            })
        });
        outcome.await.unwrap();
    }

    async fn deposits_of_a_token_with_unlimited_supply_stay_in_range(db: Db) {
        let outcome = db.write("mint", move |tx| {
            Box::pin(async move {
                insert_model_rows(tx).await?;
                start_following_chain(tx, &model_chain().id, &model_header(0, 0)).await?;
                let most = [power_of_two_minus_one(112), power_of_two(112), power_of_two_minus_one(112), power_of_two_minus_one(127), power_of_two(127), Amount::MAX];
                let reached = Some(compute_position(&model_chain(), 1, None));
                let (service, block) = (new_deposit_service(model_chain()), block_with_transfers(model_header(1, 0), &most));
                service.apply_blocks(tx, Instant(1), model_header(0, 0).block_ref(), &[block], reached).await?;
                let surplus = Account::Suspense(MERCHANT, Suspense::Surplus);
                let kept = ledger::find_balance_or_zero(tx, Mode::Test, &surplus, &model_asset(false)).await?.available_amount();
                let booked = power_of_two_minus_one(112).checked_mul(2).unwrap();
                assert_eq!(kept, booked.checked_sub(Amount::from(DUE)).unwrap(), "two are deposits, four are a review");

                // A balance that is too large to be booked is reported once and not checked again.
                let checks = list_balance_checks_in_range(tx, &[InvoiceId(2)]).await?;
                let at = model_header(1, 0).block_ref();
                let outcome = service.book_credit_if_still_unexplained(tx, Instant(1), at, &checks[0], power_of_two_minus_one(127)).await?;
                assert_eq!(outcome, UnexplainedCredit::Booked);
                assert!(list_balance_checks_in_range(tx, &[InvoiceId(2)]).await?.is_empty());
                let found = rows!(tx, "select kind from reviews order by kind")?;
                let kinds: Vec<String> = found.iter().map(|row| row.get_at(0)).collect::<Result<_, _>>()?;
                assert_eq!(kinds, ["balance.out_of_range", "deposit.out_of_range", "payment.surplus"]);
                let report = crate::audit::audit_ledger(tx).await?;
                assert!(report.has_no_findings(), "{report}");
                Ok::<_, PostError>(())
            })
        });
        outcome.await.unwrap();
    }
}

fn blocks_are_booked_like_single_deposits(backend: Backend, cases: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    let result = runner.run(&random_steps(), |acts| {
        runtime.block_on(async {
            let db = testing::open_migrated(backend).await;
            run_steps_against_model(&db, acts).await;
            db.close().await;
        });
        Ok(())
    });
    result.unwrap();
}

#[test]
fn blocks_are_booked_like_single_deposits_on_sqlite() {
    blocks_are_booked_like_single_deposits(Backend::Sqlite, 48);
}

#[test]
fn blocks_are_booked_like_single_deposits_on_postgres() {
    blocks_are_booked_like_single_deposits(Backend::Postgres, 16);
}
