//! Who owns what on a model chain. Every transaction that is applied can be taken back.
//!
//! Balances are kept for all families, coins for Bitcoin besides. Value is neither made nor lost: the sum over all
//! balances of an asset is the same after every block.

use std::collections::{BTreeMap, BTreeSet};

use chain::{AddressKey, Amount, AssetId, Family, TxId};

use crate::tx::{Order, OutPoint, Tx};

/// How far ahead a transaction may expire, in seconds (as on TRON).
pub const LONGEST_LIFE: i64 = 86_400;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("nonce too low: next is {next}")]
    NonceTooLow { next: u64 },
    /// A node keeps it until the ones before it arrive.
    #[error("nonce too high: next is {next}")]
    NonceGap { next: u64 },
    #[error("missing or spent coin")]
    MissingCoin,
    #[error("insufficient funds")]
    InsufficientFunds,
    #[error("expired or expires too late")]
    BadExpiry,
    #[error("already mined")]
    Mined,
    #[error("not a transaction of this family")]
    WrongFamily,
}

/// What does not change while the chain lives.
#[derive(Debug, Clone)]
pub struct Rules {
    pub family: Family,
    pub native: AssetId,
    /// Takes the fees; nobody has its key.
    pub miner: AddressKey,
    /// Accounts that own something of every asset from the beginning.
    pub funded: BTreeSet<AddressKey>,
    /// Listed assets with what each funded account owns in the beginning. Others are worth nothing and are not counted.
    pub endowment: BTreeMap<AssetId, Amount>,
}

/// A map that remembers what every write replaced.
#[derive(Debug, Clone)]
pub struct Table<K, V> {
    pub rows: BTreeMap<K, V>,
    replaced: Vec<(K, Option<V>)>,
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
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

/// What a transaction replaced, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Undo {
    balances: Vec<((AssetId, AddressKey), Option<Amount>)>,
    nonces: Vec<(AddressKey, Option<u64>)>,
    coins: Vec<(CoinKey, Option<Amount>)>,
    used: Vec<(TxId, Option<i64>)>,
}

impl Undo {
    /// What the balance was before, if it was touched. The inner `None` is the untouched beginning.
    fn balance_before(&self, key: &(AssetId, AddressKey)) -> Option<Option<Amount>> {
        self.balances.iter().find(|(touched, _)| touched == key).map(|(_, old)| *old)
    }
}

#[derive(Debug, Clone)]
pub struct Ledger {
    pub rules: Rules,
    pub balances: Balances,
    pub nonces: Table<AddressKey, u64>,
    /// Unspent outputs by owner.
    pub coins: Table<CoinKey, Amount>,
    /// Mined transactions without a nonce, until they expire.
    pub used: Table<TxId, i64>,
}

impl Ledger {
    /// `birth` names the coins with which funded accounts begin.
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

    pub fn balance(&self, asset: &AssetId, account: AddressKey) -> Amount {
        self.read(&(asset.clone(), account), self.balances.rows.get(&(asset.clone(), account)).copied())
    }

    /// The balance before all of `undos`, which are the latest and come oldest first.
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

    pub fn next_nonce(&self, account: AddressKey) -> u64 {
        self.nonces.rows.get(&account).copied().unwrap_or(0)
    }

    pub fn coins_of(&self, account: AddressKey) -> impl Iterator<Item = (OutPoint, Amount)> + '_ {
        let first = OutPoint { txid: TxId([0; 32]), index: 0 };
        let last = OutPoint { txid: TxId([0xff; 32]), index: u32::MAX };
        self.coins.rows.range((account, first)..=(account, last)).map(|((_, coin), amount)| (*coin, *amount))
    }

    /// Everything that exists of an asset.
    pub fn supply(&self, asset: &AssetId) -> Amount {
        let written = self.balances.rows.iter().filter(|((of, _), _)| of == asset).map(|(_, amount)| *amount);
        let untouched =
            self.rules.funded.iter().filter(|account| !self.balances.rows.contains_key(&(asset.clone(), **account)));
        let each = self.rules.endowment.get(asset).copied().unwrap_or(Amount::ZERO);
        Amount::checked_sum(written.chain(untouched.map(|_| each))).expect("all that exists fits into 256 bits")
    }

    /// Applies a transaction at a block time, or leaves everything as it was.
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

    /// Takes back the latest transaction that is still applied.
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

    /// Inputs equal outputs plus fee; all of it in the native coin, nothing can revert.
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
