//! All SQL of the table `unconfirmed`, except for conditions on this table in statements about deposits and invoices.

use chain::{Amount, ChainId, TxId, UnconfirmedTransfer};

use crate::unconfirmed::UnconfirmedSum;
use clock::Instant;
use db::{self, Tx, execute, row, rows};
use ids::InvoiceId;

/// A stored transfer in the state `seen`.
pub struct SeenTransfer {
    /// The id of the row in the table `unconfirmed`.
    pub id: i64,
    /// The id of the transaction that contains the transfer.
    pub txid: TxId,
    /// The code of the part of the transaction that makes the transfer; see [`chain::TxPart`].
    pub part: i64,
    /// True when the transaction signals that it may be replaced (BIP 125).
    pub replaceable: bool,
}

/// Returns the transfers of a chain in the state `seen`, sorted by id.
pub async fn list_seen_transfers(tx: &mut Tx, chain: &ChainId) -> Result<Vec<SeenTransfer>, db::Error> {
    let found = rows!(
        tx,
        "select id, txid, part, replaceable from unconfirmed where chain = $1 and state = 'seen' order by id",
        chain.as_str()
    )?;
    found
        .iter()
        .map(|row| {
            Ok(SeenTransfer {
                id: row.get("id")?,
                txid: TxId(row.get("txid")?),
                part: row.get("part")?,
                replaceable: row.get("replaceable")?,
            })
        })
        .collect()
}

/// Inserts a transfer, or updates a stored one that was ended or whose replaceability has changed, and returns 1.
/// Returns 0 when the address belongs to no invoice, when nothing changed, or when the transfer is dust: its amount is
/// less than `bound`, the dust limit, and its invoice does not accept such small payments. An update does not change
/// `first_seen_at`.
pub async fn upsert_seen_transfer_unless_dust(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    unconfirmed: &UnconfirmedTransfer,
    bound: Amount,
) -> Result<usize, db::Error> {
    let changed = execute!(
        tx,
        "insert into unconfirmed (chain, txid, part, asset, invoice_id, amount, replaceable, state, first_seen_at)
         select $1, $2, $3, $4, i.id, $5, $6, 'seen', $7
         from addresses a join invoices i on i.address_id = a.id where a.chain = $1 and a.key = $8
         and ($5 >= $9 or (i.asset = $4 and i.amount_due <= $9))
         on conflict (chain, txid, part) do update
         set state = 'seen', ended_at = null, replaceable = excluded.replaceable
         where unconfirmed.state <> 'seen' or unconfirmed.replaceable <> excluded.replaceable",
        chain.as_str(),
        unconfirmed.txid.0,
        unconfirmed.part.code(),
        unconfirmed.asset.as_str(),
        unconfirmed.amount,
        unconfirmed.replaceable,
        now,
        unconfirmed.to.0,
        bound
    )?;
    Ok(usize::try_from(changed).unwrap_or(usize::MAX))
}

/// Ends a transfer that the node does not report any more. Its state becomes `mined` when a deposit of its transaction
/// to the same invoice is booked, otherwise `orphaned`.
pub async fn end_transfer_as_mined_or_orphaned(tx: &mut Tx, now: Instant, id: i64) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "update unconfirmed set ended_at = $2, state = case when exists (
             select 1 from deposits d where d.invoice_id = unconfirmed.invoice_id and d.txid = unconfirmed.txid
             and d.state <> 'orphaned') then 'mined' else 'orphaned' end
         where id = $1 and state = 'seen'",
        id,
        now
    )?;
    db::expect_changed(changed, 1)
}

/// Returns the sum of the transfers to an invoice that are in the state `seen` and in the requested asset. Transfers
/// that are booked as deposits are left out.
pub async fn sum_unbooked_unconfirmed_transfers(tx: &mut Tx, invoice: InvoiceId) -> Result<UnconfirmedSum, db::Error> {
    let found = rows!(
        tx,
        "select s.amount, s.txid, s.replaceable from unconfirmed s join invoices i on i.id = s.invoice_id
         where s.invoice_id = $1 and s.state = 'seen' and s.asset = i.asset and not exists (
             select 1 from deposits d where d.invoice_id = s.invoice_id and d.txid = s.txid and d.state <> 'orphaned')
         order by s.id",
        invoice
    )?;
    let mut sum = UnconfirmedSum::default();
    for row in &found {
        // The sum is only displayed, never booked, so the largest amount can replace a sum that is out of range.
        sum.amount = sum.amount.checked_add(row.get("amount")?).unwrap_or(Amount::MAX);
        sum.txid = Some(TxId(row.get("txid")?));
        sum.replaceable |= row.get::<bool>("replaceable")?;
    }
    Ok(sum)
}

/// Returns true when the chain has an open or reversed invoice, or a seen transfer.
pub async fn is_invoice_or_transfer_waiting(tx: &mut Tx, chain: &ChainId) -> Result<bool, db::Error> {
    let found = row!(
        tx,
        "select case when exists (select 1 from invoices where chain = $1 and state = 'open')
                or exists (select 1 from invoices where chain = $1 and state = 'reversed')
                or exists (select 1 from unconfirmed where chain = $1 and state = 'seen') then 1 else 0 end as waiting",
        chain.as_str()
    )?;
    found.map_or(Ok(false), |row| row.get("waiting"))
}
