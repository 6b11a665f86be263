//! All SQL of the ledger. It reads and writes accounts, balances and postings, and no other table.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chain::{Amount, AssetId};

use crate::ledger::hash_chain::{GENESIS_HASH, HashedFields};
use crate::ledger::{Account, Balance, BalanceChange, PostingKind, Side};
use clock::Instant;
use db::{self, Bind, Tx, batch_row, deferred_for_each, execute, row, rows, rows_for_each};
use ids::{AccountId, Mode, PostingSeq};

/// The columns of an account row that the ledger uses. They never change.
#[derive(Debug, Clone, Copy)]
pub struct AccountRow {
    /// The id of the account.
    pub id: AccountId,
    /// True when the balance of the account may not go below zero.
    pub non_negative: bool,
}

/// A posting that is not stored yet.
pub struct NewPosting<'a> {
    /// The name of the journal entry.
    pub entry: &'a str,
    /// The index of the line in its journal entry, from 0.
    pub line_no: i64,
    /// The way in which the posting changes the balances: at once, by a new hold, or by the end of a hold.
    pub kind: PostingKind,
    /// The debited account.
    pub debit: AccountRow,
    /// The credited account.
    pub credit: AccountRow,
    /// The amount of the posting, in base units of the asset of both accounts.
    pub amount: Amount,
    /// The reason of the posting, as the journal entry states it.
    pub reason: &'static str,
    /// The hold that the posting posts or voids; `None` for other postings.
    pub resolves: Option<ResolvedHold<'a>>,
}

/// The hold that a new posting posts or voids.
pub struct ResolvedHold<'a> {
    /// The name of the journal entry that created the hold.
    pub name: &'a str,
    /// The sequence number of the hold; `None` when the hold is inserted together with the posting.
    pub seq: Option<PostingSeq>,
    /// The held amount, in base units.
    pub amount: Amount,
}

/// A hold that is neither posted nor voided yet.
pub struct Hold {
    /// The sequence number of the hold; `None` when the hold is not stored yet.
    pub seq: Option<PostingSeq>,
    /// The account whose debits include the held amount.
    pub debit: AccountRow,
    /// The account whose credits include the held amount.
    pub credit: AccountRow,
    /// The held amount, in base units.
    pub amount: Amount,
}

/// A stored posting.
pub struct StoredPosting {
    /// The sequence number of the posting, ascending in the order of insertion.
    pub seq: PostingSeq,
    /// The name of the journal entry.
    pub entry: String,
    /// The index of the line in its journal entry, from 0.
    pub line_no: i64,
    /// The way in which the posting changes the balances: at once, by a new hold, or by the end of a hold.
    pub kind: PostingKind,
    /// The hold that the posting posts or voids; `None` for other postings.
    pub hold_seq: Option<PostingSeq>,
    /// The debited account.
    pub debit: AccountId,
    /// The credited account.
    pub credit: AccountId,
    /// The amount of the posting, in base units of the asset of both accounts.
    pub amount: Amount,
    /// The reason of the posting, as the journal entry states it.
    pub reason: String,
    /// The time when the journal entry was booked.
    pub created_at: Instant,
    /// The position in the hash chain, from 1; `None` until the posting is appended to the chain.
    pub hash_chain_no: Option<i64>,
    /// The SHA-256 hash of the posting; `None` until the posting is appended to the hash chain.
    pub hash: Option<[u8; 32]>,
}

/// Returns the row of the account for this mode and asset; `None` when the account was never used.
pub async fn find_ledger_account(
    tx: &mut Tx,
    mode: Mode,
    account: &Account,
    asset: &AssetId,
) -> Result<Option<AccountRow>, db::Error> {
    let found = row!(
        tx,
        "select id, non_negative from accounts where code = $1 and asset = $2 and mode = $3",
        account.account_code(),
        asset.as_str(),
        mode
    )?;
    found.map(|row| Ok(AccountRow { id: row.get("id")?, non_negative: row.get("non_negative")? })).transpose()
}

/// Returns the row of the account for this mode and asset. Inserts it, with an empty balance row, when it does not
/// exist yet.
pub async fn find_or_insert_ledger_account(
    tx: &mut Tx,
    mode: Mode,
    account: &Account,
    asset: &AssetId,
) -> Result<AccountRow, db::Error> {
    if let Some(found) = find_ledger_account(tx, mode, account, asset).await? {
        return Ok(found);
    }
    let inserted = row!(
        tx,
        "insert into accounts (mode, code, asset, non_negative) values ($1, $2, $3, $4)
         on conflict (code, asset, mode) do nothing returning id",
        mode,
        account.account_code(),
        asset.as_str(),
        account.may_not_go_below_zero()
    )?;
    let Some(inserted) = inserted else {
        let found = find_ledger_account(tx, mode, account, asset).await?;
        return found.ok_or_else(|| db::Error::Conflict("another transaction is creating the account".into()));
    };
    let id: AccountId = inserted.get("id")?;
    execute!(
        tx,
        "insert into balances (account_id, debits_pending, debits_posted, credits_pending, credits_posted, rolled_up_to)
         values ($1, $2, $2, $2, $2, 0)",
        id,
        Amount::ZERO
    )?;
    Ok(AccountRow { id, non_negative: account.may_not_go_below_zero() })
}

/// Balance rows by account id, each with the hash chain number up to which the row includes the postings of its
/// account.
pub type Balances = BTreeMap<AccountId, (Balance, i64)>;

/// Locks the balance rows of these accounts in the order of the account ids and returns them. Fails when an account has
/// no balance row.
pub async fn lock_balances(tx: &mut Tx, accounts: &BTreeSet<AccountId>) -> Result<Balances, db::Error> {
    let found = rows_for_each!(
        tx,
        accounts.iter().map(|account| batch_row![*account]).collect(),
        "with given (id bigint)
         select b.account_id, b.debits_pending, b.debits_posted, b.credits_pending, b.credits_posted, b.rolled_up_to
         from given, balances b where b.account_id = given.id order by b.account_id for update"
    )?;
    if found.len() != accounts.len() {
        return Err(missing_balance_row_error());
    }
    found.iter().map(|row| Ok((row.get("account_id")?, parse_balance_row(row)?))).collect()
}

/// Returns the balance row of an account, and the hash chain number up to which it includes the postings.
pub async fn find_balance_row(tx: &mut Tx, account: AccountId) -> Result<(Balance, i64), db::Error> {
    let found = row!(
        tx,
        "select debits_pending, debits_posted, credits_pending, credits_posted, rolled_up_to from balances
         where account_id = $1",
        account
    )?;
    parse_balance_row(&found.ok_or_else(missing_balance_row_error)?)
}

fn missing_balance_row_error() -> db::Error {
    db::Error::Statement("an account has no balance row".into())
}

fn parse_balance_row(row: &db::Row) -> Result<(Balance, i64), db::Error> {
    let balance = Balance {
        debits_pending: row.get("debits_pending")?,
        debits_posted: row.get("debits_posted")?,
        credits_pending: row.get("credits_pending")?,
        credits_posted: row.get("credits_posted")?,
    };
    Ok((balance, row.get("rolled_up_to")?))
}

/// Overwrites balance rows. The caller must have locked them.
pub async fn set_balances(tx: &mut Tx, balances: &Balances) -> Result<(), db::Error> {
    let given = balances.iter().map(|(account, (balance, rolled_up_to))| {
        batch_row![
            *account,
            balance.debits_pending,
            balance.debits_posted,
            balance.credits_pending,
            balance.credits_posted,
            *rolled_up_to
        ]
    });
    deferred_for_each!(
        tx,
        given.collect(),
        "with given (id bigint, debits_pending bytea, debits_posted bytea, credits_pending bytea, credits_posted bytea,
         rolled_up_to bigint)
         update balances set debits_pending = given.debits_pending, debits_posted = given.debits_posted,
         credits_pending = given.credits_pending, credits_posted = given.credits_posted, rolled_up_to = given.rolled_up_to
         from given where account_id = given.id"
    )
}

/// Inserts postings together with their hashes. Only for SQLite: there one connection writes at a time, so no two
/// database transactions compute the next hash at the same time.
pub async fn insert_postings_with_hashes(
    tx: &mut Tx,
    now: Instant,
    postings: &[NewPosting<'_>],
) -> Result<(), db::Error> {
    // With one writer, the sequence number of a posting is its number in the hash chain.
    let (mut seq, mut previous) = find_hash_chain_end(tx).await?;
    let mut new_holds = HashMap::new();
    let mut given = Vec::with_capacity(postings.len());
    for posting in postings {
        seq += 1;
        if posting.kind == PostingKind::Pending {
            new_holds.insert(posting.entry, PostingSeq(seq));
        }
        let hold_seq =
            posting.resolves.as_ref().and_then(|hold| hold.seq.or_else(|| new_holds.get(hold.name).copied()));
        let fields = HashedFields {
            hash_chain_no: seq,
            seq,
            entry: posting.entry,
            line_no: posting.line_no,
            kind: posting.kind.as_str(),
            hold_seq: hold_seq.map(|seq| seq.0),
            debit_account_id: posting.debit.id.0,
            credit_account_id: posting.credit.id.0,
            amount: posting.amount.to_be_bytes(),
            reason: posting.reason,
            created_at: now.0,
        };
        previous = fields.compute_posting_hash(&previous);
        given.push(batch_row![
            seq,
            posting.entry,
            posting.line_no,
            posting.kind,
            hold_seq,
            posting.debit.id,
            posting.credit.id,
            posting.amount,
            posting.reason,
            previous
        ]);
    }
    deferred_for_each!(
        tx,
        given,
        "with given (seq bigint, entry text, line_no bigint, kind text, hold_seq bigint, debit bigint, credit bigint,
         amount bytea, reason text, hash bytea)
         insert into postings (seq, entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason,
         created_at, hash_chain_no, hash)
         select given.seq, given.entry, given.line_no, given.kind, given.hold_seq, given.debit, given.credit, given.amount,
         given.reason, $1, given.seq, given.hash from given",
        now
    )
}

/// Inserts postings without hashes, for PostgreSQL; a worker appends them to the hash chain later. The first statement
/// inserts all postings except those that resolve holds of the same call. The second statement inserts these, because
/// they need the sequence numbers of the new holds.
pub async fn insert_postings_without_hashes(
    tx: &mut Tx,
    now: Instant,
    postings: &[NewPosting<'_>],
) -> Result<(), db::Error> {
    let (mut given, mut resolving_new_holds) = (Vec::with_capacity(postings.len()), Vec::new());
    for posting in postings {
        let mut row = batch_row![
            posting.entry,
            posting.line_no,
            posting.kind,
            posting.resolves.as_ref().and_then(|hold| hold.seq),
            posting.debit.id,
            posting.credit.id,
            posting.amount,
            posting.reason
        ];
        match &posting.resolves {
            Some(ResolvedHold { name, seq: None, .. }) => {
                row.push(Bind::from(*name));
                resolving_new_holds.push(row);
            }
            Some(ResolvedHold { seq: Some(_), .. }) | None => given.push(row),
        }
    }
    deferred_for_each!(
        tx,
        given,
        "with given (entry text, line_no bigint, kind text, hold_seq bigint, debit bigint, credit bigint, amount bytea,
         reason text)
         insert into postings (entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason,
         created_at)
         select given.entry, given.line_no, given.kind, given.hold_seq, given.debit, given.credit, given.amount,
         given.reason, $1 from given returning seq, entry, line_no",
        now
    )?;
    deferred_for_each!(
        tx,
        resolving_new_holds,
        "with given (entry text, line_no bigint, kind text, hold_seq bigint, debit bigint, credit bigint, amount bytea,
         reason text, hold text)
         insert into postings (entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason,
         created_at)
         select given.entry, given.line_no, given.kind, h.seq, given.debit, given.credit, given.amount, given.reason, $1
         from given, changed_before h where h.entry = given.hold and h.line_no = 0",
        now
    )
}

/// Returns the open holds that the journal entries with these names created, by the name of the entry. Holds that were
/// posted or voided are left out.
pub async fn find_open_holds<'n>(tx: &mut Tx, names: Vec<&'n str>) -> Result<HashMap<&'n str, Hold>, db::Error> {
    let given = (0i64..).zip(&names).map(|(number, name)| batch_row![number, *name]).collect();
    let found = rows_for_each!(
        tx,
        given,
        "with given (number bigint, name text)
         select given.number as number, p.seq, p.amount, p.debit_account_id, d.non_negative as debit_non_negative,
         p.credit_account_id, c.non_negative as credit_non_negative
         from given, postings p join accounts d on d.id = p.debit_account_id
         join accounts c on c.id = p.credit_account_id
         where p.entry = given.name and p.line_no = 0 and p.kind = 'pending'
         and not exists (select 1 from postings r where r.hold_seq = p.seq)"
    )?;
    let hold = |row: &db::Row| {
        let number: u32 = row.get("number")?;
        let name = usize::try_from(number).ok().and_then(|number| names.get(number).copied());
        let hold = Hold {
            seq: Some(row.get("seq")?),
            debit: AccountRow { id: row.get("debit_account_id")?, non_negative: row.get("debit_non_negative")? },
            credit: AccountRow { id: row.get("credit_account_id")?, non_negative: row.get("credit_non_negative")? },
            amount: row.get("amount")?,
        };
        Ok((name.ok_or_else(|| db::Error::Statement(format!("no hold has number {number}")))?, hold))
    };
    found.iter().map(hold).collect()
}

/// Returns the number and the hash of the last posting in the hash chain; 0 and [`GENESIS_HASH`] when the chain is
/// empty.
pub async fn find_hash_chain_end(tx: &mut Tx) -> Result<(i64, [u8; 32]), db::Error> {
    let last = row!(
        tx,
        "select hash_chain_no, hash from postings where hash_chain_no is not null order by hash_chain_no desc limit 1"
    )?;
    match last {
        Some(row) => Ok((row.get("hash_chain_no")?, row.get("hash")?)),
        None => Ok((0, GENESIS_HASH)),
    }
}

/// Lists at most `limit` postings that are not in the hash chain yet and have sequence numbers above `after`, oldest
/// first.
pub async fn list_postings_without_hash(
    tx: &mut Tx,
    after: PostingSeq,
    limit: i64,
) -> Result<Vec<StoredPosting>, db::Error> {
    let found = rows!(
        tx,
        "select seq, entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason, created_at,
         hash_chain_no, hash from postings where hash_chain_no is null and seq > $1 order by seq limit $2",
        after,
        limit
    )?;
    found.iter().map(parse_posting_row).collect()
}

/// Lists at most `limit` postings with hash chain numbers above `hash_chain_no`, in the order of the chain.
pub async fn list_hashed_postings_after(
    tx: &mut Tx,
    hash_chain_no: i64,
    limit: i64,
) -> Result<Vec<StoredPosting>, db::Error> {
    let found = rows!(
        tx,
        "select seq, entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason, created_at,
         hash_chain_no, hash from postings where hash_chain_no > $1 order by hash_chain_no limit $2",
        hash_chain_no,
        limit
    )?;
    found.iter().map(parse_posting_row).collect()
}

/// Lists the postings of journal entries with these names, in no order. Entries that do not exist are left out.
pub async fn list_postings_of_entries(tx: &mut Tx, entries: &[String]) -> Result<Vec<StoredPosting>, db::Error> {
    let found = rows_for_each!(
        tx,
        entries.iter().map(|entry| batch_row![entry]).collect(),
        "with given (name text)
         select p.seq, p.entry, p.line_no, p.kind, p.hold_seq, p.debit_account_id, p.credit_account_id, p.amount, p.reason,
         p.created_at, p.hash_chain_no, p.hash from given, postings p where p.entry = given.name"
    )?;
    found.iter().map(parse_posting_row).collect()
}

/// Lists the postings that post or void these holds, in no order.
pub async fn list_resolutions_of_holds(tx: &mut Tx, holds: &[PostingSeq]) -> Result<Vec<StoredPosting>, db::Error> {
    let found = rows_for_each!(
        tx,
        holds.iter().map(|hold| batch_row![*hold]).collect(),
        "with given (hold bigint)
         select p.seq, p.entry, p.line_no, p.kind, p.hold_seq, p.debit_account_id, p.credit_account_id, p.amount, p.reason,
         p.created_at, p.hash_chain_no, p.hash from given, postings p where p.hold_seq = given.hold"
    )?;
    found.iter().map(parse_posting_row).collect()
}

fn parse_posting_row(row: &db::Row) -> Result<StoredPosting, db::Error> {
    Ok(StoredPosting {
        seq: row.get("seq")?,
        entry: row.get("entry")?,
        line_no: row.get("line_no")?,
        kind: row.get("kind")?,
        hold_seq: row.get("hold_seq")?,
        debit: row.get("debit_account_id")?,
        credit: row.get("credit_account_id")?,
        amount: row.get("amount")?,
        reason: row.get("reason")?,
        created_at: row.get("created_at")?,
        hash_chain_no: row.get("hash_chain_no")?,
        hash: row.get("hash")?,
    })
}

/// Sets the hash chain numbers and the hashes of postings, if they have none yet. Each element of `hashes` is the
/// sequence number of a posting, its hash chain number and its hash.
pub async fn set_posting_hashes(tx: &mut Tx, hashes: &[(PostingSeq, i64, [u8; 32])]) -> Result<(), db::Error> {
    deferred_for_each!(
        tx,
        hashes.iter().map(|(seq, hash_chain_no, hash)| batch_row![*seq, *hash_chain_no, hash]).collect(),
        "with given (seq bigint, hash_chain_no bigint, hash bytea)
         update postings set hash_chain_no = given.hash_chain_no, hash = given.hash from given
         where postings.seq = given.seq and postings.hash_chain_no is null"
    )
}

/// Lists at most `limit` accounts with postings in the hash chain that their balance row does not count yet. Accounts
/// that may not go below zero are never listed, because every database transaction that posts to such an account
/// updates its row.
pub async fn list_accounts_to_roll_up(tx: &mut Tx, limit: i64) -> Result<Vec<AccountRow>, db::Error> {
    let found = rows!(
        tx,
        "select a.id, a.non_negative from accounts a join balances b on b.account_id = a.id
         where a.non_negative = 0 and (
             exists (select 1 from postings p where p.debit_account_id = a.id and p.hash_chain_no > b.rolled_up_to)
             or exists (select 1 from postings p where p.credit_account_id = a.id and p.hash_chain_no > b.rolled_up_to))
         order by a.id limit $1",
        limit
    )?;
    found.iter().map(|row| Ok(AccountRow { id: row.get("id")?, non_negative: row.get("non_negative")? })).collect()
}

/// The SQL that selects the postings of account `$1` with hash chain numbers above `$2`. Each branch of the union uses
/// an index on account and hash chain number, so the database does not read earlier postings.
macro_rules! hashed_changes_after {
    ($more:literal) => {
        concat!(
            "select p.hash_chain_no, p.kind, p.amount, h.amount as held, 'debit' as side
             from postings p left join postings h on h.seq = p.hold_seq
             where p.debit_account_id = $1 and p.hash_chain_no > $2
             union all
             select p.hash_chain_no, p.kind, p.amount, h.amount as held, 'credit' as side
             from postings p left join postings h on h.seq = p.hold_seq
             where p.credit_account_id = $1 and p.hash_chain_no > $2",
            $more
        )
    };
}

/// Lists the changes that new postings make to the balance of an account: first the changes of postings with a hash
/// chain number above `hash_chain_no`, then those of postings without a hash chain number.
pub async fn list_balance_changes_after_or_unhashed(
    tx: &mut Tx,
    account: AccountId,
    hash_chain_no: i64,
) -> Result<Vec<(Side, BalanceChange)>, db::Error> {
    let found = rows!(
        tx,
        hashed_changes_after!(
            " union all
             select p.hash_chain_no, p.kind, p.amount, h.amount as held, 'debit' as side
             from postings p left join postings h on h.seq = p.hold_seq
             where p.debit_account_id = $1 and p.hash_chain_no is null
             union all
             select p.hash_chain_no, p.kind, p.amount, h.amount as held, 'credit' as side
             from postings p left join postings h on h.seq = p.hold_seq
             where p.credit_account_id = $1 and p.hash_chain_no is null"
        ),
        account,
        hash_chain_no
    )?;
    Ok(parse_and_sort_balance_changes(&found)?.into_iter().map(|(_, side, change)| (side, change)).collect())
}

/// Lists the changes that postings with hash chain numbers above `hash_chain_no` make to the balance of an account,
/// each with the number of its posting.
pub async fn list_hashed_balance_changes_after(
    tx: &mut Tx,
    account: AccountId,
    hash_chain_no: i64,
) -> Result<Vec<(i64, Side, BalanceChange)>, db::Error> {
    let found = rows!(tx, hashed_changes_after!(""), account, hash_chain_no)?;
    let changes = parse_and_sort_balance_changes(&found)?.into_iter();
    Ok(changes.filter_map(|(hash_chain_no, side, change)| Some((hash_chain_no?, side, change))).collect())
}

/// Returns the database's query plan for [`list_hashed_balance_changes_after`].
#[cfg(test)]
pub async fn explain_hashed_balance_changes(
    tx: &mut Tx,
    account: AccountId,
    hash_chain_no: i64,
) -> Result<String, db::Error> {
    if tx.backend() == db::Backend::Postgres {
        // The tables of a test are so small that the planner would otherwise scan them completely.
        execute!(tx, "set local enable_seqscan = off")?;
        execute!(tx, "set local enable_bitmapscan = off")?;
    }
    let sql = tx.sql_for_backend(
        concat!("explain query plan ", hashed_changes_after!("")),
        concat!("explain (costs off) ", hashed_changes_after!("")),
    );
    let column = if tx.backend() == db::Backend::Postgres { 0 } else { 3 };
    let steps = tx.rows(sql, vec![Bind::from(account), Bind::from(hash_chain_no)]).await?;
    let steps: Vec<String> = steps.iter().map(|row| row.get_at(column)).collect::<Result<_, _>>()?;
    Ok(steps.join("\n"))
}

/// The hash chain number, the side and the balance change of a posting. The number is `None` while the posting is not
/// in the hash chain.
type NumberedChange = (Option<i64>, Side, BalanceChange);

/// Parses rows and sorts the changes by hash chain number. Changes without a number come last. Among these, changes
/// that end a hold come after all others, so that no pending sum goes below zero in between.
fn parse_and_sort_balance_changes(rows: &[db::Row]) -> Result<Vec<NumberedChange>, db::Error> {
    let change = |row: &db::Row| Ok((row.get("hash_chain_no")?, parse_posting_side(row)?, parse_balance_change(row)?));
    let mut changes: Vec<NumberedChange> = rows.iter().map(change).collect::<Result<_, db::Error>>()?;
    changes.sort_by_key(|(hash_chain_no, _, change)| {
        (hash_chain_no.unwrap_or(i64::MAX), matches!(change, BalanceChange::Resolved { .. }))
    });
    Ok(changes)
}

fn parse_posting_side(row: &db::Row) -> Result<Side, db::Error> {
    Ok(if row.get::<String>("side")? == "debit" { Side::Debit } else { Side::Credit })
}

fn parse_balance_change(row: &db::Row) -> Result<BalanceChange, db::Error> {
    let amount: Amount = row.get("amount")?;
    let held = |row: &db::Row| row.get::<Amount>("held");
    Ok(match row.get("kind")? {
        PostingKind::Posted => BalanceChange::Posted(amount),
        PostingKind::Pending => BalanceChange::Held(amount),
        PostingKind::Post => BalanceChange::Resolved { held: held(row)?, posted: amount },
        PostingKind::Void => BalanceChange::Resolved { held: held(row)?, posted: Amount::ZERO },
    })
}
