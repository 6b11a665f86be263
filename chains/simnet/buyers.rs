//! The wallets of the buyers, with real keys and with funds from genesis on. Payments rotate over the wallets, so that
//! they come from different senders and rarely depend on each other.

use std::collections::BTreeSet;

use bitcoin::secp256k1::SecretKey;
use chain::{Address, AddressKey, Amount, AssetId, ChainId, Family, OutPoint};
use sha2::{Digest, Sha256};

use crate::{
    address,
    chain_state::ChainState,
    transaction::{self, Move, ReplayProtection, SignedTx, TxDraft},
};

/// The number of buyers' wallets.
const BUYERS: u64 = 64;

/// All buyers' wallets of one chain.
#[derive(Debug)]
pub struct Buyers {
    chain: ChainId,
    family: Family,
    wallets: Vec<Wallet>,
    /// The index of the wallet that pays next if its funds are sufficient.
    next_wallet: usize,
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
    /// Returns the wallets whose keys follow from the chain and the seed. The same seed gives the same addresses.
    pub fn new(chain: &ChainId, family: Family, seed: u64) -> Buyers {
        let wallet = |index: u64| {
            let bytes = derive_secret_bytes(chain, seed, index);
            let secret = SecretKey::from_slice(&bytes).expect("a hash is a valid key except with probability 2^-128");
            Wallet {
                address: address::address_from_public_key(family, &transaction::derive_public_key(&secret)),
                secret,
            }
        };
        Buyers { chain: chain.clone(), family, wallets: (0..BUYERS).map(wallet).collect(), next_wallet: 0 }
    }

    /// Returns the accounts of all wallets, which are funded at genesis.
    pub fn list_accounts(&self) -> BTreeSet<AddressKey> {
        self.wallets.iter().map(|wallet| wallet.address.key).collect()
    }

    /// Returns a signed payment from the next wallet with sufficient funds; `None` when no wallet has them.
    pub fn sign_payment(&mut self, state: &ChainState, moves: Vec<Move>, reverts: bool) -> Option<SignedTx> {
        let count = self.wallets.len();
        let (turn, replay_protection, moves) = (0..count).find_map(|ahead| {
            let turn = (self.next_wallet + ahead) % count;
            let (replay_protection, moves) = plan_payment(state, &self.wallets[turn].address, &moves)?;
            Some((turn, replay_protection, moves))
        })?;
        self.next_wallet = (turn + 1) % count;
        let draft = TxDraft { chain: self.chain.clone(), replay_protection, moves, fee: Amount::ZERO, reverts };
        Some(draft.sign(self.family, &[self.wallets[turn].secret]))
    }

    /// Returns a transaction that conflicts with `paid`, in which the sender of `paid` pays the money to itself.
    /// Returns `None` when the sender is not a buyer.
    pub fn sign_double_spend(&self, state: &ChainState, paid: &SignedTx) -> Option<SignedTx> {
        let wallet = self.wallets.iter().find(|wallet| wallet.address.key == paid.sender())?;
        let amount = match &paid.draft.replay_protection {
            ReplayProtection::Inputs(_) => Amount::checked_sum(paid.draft.moves.iter().map(|m| m.amount))?,
            ReplayProtection::Nonce(_) | ReplayProtection::Expiry { .. } => Amount::ZERO,
        };
        let back = Move { asset: state.rules.native.clone(), to: wallet.address.clone(), amount, internal: false };
        let draft = TxDraft { moves: vec![back], reverts: false, ..paid.draft.clone() };
        Some(draft.sign(self.family, &[wallet.secret]))
    }
}

/// Returns the nonce or inputs with which the wallet can make these moves, and the moves with an added output for the
/// change. Returns `None` when the funds are insufficient.
fn plan_payment(state: &ChainState, payer: &Address, moves: &[Move]) -> Option<(ReplayProtection, Vec<Move>)> {
    let total = |asset: &AssetId| Amount::checked_sum(moves.iter().filter(|m| m.asset == *asset).map(|m| m.amount));
    if state.rules.family != Family::Bitcoin {
        let listed = moves.iter().map(|m| &m.asset).filter(|asset| state.rules.endowment.contains_key(asset));
        for asset in listed {
            state.balance(asset, payer.key).checked_sub(total(asset)?)?;
        }
        return Some((ReplayProtection::Nonce(state.next_nonce(payer.key)), moves.to_vec()));
    }
    let due = total(&state.rules.native)?;
    let mut coins: Vec<OutPoint> = Vec::new();
    let mut found = Amount::ZERO;
    for (coin, amount) in state.list_coins(payer.key) {
        coins.push(coin);
        found = found.checked_add(amount)?;
        if found >= due {
            break;
        }
    }
    let change = found.checked_sub(due)?;
    let mut moves = moves.to_vec();
    if !change.is_zero() {
        moves.push(Move { asset: state.rules.native.clone(), to: payer.clone(), amount: change, internal: false });
    }
    Some((ReplayProtection::Inputs(coins), moves))
}

/// Returns the account that receives the fees. It is a hash for which no secret key is known.
pub fn derive_miner_account(chain: &ChainId, seed: u64) -> AddressKey {
    AddressKey(derive_secret_bytes(chain, seed, u64::MAX)[..20].try_into().expect("20 of 32 bytes"))
}

fn derive_secret_bytes(chain: &ChainId, seed: u64, index: u64) -> [u8; 32] {
    let hash = Sha256::new().chain_update("simnet key").chain_update(chain.as_str());
    hash.chain_update(seed.to_be_bytes()).chain_update(index.to_be_bytes()).finalize().into()
}
