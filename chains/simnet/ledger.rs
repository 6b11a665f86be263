//! The balances of a model chain. Every applied transaction can be undone.
//!
//! Balances are kept for all families, and unspent outputs for Bitcoin in addition. Transactions neither create nor
//! destroy value: the sum over all balances of an asset is the same after every block.

use std::collections::{BTreeMap, BTreeSet};

use chain::{AddressKey, Amount, AssetId, Family, TxId};

use crate::tx::{Order, OutPoint, Tx};

/// Maximum time between the block time and the expiry of a transaction, in seconds (as on TRON).
pub const LONGEST_LIFE: i64 = 86_400;

/// The reason for which a transaction cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A transaction with this nonce was already applied; `next` is the next free one.
    #[error("nonce too low: next is {next}")]
    NonceTooLow { next: u64 },
    /// The nonce is above the next free one. A node keeps the transaction until the missing ones arrive.
    #[error("nonce too high: next is {next}")]
    NonceGap { next: u64 },
    /// An input is spent already, does not exist, or belongs to an account that did not sign.
    #[error("missing or spent coin")]
    MissingCoin,
    /// The balance does not cover amounts and fee, or inputs and outputs of a Bitcoin transaction differ.
    #[error("insufficient funds")]
    InsufficientFunds,
    /// The expiry is before the block time, or more than [`LONGEST_LIFE`] after it.
    #[error("expired or expires too late")]
    BadExpiry,
    /// The same transaction was already applied.
    #[error("already mined")]
    Mined,
    /// The chain's family has no such transaction.
    #[error("not a transaction of this family")]
    WrongFamily,
}

/// The constant facts of a chain.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The family, which decides the form of transactions.
    pub family: Family,
    /// The native coin, in which fees are paid.
    pub native: AssetId,
    /// Account that receives the fees; its key is not known.
    pub miner: AddressKey,
    /// Accounts that own an amount of every listed asset at genesis.
    pub funded: BTreeSet<AddressKey>,
    /// Listed assets with the amount that each funded account owns at genesis, in base units. Transfers of other assets
    /// change no balance.
    pub endowment: BTreeMap<AssetId, Amount>,
}

/// A map that records the value that each write replaced, so that the write can be undone.
#[derive(Debug, Clone)]
pub struct Table<K, V> {
    /// The current rows.
    pub rows: BTreeMap<K, V>,
    replaced: Vec<(K, Option<V>)>,
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    /// Returns a table with these rows and nothing to undo.
    pub fn new(rows: BTreeMap<K, V>) -> Table<K, V> {
        Table { rows, replaced: Vec::new() }
    }

    fn set(&mut self, key: K, value: Option<V>) {
        let old = match value {
            Some(value) => self.rows.insert(key.clone(), value),
            None => self.rows.remove(&key),
        };
        self.replaced.push((key, old));
    }

    fn put_back(&mut self, replaced: &[(K, Option<V>)]) {
        for (key, old) in replaced.iter().rev() {
            match old {
                Some(old) => self.rows.insert(key.clone(), old.clone()),
                None => self.rows.remove(key),
            };
        }
    }
}

type Balances = Table<(AssetId, AddressKey), Amount>;
type CoinKey = (AddressKey, OutPoint);

/// The values that one transaction replaced, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Undo {
    balances: Vec<((AssetId, AddressKey), Option<Amount>)>,
    nonces: Vec<(AddressKey, Option<u64>)>,
    coins: Vec<(CoinKey, Option<Amount>)>,
    used: Vec<(TxId, Option<i64>)>,
}

impl Undo {
    /// Returns the balance before the transaction, or `None` when the transaction did not change it. The inner `None`
    /// means that the account still had its endowment.
    fn balance_before(&self, key: &(AssetId, AddressKey)) -> Option<Option<Amount>> {
        self.balances.iter().find(|(touched, _)| touched == key).map(|(_, old)| *old)
    }
}

/// The balances, nonces and unspent outputs of one chain.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The constant facts of the chain.
    pub rules: Rules,
    /// Balances that were changed at least once. An account without a row has its endowment, or zero if it is not
    /// funded.
    pub balances: Balances,
    /// Next nonce of each account; 0 without a row.
    pub nonces: Table<AddressKey, u64>,
    /// Unspent outputs with their amounts, ordered by owner.
    pub coins: Table<CoinKey, Amount>,
    /// Applied transactions without a nonce, with their expiry in unix seconds.
    pub used: Table<TxId, i64>,
}

impl Ledger {
    /// Returns the ledger at genesis. `birth` is the transaction id of the outputs that funded accounts own at genesis.
    pub fn new(rules: Rules, birth: TxId) -> Ledger {
        let mut coins = BTreeMap::new();
        if rules.family == Family::Bitcoin {
            let each = rules.endowment.get(&rules.native).copied().unwrap_or(Amount::ZERO);
            for (index, account) in (0u32..).zip(&rules.funded) {
                coins.insert((*account, OutPoint { txid: birth, index }), each);
            }
        }
        Ledger {
            rules,
            balances: Table::new(BTreeMap::new()),
            nonces: Table::new(BTreeMap::new()),
            coins: Table::new(coins),
            used: Table::new(BTreeMap::new()),
        }
    }

    /// Returns the balance in base units; zero for an asset that is not listed.
    pub fn balance(&self, asset: &AssetId, account: AddressKey) -> Amount {
        self.read(&(asset.clone(), account), self.balances.rows.get(&(asset.clone(), account)).copied())
    }

    /// Returns the balance before all of `undos`, which must be the latest ones, oldest first.
    pub fn balance_before<'a>(
        &self,
        asset: &AssetId,
        account: AddressKey,
        undos: impl IntoIterator<Item = &'a Undo>,
    ) -> Amount {
        let key = (asset.clone(), account);
        match undos.into_iter().find_map(|undo| undo.balance_before(&key)) {
            Some(old) => self.read(&key, old),
            None => self.balance(asset, account),
        }
    }

    /// Returns the nonce of the account's next transaction.
    pub fn next_nonce(&self, account: AddressKey) -> u64 {
        self.nonces.rows.get(&account).copied().unwrap_or(0)
    }

    /// Returns the unspent outputs of an account with their amounts, ordered by transaction id and index.
    pub fn coins_of(&self, account: AddressKey) -> impl Iterator<Item = (OutPoint, Amount)> + '_ {
        let first = OutPoint { txid: TxId([0; 32]), index: 0 };
        let last = OutPoint { txid: TxId([0xff; 32]), index: u32::MAX };
        self.coins.rows.range((account, first)..=(account, last)).map(|((_, coin), amount)| (*coin, *amount))
    }

    /// Returns the sum of all balances of an asset.
    pub fn supply(&self, asset: &AssetId) -> Amount {
        let written = self.balances.rows.iter().filter(|((of, _), _)| of == asset).map(|(_, amount)| *amount);
        let untouched =
            self.rules.funded.iter().filter(|account| !self.balances.rows.contains_key(&(asset.clone(), **account)));
        let each = self.rules.endowment.get(asset).copied().unwrap_or(Amount::ZERO);
        Amount::checked_sum(written.chain(untouched.map(|_| each))).expect("all that exists fits into 256 bits")
    }

    /// Applies a transaction at a block time in unix seconds. After an error the ledger is unchanged.
    pub fn apply(&mut self, tx: &Tx, time: i64) -> Result<Undo, Refusal> {
        let outcome = self.try_apply(tx, time);
        let undo = Undo {
            balances: std::mem::take(&mut self.balances.replaced),
            nonces: std::mem::take(&mut self.nonces.replaced),
            coins: std::mem::take(&mut self.coins.replaced),
            used: std::mem::take(&mut self.used.replaced),
        };
        if outcome.is_err() {
            self.undo(&undo);
        }
        outcome.map(|()| undo)
    }

    /// Undoes the latest applied transaction.
    pub fn undo(&mut self, undo: &Undo) {
        self.balances.put_back(&undo.balances);
        self.nonces.put_back(&undo.nonces);
        self.coins.put_back(&undo.coins);
        self.used.put_back(&undo.used);
    }

    fn try_apply(&mut self, tx: &Tx, time: i64) -> Result<(), Refusal> {
        let coins = matches!(tx.draft.order, Order::Coins(_));
        if coins != (self.rules.family == Family::Bitcoin) {
            return Err(Refusal::WrongFamily);
        }
        match &tx.draft.order {
            Order::Nonce(nonce) => self.take_nonce(tx.sender(), *nonce)?,
            Order::Until { time: until, .. } => self.take_once(tx.txid, *until, time)?,
            Order::Coins(coins) => return self.apply_coins(tx, coins),
        }
        self.pay(&self.rules.native.clone(), tx.sender(), self.rules.miner, tx.draft.fee)?;
        if tx.draft.reverts {
            return Ok(());
        }
        tx.draft.moves.iter().try_for_each(|m| self.pay(&m.asset, tx.sender(), m.to.key, m.amount))
    }

    fn take_nonce(&mut self, account: AddressKey, nonce: u64) -> Result<(), Refusal> {
        let next = self.next_nonce(account);
        if nonce < next {
            return Err(Refusal::NonceTooLow { next });
        }
        if nonce > next {
            return Err(Refusal::NonceGap { next });
        }
        self.nonces.set(account, Some(next + 1));
        Ok(())
    }

    fn take_once(&mut self, txid: TxId, until: i64, time: i64) -> Result<(), Refusal> {
        if self.rules.family != Family::Tron {
            return Err(Refusal::WrongFamily);
        }
        if self.used.rows.contains_key(&txid) {
            return Err(Refusal::Mined);
        }
        if until < time || until > time.saturating_add(LONGEST_LIFE) {
            return Err(Refusal::BadExpiry);
        }
        self.used.set(txid, Some(until));
        Ok(())
    }

    /// Applies a Bitcoin transaction. Its inputs must equal outputs plus fee, all in the native coin, and it cannot
    /// revert.
    fn apply_coins(&mut self, tx: &Tx, coins: &[OutPoint]) -> Result<(), Refusal> {
        let native = self.rules.native.clone();
        let foreign = tx.draft.moves.iter().any(|m| m.asset != native || m.internal);
        if tx.draft.reverts || foreign || coins.is_empty() {
            return Err(Refusal::WrongFamily);
        }
        let mut inputs = Amount::ZERO;
        for coin in coins {
            let owned = |owner: &AddressKey| self.coins.rows.get(&(*owner, *coin)).map(|amount| (*owner, *amount));
            let (owner, amount) = tx.signers.iter().find_map(owned).ok_or(Refusal::MissingCoin)?;
            self.coins.set((owner, *coin), None);
            self.add(&native, owner, amount, false)?;
            inputs = inputs.checked_add(amount).ok_or(Refusal::InsufficientFunds)?;
        }
        let mut outputs = tx.draft.fee;
        self.add(&native, self.rules.miner, tx.draft.fee, true)?;
        for (index, output) in (0u32..).zip(&tx.draft.moves) {
            outputs = outputs.checked_add(output.amount).ok_or(Refusal::InsufficientFunds)?;
            self.coins.set((output.to.key, OutPoint { txid: tx.txid, index }), Some(output.amount));
            self.add(&native, output.to.key, output.amount, true)?;
        }
        if inputs == outputs { Ok(()) } else { Err(Refusal::InsufficientFunds) }
    }

    fn pay(&mut self, asset: &AssetId, from: AddressKey, to: AddressKey, amount: Amount) -> Result<(), Refusal> {
        if !self.rules.endowment.contains_key(asset) || amount.is_zero() {
            return Ok(());
        }
        self.add(asset, from, amount, false)?;
        self.add(asset, to, amount, true)
    }

    fn add(&mut self, asset: &AssetId, account: AddressKey, amount: Amount, up: bool) -> Result<(), Refusal> {
        let old = self.balance(asset, account);
        let new = if up { old.checked_add(amount) } else { old.checked_sub(amount) };
        self.balances.set((asset.clone(), account), Some(new.ok_or(Refusal::InsufficientFunds)?));
        Ok(())
    }

    fn read(&self, key: &(AssetId, AddressKey), written: Option<Amount>) -> Amount {
        let beginning = || self.rules.endowment.get(&key.0).copied().filter(|_| self.rules.funded.contains(&key.1));
        written.or_else(beginning).unwrap_or(Amount::ZERO)
    }
}
