//! The double-entry ledger: immutable postings, holds that are posted or voided exactly once, corrections by new
//! postings.
//!
//! Invariants:
//! - A posting has one debit, one credit and one asset, so debits equal credits in every asset.
//! - A non-negative account never owes more than it has: its posted credits minus its posted and held debits are zero
//!   or more. Every database transaction that posts to the account locks and updates its balance row.
//! - All other accounts may go below zero. Database transactions do not touch their balance rows; [`roll_up_balances`]
//!   updates these rows later, so that concurrent transactions do not wait for each other.
//! - All postings form one hash chain, so [`crate::audit`] finds every posting that was changed later.

mod hash_chain;
mod store;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use chain::{Amount, AssetId, ChainId};

use clock::Instant;
use db::{self, Backend, Tx};
use ids::{AccountId, MerchantId, Mode, UserId};

pub use hash_chain::append_to_hash_chain;

pub(crate) use hash_chain::GENESIS_HASH;
pub(crate) use store::{StoredPosting, list_hashed_postings_after, list_postings_without_hash};

/// The maximum size of a posted amount, in bits. Balances have 256 bits, so no realistic number of postings overflows
/// one.
const AMOUNT_BITS_MAX: u32 = 127;

/// A ledger account. For each mode and asset there is a separate account row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Account {
    /// The assets at the deposit addresses of a chain. Debits increase it.
    OnChain(ChainId),
    /// Confirmed deposits to the merchant's invoices, until the invoice is paid or expires.
    MerchantIncoming(MerchantId),
    /// Money of paid invoices whose deposits a reorg can still remove.
    MerchantPending(MerchantId),
    /// Money of paid invoices whose deposits are final. Payouts may spend it. The account never goes below zero.
    MerchantAvailable(MerchantId),
    /// Unallocated money: the merchant's addresses received it, but no invoice counts it.
    Suspense(MerchantId, Suspense),
    /// The balance of a user at a shop. The account never goes below zero.
    User(UserId),
    /// The operator's own funds, from which administrators credit users.
    OperatorEquity,
}

/// The reason why money is unallocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suspense {
    /// The money was a partial payment of an invoice that expired.
    Short,
    /// The money exceeds the amount that the invoice requested.
    Surplus,
    /// The money arrived after the payment window of the invoice had ended.
    Late,
    /// The invoice requested another asset.
    Foreign,
    /// The amount is too small to be a payment.
    Dust,
}

impl Account {
    /// Returns the stable name of the account in the database, such as `merchant:7:available`.
    pub fn account_code(&self) -> String {
        match self {
            Account::OnChain(chain) => format!("onchain:{chain}"),
            Account::MerchantIncoming(merchant) => format!("merchant:{merchant}:incoming"),
            Account::MerchantPending(merchant) => format!("merchant:{merchant}:pending"),
            Account::MerchantAvailable(merchant) => format!("merchant:{merchant}:available"),
            Account::Suspense(merchant, Suspense::Short) => format!("merchant:{merchant}:suspense:short"),
            Account::Suspense(merchant, Suspense::Surplus) => format!("merchant:{merchant}:suspense:surplus"),
            Account::Suspense(merchant, Suspense::Late) => format!("merchant:{merchant}:suspense:late"),
            Account::Suspense(merchant, Suspense::Foreign) => format!("merchant:{merchant}:suspense:foreign"),
            Account::Suspense(merchant, Suspense::Dust) => format!("merchant:{merchant}:suspense:dust"),
            Account::User(user) => format!("user:{user}"),
            Account::OperatorEquity => "operator:equity".to_owned(),
        }
    }

    /// Returns true when the account may not go below zero.
    pub fn is_non_negative(&self) -> bool {
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

/// One line of a journal entry. The ledger stores it as one posting.
#[derive(Debug, Clone)]
pub struct EntryLine {
    /// The account that is debited.
    pub debit: Account,
    /// The account that is credited.
    pub credit: Account,
    /// The asset of both accounts.
    pub asset: AssetId,
    /// Base units of the asset; from 1 to 2^127 − 1.
    pub amount: Amount,
}

/// The sums of the postings of one account, in base units of its asset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// The sum of the debits of open holds.
    pub debits_pending: Amount,
    /// The sum of the posted debits. It never decreases.
    pub debits_posted: Amount,
    /// The sum of the credits of open holds.
    pub credits_pending: Amount,
    /// The sum of the posted credits. It never decreases.
    pub credits_posted: Amount,
}

impl Balance {
    /// Returns the amount that a non-negative account can still spend: posted credits minus posted and held debits.
    pub fn available_amount(&self) -> Amount {
        self.credits_posted.saturating_sub(self.debits_posted).saturating_sub(self.debits_pending)
    }

    /// Returns true when the posted and held debits exceed the posted credits.
    pub(crate) fn is_below_zero(&self) -> bool {
        let debits = self.debits_posted.checked_add(self.debits_pending);
        debits.is_none_or(|debits| debits > self.credits_posted)
    }

    /// Adds the change that a posting makes on this side of the balance. Returns `None` when a sum exceeds 256 bits.
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

/// The side of a posting that an account is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Debit,
    Credit,
}

/// The effect of a posting on the balances of its two accounts, in base units of the asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BalanceChange {
    /// Posts the amount.
    Posted(Amount),
    /// Adds the amount to the pending sum until the hold is resolved.
    Held(Amount),
    /// Ends a hold: subtracts `held` from the pending sum and adds `posted` to the posted sum. `posted` is zero when
    /// the hold is voided.
    Resolved { held: Amount, posted: Amount },
}

/// The kind of a posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostingKind {
    /// Changes the posted sums at once, without a hold.
    Posted,
    /// Creates a hold.
    Pending,
    /// Posts a hold, or a part of it, and releases the rest.
    Post,
    /// Voids a hold: releases its whole amount.
    Void,
}

db::text_enum!(PostingKind { Posted => "posted", Pending => "pending", Post => "post", Void => "void" });

/// The reason why journal entries were not booked. In this case the ledger stores none of them.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// A non-negative account would go below zero. `available` is its balance before the posting.
    #[error("available balance is {available}")]
    Insufficient {
        /// Base units that the account could spend before.
        available: Amount,
    },
    /// An amount is zero, or 2^127 or more.
    #[error("an amount of {0} is zero, or 2^{AMOUNT_BITS_MAX} or more")]
    BadAmount(Amount),
    /// No hold has this name, or the hold was already posted or voided.
    #[error("hold `{0}` is not open")]
    NoHold(String),
    /// The entry posts more than the held amount.
    #[error("the hold covers only {held}")]
    AboveHold {
        /// Base units that the hold covers.
        held: Amount,
    },
    /// The balance of the account would exceed 256 bits.
    #[error("the balance of account {0} would leave the range of amounts")]
    OutOfRange(AccountId),
    /// The database failed. A unique violation means that the name of an entry was used before.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// A journal entry: a set of postings that is booked once under a name. A second entry with the same name is a unique
/// violation.
#[derive(Debug, Clone)]
pub struct JournalEntry {
    name: String,
    reason: &'static str,
    operation: Operation,
}

#[derive(Debug, Clone)]
enum Operation {
    Post {
        mode: Mode,
        lines: Vec<EntryLine>,
    },
    Hold {
        mode: Mode,
        line: EntryLine,
    },
    /// Posts `amount` of the hold named `hold`; `None` posts the whole hold.
    PostHold {
        hold: String,
        amount: Option<Amount>,
    },
    VoidHold {
        hold: String,
    },
}

impl JournalEntry {
    /// Returns an entry that posts all lines.
    pub fn new_post_entry(
        mode: Mode,
        name: impl Into<String>,
        reason: &'static str,
        lines: Vec<EntryLine>,
    ) -> JournalEntry {
        JournalEntry { name: name.into(), reason, operation: Operation::Post { mode, lines } }
    }

    /// Returns an entry that holds the amount of the line on both accounts until the hold is posted or voided.
    pub fn new_hold_entry(mode: Mode, name: impl Into<String>, reason: &'static str, line: EntryLine) -> JournalEntry {
        JournalEntry { name: name.into(), reason, operation: Operation::Hold { mode, line } }
    }

    /// Returns an entry that posts the hold of the entry named `hold` and releases it. `amount`, in base units, is the
    /// part to post; `None` posts the whole hold.
    pub fn new_post_hold_entry(
        name: impl Into<String>,
        reason: &'static str,
        hold: String,
        amount: Option<Amount>,
    ) -> JournalEntry {
        JournalEntry { name: name.into(), reason, operation: Operation::PostHold { hold, amount } }
    }

    /// Returns an entry that releases the hold of the entry named `hold` and posts nothing.
    pub fn new_void_hold_entry(name: impl Into<String>, reason: &'static str, hold: String) -> JournalEntry {
        JournalEntry { name: name.into(), reason, operation: Operation::VoidHold { hold } }
    }

    /// Returns the lines of the entry and their mode; `None` for an entry that resolves a hold.
    fn entry_lines(&self) -> Option<(Mode, &[EntryLine])> {
        match &self.operation {
            Operation::Post { mode, lines } => Some((*mode, lines)),
            Operation::Hold { mode, line } => Some((*mode, std::slice::from_ref(line))),
            Operation::PostHold { .. } | Operation::VoidHold { .. } => None,
        }
    }

    /// Returns the name of the hold that the entry resolves; `None` for an entry with lines.
    fn resolved_hold_entry_name(&self) -> Option<&str> {
        match &self.operation {
            Operation::PostHold { hold, .. } | Operation::VoidHold { hold } => Some(hold),
            Operation::Post { .. } | Operation::Hold { .. } => None,
        }
    }
}

/// Books the entries in their order, all or none. A later entry may resolve the hold of an earlier one.
///
/// # Errors
/// Every variant of [`PostError`].
pub async fn book_journal_entries(tx: &mut Tx, now: Instant, entries: &[JournalEntry]) -> Result<(), PostError> {
    let accounts = find_or_create_ledger_accounts(tx, entries).await?;
    let mut holds = find_resolved_holds(tx, entries).await?;
    let mut postings = Vec::with_capacity(entries.len());
    for entry in entries {
        let (name, reason) = (entry.name.as_str(), entry.reason);
        if let Some((mode, lines)) = entry.entry_lines() {
            for (line_no, line) in (0i64..).zip(lines) {
                let amount = ensure_postable_amount(line.amount)?;
                let account = |account: &Account| accounts.get(&AccountKey::new(mode, account, &line.asset)).copied();
                let sides = account(&line.debit).zip(account(&line.credit));
                let (debit, credit) =
                    sides.ok_or_else(|| db::Error::Statement("an account was not looked up".into()))?;
                let kind = match entry.operation {
                    Operation::Hold { .. } => {
                        holds.insert(name, store::Hold { seq: None, debit, credit, amount });
                        PostingKind::Pending
                    }
                    Operation::Post { .. } | Operation::PostHold { .. } | Operation::VoidHold { .. } => {
                        PostingKind::Posted
                    }
                };
                let resolves = None;
                postings.push(store::NewPosting {
                    entry: name,
                    line_no,
                    kind,
                    debit,
                    credit,
                    amount,
                    reason,
                    resolves,
                });
            }
        }
        let Some(hold_name) = entry.resolved_hold_entry_name() else { continue };
        let hold = holds.remove(hold_name).ok_or_else(|| PostError::NoHold(hold_name.to_owned()))?;
        let (kind, amount) = match &entry.operation {
            Operation::PostHold { amount, .. } => (PostingKind::Post, amount.unwrap_or(hold.amount)),
            Operation::Post { .. } | Operation::Hold { .. } | Operation::VoidHold { .. } => {
                (PostingKind::Void, hold.amount)
            }
        };
        if amount > hold.amount {
            return Err(PostError::AboveHold { held: hold.amount });
        }
        let resolves = Some(store::ResolvedHold { name: hold_name, seq: hold.seq, amount: hold.amount });
        let (debit, credit) = (hold.debit, hold.credit);
        postings.push(store::NewPosting { entry: name, line_no: 0, kind, debit, credit, amount, reason, resolves });
    }
    update_non_negative_balances(tx, &postings).await?;
    match tx.backend() {
        Backend::Sqlite => store::insert_postings_with_hashes(tx, now, &postings).await?,
        Backend::Postgres => store::insert_postings_without_hashes(tx, now, &postings).await?,
    }
    Ok(())
}

/// Returns the current balance of an account; all sums are zero when the account was never used.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn load_account_balance(
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

/// Adds new postings to the balance rows of at most `accounts_max` accounts that may go below zero, and returns the
/// number of accounts that had new postings. Only postings in the hash chain are added. A worker calls it
/// periodically, so that [`load_account_balance`] reads few postings.
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

/// A cache of the account rows that this process has used. Account rows never change, so each is read from the database
/// once.
#[derive(Default)]
struct AccountCache(Mutex<HashMap<AccountKey, store::AccountRow>>);

impl AccountCache {
    fn find_cached_account(&self, key: &AccountKey) -> Option<store::AccountRow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    fn insert_cached_account(&self, key: AccountKey, account: store::AccountRow) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, account);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct AccountKey {
    mode: Mode,
    account: Account,
    asset: AssetId,
}

impl AccountKey {
    fn new(mode: Mode, account: &Account, asset: &AssetId) -> AccountKey {
        AccountKey { mode, account: account.clone(), asset: asset.clone() }
    }
}

/// Returns the accounts of all lines. Creates accounts that are used for the first time.
async fn find_or_create_ledger_accounts(
    tx: &mut Tx,
    entries: &[JournalEntry],
) -> Result<HashMap<AccountKey, store::AccountRow>, db::Error> {
    let cache = tx.shared_cache::<AccountCache>();
    let mut accounts = HashMap::new();
    for (mode, lines) in entries.iter().filter_map(JournalEntry::entry_lines) {
        for line in lines {
            for account in [&line.debit, &line.credit] {
                let key = AccountKey::new(mode, account, &line.asset);
                if accounts.contains_key(&key) {
                    continue;
                }
                let found = match cache.find_cached_account(&key) {
                    Some(found) => found,
                    None => {
                        let found = store::find_or_insert_ledger_account(tx, mode, account, &line.asset).await?;
                        let (cache, key) = (cache.clone(), key.clone());
                        tx.after_commit(move || cache.insert_cached_account(key, found));
                        found
                    }
                };
                accounts.insert(key, found);
            }
        }
    }
    Ok(accounts)
}

/// Returns the stored open holds that the entries resolve, by name. Holds that one of these entries creates are left
/// out, because they are not stored yet.
async fn find_resolved_holds<'e>(
    tx: &mut Tx,
    entries: &'e [JournalEntry],
) -> Result<HashMap<&'e str, store::Hold>, db::Error> {
    let created: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let resolved = entries.iter().filter_map(JournalEntry::resolved_hold_entry_name);
    let names: BTreeSet<&str> = resolved.filter(|name| !created.contains(name)).collect();
    store::find_open_holds(tx, names.into_iter().collect()).await
}

/// Adds the postings to the balance rows of the non-negative accounts, and fails if an account would go below zero.
/// The rows are locked in the order of the account ids.
async fn update_non_negative_balances(tx: &mut Tx, postings: &[store::NewPosting<'_>]) -> Result<(), PostError> {
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
        for (side, change) in store::list_balance_changes_after(tx, account.id, rolled_up_to).await? {
            balance.apply_balance_change(side, change).ok_or_else(|| balance_out_of_range_error(account.id))?;
        }
    }
    Ok(balance)
}

/// Splits an amount into parts of at most 2^127 − 1 base units, the maximum of one posting. An amount of zero has no
/// parts.
pub fn split_into_postable_amounts(amount: Amount) -> impl Iterator<Item = Amount> {
    let largest = Amount::from_units((1 << AMOUNT_BITS_MAX) - 1);
    let mut rest = amount;
    std::iter::from_fn(move || {
        let part = rest.min(largest);
        rest = rest.saturating_sub(part);
        (!part.is_zero()).then_some(part)
    })
}

/// Returns true for an amount from 1 to 2^127 − 1 base units.
fn is_postable_amount(amount: Amount) -> bool {
    !amount.is_zero() && amount.units().bit_len() <= usize::try_from(AMOUNT_BITS_MAX).expect("127 fits into a usize")
}

fn ensure_postable_amount(amount: Amount) -> Result<Amount, PostError> {
    if is_postable_amount(amount) { Ok(amount) } else { Err(PostError::BadAmount(amount)) }
}

fn balance_out_of_range_error(account: AccountId) -> db::Error {
    db::Error::Value {
        column: format!("balance of account {account}"),
        reason: "it leaves the range of amounts".into(),
    }
}
