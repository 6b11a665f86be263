//! The double-entry ledger: immutable postings, holds that are posted or voided exactly once, corrections by new postings.
//!
//! A posting has one debit, one credit and one asset, so debits equal credits by construction. An account that is non_negative
//! never has less than zero of `credits − debits − held debits`; its balance row is locked and current in every
//! transaction. All other accounts have no row that a transaction waits for: [`roll_up`] sums them up later.
//! Postings are chained by hashes; [`audit`] recomputes everything.

pub mod audit;
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

/// Amounts stay below this, so that sums of any realistic number of them cannot leave 256 bits.
const LIMIT: u32 = 127;

/// The chart of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Account {
    /// Assets at deposit addresses of a chain. Grows by debits.
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
    /// Too little to be anybody's payment.
    Dust,
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
            Account::Suspense(merchant, Suspense::Dust) => format!("merchant:{merchant}:suspense:dust"),
            Account::User(user) => format!("user:{user}"),
            Account::OperatorEquity => "operator:equity".to_owned(),
        }
    }

    /// Whether it may never go below zero.
    pub fn non_negative(&self) -> bool {
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
    /// What a non_negative account may still give: posted credits less posted and held debits.
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
    #[error("hold `{0}` is not open")]
    NoHold(String),
    #[error("more than the held {held} was posted")]
    AboveHold { held: Amount },
    #[error("account {0:?} would leave the range of amounts")]
    OutOfRange(AccountId),
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// What is booked under a name that is used once for ever: a second attempt is a unique violation.
#[derive(Debug, Clone)]
pub struct Entry {
    name: String,
    reason: &'static str,
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    Posted { mode: Mode, legs: Vec<Leg> },
    Hold { mode: Mode, leg: Leg },
    Post { hold: String, amount: Option<Amount> },
    Void { hold: String },
}

impl Entry {
    /// All legs move at once.
    pub fn posted(mode: Mode, name: impl Into<String>, reason: &'static str, legs: Vec<Leg>) -> Entry {
        Entry { name: name.into(), reason, act: Act::Posted { mode, legs } }
    }

    /// The leg's amount is set aside on both accounts until the hold is posted or voided.
    pub fn hold(mode: Mode, name: impl Into<String>, reason: &'static str, leg: Leg) -> Entry {
        Entry { name: name.into(), reason, act: Act::Hold { mode, leg } }
    }

    /// What the entry `hold` set aside moves, or only `amount` of it; the rest is free again.
    pub fn post(name: impl Into<String>, reason: &'static str, hold: String, amount: Option<Amount>) -> Entry {
        Entry { name: name.into(), reason, act: Act::Post { hold, amount } }
    }

    /// The hold ends; nothing moves.
    pub fn void(name: impl Into<String>, reason: &'static str, hold: String) -> Entry {
        Entry { name: name.into(), reason, act: Act::Void { hold } }
    }

    fn legs(&self) -> (Option<Mode>, &[Leg]) {
        match &self.act {
            Act::Posted { mode, legs } => (Some(*mode), legs),
            Act::Hold { mode, leg } => (Some(*mode), std::slice::from_ref(leg)),
            Act::Post { .. } | Act::Void { .. } => (None, &[]),
        }
    }

    fn resolves(&self) -> Option<&str> {
        match &self.act {
            Act::Post { hold, .. } | Act::Void { hold } => Some(hold),
            Act::Posted { .. } | Act::Hold { .. } => None,
        }
    }
}

/// Books the entries in their order, all or none. A hold may be resolved by a later entry of the same set.
pub async fn book(tx: &mut Tx, now: Instant, entries: &[Entry]) -> Result<(), PostError> {
    let accounts = accounts_of(tx, entries).await?;
    let mut holds = holds_of(tx, entries).await?;
    let mut postings = Vec::with_capacity(entries.len());
    for entry in entries {
        let (mode, legs) = entry.legs();
        for (number, leg) in (0i64..).zip(legs) {
            let amount = checked(leg.amount)?;
            let account = |account: &Account| accounts.get(&Key::new(mode, account, &leg.asset)).copied();
            let sides = account(&leg.debit).zip(account(&leg.credit));
            let (debit, credit) = sides.ok_or_else(|| db::Error::Statement("an account was not looked up".into()))?;
            let kind = match entry.act {
                Act::Hold { .. } => {
                    holds.insert(&entry.name, store::Hold { seq: None, debit, credit, amount });
                    Kind::Pending
                }
                Act::Posted { .. } | Act::Post { .. } | Act::Void { .. } => Kind::Posted,
            };
            let (name, reason) = (&entry.name, entry.reason);
            postings.push(store::NewPosting {
                entry: name,
                leg: number,
                kind,
                debit,
                credit,
                amount,
                reason,
                of: None,
            });
        }
        let Some(name) = entry.resolves() else { continue };
        let held = holds.remove(name).ok_or_else(|| PostError::NoHold(name.to_owned()))?;
        let (kind, amount) = match &entry.act {
            Act::Post { amount, .. } => (Kind::Post, amount.unwrap_or(held.amount)),
            Act::Posted { .. } | Act::Hold { .. } | Act::Void { .. } => (Kind::Void, held.amount),
        };
        if amount > held.amount {
            return Err(PostError::AboveHold { held: held.amount });
        }
        postings.push(store::NewPosting {
            entry: &entry.name,
            leg: 0,
            kind,
            debit: held.debit,
            credit: held.credit,
            amount,
            reason: entry.reason,
            of: Some(store::Of { name, seq: held.seq, amount: held.amount }),
        });
    }
    enforce_non_negative(tx, &postings).await?;
    match tx.backend() {
        Backend::Sqlite => store::insert_sealed(tx, now, &postings).await?,
        Backend::Postgres => store::insert_unsealed(tx, now, &postings).await?,
    }
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
pub async fn roll_up(tx: &mut Tx, accounts: i64) -> Result<usize, db::Error> {
    let behind = store::list_accounts_to_roll_up(tx, accounts).await?;
    for account in &behind {
        let mut balances = store::lock_balances(tx, &BTreeSet::from([account.id])).await?;
        let Some((balance, last)) = balances.get_mut(&account.id) else { continue };
        let through = *last;
        for (no, side, movement) in store::list_sealed_movements(tx, account.id, through).await? {
            balance.apply(side, movement).ok_or_else(|| out_of_range(account.id))?;
            *last = no;
        }
        store::set_balances(tx, &balances).await?;
    }
    Ok(behind.len())
}

/// The accounts that were ever used through this handle: an account never changes.
#[derive(Default)]
struct Known(Mutex<HashMap<Key, store::Row>>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    mode: Option<Mode>,
    account: Account,
    asset: AssetId,
}

impl Key {
    fn new(mode: Option<Mode>, account: &Account, asset: &AssetId) -> Key {
        Key { mode, account: account.clone(), asset: asset.clone() }
    }
}

/// The accounts of all legs, created where they are used for the first time.
async fn accounts_of(tx: &mut Tx, entries: &[Entry]) -> Result<HashMap<Key, store::Row>, db::Error> {
    let known = tx.cache::<Known>();
    let mut accounts = HashMap::new();
    let mut used = Vec::with_capacity(entries.len());
    for (mode, legs) in entries.iter().map(Entry::legs) {
        used.extend(legs.iter().map(|leg| (mode, leg)));
    }
    for (mode, leg) in used {
        for account in [&leg.debit, &leg.credit] {
            let key = Key::new(mode, account, &leg.asset);
            if accounts.contains_key(&key) {
                continue;
            }
            let remembered = known.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
            let found = match (remembered, mode) {
                (Some(found), _) => found,
                (None, None) => continue,
                (None, Some(mode)) => {
                    let found = store::insert_or_find_account(tx, mode, account, &leg.asset).await?;
                    let (known, key) = (known.clone(), key.clone());
                    tx.after_commit(move || {
                        known.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, found);
                    });
                    found
                }
            };
            accounts.insert(key, found);
        }
    }
    Ok(accounts)
}

/// The holds that the entries resolve, open and not made by the entries themselves.
async fn holds_of<'e>(tx: &mut Tx, entries: &'e [Entry]) -> Result<HashMap<&'e str, store::Hold>, db::Error> {
    let made: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let names: BTreeSet<&str> =
        entries.iter().filter_map(Entry::resolves).filter(|name| !made.contains(name)).collect();
    store::find_holds(tx, names.into_iter().collect()).await
}

/// Moves the balances of non_negative accounts, locked in the order of their ids.
async fn enforce_non_negative(tx: &mut Tx, postings: &[store::NewPosting<'_>]) -> Result<(), PostError> {
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
            let before = balance.available();
            balance.apply(side, posting.movement()).ok_or(PostError::OutOfRange(account.id))?;
            if owed(balance).is_none_or(|owed| owed > balance.credits_posted) {
                return Err(PostError::Insufficient { available: before });
            }
        }
    }
    Ok(store::set_balances(tx, &balances).await?)
}

/// Posted and held debits of an account.
fn owed(balance: &Balance) -> Option<Amount> {
    balance.debits_posted.checked_add(balance.debits_pending)
}

async fn current(tx: &mut Tx, account: &store::Row) -> Result<Balance, db::Error> {
    let (mut balance, through) = store::find_balance(tx, account.id).await?;
    if !account.non_negative {
        for (side, movement) in store::list_movements_after(tx, account.id, through).await? {
            balance.apply(side, movement).ok_or_else(|| out_of_range(account.id))?;
        }
    }
    Ok(balance)
}

/// Whether an amount can be posted: more than nothing and below the limit.
fn is_postable(amount: Amount) -> bool {
    !amount.is_zero() && amount.units().bit_len() <= usize::try_from(LIMIT).expect("a small number")
}

/// An amount in parts that can be posted, none for nothing. Few, because what is summed up is far below the limit.
pub fn parts(amount: Amount) -> impl Iterator<Item = Amount> {
    let largest = Amount::from_units((1 << LIMIT) - 1);
    let mut rest = amount;
    std::iter::from_fn(move || {
        let part = rest.min(largest);
        rest = rest.saturating_sub(part);
        (!part.is_zero()).then_some(part)
    })
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
