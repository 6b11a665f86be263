//! All SQL of the audit. It reads balances, deposits, invoices and payments, and writes nothing.

use chain::{Amount, AssetId, ChainId};

use crate::deposits;
use crate::invoices::{self, Disposition};
use crate::ledger::Balance;
use clock::Instant;
use db::{self, Tx, batch_row, rows, rows_for_each};
use ids::{AccountId, MerchantId, Mode, UserId};

/// A ledger account with its balance row.
pub struct AuditedAccount {
    /// The id of the account.
    pub id: AccountId,
    /// The mode of the account: live or test.
    pub mode: Mode,
    /// The name of the account, such as `merchant:7:available`.
    pub code: String,
    /// The asset of all postings to the account.
    pub asset: AssetId,
    /// True when the balance of the account may not go below zero.
    pub non_negative: bool,
    /// The sums of debits and credits in the balance row of the account.
    pub balance: Balance,
    /// The position in the hash chain up to which the balance row includes the postings of the account.
    pub rolled_up_to: i64,
    /// False when the balance row is missing; the balance is zero then.
    pub has_balance_row: bool,
}

/// Lists all accounts with their balance rows, in the order of their ids.
pub async fn list_accounts_with_balances(tx: &mut Tx) -> Result<Vec<AuditedAccount>, db::Error> {
    let found = rows!(
        tx,
        "select a.id, a.mode, a.code, a.asset, a.non_negative, b.debits_pending, b.debits_posted, b.credits_pending,
         b.credits_posted, b.rolled_up_to, b.account_id is not null as has_balance_row
         from accounts a left join balances b on b.account_id = a.id order by a.id"
    )?;
    let account = |row: &db::Row| {
        let amount = |column: &str| Ok::<Amount, db::Error>(row.get::<Option<Amount>>(column)?.unwrap_or_default());
        Ok(AuditedAccount {
            id: row.get("id")?,
            mode: row.get("mode")?,
            code: row.get("code")?,
            asset: AssetId::from_stored(&row.get::<String>("asset")?),
            non_negative: row.get("non_negative")?,
            balance: Balance {
                debits_pending: amount("debits_pending")?,
                debits_posted: amount("debits_posted")?,
                credits_pending: amount("credits_pending")?,
                credits_posted: amount("credits_posted")?,
            },
            rolled_up_to: row.get::<Option<_>>("rolled_up_to")?.unwrap_or_default(),
            has_balance_row: row.get("has_balance_row")?,
        })
    };
    found.iter().map(account).collect()
}

/// A deposit, with the merchant and the mode of its invoice.
pub struct AuditedDeposit {
    /// The id of the deposit.
    pub id: i64,
    /// The chain on which the deposit arrived.
    pub chain: ChainId,
    /// The asset that was deposited.
    pub asset: AssetId,
    /// The amount of the deposit, in base units of the asset.
    pub amount: Amount,
    /// The state of the deposit, as stored.
    pub state: deposits::State,
    /// The disposition of the deposit: its invoice counts it towards the amount due, or the reason why not.
    pub disposition: Disposition,
    /// True when a confirmation is allowed: a second source shows the deposit, or its value counts towards the limit of
    /// deposits without one.
    pub may_be_confirmed: bool,
    /// The id of the invoice whose address received the deposit.
    pub invoice: i64,
    /// The merchant of the invoice.
    pub merchant: MerchantId,
    /// The mode of the invoice: live or test.
    pub mode: Mode,
}

/// Lists at most `limit` deposits with ids above `after`, in the order of their ids.
pub async fn list_deposits_after(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<AuditedDeposit>, db::Error> {
    let found = rows!(
        tx,
        "select d.id, d.chain, d.asset, d.amount, d.state, d.disposition,
         (d.corroboration = 'shown' or d.single_source_usd_cents is not null) as may_be_confirmed, d.invoice_id,
         i.merchant_id, i.mode from deposits d join invoices i on i.id = d.invoice_id where d.id > $1 order by d.id limit $2",
        after,
        limit
    )?;
    found.iter().map(parse_audited_deposit).collect()
}

fn parse_audited_deposit(row: &db::Row) -> Result<AuditedDeposit, db::Error> {
    Ok(AuditedDeposit {
        id: row.get("id")?,
        chain: invoices::parse_stored_chain(&row.get::<String>("chain")?)?,
        asset: AssetId::from_stored(&row.get::<String>("asset")?),
        amount: row.get("amount")?,
        state: row.get("state")?,
        disposition: row.get("disposition")?,
        may_be_confirmed: row.get("may_be_confirmed")?,
        invoice: row.get("invoice_id")?,
        merchant: row.get("merchant_id")?,
        mode: row.get("mode")?,
    })
}

/// Lists the deposits of these invoices, in no order.
pub async fn list_deposits_of_invoices(tx: &mut Tx, invoices: &[i64]) -> Result<Vec<AuditedDeposit>, db::Error> {
    let found = rows_for_each!(
        tx,
        invoices.iter().map(|invoice| batch_row![*invoice]).collect(),
        "with given (invoice bigint)
         select d.id, d.chain, d.asset, d.amount, d.state, d.disposition,
         (d.corroboration = 'shown' or d.single_source_usd_cents is not null) as may_be_confirmed, d.invoice_id,
         i.merchant_id, i.mode
         from given, deposits d, invoices i where d.invoice_id = given.invoice and i.id = d.invoice_id"
    )?;
    found.iter().map(parse_audited_deposit).collect()
}

/// Returns those ids in `ids` that belong to stored deposits whose invoice is stored too.
pub async fn filter_stored_deposit_ids(tx: &mut Tx, ids: &[i64]) -> Result<Vec<i64>, db::Error> {
    let found = rows_for_each!(
        tx,
        ids.iter().map(|id| batch_row![*id]).collect(),
        "with given (id bigint)
         select d.id from given, deposits d, invoices i where d.id = given.id and i.id = d.invoice_id"
    )?;
    found.iter().map(|row| row.get("id")).collect()
}

/// Returns those ids in `ids` that belong to stored invoices, each with the number of times that the invoice was
/// settled.
pub async fn list_settlement_counts_of_invoices(tx: &mut Tx, ids: &[i64]) -> Result<Vec<(i64, i64)>, db::Error> {
    let found = rows_for_each!(
        tx,
        ids.iter().map(|id| batch_row![*id]).collect(),
        "with given (id bigint) select i.id, i.settlement_count from given, invoices i where i.id = given.id"
    )?;
    found.iter().map(|row| Ok((row.get("id")?, row.get("settlement_count")?))).collect()
}

/// Returns those ids in `ids` that belong to successful payments from the balances of users. Payments of free orders
/// are left out, because nothing was taken for them.
pub async fn filter_paid_balance_payment_ids(tx: &mut Tx, ids: &[i64]) -> Result<Vec<i64>, db::Error> {
    let found = rows_for_each!(
        tx,
        ids.iter().map(|id| batch_row![*id]).collect(),
        "with given (id bigint)
         select p.id from given, payments p where p.id = given.id and p.method in ('balance_cny', 'balance_crypto')
         and p.state = 'success' and p.amount is not null"
    )?;
    found.iter().map(|row| row.get("id")).collect()
}

/// The columns of an invoice that the audit compares.
pub struct AuditedInvoice {
    /// The id of the invoice.
    pub id: i64,
    /// The merchant that the invoice belongs to.
    pub merchant: MerchantId,
    /// The mode of the invoice: live or test.
    pub mode: Mode,
    /// The asset that the invoice requests.
    pub asset: AssetId,
    /// The state of the invoice, as stored.
    pub state: invoices::State,
    /// The amount due, in base units.
    pub amount_due: Amount,
    /// The amount, in base units, that may be missing when the invoice is accepted as paid.
    pub tolerance: Amount,
    /// The number of times that the invoice was paid. It is more than 1 when a reorg undid a payment and the invoice
    /// was paid again.
    pub settlement_count: i64,
    /// The amount credited to the merchant, in base units; `None` unless the invoice is paid.
    pub credited_amount: Option<Amount>,
    /// True when all deposits that paid the invoice are final, so that a reorg cannot remove them.
    pub is_final: bool,
}

/// Lists at most `limit` invoices with ids above `after`, in the order of their ids.
pub async fn list_invoices_after(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<AuditedInvoice>, db::Error> {
    let found = rows!(
        tx,
        "select id, merchant_id, mode, asset, state, amount_due, tolerance, settlement_count, credited_amount, finalized_at
         from invoices where id > $1 order by id limit $2",
        after,
        limit
    )?;
    let invoice = |row: &db::Row| {
        Ok(AuditedInvoice {
            id: row.get("id")?,
            merchant: row.get("merchant_id")?,
            mode: row.get("mode")?,
            asset: AssetId::from_stored(&row.get::<String>("asset")?),
            state: row.get("state")?,
            amount_due: row.get("amount_due")?,
            tolerance: row.get("tolerance")?,
            settlement_count: row.get("settlement_count")?,
            credited_amount: row.get("credited_amount")?,
            is_final: row.get::<Option<Instant>>("finalized_at")?.is_some(),
        })
    };
    found.iter().map(invoice).collect()
}

/// A payment that was taken from a user's balance.
pub struct AuditedBalancePayment {
    /// The id of the payment.
    pub id: i64,
    /// The asset of the balance.
    pub asset: AssetId,
    /// The amount that was taken from the balance, in base units.
    pub amount: Amount,
    /// The merchant that received the payment.
    pub merchant: MerchantId,
    /// The mode of the payment: live or test.
    pub mode: Mode,
    /// The user from whose balance the payment was taken. Every such payment must have a user, so the audit reports
    /// `None` as a difference.
    pub user: Option<UserId>,
}

/// Lists at most `limit` successful payments from balances with ids above `after`, in the order of their ids. Free
/// orders are left out, because nothing was taken for them.
pub async fn list_successful_balance_payments_after(
    tx: &mut Tx,
    after: i64,
    limit: i64,
) -> Result<Vec<AuditedBalancePayment>, db::Error> {
    let found = rows!(
        tx,
        "select id, asset, amount, merchant_id, mode, user_id from payments
         where id > $1 and method in ('balance_cny', 'balance_crypto') and state = 'success' and amount is not null
         order by id limit $2",
        after,
        limit
    )?;
    let payment = |row: &db::Row| {
        Ok(AuditedBalancePayment {
            id: row.get("id")?,
            asset: AssetId::from_stored(&row.get::<String>("asset")?),
            amount: row.get("amount")?,
            merchant: row.get("merchant_id")?,
            mode: row.get("mode")?,
            user: row.get("user_id")?,
        })
    };
    found.iter().map(payment).collect()
}
