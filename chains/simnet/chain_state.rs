//! The state of a model chain: balances, nonces and coins. Every applied transaction can be undone.
//!
//! Balances are stored for all families. For Bitcoin, coins (unspent outputs) are stored too. Transactions neither
//! create nor destroy value: the sum over all balances of an asset is the same after every block.

use std::collections::{BTreeMap, BTreeSet};

use chain::{AddressKey, Amount, AssetId, Family, OutPoint, TxId};

use crate::transaction::{ReplayProtection, SignedTx};

/// The maximum time between a block and the expiry of a transaction in it, in seconds (as on TRON).
pub const EXPIRY_SECONDS_MAX: i64 = 86_400;

/// The reason why a transaction cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxRejection {
    /// A transaction with this nonce was already applied. `next` is the nonce that the account must use next.
    #[error("nonce too low: next is {next}")]
    NonceTooLow { next: u64 },
    /// The nonce is too high: transactions with lower nonces are missing. A node keeps the transaction until they
    /// arrive. `next` is the lowest missing nonce.
    #[error("nonce too high: next is {next}")]
    NonceGap { next: u64 },
    /// An input is already spent, does not exist, or belongs to an account that did not sign.
    #[error("missing or spent coin")]
    MissingCoin,
    /// The balance does not cover amounts and fee, or the inputs of a Bitcoin transaction differ from outputs plus fee.
    #[error("insufficient funds")]
    InsufficientFunds,
    /// The expiry is before the block time, or more than [`EXPIRY_SECONDS_MAX`] after it.
    #[error("expired or expires too late")]
    BadExpiry,
    /// The same transaction was already applied.
    #[error("already mined")]
    Mined,
    /// The chain's family has no transactions of this kind.
    #[error("not a transaction of this family")]
    WrongFamily,
}

/// The facts about a chain that never change.
#[derive(Debug, Clone)]
pub struct ChainRules {
    /// The family, which decides the form of transactions.
    pub family: Family,
    /// The native coin, in which fees are paid.
    pub native: AssetId,
    /// The account that receives the fees. No secret key for it is known.
    pub miner: AddressKey,
    /// Accounts that own an amount of every listed asset from the genesis block on.
    pub funded: BTreeSet<AddressKey>,
    /// The listed assets, with the initial balance of each funded account. Balances of other assets are not stored.
    pub endowment: BTreeMap<AssetId, Amount>,
}

/// A map that records the old value at every change, so that the change can be undone.
#[derive(Debug, Clone)]
pub struct ReversibleMap<K, V> {
    /// The current keys and values.
    pub rows: BTreeMap<K, V>,
    replaced: Vec<(K, Option<V>)>,
}

impl<K: Ord + Clone, V: Clone> ReversibleMap<K, V> {
    /// Returns a map with these initial rows. No undo can remove them, because no change is recorded for them.
    pub fn new(rows: BTreeMap<K, V>) -> ReversibleMap<K, V> {
        ReversibleMap { rows, replaced: Vec::new() }
    }

    /// Sets or, with `None`, removes a row, and records the value that the write replaced.
    fn set_row_and_record_old(&mut self, key: K, value: Option<V>) {
        let old = match value {
            Some(value) => self.rows.insert(key.clone(), value),
            None => self.rows.remove(&key),
        };
        self.replaced.push((key, old));
    }

    /// Restores the values that writes replaced, in reverse order of the writes.
    fn restore_old_rows(&mut self, replaced: &[(K, Option<V>)]) {
        for (key, old) in replaced.iter().rev() {
            match old {
                Some(old) => self.rows.insert(key.clone(), old.clone()),
                None => self.rows.remove(key),
            };
        }
    }
}

type Balances = ReversibleMap<(AssetId, AddressKey), Amount>;
type CoinKey = (AddressKey, OutPoint);

/// The values in the chain state that one transaction replaced, oldest first. With them, the transaction can be undone.
#[derive(Debug, Clone, Default)]
pub struct Undo {
    balances: Vec<((AssetId, AddressKey), Option<Amount>)>,
    nonces: Vec<(AddressKey, Option<u64>)>,
    coins: Vec<(CoinKey, Option<Amount>)>,
    used: Vec<(TxId, Option<i64>)>,
}

impl Undo {
    /// Returns the balance before the transaction, or `None` when the transaction did not change the balance.
    /// `Some(None)` means the initial balance.
    fn balance_before(&self, key: &(AssetId, AddressKey)) -> Option<Option<Amount>> {
        self.balances.iter().find(|(touched, _)| touched == key).map(|(_, old)| *old)
    }
}

/// Balances, nonces and coins after the applied transactions.
#[derive(Debug, Clone)]
pub struct ChainState {
    /// The facts about the chain that never change.
    pub rules: ChainRules,
    /// The balances that were changed at least once. An account that is not in this map has its initial balance, or
    /// zero if it had none.
    pub balances: Balances,
    /// The next nonce of each account. An account that is not in this map has the next nonce 0.
    pub nonces: ReversibleMap<AddressKey, u64>,
    /// Unspent outputs with their amounts, ordered by owner.
    pub coins: ReversibleMap<CoinKey, Amount>,
    /// The applied TRON transactions that have an expiry instead of a nonce, each with this expiry in Unix seconds.
    /// They must not be applied again.
    pub used: ReversibleMap<TxId, i64>,
}

impl ChainState {
    /// Returns the state at genesis. `genesis_txid` is the transaction id of the coins that funded accounts own at
    /// genesis.
    pub fn at_genesis(rules: ChainRules, genesis_txid: TxId) -> ChainState {
        let mut coins = BTreeMap::new();
        if rules.family == Family::Bitcoin {
            let each = rules.endowment.get(&rules.native).copied().unwrap_or(Amount::ZERO);
            for (vout, account) in (0u32..).zip(&rules.funded) {
                coins.insert((*account, OutPoint { txid: genesis_txid, vout }), each);
            }
        }
        ChainState {
            rules,
            balances: ReversibleMap::new(BTreeMap::new()),
            nonces: ReversibleMap::new(BTreeMap::new()),
            coins: ReversibleMap::new(coins),
            used: ReversibleMap::new(BTreeMap::new()),
        }
    }

    /// Returns the balance after all applied transactions, in base units; zero for an asset that is not listed.
    pub fn balance(&self, asset: &AssetId, account: AddressKey) -> Amount {
        self.balance_or_initial(&(asset.clone(), account), self.balances.rows.get(&(asset.clone(), account)).copied())
    }

    /// Returns the balance before the transactions that `undos` can undo. These must be the latest applied
    /// transactions, oldest first.
    pub fn balance_before<'a>(
        &self,
        asset: &AssetId,
        account: AddressKey,
        undos: impl IntoIterator<Item = &'a Undo>,
    ) -> Amount {
        let key = (asset.clone(), account);
        match undos.into_iter().find_map(|undo| undo.balance_before(&key)) {
            Some(old) => self.balance_or_initial(&key, old),
            None => self.balance(asset, account),
        }
    }

    /// Returns the nonce of the account's next transaction, from 0.
    pub fn next_nonce(&self, account: AddressKey) -> u64 {
        self.nonces.rows.get(&account).copied().unwrap_or(0)
    }

    /// Returns the unspent outputs of an account with their amounts, ordered by transaction id and index.
    pub fn list_coins(&self, account: AddressKey) -> impl Iterator<Item = (OutPoint, Amount)> + '_ {
        let first = OutPoint { txid: TxId([0; 32]), vout: 0 };
        let last = OutPoint { txid: TxId([0xff; 32]), vout: u32::MAX };
        self.coins.rows.range((account, first)..=(account, last)).map(|((_, coin), amount)| (*coin, *amount))
    }

    /// Returns the sum of all balances of an asset.
    pub fn sum_balances(&self, asset: &AssetId) -> Amount {
        let written = self.balances.rows.iter().filter(|((of, _), _)| of == asset).map(|(_, amount)| *amount);
        let untouched =
            self.rules.funded.iter().filter(|account| !self.balances.rows.contains_key(&(asset.clone(), **account)));
        let each = self.rules.endowment.get(asset).copied().unwrap_or(Amount::ZERO);
        Amount::checked_sum(written.chain(untouched.map(|_| each))).expect("the supply fits into 256 bits")
    }

    /// Applies a transaction at a block time (unix seconds). After an error the state is unchanged.
    pub fn apply_transaction_or_roll_back(&mut self, tx: &SignedTx, time: i64) -> Result<Undo, TxRejection> {
        let outcome = self.apply_transaction_without_rollback(tx, time);
        let undo = Undo {
            balances: std::mem::take(&mut self.balances.replaced),
            nonces: std::mem::take(&mut self.nonces.replaced),
            coins: std::mem::take(&mut self.coins.replaced),
            used: std::mem::take(&mut self.used.replaced),
        };
        if outcome.is_err() {
            self.undo_transaction(&undo);
        }
        outcome.map(|()| undo)
    }

    /// Undoes a transaction. It must be the latest applied transaction, and `undo` must contain the values that it
    /// replaced.
    pub fn undo_transaction(&mut self, undo: &Undo) {
        self.balances.restore_old_rows(&undo.balances);
        self.nonces.restore_old_rows(&undo.nonces);
        self.coins.restore_old_rows(&undo.coins);
        self.used.restore_old_rows(&undo.used);
    }

    fn apply_transaction_without_rollback(&mut self, tx: &SignedTx, time: i64) -> Result<(), TxRejection> {
        let spends_coins = matches!(tx.draft.replay_protection, ReplayProtection::Inputs(_));
        if spends_coins != (self.rules.family == Family::Bitcoin) {
            return Err(TxRejection::WrongFamily);
        }
        match &tx.draft.replay_protection {
            ReplayProtection::Nonce(nonce) => self.use_next_nonce(tx.sender(), *nonce)?,
            ReplayProtection::Expiry { time: until, .. } => self.use_unexpired_txid_once(tx.txid, *until, time)?,
            ReplayProtection::Inputs(coins) => return self.apply_bitcoin_transaction(tx, coins),
        }
        self.move_listed_asset(&self.rules.native.clone(), tx.sender(), self.rules.miner, tx.draft.fee)?;
        if tx.draft.reverts {
            return Ok(());
        }
        tx.draft.moves.iter().try_for_each(|m| self.move_listed_asset(&m.asset, tx.sender(), m.to.key, m.amount))
    }

    /// Increases the nonce of an account by one. Fails when `nonce` is not the next nonce of the account.
    fn use_next_nonce(&mut self, account: AddressKey, nonce: u64) -> Result<(), TxRejection> {
        let next = self.next_nonce(account);
        if nonce < next {
            return Err(TxRejection::NonceTooLow { next });
        }
        if nonce > next {
            return Err(TxRejection::NonceGap { next });
        }
        self.nonces.set_row_and_record_old(account, Some(next + 1));
        Ok(())
    }

    /// Marks a TRON transaction as used, so that it cannot be applied again. Fails when it was used before, when its
    /// expiry `until` is before the block time `time`, or when it is more than [`EXPIRY_SECONDS_MAX`] after that time.
    fn use_unexpired_txid_once(&mut self, txid: TxId, until: i64, time: i64) -> Result<(), TxRejection> {
        if self.rules.family != Family::Tron {
            return Err(TxRejection::WrongFamily);
        }
        if self.used.rows.contains_key(&txid) {
            return Err(TxRejection::Mined);
        }
        if until < time || until > time.saturating_add(EXPIRY_SECONDS_MAX) {
            return Err(TxRejection::BadExpiry);
        }
        self.used.set_row_and_record_old(txid, Some(until));
        Ok(())
    }

    /// Applies a Bitcoin transaction, which spends `coins`. Fails unless its inputs equal its outputs plus the fee, all
    /// in the native coin. A Bitcoin transaction cannot revert.
    fn apply_bitcoin_transaction(&mut self, tx: &SignedTx, coins: &[OutPoint]) -> Result<(), TxRejection> {
        let native = self.rules.native.clone();
        let foreign = tx.draft.moves.iter().any(|m| m.asset != native || m.internal);
        if tx.draft.reverts || foreign || coins.is_empty() {
            return Err(TxRejection::WrongFamily);
        }
        let mut inputs = Amount::ZERO;
        for coin in coins {
            let owned = |owner: &AddressKey| self.coins.rows.get(&(*owner, *coin)).map(|amount| (*owner, *amount));
            let (owner, amount) = tx.signers.iter().find_map(owned).ok_or(TxRejection::MissingCoin)?;
            self.coins.set_row_and_record_old((owner, *coin), None);
            self.credit_or_debit(&native, owner, amount, false)?;
            inputs = inputs.checked_add(amount).ok_or(TxRejection::InsufficientFunds)?;
        }
        let mut outputs = tx.draft.fee;
        self.credit_or_debit(&native, self.rules.miner, tx.draft.fee, true)?;
        for (vout, output) in (0u32..).zip(&tx.draft.moves) {
            outputs = outputs.checked_add(output.amount).ok_or(TxRejection::InsufficientFunds)?;
            self.coins.set_row_and_record_old((output.to.key, OutPoint { txid: tx.txid, vout }), Some(output.amount));
            self.credit_or_debit(&native, output.to.key, output.amount, true)?;
        }
        if inputs == outputs { Ok(()) } else { Err(TxRejection::InsufficientFunds) }
    }

    /// Moves an amount of a listed asset between two balances. Does nothing for an asset that is not listed.
    fn move_listed_asset(
        &mut self,
        asset: &AssetId,
        from: AddressKey,
        to: AddressKey,
        amount: Amount,
    ) -> Result<(), TxRejection> {
        if !self.rules.endowment.contains_key(asset) || amount.is_zero() {
            return Ok(());
        }
        self.credit_or_debit(asset, from, amount, false)?;
        self.credit_or_debit(asset, to, amount, true)
    }

    fn credit_or_debit(
        &mut self,
        asset: &AssetId,
        account: AddressKey,
        amount: Amount,
        is_credit: bool,
    ) -> Result<(), TxRejection> {
        let old = self.balance(asset, account);
        let new = if is_credit { old.checked_add(amount) } else { old.checked_sub(amount) };
        self.balances
            .set_row_and_record_old((asset.clone(), account), Some(new.ok_or(TxRejection::InsufficientFunds)?));
        Ok(())
    }

    fn balance_or_initial(&self, key: &(AssetId, AddressKey), written: Option<Amount>) -> Amount {
        let initial = || self.rules.endowment.get(&key.0).copied().filter(|_| self.rules.funded.contains(&key.1));
        written.or_else(initial).unwrap_or(Amount::ZERO)
    }
}
