//! Balances: the sums of the postings of each account, and the balance rows that store them.

use std::collections::BTreeSet;

use chain::{Amount, AssetId};

use crate::ledger::store::{self, NewPosting};
use crate::ledger::{Account, PostError, PostingKind};
use db::{self, Tx};
use ids::{AccountId, Mode};

/// The sums of the postings of one account, in base units of its asset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// The sum of the debits whose holds are open: neither posted nor voided.
    pub debits_pending: Amount,
    /// The sum of the posted debits. It never decreases.
    pub debits_posted: Amount,
    /// The sum of the credits whose holds are open: neither posted nor voided.
    pub credits_pending: Amount,
    /// The sum of the posted credits. It never decreases.
    pub credits_posted: Amount,
}

impl Balance {
    /// Returns the amount that a non-negative account can still spend: posted credits minus posted and held debits;
    /// zero when the debits are larger.
    pub fn available_amount(&self) -> Amount {
        self.credits_posted.saturating_sub(self.debits_posted).saturating_sub(self.debits_pending)
    }

    /// Returns true when the posted and held debits exceed the posted credits.
    pub(crate) fn is_below_zero(&self) -> bool {
        let debits = self.debits_posted.checked_add(self.debits_pending);
        debits.is_none_or(|debits| debits > self.credits_posted)
    }

    /// Adds the change that a posting makes to this balance. `side` tells if the posting debits or credits the account.
    /// Returns `None` when a sum exceeds 256 bits or a pending sum would go below zero.
    pub(crate) fn apply_balance_change(&mut self, side: Side, change: BalanceChange) -> Option<()> {
        let (pending, posted) = match side {
            Side::Debit => (&mut self.debits_pending, &mut self.debits_posted),
            Side::Credit => (&mut self.credits_pending, &mut self.credits_posted),
        };
        match change {
            BalanceChange::Posted(amount) => *posted = posted.checked_add(amount)?,
            BalanceChange::Held(amount) => *pending = pending.checked_add(amount)?,
            BalanceChange::Resolved { held, posted: amount } => {
                *pending = pending.checked_sub(held)?;
                *posted = posted.checked_add(amount)?;
            }
        }
        Some(())
    }
}

/// The side on which a posting changes an account: debit or credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Debit,
    Credit,
}

/// The effect of a posting on the balances of its two accounts, in base units of the asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BalanceChange {
    /// Adds the amount to the posted sum at once.
    Posted(Amount),
    /// Adds the amount to the pending sum until the hold is resolved.
    Held(Amount),
    /// Ends a hold: subtracts `held` from the pending sum and adds `posted` to the posted sum. `posted` is zero when
    /// the hold is voided.
    Resolved { held: Amount, posted: Amount },
}

impl NewPosting<'_> {
    /// Returns the change that the posting makes to the balances of its two accounts.
    pub fn to_balance_change(&self) -> BalanceChange {
        let held = self.resolves.as_ref().map_or(self.amount, |hold| hold.amount);
        match self.kind {
            PostingKind::Posted => BalanceChange::Posted(self.amount),
            PostingKind::Pending => BalanceChange::Held(self.amount),
            PostingKind::Post => BalanceChange::Resolved { held, posted: self.amount },
            PostingKind::Void => BalanceChange::Resolved { held, posted: Amount::ZERO },
        }
    }
}

/// Returns the current balance of an account; all sums are zero when the account was never used.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_balance_or_zero(
    tx: &mut Tx,
    mode: Mode,
    account: &Account,
    asset: &AssetId,
) -> Result<Balance, db::Error> {
    match store::find_ledger_account(tx, mode, account, asset).await? {
        Some(account) => compute_current_balance(tx, &account).await,
        None => Ok(Balance::default()),
    }
}

/// Adds new postings to the balance rows of at most `accounts_max` accounts, and returns the number of accounts that
/// had new postings. Only accounts that may go below zero are considered, and only postings in the hash chain. A worker
/// calls this function periodically, so that [`find_balance_or_zero`] has to read few postings.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn roll_up_balances(tx: &mut Tx, accounts_max: i64) -> Result<usize, db::Error> {
    let accounts = store::list_accounts_to_roll_up(tx, accounts_max).await?;
    for account in &accounts {
        let mut balances = store::lock_balances(tx, &BTreeSet::from([account.id])).await?;
        let Some((balance, rolled_up_to)) = balances.get_mut(&account.id) else { continue };
        let after = *rolled_up_to;
        for (hash_chain_no, side, change) in store::list_hashed_balance_changes_after(tx, account.id, after).await? {
            balance.apply_balance_change(side, change).ok_or_else(|| balance_out_of_range_error(account.id))?;
            *rolled_up_to = hash_chain_no;
        }
        store::set_balances(tx, &balances).await?;
    }
    Ok(accounts.len())
}

/// Adds the postings to the balance rows of the non-negative accounts, and fails if one of these accounts would go
/// below zero. The rows are locked in the order of the account ids.
pub(super) async fn update_non_negative_balances_or_fail(
    tx: &mut Tx,
    postings: &[store::NewPosting<'_>],
) -> Result<(), PostError> {
    let sides = |posting: &store::NewPosting<'_>| [(posting.debit, Side::Debit), (posting.credit, Side::Credit)];
    let non_negative = postings.iter().flat_map(sides).filter(|(account, _)| account.non_negative);
    let non_negative: BTreeSet<AccountId> = non_negative.map(|(account, _)| account.id).collect();
    if non_negative.is_empty() {
        return Ok(());
    }
    let mut balances = store::lock_balances(tx, &non_negative).await?;
    for posting in postings {
        for (account, side) in sides(posting) {
            let Some((balance, _)) = balances.get_mut(&account.id) else { continue };
            let available = balance.available_amount();
            balance.apply_balance_change(side, posting.to_balance_change()).ok_or(PostError::OutOfRange(account.id))?;
            if balance.is_below_zero() {
                return Err(PostError::Insufficient { available });
            }
        }
    }
    Ok(store::set_balances(tx, &balances).await?)
}

/// Returns the balance of an account: its balance row, plus the postings that the row does not include yet.
async fn compute_current_balance(tx: &mut Tx, account: &store::AccountRow) -> Result<Balance, db::Error> {
    let (mut balance, rolled_up_to) = store::find_balance_row(tx, account.id).await?;
    if !account.non_negative {
        for (side, change) in store::list_balance_changes_after_or_unhashed(tx, account.id, rolled_up_to).await? {
            balance.apply_balance_change(side, change).ok_or_else(|| balance_out_of_range_error(account.id))?;
        }
    }
    Ok(balance)
}

fn balance_out_of_range_error(account: AccountId) -> db::Error {
    db::Error::Value {
        column: format!("balance of account {account}"),
        reason: "it leaves the range of amounts".into(),
    }
}
