//! The buyers' wallets: real keys, funded from the beginning. Payments rotate over them, so they come from different
//! senders and rarely depend on each other.

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

#[derive(Debug)]
pub struct Buyers {
    chain: ChainId,
    family: Family,
    wallets: Vec<Wallet>,
    /// Whose turn it is.
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
    pub fn new(chain: &ChainId, family: Family, seed: u64) -> Buyers {
        let wallet = |index: u64| {
            let bytes = secret_bytes(chain, seed, index);
            let secret = SecretKey::from_slice(&bytes).expect("all but 2^-128 of all hashes are keys");
            Wallet { address: address::of_key(family, &tx::public_key(&secret)), secret }
        };
        Buyers { chain: chain.clone(), family, wallets: (0..BUYERS).map(wallet).collect(), turn: 0 }
    }

    pub fn accounts(&self) -> BTreeSet<AddressKey> {
        self.wallets.iter().map(|wallet| wallet.address.key).collect()
    }

    /// A signed payment from the next wallet that has enough, or `None`.
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

    /// The same wallet's transaction that takes the place of `paid` and gives the money back to itself; `None` when
    /// it was not a buyer who paid.
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

/// How that wallet can pay all of it: the next nonce, or enough coins with an output for the change.
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

/// Takes the fees. A hash and no key: what is there stays there.
pub fn miner(chain: &ChainId, seed: u64) -> AddressKey {
    AddressKey(secret_bytes(chain, seed, u64::MAX)[..20].try_into().expect("20 of 32 bytes"))
}

fn secret_bytes(chain: &ChainId, seed: u64, index: u64) -> [u8; 32] {
    let hash = Sha256::new().chain_update("simnet key").chain_update(chain.as_str());
    hash.chain_update(seed.to_be_bytes()).chain_update(index.to_be_bytes()).finalize().into()
}
