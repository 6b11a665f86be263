//! The wallets of the buyers, with real keys and with funds from genesis on. Payments rotate over the wallets, so they
//! come from different senders and rarely depend on each other.

use std::collections::BTreeSet;

use bitcoin::secp256k1::SecretKey;
use chain::{Address, AddressKey, Amount, AssetId, ChainId, Family};
use sha2::{Digest, Sha256};

use crate::{
    address,
    ledger::Ledger,
    tx::{self, Draft, Move, Order, OutPoint, Tx},
};

const BUYERS: u64 = 64;

/// The wallets of the buyers of one chain.
#[derive(Debug)]
pub struct Buyers {
    chain: ChainId,
    family: Family,
    wallets: Vec<Wallet>,
    /// Index of the wallet that pays next.
    turn: usize,
}

struct Wallet {
    secret: SecretKey,
    address: Address,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

impl Buyers {
    /// Returns 64 wallets whose keys follow from the chain and the seed, so that the same seed gives the same
    /// addresses.
    pub fn new(chain: &ChainId, family: Family, seed: u64) -> Buyers {
        let wallet = |index: u64| {
            let bytes = secret_bytes(chain, seed, index);
            let secret = SecretKey::from_slice(&bytes).expect("all but 2^-128 of all hashes are keys");
            Wallet { address: address::of_key(family, &tx::public_key(&secret)), secret }
        };
        Buyers { chain: chain.clone(), family, wallets: (0..BUYERS).map(wallet).collect(), turn: 0 }
    }

    /// Returns the accounts of all wallets, which the ledger funds at genesis.
    pub fn accounts(&self) -> BTreeSet<AddressKey> {
        self.wallets.iter().map(|wallet| wallet.address.key).collect()
    }

    /// Returns a signed payment from the next wallet with sufficient funds, or `None` if no wallet has them.
    pub fn pay(&mut self, ledger: &Ledger, moves: Vec<Move>, reverts: bool) -> Option<Tx> {
        let count = self.wallets.len();
        let (turn, order, moves) = (0..count).find_map(|ahead| {
            let turn = (self.turn + ahead) % count;
            let (order, moves) = order(ledger, &self.wallets[turn].address, &moves)?;
            Some((turn, order, moves))
        })?;
        self.turn = (turn + 1) % count;
        let draft = Draft { chain: self.chain.clone(), order, moves, fee: Amount::ZERO, reverts };
        Some(draft.sign(self.family, &[self.wallets[turn].secret]))
    }

    /// Returns a conflicting transaction of the wallet that sent `paid`, in which the wallet sends the money to itself.
    /// Returns `None` when the sender of `paid` is not a buyer.
    pub fn take_back(&self, ledger: &Ledger, paid: &Tx) -> Option<Tx> {
        let wallet = self.wallets.iter().find(|wallet| wallet.address.key == paid.sender())?;
        let amount = match &paid.draft.order {
            Order::Coins(_) => Amount::checked_sum(paid.draft.moves.iter().map(|m| m.amount))?,
            Order::Nonce(_) | Order::Until { .. } => Amount::ZERO,
        };
        let back = Move { asset: ledger.rules.native.clone(), to: wallet.address.clone(), amount, internal: false };
        let draft = Draft { moves: vec![back], reverts: false, ..paid.draft.clone() };
        Some(draft.sign(self.family, &[wallet.secret]))
    }
}

/// Returns the order and the moves with which the wallet can pay all of `moves`: the next nonce, or unspent outputs and
/// an additional output for the change. Returns `None` when its funds are insufficient.
fn order(ledger: &Ledger, payer: &Address, moves: &[Move]) -> Option<(Order, Vec<Move>)> {
    let total = |asset: &AssetId| Amount::checked_sum(moves.iter().filter(|m| m.asset == *asset).map(|m| m.amount));
    if ledger.rules.family != Family::Bitcoin {
        let listed = moves.iter().map(|m| &m.asset).filter(|asset| ledger.rules.endowment.contains_key(asset));
        for asset in listed {
            ledger.balance(asset, payer.key).checked_sub(total(asset)?)?;
        }
        return Some((Order::Nonce(ledger.next_nonce(payer.key)), moves.to_vec()));
    }
    let due = total(&ledger.rules.native)?;
    let mut coins: Vec<OutPoint> = Vec::new();
    let mut found = Amount::ZERO;
    for (coin, amount) in ledger.coins_of(payer.key) {
        coins.push(coin);
        found = found.checked_add(amount)?;
        if found >= due {
            break;
        }
    }
    let change = found.checked_sub(due)?;
    let mut moves = moves.to_vec();
    if !change.is_zero() {
        moves.push(Move { asset: ledger.rules.native.clone(), to: payer.clone(), amount: change, internal: false });
    }
    Some((Order::Coins(coins), moves))
}

/// Returns the account that receives the fees. It is a hash without a known key, so nothing is ever spent from it.
pub fn miner(chain: &ChainId, seed: u64) -> AddressKey {
    AddressKey(secret_bytes(chain, seed, u64::MAX)[..20].try_into().expect("20 of 32 bytes"))
}

fn secret_bytes(chain: &ChainId, seed: u64, index: u64) -> [u8; 32] {
    let hash = Sha256::new().chain_update("simnet key").chain_update(chain.as_str());
    hash.chain_update(seed.to_be_bytes()).chain_update(index.to_be_bytes()).finalize().into()
}
