//! All SQL of the ledger.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chain::{Amount, AssetId};

use crate::ledger::hash_chain::{Canonical, GENESIS};
use crate::ledger::{Account, Balance, Kind, Movement, Side};
use clock::Instant;
use db::{self, Bind, Tx, deferred_each, execute, given, row, rows, rows_each};
use ids::{AccountId, MerchantId, Mode, PostingSeq, UserId};

/// An account as its row tells.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub id: AccountId,
    pub non_negative: bool,
}

pub struct NewPosting<'a> {
    pub entry: &'a str,
    pub leg: i64,
    pub kind: Kind,
    pub debit: Row,
    pub credit: Row,
    pub amount: Amount,
    pub reason: &'static str,
    /// The hold that it resolves.
    pub of: Option<Of<'a>>,
}

/// A hold on its way to being resolved.
pub struct Of<'a> {
    pub name: &'a str,
    /// `None` while it is not stored yet.
    pub seq: Option<PostingSeq>,
    pub amount: Amount,
}

pub struct Hold {
    /// `None` while it is not stored yet.
    pub seq: Option<PostingSeq>,
    pub debit: Row,
    pub credit: Row,
    pub amount: Amount,
}

impl NewPosting<'_> {
    pub fn movement(&self) -> Movement {
        let held = self.of.as_ref().map_or(self.amount, |of| of.amount);
        match self.kind {
            Kind::Posted => Movement::Posted(self.amount),
            Kind::Pending => Movement::Pending(self.amount),
            Kind::Post => Movement::Resolved { held, posted: self.amount },
            Kind::Void => Movement::Resolved { held, posted: Amount::ZERO },
        }
    }
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
        "select id, non_negative from accounts where code = $1 and asset = $2 and mode = $3",
        account.code(),
        asset.as_str(),
        mode
    )?;
    found.map(|row| Ok(Row { id: row.get("id")?, non_negative: row.get("non_negative")? })).transpose()
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
        "insert into accounts (mode, code, asset, non_negative) values ($1, $2, $3, $4)
         on conflict (code, asset, mode) do nothing returning id",
        mode,
        account.code(),
        asset.as_str(),
        account.non_negative()
    )?;
    let Some(inserted) = inserted else {
        let found = find_account(tx, mode, account, asset).await?;
        return found.ok_or_else(|| db::Error::Conflict("an account is being created by another transaction".into()));
    };
    let id: AccountId = inserted.get("id")?;
    execute!(
        tx,
        "insert into balances (account_id, debits_pending, debits_posted, credits_pending, credits_posted, rolled_up_to)
         values ($1, $2, $2, $2, $2, 0)",
        id,
        Amount::ZERO
    )?;
    Ok(Row { id, non_negative: account.non_negative() })
}

/// The balance rows, locked in the order of their ids, each with the seal up to which it is folded.
pub async fn lock_balances(tx: &mut Tx, accounts: &BTreeSet<AccountId>) -> Result<Balances, db::Error> {
    let found = rows_each!(
        tx,
        accounts.iter().map(|account| given![*account]).collect(),
        "with given (id bigint)
         select b.account_id, b.debits_pending, b.debits_posted, b.credits_pending, b.credits_posted, b.rolled_up_to
         from given, balances b where b.account_id = given.id order by b.account_id for update"
    )?;
    if found.len() != accounts.len() {
        return Err(no_balance());
    }
    found.iter().map(|row| Ok((row.get("account_id")?, balance_of(row)?))).collect()
}

/// Balances by their accounts, each with the seal up to which it is folded.
pub type Balances = BTreeMap<AccountId, (Balance, i64)>;

pub async fn find_balance(tx: &mut Tx, account: AccountId) -> Result<(Balance, i64), db::Error> {
    let found = row!(
        tx,
        "select debits_pending, debits_posted, credits_pending, credits_posted, rolled_up_to from balances
         where account_id = $1",
        account
    )?;
    balance_of(&found.ok_or_else(no_balance)?)
}

fn no_balance() -> db::Error {
    db::Error::Statement("an account has no balance row".into())
}

fn balance_of(row: &db::Row) -> Result<(Balance, i64), db::Error> {
    let balance = Balance {
        debits_pending: row.get("debits_pending")?,
        debits_posted: row.get("debits_posted")?,
        credits_pending: row.get("credits_pending")?,
        credits_posted: row.get("credits_posted")?,
    };
    Ok((balance, row.get("rolled_up_to")?))
}

pub async fn set_balances(tx: &mut Tx, balances: &Balances) -> Result<(), db::Error> {
    let given = balances.iter().map(|(account, (balance, through))| {
        given![
            *account,
            balance.debits_pending,
            balance.debits_posted,
            balance.credits_pending,
            balance.credits_posted,
            *through
        ]
    });
    deferred_each!(
        tx,
        given.collect(),
        "with given (id bigint, debits_pending bytea, debits_posted bytea, credits_pending bytea, credits_posted bytea,
         rolled_up_to bigint)
         update balances set debits_pending = given.debits_pending, debits_posted = given.debits_posted,
         credits_pending = given.credits_pending, credits_posted = given.credits_posted, rolled_up_to = given.rolled_up_to
         from given where account_id = given.id"
    )
}

/// Inserts and seals at once. Right only where one writer excludes everybody else.
pub async fn insert_sealed(tx: &mut Tx, now: Instant, postings: &[NewPosting<'_>]) -> Result<(), db::Error> {
    // With one writer, sequence and seal numbers are the same.
    let (mut no, mut previous) = find_last_append_to_hash_chain(tx).await?;
    let mut held = HashMap::new();
    let mut given = Vec::with_capacity(postings.len());
    for posting in postings {
        no += 1;
        if posting.kind == Kind::Pending {
            held.insert(posting.entry, PostingSeq(no));
        }
        let pending = posting.of.as_ref().and_then(|of| of.seq.or_else(|| held.get(of.name).copied()));
        let canonical = Canonical {
            seal_no: no,
            seq: no,
            entry: posting.entry,
            leg: posting.leg,
            kind: posting.kind.as_str(),
            pending_seq: pending.map(|seq| seq.0),
            debit_id: posting.debit.id.0,
            credit_id: posting.credit.id.0,
            amount: posting.amount.to_be_bytes(),
            reason: posting.reason,
            at: now.0,
        };
        previous = canonical.hash(&previous);
        given.push(given![
            no,
            posting.entry,
            posting.leg,
            posting.kind,
            pending,
            posting.debit.id,
            posting.credit.id,
            posting.amount,
            posting.reason,
            previous
        ]);
    }
    deferred_each!(
        tx,
        given,
        "with given (no bigint, entry text, line_no bigint, kind text, pending bigint, debit bigint, credit bigint, amount bytea,
         reason text, hash bytea)
         insert into postings (seq, entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason, created_at, hash_chain_no, hash)
         select given.no, given.entry, given.line_no, given.kind, given.pending, given.debit, given.credit, given.amount,
         given.reason, $1, given.no, given.hash from given",
        now
    )
}

/// Leaves the sealing to whoever leads. What resolves a hold of the same set finds it among what was just inserted.
pub async fn insert_unsealed(tx: &mut Tx, now: Instant, postings: &[NewPosting<'_>]) -> Result<(), db::Error> {
    let (mut given, mut resolving) = (Vec::with_capacity(postings.len()), Vec::new());
    for posting in postings {
        let mut row = given![
            posting.entry,
            posting.leg,
            posting.kind,
            posting.of.as_ref().and_then(|of| of.seq),
            posting.debit.id,
            posting.credit.id,
            posting.amount,
            posting.reason
        ];
        match &posting.of {
            Some(Of { name, seq: None, .. }) => {
                row.push(Bind::from(*name));
                resolving.push(row);
            }
            Some(Of { seq: Some(_), .. }) | None => given.push(row),
        }
    }
    deferred_each!(
        tx,
        given,
        "with given (entry text, line_no bigint, kind text, pending bigint, debit bigint, credit bigint, amount bytea, reason text)
         insert into postings (entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason, created_at)
         select given.entry, given.line_no, given.kind, given.pending, given.debit, given.credit, given.amount, given.reason, $1
         from given returning seq, entry, line_no",
        now
    )?;
    deferred_each!(
        tx,
        resolving,
        "with given (entry text, line_no bigint, kind text, pending bigint, debit bigint, credit bigint, amount bytea, reason text,
         hold text)
         insert into postings (entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason, created_at)
         select given.entry, given.line_no, given.kind, h.seq, given.debit, given.credit, given.amount, given.reason, $1
         from given, changed_before h where h.entry = given.hold and h.line_no = 0",
        now
    )
}

/// Those of the named holds that are open.
pub async fn find_holds<'n>(tx: &mut Tx, names: Vec<&'n str>) -> Result<HashMap<&'n str, Hold>, db::Error> {
    let given = (0i64..).zip(&names).map(|(number, name)| given![number, *name]).collect();
    let found = rows_each!(
        tx,
        given,
        "with given (number bigint, name text)
         select given.number as number, p.seq, p.amount, p.debit_account_id, d.non_negative as debit_non_negative, p.credit_account_id,
         c.non_negative as credit_non_negative
         from given, postings p join accounts d on d.id = p.debit_account_id join accounts c on c.id = p.credit_account_id
         where p.entry = given.name and p.line_no = 0 and p.kind = 'pending'
         and not exists (select 1 from postings r where r.hold_seq = p.seq)"
    )?;
    let hold = |row: &db::Row| {
        let number: u32 = row.get("number")?;
        let name = usize::try_from(number).ok().and_then(|number| names.get(number).copied());
        let hold = Hold {
            seq: Some(row.get("seq")?),
            debit: Row { id: row.get("debit_account_id")?, non_negative: row.get("debit_non_negative")? },
            credit: Row { id: row.get("credit_account_id")?, non_negative: row.get("credit_non_negative")? },
            amount: row.get("amount")?,
        };
        Ok((name.ok_or_else(|| db::Error::Statement(format!("hold {number} was not asked for")))?, hold))
    };
    found.iter().map(hold).collect()
}

pub async fn find_last_append_to_hash_chain(tx: &mut Tx) -> Result<(i64, [u8; 32]), db::Error> {
    let last = row!(
        tx,
        "select hash_chain_no, hash from postings where hash_chain_no is not null order by hash_chain_no desc limit 1"
    )?;
    match last {
        Some(row) => Ok((row.get("hash_chain_no")?, row.get("hash")?)),
        None => Ok((0, GENESIS)),
    }
}

pub async fn list_unsealed(tx: &mut Tx, limit: i64) -> Result<Vec<Stored>, db::Error> {
    let found = rows!(
        tx,
        "select seq, entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason, created_at, hash_chain_no, hash
         from postings where hash_chain_no is null order by seq limit $1",
        limit
    )?;
    found.iter().map(stored).collect()
}

/// Postings in the order of their seals, after `no`.
pub async fn list_sealed(tx: &mut Tx, no: i64, limit: i64) -> Result<Vec<Stored>, db::Error> {
    let found = rows!(
        tx,
        "select seq, entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason, created_at, hash_chain_no, hash
         from postings where hash_chain_no > $1 order by hash_chain_no limit $2",
        no,
        limit
    )?;
    found.iter().map(stored).collect()
}

fn stored(row: &db::Row) -> Result<Stored, db::Error> {
    Ok(Stored {
        seq: row.get("seq")?,
        entry: row.get("entry")?,
        leg: row.get("line_no")?,
        kind: row.get("kind")?,
        pending: row.get("hold_seq")?,
        debit: row.get("debit_account_id")?,
        credit: row.get("credit_account_id")?,
        amount: row.get("amount")?,
        reason: row.get("reason")?,
        at: row.get("created_at")?,
        seal_no: row.get("hash_chain_no")?,
        hash: row.get("hash")?,
    })
}

pub async fn set_seals(tx: &mut Tx, seals: &[(PostingSeq, i64, [u8; 32])]) -> Result<(), db::Error> {
    deferred_each!(
        tx,
        seals.iter().map(|(seq, no, hash)| given![*seq, *no, hash]).collect(),
        "with given (seq bigint, no bigint, hash bytea)
         update postings set hash_chain_no = given.no, hash = given.hash from given
         where postings.seq = given.seq and hash_chain_no is null"
    )
}

/// Accounts without a current row that have sealed postings beyond their fold.
pub async fn list_accounts_to_roll_up(tx: &mut Tx, limit: i64) -> Result<Vec<Row>, db::Error> {
    let found = rows!(
        tx,
        "select a.id, a.non_negative from accounts a join balances b on b.account_id = a.id
         where a.non_negative = 0 and (
             exists (select 1 from postings p where p.debit_account_id = a.id and p.hash_chain_no > b.rolled_up_to)
             or exists (select 1 from postings p where p.credit_account_id = a.id and p.hash_chain_no > b.rolled_up_to))
         order by a.id limit $1",
        limit
    )?;
    found.iter().map(|row| Ok(Row { id: row.get("id")?, non_negative: row.get("non_negative")? })).collect()
}

/// Each arm is found by an index of the account's side and its seals, so that what was folded is not read again.
macro_rules! movements_after {
    ($more:literal) => {
        concat!(
            "select p.hash_chain_no, p.kind, p.amount, h.amount as held, 'debit' as side
             from postings p left join postings h on h.seq = p.hold_seq where p.debit_account_id = $1 and p.hash_chain_no > $2
             union all
             select p.hash_chain_no, p.kind, p.amount, h.amount as held, 'credit' as side
             from postings p left join postings h on h.seq = p.hold_seq where p.credit_account_id = $1 and p.hash_chain_no > $2",
            $more
        )
    };
}

/// What moved an account after a seal, sealed or not.
pub async fn list_movements_after(
    tx: &mut Tx,
    account: AccountId,
    no: i64,
) -> Result<Vec<(Side, Movement)>, db::Error> {
    let found = rows!(
        tx,
        movements_after!(
            " union all
             select p.hash_chain_no, p.kind, p.amount, h.amount as held, 'debit' as side
             from postings p left join postings h on h.seq = p.hold_seq where p.debit_account_id = $1 and p.hash_chain_no is null
             union all
             select p.hash_chain_no, p.kind, p.amount, h.amount as held, 'credit' as side
             from postings p left join postings h on h.seq = p.hold_seq where p.credit_account_id = $1 and p.hash_chain_no is null"
        ),
        account,
        no
    )?;
    ordered(found.iter().map(|row| Ok((row.get::<Option<i64>>("hash_chain_no")?, side_of(row)?, movement_of(row)?))))
        .map(|movements| movements.into_iter().map(|(_, side, movement)| (side, movement)).collect())
}

/// What moved an account after a seal, sealed only.
pub async fn list_sealed_movements(
    tx: &mut Tx,
    account: AccountId,
    no: i64,
) -> Result<Vec<(i64, Side, Movement)>, db::Error> {
    let found = rows!(tx, movements_after!(""), account, no)?;
    let all = ordered(
        found.iter().map(|row| Ok((row.get::<Option<i64>>("hash_chain_no")?, side_of(row)?, movement_of(row)?))),
    )?;
    Ok(all.into_iter().filter_map(|(no, side, movement)| Some((no?, side, movement))).collect())
}

/// How the database finds what moved an account after a seal.
#[cfg(test)]
pub async fn explain_sealed_movements(tx: &mut Tx, account: AccountId, no: i64) -> Result<String, db::Error> {
    if tx.backend() == db::Backend::Postgres {
        // A table of a test is so small that reading all of it is cheapest.
        execute!(tx, "set local enable_seqscan = off")?;
        execute!(tx, "set local enable_bitmapscan = off")?;
    }
    let sql = tx.pick(
        concat!("explain query plan ", movements_after!("")),
        concat!("explain (costs off) ", movements_after!("")),
    );
    let column = if tx.backend() == db::Backend::Postgres { 0 } else { 3 };
    let steps = tx.rows(sql, vec![Bind::from(account), Bind::from(no)]).await?;
    let steps: Vec<String> = steps.iter().map(|row| row.at(column)).collect::<Result<_, _>>()?;
    Ok(steps.join("\n"))
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
        "select a.id, a.mode, a.code, a.asset, a.non_negative, b.debits_pending, b.debits_posted, b.credits_pending,
         b.credits_posted, b.rolled_up_to from accounts a left join balances b on b.account_id = a.id order by a.id"
    )?;
    found
        .iter()
        .map(|row| {
            Ok(AuditedAccount {
                id: row.get("id")?,
                mode: row.get("mode")?,
                code: row.get("code")?,
                asset: AssetId::from_stored(&row.get::<String>("asset")?),
                non_negative: row.get("non_negative")?,
                balance: Balance {
                    debits_pending: row.get("debits_pending")?,
                    debits_posted: row.get("debits_posted")?,
                    credits_pending: row.get("credits_pending")?,
                    credits_posted: row.get("credits_posted")?,
                },
                through: row.get("rolled_up_to")?,
            })
        })
        .collect()
}

pub struct AuditedAccount {
    pub id: AccountId,
    pub mode: Mode,
    pub code: String,
    pub asset: AssetId,
    pub non_negative: bool,
    pub balance: Balance,
    pub through: i64,
}

/// Deposits with the facts that the ledger must agree with.
pub async fn list_deposits_for_audit(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<AuditedDeposit>, db::Error> {
    let found = rows!(
        tx,
        "select d.id, d.chain, d.asset, d.amount, d.state, d.disposition, d.invoice_id, i.merchant_id, i.mode
         from deposits d join invoices i on i.id = d.invoice_id where d.id > $1 order by d.id limit $2",
        after,
        limit
    )?;
    found
        .iter()
        .map(|row| {
            Ok(AuditedDeposit {
                id: row.get("id")?,
                chain: row.get("chain")?,
                asset: AssetId::from_stored(&row.get::<String>("asset")?),
                amount: row.get("amount")?,
                state: row.get("state")?,
                used: row.get("disposition")?,
                invoice: row.get("invoice_id")?,
                merchant: row.get("merchant_id")?,
                mode: row.get("mode")?,
            })
        })
        .collect()
}

pub struct AuditedDeposit {
    pub id: i64,
    pub chain: String,
    pub asset: AssetId,
    pub amount: Amount,
    pub state: String,
    pub used: String,
    pub invoice: i64,
    /// Of its invoice.
    pub merchant: MerchantId,
    pub mode: Mode,
}

pub async fn list_invoices_for_audit(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<AuditedInvoice>, db::Error> {
    let found = rows!(
        tx,
        "select id, merchant_id, mode, asset, state, amount_due, tolerance, settlement_count, credited_amount, finalized_at
         from invoices where id > $1 order by id limit $2",
        after,
        limit
    )?;
    found
        .iter()
        .map(|row| {
            Ok(AuditedInvoice {
                id: row.get("id")?,
                merchant: row.get("merchant_id")?,
                mode: row.get("mode")?,
                asset: AssetId::from_stored(&row.get::<String>("asset")?),
                state: row.get("state")?,
                due: row.get("amount_due")?,
                tolerance: row.get("tolerance")?,
                settlements: row.get("settlement_count")?,
                settled: row.get("credited_amount")?,
                is_released: row.get::<Option<Instant>>("finalized_at")?.is_some(),
            })
        })
        .collect()
}

pub struct AuditedInvoice {
    pub id: i64,
    pub merchant: MerchantId,
    pub mode: Mode,
    pub asset: AssetId,
    pub state: String,
    pub due: Amount,
    pub tolerance: Amount,
    pub settlements: i64,
    pub settled: Option<Amount>,
    pub is_released: bool,
}

/// What was paid from balances; free orders took nothing.
pub async fn list_balance_payments_for_audit(
    tx: &mut Tx,
    after: i64,
    limit: i64,
) -> Result<Vec<AuditedPayment>, db::Error> {
    let found = rows!(
        tx,
        "select p.id, p.asset, p.amount, o.merchant_id, o.mode, o.user_id from payments p join orders o on o.id = p.order_id
         where p.id > $1 and p.method in ('balance_cny', 'balance_crypto') and p.state = 'success' and p.amount is not null
         order by p.id limit $2",
        after,
        limit
    )?;
    found
        .iter()
        .map(|row| {
            Ok(AuditedPayment {
                id: row.get("id")?,
                asset: AssetId::from_stored(&row.get::<String>("asset")?),
                amount: row.get("amount")?,
                merchant: row.get("merchant_id")?,
                mode: row.get("mode")?,
                user: row.get("user_id")?,
            })
        })
        .collect()
}

pub struct AuditedPayment {
    pub id: i64,
    pub asset: AssetId,
    pub amount: Amount,
    pub merchant: MerchantId,
    pub mode: Mode,
    pub user: Option<UserId>,
}
