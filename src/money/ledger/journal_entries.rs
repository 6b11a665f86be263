//! Journal entries: balanced sets of postings. Each entry has a unique name, so that it is booked only once.

use std::collections::{BTreeSet, HashMap, HashSet};

use chain::{Amount, AssetId};

use crate::ledger::accounts::{self, Account, AccountKey};
use crate::ledger::{PostError, PostingKind, balances, store};
use clock::Instant;
use db::{self, Backend, Tx};
use ids::Mode;

/// The maximum size of a posted amount, in bits. Balances have 256 bits, so no realistic number of postings overflows a
/// balance.
pub(super) const AMOUNT_BITS_MAX: u32 = 127;

/// One line of a journal entry. The ledger stores it as one posting.
#[derive(Debug, Clone)]
pub struct EntryLine {
    /// The account that is debited.
    pub debit: Account,
    /// The account that is credited.
    pub credit: Account,
    /// The asset that the line moves. Both accounts have this asset.
    pub asset: AssetId,
    /// The amount in base units of the asset; from 1 to 2^127 − 1.
    pub amount: Amount,
}

/// A journal entry: a set of postings that is booked once under a name. When a second entry has the same name, the
/// database reports a unique violation.
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
    /// Returns an entry that posts all its lines at once, without a hold.
    pub fn new_post_entry(
        mode: Mode,
        name: impl Into<String>,
        reason: &'static str,
        lines: Vec<EntryLine>,
    ) -> JournalEntry {
        JournalEntry { name: name.into(), reason, operation: Operation::Post { mode, lines } }
    }

    /// Returns an entry that holds the amount of its line on both accounts. The hold lasts until another entry posts or
    /// voids it.
    pub fn new_hold_entry(mode: Mode, name: impl Into<String>, reason: &'static str, line: EntryLine) -> JournalEntry {
        JournalEntry { name: name.into(), reason, operation: Operation::Hold { mode, line } }
    }

    /// Returns an entry that ends the hold of the entry named `hold`: it posts `amount` base units and releases the
    /// rest. When `amount` is `None`, it posts the whole hold.
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

    /// Returns the mode and the lines of the entry; `None` for an entry that ends a hold, which has no lines.
    pub(super) fn entry_lines(&self) -> Option<(Mode, &[EntryLine])> {
        match &self.operation {
            Operation::Post { mode, lines } => Some((*mode, lines)),
            Operation::Hold { mode, line } => Some((*mode, std::slice::from_ref(line))),
            Operation::PostHold { .. } | Operation::VoidHold { .. } => None,
        }
    }

    /// Returns the name of the entry whose hold this entry ends; `None` for an entry with lines.
    fn resolved_hold_entry_name(&self) -> Option<&str> {
        match &self.operation {
            Operation::PostHold { hold, .. } | Operation::VoidHold { hold } => Some(hold),
            Operation::Post { .. } | Operation::Hold { .. } => None,
        }
    }
}

/// Books the entries in their order, all or none. A later entry may post or void the hold of an earlier entry. On
/// SQLite the postings also get their hashes.
///
/// # Errors
/// Every variant of [`PostError`].
pub async fn book_journal_entries(tx: &mut Tx, now: Instant, entries: &[JournalEntry]) -> Result<(), PostError> {
    let accounts = accounts::find_or_create_accounts_of_entries(tx, entries).await?;
    let mut holds = find_stored_holds_to_resolve(tx, entries).await?;
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
    balances::update_non_negative_balances_or_fail(tx, &postings).await?;
    match tx.backend() {
        Backend::Sqlite => store::insert_postings_with_hashes(tx, now, &postings).await?,
        Backend::Postgres => store::insert_postings_without_hashes(tx, now, &postings).await?,
    }
    Ok(())
}

/// Returns the stored open holds that the entries post or void, by the names of the entries that created them. Holds
/// that one of these entries creates itself are left out, because they are not stored yet.
async fn find_stored_holds_to_resolve<'e>(
    tx: &mut Tx,
    entries: &'e [JournalEntry],
) -> Result<HashMap<&'e str, store::Hold>, db::Error> {
    let created: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let resolved = entries.iter().filter_map(JournalEntry::resolved_hold_entry_name);
    let names: BTreeSet<&str> = resolved.filter(|name| !created.contains(name)).collect();
    store::find_open_holds(tx, names.into_iter().collect()).await
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
pub(super) fn is_postable_amount(amount: Amount) -> bool {
    !amount.is_zero() && amount.units().bit_len() <= usize::try_from(AMOUNT_BITS_MAX).expect("127 fits into a usize")
}

fn ensure_postable_amount(amount: Amount) -> Result<Amount, PostError> {
    if is_postable_amount(amount) { Ok(amount) } else { Err(PostError::BadAmount(amount)) }
}
