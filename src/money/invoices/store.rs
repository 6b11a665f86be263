//! All SQL of invoices.

use chain::{Amount, AssetId, ChainId, TxId};

use crate::clock::Instant;
use crate::db::{self, Locked, Tx, execute, row, rows};
use crate::ids::{AddressId, InvoiceId, PaymentId, Shop};
use crate::money::invoices::{Invoice, NewInvoice, State, Use};
use crate::money::sightings::Expected;

/// What reached an invoice and counts, or counted until it expired, towards it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// Sum of all that is not orphaned.
    pub seen: Amount,
    /// The part of it that is confirmed or final.
    pub confirmed: Amount,
    /// Confirmations of the deposit that has the fewest.
    pub confirmations: Option<u64>,
    /// The newest deposit's transaction.
    pub txid: Option<TxId>,
    /// What is on its way beside all that.
    pub expected: Expected,
}

impl Received {
    /// With what is in no block yet.
    pub fn total(&self) -> Amount {
        self.seen.checked_add(self.expected.amount).unwrap_or(Amount::MAX)
    }

    /// Whether any of it may still vanish or come.
    pub fn is_on_its_way(&self) -> bool {
        self.seen > self.confirmed || !self.expected.amount.is_zero()
    }
}

pub async fn insert_invoice(
    tx: &mut Tx,
    now: Instant,
    new: &NewInvoice,
    address: AddressId,
) -> Result<InvoiceId, db::Error> {
    let inserted = row!(
        tx,
        "insert into invoices (public_id, payment_id, merchant_id, mode, chain, asset, address_id, state, due, tolerance,
         currency, price, rate, rate_source, rated_at, confirmations, created_at, expires_at, settlements)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 0) returning id",
        uuid::Uuid::new_v4().to_string(),
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
        new.quote.rate.to_string(),
        &new.quote.source,
        new.quote.rated_at,
        new.confirmations,
        now,
        new.expires_at
    )?;
    inserted.ok_or_else(|| db::Error::Statement("an insert returned no row".into()))?.get("id")
}

pub async fn find_by_payment(tx: &mut Tx, payment: PaymentId) -> Result<Option<Invoice>, db::Error> {
    let found = row!(
        tx,
        "select i.id, i.payment_id, i.merchant_id, i.mode, i.chain, i.asset, i.address_id, a.text as address, i.state, i.due,
         i.tolerance, i.confirmations, i.created_at, i.expires_at, i.settlements, i.settled, i.released_at
         from invoices i join addresses a on a.id = i.address_id where i.payment_id = $1",
        payment
    )?;
    found.as_ref().map(invoice).transpose()
}

pub async fn lock_invoice(tx: &mut Tx, id: InvoiceId) -> Result<Locked<Invoice>, db::Error> {
    let found = row!(
        tx,
        "select i.id, i.payment_id, i.merchant_id, i.mode, i.chain, i.asset, i.address_id, a.text as address, i.state, i.due,
         i.tolerance, i.confirmations, i.created_at, i.expires_at, i.settlements, i.settled, i.released_at
         from invoices i join addresses a on a.id = i.address_id where i.id = $1 for update",
        id
    )?;
    let found = found.ok_or_else(|| db::Error::Statement(format!("invoice {id} does not exist")))?;
    Ok(Locked::new(invoice(&found)?))
}

fn invoice(row: &db::Row) -> Result<Invoice, db::Error> {
    let chain: String = row.get("chain")?;
    Ok(Invoice {
        id: row.get("id")?,
        payment: row.get("payment_id")?,
        shop: Shop { merchant: row.get("merchant_id")?, mode: row.get("mode")? },
        chain: ChainId::new(&chain).map_err(|e| db::Error::Value { column: "chain".into(), reason: e.to_string() })?,
        asset: AssetId::stored(&row.get::<String>("asset")?),
        address_id: row.get("address_id")?,
        address: row.get("address")?,
        state: row.get("state")?,
        due: row.get("due")?,
        tolerance: row.get("tolerance")?,
        confirmations: row.get("confirmations")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        settlements: row.get("settlements")?,
        settled: row.get("settled")?,
        released_at: row.get("released_at")?,
    })
}

/// Sums over the counted deposits; few, so they are added up here where arithmetic is exact.
pub async fn find_received(tx: &mut Tx, id: InvoiceId, chain: &ChainId) -> Result<Received, db::Error> {
    let found = rows!(
        tx,
        "select d.amount, d.state, d.txid, d.height, c.height as cursor_height
         from deposits d join cursors c on c.chain = $2
         where d.invoice_id = $1 and d.use in ('counted', 'short') and d.state <> 'orphaned' order by d.id",
        id,
        chain.as_str()
    )?;
    let mut received = Received::default();
    let out_of_range = || db::Error::Value { column: "amount".into(), reason: "the sum leaves the range".into() };
    for row in &found {
        let amount: Amount = row.get("amount")?;
        received.seen = received.seen.checked_add(amount).ok_or_else(out_of_range)?;
        if row.get::<String>("state")? != "seen" {
            received.confirmed = received.confirmed.checked_add(amount).ok_or_else(out_of_range)?;
        }
        let depth = (row.get::<u64>("cursor_height")? + 1).saturating_sub(row.get("height")?);
        received.confirmations = Some(received.confirmations.map_or(depth, |least| least.min(depth)));
        // Money that was found by its balance has no transaction to name.
        received.txid = Some(TxId(row.get("txid")?)).filter(|txid| txid.0 != [0; 32]).or(received.txid);
    }
    Ok(received)
}

pub async fn has_counted_not_final(tx: &mut Tx, id: InvoiceId) -> Result<bool, db::Error> {
    let found = row!(
        tx,
        "select 1 as one from deposits where invoice_id = $1 and use = 'counted' and state in ('seen', 'confirmed') limit 1",
        id
    )?;
    Ok(found.is_some())
}

pub async fn list_expirable(
    tx: &mut Tx,
    chain: &ChainId,
    passed: Instant,
    held_since: Instant,
    limit: i64,
) -> Result<Vec<InvoiceId>, db::Error> {
    let found = rows!(
        tx,
        "select i.id from invoices i
         where i.chain = $1 and i.state = 'open' and i.expires_at < $2 and not exists (
             select 1 from deposits d where d.invoice_id = i.id and d.use = 'counted' and d.state = 'seen')
         and not exists (
             select 1 from sightings s where s.invoice_id = i.id and s.asset = i.asset and s.state = 'seen'
             and s.first_seen_at <= i.expires_at and s.first_seen_at > $3)
         order by i.expires_at limit $4",
        chain.as_str(),
        passed,
        held_since,
        limit
    )?;
    found.iter().map(|row| row.at(0)).collect()
}

pub async fn set_settled(
    tx: &mut Tx,
    now: Instant,
    invoice: &Locked<Invoice>,
    to: State,
    settled: Amount,
) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "update invoices set state = $3, settled = $4, settlements = settlements + 1, closed_at = $5, released_at = null
         where id = $1 and state = $2",
        invoice.id,
        invoice.state,
        to,
        settled,
        now
    )?;
    db::expect_changed(changed, 1)
}

pub async fn set_reversed(tx: &mut Tx, invoice: &Locked<Invoice>) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "update invoices set state = $3, settled = null, closed_at = null, released_at = null where id = $1 and state = $2",
        invoice.id,
        invoice.state,
        State::Reversed
    )?;
    db::expect_changed(changed, 1)
}

pub async fn set_released(tx: &mut Tx, now: Instant, invoice: &Locked<Invoice>) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "update invoices set released_at = $3 where id = $1 and state = $2 and released_at is null",
        invoice.id,
        invoice.state,
        now
    )?;
    db::expect_changed(changed, 1)
}

pub async fn set_closed(tx: &mut Tx, now: Instant, invoice: &Locked<Invoice>, to: State) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "update invoices set state = $3, closed_at = $4 where id = $1 and state = $2",
        invoice.id,
        invoice.state,
        to,
        now
    )?;
    db::expect_changed(changed, 1)
}

pub async fn set_uses(tx: &mut Tx, id: InvoiceId, from: Use, to: Use) -> Result<(), db::Error> {
    execute!(
        tx,
        "update deposits set use = $3 where invoice_id = $1 and use = $2 and state <> 'orphaned'",
        id,
        from,
        to
    )?;
    Ok(())
}
