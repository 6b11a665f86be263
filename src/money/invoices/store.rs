//! All SQL of invoices.

use std::collections::{BTreeMap, BTreeSet};

use chain::{Address, AddressKey, AssetId, AssetKind, ChainId, Height};

use crate::deposits::Grace;
use crate::invoices::{CountedSums, Invoice, NewInvoice, ReceivedSums, State};
use clock::Instant;
use db::{self, Locked, ResultRef, Tx, batch_row, deferred_for_each, queued, row, rows, rows_for_each};
use ids::{AddressId, InvoiceId, PaymentId, Shop};

/// Queues the statement that inserts an open invoice. The result refers to the id of the new invoice.
pub fn queue_invoice_insert(
    tx: &mut Tx,
    now: Instant,
    new: &NewInvoice,
    address: ResultRef<AddressId>,
) -> ResultRef<InvoiceId> {
    queued!(
        tx,
        "insert into invoices (public_id, payment_id, merchant_id, mode, chain, asset, address_id, state, amount_due, tolerance,
         currency, price, price_usd, rate, rate_source, rated_at, confirmations, created_at, expires_at, settlement_count)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 0) returning id",
        ids::generate_public_id(now).to_string(),
        new.payment,
        new.shop.merchant,
        new.shop.mode,
        new.asset.chain.as_str(),
        new.asset.id.as_str(),
        address,
        State::Open,
        new.quote.due,
        new.tolerance,
        new.price.currency,
        new.price.minor,
        new.price_usd_cents,
        new.quote.rate.to_string(),
        &new.quote.source,
        new.quote.rated_at,
        new.confirmations,
        now,
        new.expires_at
    )
}

/// Returns the invoice of a payment; `None` when the payment has none.
pub async fn find_invoice_by_payment(tx: &mut Tx, payment: PaymentId) -> Result<Option<Invoice>, db::Error> {
    let found = row!(
        tx,
        "select i.id, i.payment_id, i.merchant_id, i.mode, i.chain, i.asset, i.address_id, a.text as address, i.state, i.amount_due,
         i.tolerance, i.price_usd, i.confirmations, i.created_at, i.expires_at, i.settlement_count, i.credited_amount, i.closed_at, i.finalized_at
         from invoices i join addresses a on a.id = i.address_id where i.payment_id = $1",
        payment
    )?;
    found.as_ref().map(parse_invoice_row).transpose()
}

/// Locks the invoices with these ids, in the order of the ids, and returns them. Ids that do not exist are left out.
pub async fn lock_invoices(tx: &mut Tx, ids: &BTreeSet<InvoiceId>) -> Result<Vec<Locked<Invoice>>, db::Error> {
    let found = rows_for_each!(
        tx,
        ids.iter().map(|id| batch_row![*id]).collect(),
        "with given (id bigint)
         select i.id, i.payment_id, i.merchant_id, i.mode, i.chain, i.asset, i.address_id, a.text as address, i.state, i.amount_due,
         i.tolerance, i.price_usd, i.confirmations, i.created_at, i.expires_at, i.settlement_count, i.credited_amount, i.closed_at, i.finalized_at
         from given, invoices i join addresses a on a.id = i.address_id where i.id = given.id order by i.id for update"
    )?;
    found.iter().map(|row| parse_invoice_row(row).map(Locked::new)).collect()
}

/// A locked invoice that was found by its address.
pub struct InvoiceOfAddress {
    /// The key of the address.
    pub key: AddressKey,
    /// True when the invoice has deposits.
    pub has_deposits: bool,
    /// The height of the highest block that was known when the index of the address was leased; `None` when no lease is
    /// stored.
    pub leased_height: Option<Height>,
    /// The invoice.
    pub invoice: Locked<Invoice>,
}

/// Locks the invoices of addresses in the order of their ids and returns them. Addresses without an invoice are left out.
pub async fn lock_invoices_by_address(
    tx: &mut Tx,
    chain: &ChainId,
    keys: &BTreeSet<AddressKey>,
) -> Result<Vec<InvoiceOfAddress>, db::Error> {
    let found = rows_for_each!(
        tx,
        keys.iter().map(|key| batch_row![key.0]).collect(),
        "with given (key bytea)
         select i.id, i.payment_id, i.merchant_id, i.mode, i.chain, i.asset, i.address_id, a.text as address, i.state, i.amount_due,
         i.tolerance, i.price_usd, i.confirmations, i.created_at, i.expires_at, i.settlement_count, i.credited_amount, i.closed_at, i.finalized_at, a.key,
         case when exists (select 1 from deposits d where d.invoice_id = i.id) then 1 else 0 end as has_deposits,
         (select l.height from address_leases l where l.account_id = a.account_id and l.first_index <= a.derivation_index
          order by l.first_index desc limit 1) as leased_height
         from given, addresses a join invoices i on i.address_id = a.id
         where a.chain = $1 and a.key = given.key order by i.id for update",
        chain.as_str()
    )?;
    let parse = |row: &db::Row| {
        Ok(InvoiceOfAddress {
            key: AddressKey(row.get("key")?),
            has_deposits: row.get("has_deposits")?,
            leased_height: row.get("leased_height")?,
            invoice: Locked::new(parse_invoice_row(row)?),
        })
    };
    found.iter().map(parse).collect()
}

fn parse_invoice_row(row: &db::Row) -> Result<Invoice, db::Error> {
    Ok(Invoice {
        id: row.get("id")?,
        payment: row.get("payment_id")?,
        shop: Shop { merchant: row.get("merchant_id")?, mode: row.get("mode")? },
        chain: parse_stored_chain(&row.get::<String>("chain")?)?,
        asset: AssetId::from_stored(&row.get::<String>("asset")?),
        address_id: row.get("address_id")?,
        address: row.get("address")?,
        state: row.get("state")?,
        due: row.get("amount_due")?,
        tolerance: row.get("tolerance")?,
        price_usd_cents: row.get("price_usd")?,
        confirmations: row.get("confirmations")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        settlements: row.get("settlement_count")?,
        settled: row.get("credited_amount")?,
        closed_at: row.get("closed_at")?,
        released_at: row.get("finalized_at")?,
    })
}

/// Parses the stored name of a chain.
///
/// # Errors
/// [`db::Error::Value`] when the name is invalid.
pub fn parse_stored_chain(name: &str) -> Result<ChainId, db::Error> {
    ChainId::parse(name).map_err(|e| db::Error::Value { column: "chain".into(), reason: e.to_string() })
}

/// Returns the sums of the deposits that an invoice counts, or counted until it expired. `chain` is the chain of the
/// invoice. The amounts are added in Rust, because SQL cannot add 256-bit numbers.
pub async fn summarize_counted_or_short_deposits(
    tx: &mut Tx,
    id: InvoiceId,
    chain: &ChainId,
) -> Result<ReceivedSums, db::Error> {
    let found = rows!(
        tx,
        "select d.amount as deposit_amount, d.state as deposit_state, d.txid, d.height, d.confirm_height,
         c.height as cursor_height
         from deposits d join cursors c on c.chain = $2
         where d.invoice_id = $1 and d.disposition in ('counted', 'short') and d.state <> 'orphaned' order by d.id",
        id,
        chain.as_str()
    )?;
    ReceivedSums::summarize_deposit_rows(&found)
}

/// Returns a map from invoice id to the sums of the deposits that the invoice counts, or counted until it expired.
/// Invoices without such deposits are left out.
pub async fn sum_counted_or_short_deposits(
    tx: &mut Tx,
    ids: &BTreeSet<InvoiceId>,
) -> Result<BTreeMap<InvoiceId, CountedSums>, db::Error> {
    let found = rows_for_each!(
        tx,
        ids.iter().map(|id| batch_row![*id]).collect(),
        "with given (id bigint)
         select d.invoice_id, d.amount, d.state from given, deposits d
         where d.invoice_id = given.id and d.disposition in ('counted', 'short') and d.state <> 'orphaned'"
    )?;
    let mut counted = BTreeMap::new();
    for row in &found {
        let state: String = row.get("state")?;
        let sums = counted.entry(row.get("invoice_id")?).or_insert(CountedSums::NOTHING);
        sums.add_counted_deposit(row.get("amount")?, state != "seen", state == "final")?;
    }
    Ok(counted)
}

/// Returns the addresses of a chain to which money is expected; see
/// [`crate::invoices::list_addresses_expecting_payment`].
pub async fn list_addresses_expecting_payment(
    tx: &mut Tx,
    chain: &ChainId,
    limit: i64,
) -> Result<Vec<Address>, db::Error> {
    let found = rows!(
        tx,
        "select a.key, a.text from unconfirmed s join invoices i on i.id = s.invoice_id join addresses a on a.id = i.address_id
         where s.chain = $1 and i.chain = $1 and s.state = 'seen'
         union
         select a.key, a.text from (
             select address_id from invoices where chain = $1 and state = 'open' order by expires_at, id limit $2) i
         join addresses a on a.id = i.address_id
         union
         select a.key, a.text from (
             select address_id from invoices where chain = $1 and state = 'reversed' order by reversal_deadline_at limit $2) i
         join addresses a on a.id = i.address_id",
        chain.as_str(),
        limit
    )?;
    found.iter().map(|row| Ok(Address { key: AddressKey(row.get("key")?), text: row.get("text")? })).collect()
}

/// Returns at most `limit` open invoices whose payment window ended before `passed`, and at most `limit` reversed
/// invoices whose deadline ended before `passed`. Leaves out invoices that still wait for a deposit or an unconfirmed
/// transfer. Unconfirmed transfers that were first seen at `held_since` or before are ignored.
pub async fn list_expirable_invoices(
    tx: &mut Tx,
    chain: &ChainId,
    passed: Instant,
    held_since: Instant,
    grace: Grace,
    limit: i64,
) -> Result<Vec<InvoiceId>, db::Error> {
    // When a reorg removed a counted deposit, the invoice waits until the transaction of the deposit is mined again,
    // but at most for the length of its payment window. It does not wait for a deposit that an endpoint contradicted.
    let mut found = rows!(
        tx,
        "select i.id from invoices i
         where i.chain = $1 and i.state = 'open' and i.expires_at < $2 and not exists (
             select 1 from deposits d where d.invoice_id = i.id and d.disposition = 'counted' and d.state = 'seen')
         and not exists (
             select 1 from deposits d where d.invoice_id = i.id and d.disposition = 'counted' and d.state = 'orphaned'
             and d.corroboration <> 'contradicted' and d.orphaned_at + i.expires_at - i.created_at >= $2 and not exists (
                 select 1 from deposits again
                 where again.invoice_id = i.id and again.txid = d.txid and again.state <> 'orphaned'))
         and not exists (
             select 1 from unconfirmed s where s.invoice_id = i.id and s.asset = i.asset and s.state = 'seen'
             and s.first_seen_at <= i.expires_at + $4 and s.first_seen_at > $3)
         order by i.expires_at limit $5",
        chain.as_str(),
        passed,
        held_since,
        grace.ms,
        limit
    )?;
    found.extend(rows!(
        tx,
        "select i.id from invoices i
         where i.chain = $1 and i.state = 'reversed' and i.reversal_deadline_at < $2 and not exists (
             select 1 from deposits d where d.invoice_id = i.id and d.disposition = 'counted' and d.state = 'seen')
         and not exists (
             select 1 from unconfirmed s where s.invoice_id = i.id and s.asset = i.asset and s.state = 'seen'
             and s.first_seen_at > $3)
         order by i.reversal_deadline_at limit $4",
        chain.as_str(),
        passed,
        held_since,
        limit
    )?);
    found.iter().map(|row| row.get_at(0)).collect()
}

/// Stores changed invoices, and for reversed invoices the deadline for the removed money to return. The first element
/// of each pair is the previous state of the invoice; the update fails when the stored row has another state.
pub async fn update_invoices_and_reversal_deadlines(
    tx: &mut Tx,
    now: Instant,
    invoices: &[(State, Invoice)],
) -> Result<(), db::Error> {
    let given = invoices.iter().map(|(was, invoice)| {
        // A reorg has removed a transaction of a reversed invoice. Such a transaction is usually mined again soon, so
        // the invoice waits for the length of one more payment window.
        let window_ms = invoice.expires_at.since(invoice.created_at);
        let reversed_until = match invoice.state {
            State::Reversed => Some(now.plus_ms(window_ms).max(invoice.expires_at)),
            State::Open | State::Paid | State::Expired | State::Cancelled => None,
        };
        batch_row![
            invoice.id,
            *was,
            invoice.state,
            invoice.settled,
            invoice.settlements,
            invoice.closed_at,
            invoice.released_at,
            reversed_until
        ]
    });
    deferred_for_each!(
        tx,
        given.collect(),
        "with given (id bigint, was text, state text, credited_amount bytea, settlement_count bigint, closed_at bigint, finalized_at bigint,
         reversal_deadline_at bigint)
         update invoices set state = given.state, credited_amount = given.credited_amount, settlement_count = given.settlement_count,
         closed_at = given.closed_at, finalized_at = given.finalized_at, reversal_deadline_at = given.reversal_deadline_at
         from given where invoices.id = given.id and invoices.state = given.was"
    )
}

/// Returns the number of open and reversed invoices by chain name.
pub async fn count_waiting_invoices_by_chain(tx: &mut Tx) -> Result<BTreeMap<String, i64>, db::Error> {
    let found = rows!(
        tx,
        "select chain, count(*) as waiting from invoices where state = 'open' group by chain
         union all select chain, count(*) as waiting from invoices where state = 'reversed' group by chain"
    )?;
    let mut waiting: BTreeMap<String, i64> = BTreeMap::new();
    for row in &found {
        let count: i64 = row.get("waiting")?;
        let sum = waiting.entry(row.get("chain")?).or_default();
        *sum = sum.saturating_add(count);
    }
    Ok(waiting)
}

/// Returns at most `limit` open invoices in the native asset of a chain, sorted by the end of the payment window.
pub async fn list_open_native_invoices_by_expiry(
    tx: &mut Tx,
    chain: &ChainId,
    limit: i64,
) -> Result<Vec<InvoiceId>, db::Error> {
    let native = AssetId::on_chain(chain, &AssetKind::Native);
    let found = rows!(
        tx,
        "select id from invoices where chain = $1 and asset = $2 and state = 'open' order by expires_at limit $3",
        chain.as_str(),
        native.as_str(),
        limit
    )?;
    found.iter().map(|row| row.get_at(0)).collect()
}
