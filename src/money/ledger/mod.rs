//! The double-entry ledger: immutable postings, holds that are posted or voided exactly once, corrections by new postings.
//!
//! A posting has one debit, one credit and one asset, so debits equal credits by construction. An account that is floored
//! never has less than zero of `credits − debits − held debits`; its balance row is locked and current in every
//! transaction. All other accounts have no row that a transaction waits for: [`fold`] sums them up later.
//! Postings are chained by hashes; [`audit`] recomputes everything.

pub mod audit;
mod seal;
mod store;

#[cfg(test)]
mod tests;

use chain::{Amount, AssetId, ChainId};

use crate::clock::Instant;
use crate::db::{self, Backend, Tx};
use crate::ids::{AccountId, MerchantId, Mode, PostingSeq, UserId};

pub use seal::seal;

/// Amounts stay below this, so that sums of any realistic number of them cannot leave 256 bits.
const LIMIT: u32 = 127;

/// The chart of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Account {
    /// Coins at deposit addresses of a chain. Grows by debits.
    OnChain(ChainId),
    /// Confirmed for a merchant's invoices that are not paid yet.
    MerchantIncoming(MerchantId),
    /// Earned by paid invoices, from deposits that are not final yet.
    MerchantPending(MerchantId),
    /// Earned and final: what payouts may spend.
    MerchantAvailable(MerchantId),
    /// Received for a merchant without an invoice that asks for it.
    Suspense(MerchantId, Suspense),
    /// A buyer's balance at a shop.
    User(UserId),
    /// The operator's own means: where credits by hand come from.
    OperatorEquity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suspense {
    /// Part payments of invoices that expired.
    Short,
    /// More than was asked.
    Surplus,
    /// Arrived after the window.
    Late,
    /// Another asset than was asked.
    Foreign,
}

impl Account {
    /// The stable name under which the database knows the account.
    pub fn code(&self) -> String {
        match self {
            Account::OnChain(chain) => format!("onchain:{chain}"),
            Account::MerchantIncoming(merchant) => format!("merchant:{merchant}:incoming"),
            Account::MerchantPending(merchant) => format!("merchant:{merchant}:pending"),
            Account::MerchantAvailable(merchant) => format!("merchant:{merchant}:available"),
            Account::Suspense(merchant, Suspense::Short) => format!("merchant:{merchant}:suspense:short"),
            Account::Suspense(merchant, Suspense::Surplus) => format!("merchant:{merchant}:suspense:surplus"),
            Account::Suspense(merchant, Suspense::Late) => format!("merchant:{merchant}:suspense:late"),
            Account::Suspense(merchant, Suspense::Foreign) => format!("merchant:{merchant}:suspense:foreign"),
            Account::User(user) => format!("user:{user}"),
            Account::OperatorEquity => "operator:equity".to_owned(),
        }
    }

    /// Whether it may never go below zero.
    pub fn floored(&self) -> bool {
        match self {
            Account::MerchantAvailable(_) | Account::User(_) => true,
            Account::OnChain(_)
            | Account::MerchantIncoming(_)
            | Account::MerchantPending(_)
            | Account::Suspense(..)
            | Account::OperatorEquity => false,
        }
    }
}

/// One movement of an entry.
#[derive(Debug, Clone)]
pub struct Leg {
    pub debit: Account,
    pub credit: Account,
    pub asset: AssetId,
    pub amount: Amount,
}

/// Sums of one account, each only growing but for the pending ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    pub debits_pending: Amount,
    pub debits_posted: Amount,
    pub credits_pending: Amount,
    pub credits_posted: Amount,
}

impl Balance {
    /// What a floored account may still give: posted credits less posted and held debits.
    pub fn available(&self) -> Amount {
        self.credits_posted.saturating_sub(self.debits_posted).saturating_sub(self.debits_pending)
    }

    fn apply(&mut self, side: Side, movement: Movement) -> Option<()> {
        let (pending, posted) = match side {
            Side::Debit => (&mut self.debits_pending, &mut self.debits_posted),
            Side::Credit => (&mut self.credits_pending, &mut self.credits_posted),
        };
        match movement {
            Movement::Posted(amount) => *posted = posted.checked_add(amount)?,
            Movement::Pending(amount) => *pending = pending.checked_add(amount)?,
            Movement::Resolved { held, posted: amount } => {
                *pending = pending.checked_sub(held)?;
                *posted = posted.checked_add(amount)?;
            }
        }
        Some(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Debit,
    Credit,
}

/// What a posting does to the two accounts that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Movement {
    Posted(Amount),
    Pending(Amount),
    /// A hold ends; `posted` of it moves, nothing when it is voided.
    Resolved {
        held: Amount,
        posted: Amount,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Posted,
    Pending,
    Post,
    Void,
}

db::text_enum!(Kind { Posted => "posted", Pending => "pending", Post => "post", Void => "void" });

#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("available balance is {available}")]
    Insufficient { available: Amount },
    #[error("an amount of {0} is zero or beyond 2^{LIMIT}")]
    BadAmount(Amount),
    /// There never was one, or it was posted or voided already.
    #[error("hold {0} is not open")]
    NoHold(PostingSeq),
    #[error("more than the held {held} was posted")]
    AboveHold { held: Amount },
    #[error("account {0:?} would leave the range of amounts")]
    OutOfRange(AccountId),
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Posts all legs under `entry`, a name that is used once for ever: a second attempt is a unique violation.
pub async fn post(
    tx: &mut Tx,
    now: Instant,
    mode: Mode,
    entry: &str,
    reason: &'static str,
    legs: &[Leg],
) -> Result<(), PostError> {
    for (number, leg) in (0i64..).zip(legs) {
        let (debit, credit) = accounts_of(tx, mode, leg).await?;
        let posting = store::NewPosting {
            entry,
            leg: number,
            kind: Kind::Posted,
            pending: None,
            debit: debit.id,
            credit: credit.id,
            amount: checked(leg.amount)?,
            reason,
            at: now,
        };
        record(tx, posting, &debit, &credit, Movement::Posted(leg.amount)).await?;
    }
    Ok(())
}

/// Sets the leg's amount aside on both accounts until [`post_hold`] or [`void_hold`].
pub async fn hold(
    tx: &mut Tx,
    now: Instant,
    mode: Mode,
    entry: &str,
    reason: &'static str,
    leg: &Leg,
) -> Result<PostingSeq, PostError> {
    let (debit, credit) = accounts_of(tx, mode, leg).await?;
    let posting = store::NewPosting {
        entry,
        leg: 0,
        kind: Kind::Pending,
        pending: None,
        debit: debit.id,
        credit: credit.id,
        amount: checked(leg.amount)?,
        reason,
        at: now,
    };
    record(tx, posting, &debit, &credit, Movement::Pending(leg.amount)).await
}

/// Moves the held amount, or less of it; the rest is free again.
pub async fn post_hold(
    tx: &mut Tx,
    now: Instant,
    entry: &str,
    reason: &'static str,
    hold: PostingSeq,
    amount: Option<Amount>,
) -> Result<(), PostError> {
    resolve(tx, now, entry, reason, hold, Kind::Post, amount).await
}

/// Ends the hold; nothing moves.
pub async fn void_hold(
    tx: &mut Tx,
    now: Instant,
    entry: &str,
    reason: &'static str,
    hold: PostingSeq,
) -> Result<(), PostError> {
    resolve(tx, now, entry, reason, hold, Kind::Void, None).await
}

async fn resolve(
    tx: &mut Tx,
    now: Instant,
    entry: &str,
    reason: &'static str,
    hold: PostingSeq,
    kind: Kind,
    amount: Option<Amount>,
) -> Result<(), PostError> {
    let held = store::find_hold(tx, hold).await?.ok_or(PostError::NoHold(hold))?;
    let amount = amount.unwrap_or(held.amount);
    if amount > held.amount {
        return Err(PostError::AboveHold { held: held.amount });
    }
    let posting = store::NewPosting {
        entry,
        leg: 0,
        kind,
        pending: Some(hold),
        debit: held.debit.id,
        credit: held.credit.id,
        amount,
        reason,
        at: now,
    };
    let posted = if kind == Kind::Void { Amount::ZERO } else { amount };
    record(tx, posting, &held.debit, &held.credit, Movement::Resolved { held: held.amount, posted }).await?;
    Ok(())
}

/// Current sums; an account that was never used has none.
pub async fn balance(tx: &mut Tx, mode: Mode, account: &Account, asset: &AssetId) -> Result<Balance, db::Error> {
    match store::find_account(tx, mode, account, asset).await? {
        Some(account) => current(tx, &account).await,
        None => Ok(Balance::default()),
    }
}

/// Folds what was sealed since into the balances of accounts that have no current row. A worker calls it now and then, so
/// that [`balance`] never reads far.
pub async fn fold(tx: &mut Tx, accounts: i64) -> Result<usize, db::Error> {
    let behind = store::list_accounts_to_fold(tx, accounts).await?;
    for account in &behind {
        let (mut balance, through) = store::lock_balance(tx, account.id).await?.into_inner();
        let mut last = through;
        for (no, side, movement) in store::list_sealed_movements(tx, account.id, through).await? {
            balance.apply(side, movement).ok_or_else(|| out_of_range(account.id))?;
            last = no;
        }
        store::set_balance(tx, account.id, &balance, last).await?;
    }
    Ok(behind.len())
}

async fn accounts_of(tx: &mut Tx, mode: Mode, leg: &Leg) -> Result<(store::Row, store::Row), db::Error> {
    let debit = store::insert_or_find_account(tx, mode, &leg.debit, &leg.asset).await?;
    let credit = store::insert_or_find_account(tx, mode, &leg.credit, &leg.asset).await?;
    Ok((debit, credit))
}

/// Stores the posting and moves the balances of floored accounts, locked in the order of their ids.
async fn record(
    tx: &mut Tx,
    posting: store::NewPosting<'_>,
    debit: &store::Row,
    credit: &store::Row,
    movement: Movement,
) -> Result<PostingSeq, PostError> {
    let mut sides = [(debit, Side::Debit), (credit, Side::Credit)];
    sides.sort_by_key(|(account, _)| account.id);
    for (account, side) in sides {
        if account.floored {
            let (mut balance, through) = store::lock_balance(tx, account.id).await?.into_inner();
            let before = balance.available();
            balance.apply(side, movement).ok_or(PostError::OutOfRange(account.id))?;
            if owed(&balance).is_none_or(|owed| owed > balance.credits_posted) {
                return Err(PostError::Insufficient { available: before });
            }
            store::set_balance(tx, account.id, &balance, through).await?;
        }
    }
    let seq = match tx.backend() {
        Backend::Sqlite => store::insert_sealed(tx, &posting).await?,
        Backend::Postgres => store::insert_unsealed(tx, &posting).await?,
    };
    Ok(seq)
}

/// Posted and held debits of an account.
fn owed(balance: &Balance) -> Option<Amount> {
    balance.debits_posted.checked_add(balance.debits_pending)
}

async fn current(tx: &mut Tx, account: &store::Row) -> Result<Balance, db::Error> {
    let (mut balance, through) = store::find_balance(tx, account.id).await?;
    if !account.floored {
        for (side, movement) in store::list_movements_after(tx, account.id, through).await? {
            balance.apply(side, movement).ok_or_else(|| out_of_range(account.id))?;
        }
    }
    Ok(balance)
}

/// Whether an amount can be posted: more than nothing and below the limit.
pub fn is_postable(amount: Amount) -> bool {
    !amount.is_zero() && amount.units().bit_len() <= usize::try_from(LIMIT).expect("a small number")
}

fn checked(amount: Amount) -> Result<Amount, PostError> {
    if is_postable(amount) { Ok(amount) } else { Err(PostError::BadAmount(amount)) }
}

fn out_of_range(account: AccountId) -> db::Error {
    db::Error::Value {
        column: format!("balance of account {account}"),
        reason: "it leaves the range of amounts".into(),
    }
}
