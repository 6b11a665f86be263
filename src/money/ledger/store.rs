//! All SQL of the ledger.

use chain::{Amount, AssetId};

use crate::clock::Instant;
use crate::db::{self, Bind, Locked, Tx, execute, row, rows};
use crate::ids::{AccountId, Mode, PostingSeq};
use crate::money::ledger::seal::{Canonical, GENESIS};
use crate::money::ledger::{Account, Balance, Kind, Movement, Side};

/// An account as its row tells.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub id: AccountId,
    pub floored: bool,
}

pub struct NewPosting<'a> {
    pub entry: &'a str,
    pub leg: i64,
    pub kind: Kind,
    pub pending: Option<PostingSeq>,
    pub debit: AccountId,
    pub credit: AccountId,
    pub amount: Amount,
    pub reason: &'static str,
    pub at: Instant,
}

pub struct Hold {
    pub debit: Row,
    pub credit: Row,
    pub amount: Amount,
}

/// A stored posting with the columns that are hashed.
pub struct Stored {
    pub seq: PostingSeq,
    pub entry: String,
    pub leg: i64,
    pub kind: Kind,
    pub pending: Option<PostingSeq>,
    pub debit: AccountId,
    pub credit: AccountId,
    pub amount: Amount,
    pub reason: String,
    pub at: Instant,
    pub seal_no: Option<i64>,
    pub hash: Option<[u8; 32]>,
}

impl Stored {
    pub fn canonical(&self, seal_no: i64) -> Canonical<'_> {
        Canonical {
            seal_no,
            seq: self.seq.0,
            entry: &self.entry,
            leg: self.leg,
            kind: self.kind.as_str(),
            pending_seq: self.pending.map(|seq| seq.0),
            debit_id: self.debit.0,
            credit_id: self.credit.0,
            amount: self.amount.to_be_bytes(),
            reason: &self.reason,
            at: self.at.0,
        }
    }
}

pub async fn find_account(
    tx: &mut Tx,
    mode: Mode,
    account: &Account,
    asset: &AssetId,
) -> Result<Option<Row>, db::Error> {
    let found = row!(
        tx,
        "select id, floored from accounts where code = $1 and asset = $2 and mode = $3",
        account.code(),
        asset.as_str(),
        mode
    )?;
    found.map(|row| Ok(Row { id: row.get("id")?, floored: row.get("floored")? })).transpose()
}

pub async fn insert_or_find_account(
    tx: &mut Tx,
    mode: Mode,
    account: &Account,
    asset: &AssetId,
) -> Result<Row, db::Error> {
    if let Some(found) = find_account(tx, mode, account, asset).await? {
        return Ok(found);
    }
    let inserted = row!(
        tx,
        "insert into accounts (mode, code, asset, floored) values ($1, $2, $3, $4)
         on conflict (code, asset, mode) do nothing returning id",
        mode,
        account.code(),
        asset.as_str(),
        account.floored()
    )?;
    let Some(inserted) = inserted else {
        let found = find_account(tx, mode, account, asset).await?;
        return found.ok_or_else(|| db::Error::Conflict("an account is being created by another transaction".into()));
    };
    let id: AccountId = inserted.get("id")?;
    execute!(
        tx,
        "insert into balances (account_id, debits_pending, debits_posted, credits_pending, credits_posted, through_seq)
         values ($1, $2, $2, $2, $2, 0)",
        id,
        Amount::ZERO
    )?;
    Ok(Row { id, floored: account.floored() })
}

/// The balance row, locked, with the seal up to which it is folded.
pub async fn lock_balance(tx: &mut Tx, account: AccountId) -> Result<Locked<(Balance, i64)>, db::Error> {
    let found = row!(
        tx,
        "select debits_pending, debits_posted, credits_pending, credits_posted, through_seq from balances
         where account_id = $1 for update",
        account
    )?;
    Ok(Locked::new(balance_of(found)?))
}

pub async fn find_balance(tx: &mut Tx, account: AccountId) -> Result<(Balance, i64), db::Error> {
    balance_of(row!(
        tx,
        "select debits_pending, debits_posted, credits_pending, credits_posted, through_seq from balances
         where account_id = $1",
        account
    )?)
}

fn balance_of(found: Option<db::Row>) -> Result<(Balance, i64), db::Error> {
    let row = found.ok_or_else(|| db::Error::Statement("an account has no balance row".into()))?;
    let balance = Balance {
        debits_pending: row.get("debits_pending")?,
        debits_posted: row.get("debits_posted")?,
        credits_pending: row.get("credits_pending")?,
        credits_posted: row.get("credits_posted")?,
    };
    Ok((balance, row.get("through_seq")?))
}

pub async fn set_balance(tx: &mut Tx, account: AccountId, balance: &Balance, through: i64) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "update balances set debits_pending = $2, debits_posted = $3, credits_pending = $4, credits_posted = $5,
         through_seq = $6 where account_id = $1",
        account,
        balance.debits_pending,
        balance.debits_posted,
        balance.credits_pending,
        balance.credits_posted,
        through
    )?;
    db::expect_changed(changed, 1)
}

/// Inserts and seals at once. Right only where one writer excludes everybody else.
pub async fn insert_sealed(tx: &mut Tx, posting: &NewPosting<'_>) -> Result<PostingSeq, db::Error> {
    // With one writer, sequence and seal numbers are the same.
    let (last, previous) = find_last_seal(tx).await?;
    let (seq, no) = (PostingSeq(last + 1), last + 1);
    let canonical = Canonical {
        seal_no: no,
        seq: seq.0,
        entry: posting.entry,
        leg: posting.leg,
        kind: posting.kind.as_str(),
        pending_seq: posting.pending.map(|seq| seq.0),
        debit_id: posting.debit.0,
        credit_id: posting.credit.0,
        amount: posting.amount.to_be_bytes(),
        reason: posting.reason,
        at: posting.at.0,
    };
    let hash = canonical.hash(&previous);
    execute!(
        tx,
        "insert into postings (seq, entry, leg, kind, pending_seq, debit_id, credit_id, amount, reason, at, seal_no, hash)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        seq,
        posting.entry,
        posting.leg,
        posting.kind,
        posting.pending,
        posting.debit,
        posting.credit,
        posting.amount,
        posting.reason,
        posting.at,
        no,
        hash
    )?;
    Ok(seq)
}

pub async fn insert_unsealed(tx: &mut Tx, posting: &NewPosting<'_>) -> Result<PostingSeq, db::Error> {
    let inserted = row!(
        tx,
        "insert into postings (entry, leg, kind, pending_seq, debit_id, credit_id, amount, reason, at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning seq",
        posting.entry,
        posting.leg,
        posting.kind,
        posting.pending,
        posting.debit,
        posting.credit,
        posting.amount,
        posting.reason,
        posting.at
    )?;
    inserted.ok_or_else(|| db::Error::Statement("an insert returned no row".into()))?.get("seq")
}

pub async fn find_hold(tx: &mut Tx, seq: PostingSeq) -> Result<Option<Hold>, db::Error> {
    let found = row!(
        tx,
        "select p.amount, p.debit_id, d.floored as debit_floored, p.credit_id, c.floored as credit_floored
         from postings p join accounts d on d.id = p.debit_id join accounts c on c.id = p.credit_id
         where p.seq = $1 and p.kind = 'pending' and not exists (select 1 from postings r where r.pending_seq = p.seq)",
        seq
    )?;
    found
        .map(|row| {
            Ok(Hold {
                debit: Row { id: row.get("debit_id")?, floored: row.get("debit_floored")? },
                credit: Row { id: row.get("credit_id")?, floored: row.get("credit_floored")? },
                amount: row.get("amount")?,
            })
        })
        .transpose()
}

pub async fn find_last_seal(tx: &mut Tx) -> Result<(i64, [u8; 32]), db::Error> {
    let last = row!(tx, "select seal_no, hash from postings where seal_no is not null order by seal_no desc limit 1")?;
    match last {
        Some(row) => Ok((row.get("seal_no")?, row.get("hash")?)),
        None => Ok((0, GENESIS)),
    }
}

pub async fn list_unsealed(tx: &mut Tx, limit: i64) -> Result<Vec<Stored>, db::Error> {
    let found = rows!(
        tx,
        "select seq, entry, leg, kind, pending_seq, debit_id, credit_id, amount, reason, at, seal_no, hash
         from postings where seal_no is null order by seq limit $1",
        limit
    )?;
    found.iter().map(stored).collect()
}

/// Postings in the order of their seals, after `no`.
pub async fn list_sealed(tx: &mut Tx, no: i64, limit: i64) -> Result<Vec<Stored>, db::Error> {
    let found = rows!(
        tx,
        "select seq, entry, leg, kind, pending_seq, debit_id, credit_id, amount, reason, at, seal_no, hash
         from postings where seal_no > $1 order by seal_no limit $2",
        no,
        limit
    )?;
    found.iter().map(stored).collect()
}

fn stored(row: &db::Row) -> Result<Stored, db::Error> {
    Ok(Stored {
        seq: row.get("seq")?,
        entry: row.get("entry")?,
        leg: row.get("leg")?,
        kind: row.get("kind")?,
        pending: row.get("pending_seq")?,
        debit: row.get("debit_id")?,
        credit: row.get("credit_id")?,
        amount: row.get("amount")?,
        reason: row.get("reason")?,
        at: row.get("at")?,
        seal_no: row.get("seal_no")?,
        hash: row.get("hash")?,
    })
}

pub async fn set_seal(tx: &mut Tx, seq: PostingSeq, no: i64, hash: [u8; 32]) -> Result<(), db::Error> {
    let changed =
        execute!(tx, "update postings set seal_no = $2, hash = $3 where seq = $1 and seal_no is null", seq, no, hash)?;
    db::expect_changed(changed, 1)
}

/// Accounts without a current row that have sealed postings beyond their fold.
pub async fn list_accounts_to_fold(tx: &mut Tx, limit: i64) -> Result<Vec<Row>, db::Error> {
    let found = rows!(
        tx,
        "select a.id, a.floored from accounts a join balances b on b.account_id = a.id
         where a.floored = 0 and exists (
             select 1 from postings p where p.debit_id = a.id and p.seal_no > b.through_seq
             union all
             select 1 from postings p where p.credit_id = a.id and p.seal_no > b.through_seq)
         order by a.id limit $1",
        limit
    )?;
    found.iter().map(|row| Ok(Row { id: row.get("id")?, floored: row.get("floored")? })).collect()
}

const MOVEMENTS_AFTER: &str = "select p.seal_no, p.kind, p.amount, h.amount as held, 'debit' as side
     from postings p left join postings h on h.seq = p.pending_seq
     where p.debit_id = $1 and (p.seal_no > $2 or p.seal_no is null)
     union all
     select p.seal_no, p.kind, p.amount, h.amount as held, 'credit' as side
     from postings p left join postings h on h.seq = p.pending_seq
     where p.credit_id = $1 and (p.seal_no > $2 or p.seal_no is null)
     order by 1";

/// What moved an account after a seal, sealed or not.
pub async fn list_movements_after(
    tx: &mut Tx,
    account: AccountId,
    no: i64,
) -> Result<Vec<(Side, Movement)>, db::Error> {
    let found = tx.rows(MOVEMENTS_AFTER, vec![Bind::from(account), Bind::from(no)]).await?;
    ordered(found.iter().map(|row| Ok((row.get::<Option<i64>>("seal_no")?, side_of(row)?, movement_of(row)?))))
        .map(|movements| movements.into_iter().map(|(_, side, movement)| (side, movement)).collect())
}

/// What moved an account after a seal, sealed only.
pub async fn list_sealed_movements(
    tx: &mut Tx,
    account: AccountId,
    no: i64,
) -> Result<Vec<(i64, Side, Movement)>, db::Error> {
    let found = tx.rows(MOVEMENTS_AFTER, vec![Bind::from(account), Bind::from(no)]).await?;
    let all =
        ordered(found.iter().map(|row| Ok((row.get::<Option<i64>>("seal_no")?, side_of(row)?, movement_of(row)?))))?;
    Ok(all.into_iter().filter_map(|(no, side, movement)| Some((no?, side, movement))).collect())
}

type Ordered = (Option<i64>, Side, Movement);

/// Additions before subtractions where the order is not fixed yet, so that no partial sum goes below zero.
fn ordered(movements: impl Iterator<Item = Result<Ordered, db::Error>>) -> Result<Vec<Ordered>, db::Error> {
    let mut movements = movements.collect::<Result<Vec<_>, _>>()?;
    movements.sort_by_key(|(no, _, movement)| (no.unwrap_or(i64::MAX), matches!(movement, Movement::Resolved { .. })));
    Ok(movements)
}

fn side_of(row: &db::Row) -> Result<Side, db::Error> {
    Ok(if row.get::<String>("side")? == "debit" { Side::Debit } else { Side::Credit })
}

fn movement_of(row: &db::Row) -> Result<Movement, db::Error> {
    let amount: Amount = row.get("amount")?;
    let held = |row: &db::Row| row.get::<Amount>("held");
    Ok(match row.get("kind")? {
        Kind::Posted => Movement::Posted(amount),
        Kind::Pending => Movement::Pending(amount),
        Kind::Post => Movement::Resolved { held: held(row)?, posted: amount },
        Kind::Void => Movement::Resolved { held: held(row)?, posted: Amount::ZERO },
    })
}

/// Every account with what its row says, for the audit.
pub async fn list_accounts(tx: &mut Tx) -> Result<Vec<AuditedAccount>, db::Error> {
    let found = rows!(
        tx,
        "select a.id, a.mode, a.code, a.asset, a.floored, b.debits_pending, b.debits_posted, b.credits_pending,
         b.credits_posted, b.through_seq from accounts a left join balances b on b.account_id = a.id order by a.id"
    )?;
    found
        .iter()
        .map(|row| {
            Ok(AuditedAccount {
                id: row.get("id")?,
                mode: row.get("mode")?,
                code: row.get("code")?,
                asset: AssetId::stored(&row.get::<String>("asset")?),
                floored: row.get("floored")?,
                balance: Balance {
                    debits_pending: row.get("debits_pending")?,
                    debits_posted: row.get("debits_posted")?,
                    credits_pending: row.get("credits_pending")?,
                    credits_posted: row.get("credits_posted")?,
                },
                through: row.get("through_seq")?,
            })
        })
        .collect()
}

pub struct AuditedAccount {
    pub id: AccountId,
    pub mode: Mode,
    pub code: String,
    pub asset: AssetId,
    pub floored: bool,
    pub balance: Balance,
    pub through: i64,
}

/// Deposits with the hold and the state that the ledger must agree with.
pub async fn list_deposits_for_audit(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<AuditedDeposit>, db::Error> {
    let found = rows!(
        tx,
        "select id, chain, asset, amount, state, hold_seq from deposits where id > $1 order by id limit $2",
        after,
        limit
    )?;
    found
        .iter()
        .map(|row| {
            Ok(AuditedDeposit {
                id: row.get("id")?,
                chain: row.get("chain")?,
                asset: row.get("asset")?,
                amount: row.get("amount")?,
                state: row.get("state")?,
                hold: row.get("hold_seq")?,
            })
        })
        .collect()
}

pub struct AuditedDeposit {
    pub id: i64,
    pub chain: String,
    pub asset: String,
    pub amount: Amount,
    pub state: String,
    pub hold: Option<PostingSeq>,
}
