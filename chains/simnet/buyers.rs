//! The wallets of the simulated buyers, and payments from them. The wallets have real keys, and own funds from the
//! genesis block on. They take turns, so that payments come from different senders and rarely depend on each other.

use std::collections::BTreeSet;

use bitcoin::secp256k1::SecretKey;
use chain::{Address, AddressKey, Amount, AssetId, AssetKind, BroadcastOutcome, ChainId, Family, OutPoint, TxId};
use sha2::{Digest, Sha256};

use crate::{
    Simnet, address,
    chain_state::ChainState,
    model_chain::ModelChain,
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
    /// Returns the wallets of a chain. Their keys are derived from the name of the chain and the seed, so the same seed
    /// gives the same addresses.
    pub fn from_seed(chain: &ChainId, family: Family, seed: u64) -> Buyers {
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
    pub fn list_wallet_accounts(&self) -> BTreeSet<AddressKey> {
        self.wallets.iter().map(|wallet| wallet.address.key).collect()
    }

    /// Returns a signed payment from the next wallet with sufficient funds, and lets the wallet after it pay next time.
    /// Returns `None` when no wallet has sufficient funds.
    pub fn sign_payment_from_next_funded_wallet(
        &mut self,
        state: &ChainState,
        moves: Vec<Move>,
        reverts: bool,
    ) -> Option<SignedTx> {
        let count = self.wallets.len();
        let (turn, replay_protection, moves) = (0..count).find_map(|ahead| {
            let turn = (self.next_wallet + ahead) % count;
            let (replay_protection, moves) =
                choose_nonce_or_coins_and_add_change(state, &self.wallets[turn].address, &moves)?;
            Some((turn, replay_protection, moves))
        })?;
        self.next_wallet = (turn + 1) % count;
        let draft = TxDraft { chain: self.chain.clone(), replay_protection, moves, fee: Amount::ZERO, reverts };
        Some(draft.sign(self.family, &[self.wallets[turn].secret]))
    }

    /// Returns a transaction that conflicts with `paid`: the buyer who sent `paid` pays the money back to itself.
    /// Returns `None` when the sender is not a buyer.
    pub fn sign_double_spend_if_by_buyer(&self, state: &ChainState, paid: &SignedTx) -> Option<SignedTx> {
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

/// Returns the nonce with which `payer` can make these moves or, on Bitcoin, the coins that pay for them. Also returns
/// the moves, on Bitcoin with an added output for the change. Returns `None` when the funds of `payer` are
/// insufficient.
fn choose_nonce_or_coins_and_add_change(
    state: &ChainState,
    payer: &Address,
    moves: &[Move],
) -> Option<(ReplayProtection, Vec<Move>)> {
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

/// Returns the SHA-256 hash of the chain, the seed and the index of the wallet. Equal arguments give equal bytes.
fn derive_secret_bytes(chain: &ChainId, seed: u64, index: u64) -> [u8; 32] {
    let hash = Sha256::new().chain_update("simnet key").chain_update(chain.as_str());
    hash.chain_update(seed.to_be_bytes()).chain_update(index.to_be_bytes()).finalize().into()
}

/// The reason for which a buyer cannot pay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    /// The set of model chains has no chain with this name.
    #[error("there is no model chain {0}")]
    UnknownChain(ChainId),
    /// The chain does not list this asset, so buyers cannot pay with it.
    #[error("{0} is not listed")]
    UnknownAsset(AssetId),
    /// The recipient is not an address of the chain's family.
    #[error(transparent)]
    InvalidAddress(#[from] address::InvalidAddress),
    /// No buyer's wallet has sufficient funds.
    #[error("no buyer has that much")]
    InsufficientFunds,
    /// The chain's family has no payments of the requested kind.
    #[error("the family has no such payment")]
    Unsupported,
    /// The node rejected the transaction for this reason, or its outcome is unknown.
    #[error("the node rejects the transaction: {0}")]
    Rejected(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PaymentKind {
    Plain,
    Internal,
    Reverting,
    Unlisted,
}

impl Simnet {
    /// Sends a payment from a buyer's wallet. The payment is in the mempool until a block is mined.
    ///
    /// # Errors
    /// See [`PayError`].
    pub fn pay(&self, chain: &ChainId, asset: &AssetId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        self.pay_many(chain, vec![(asset.clone(), to.to_owned(), amount)])
    }

    /// Sends several payments in one transaction. On account-based chains, the transaction itself carries the first
    /// native payment; further native payments are internal transfers, like those of a contract that distributes money.
    ///
    /// # Errors
    /// See [`PayError`].
    pub fn pay_many(&self, chain: &ChainId, payments: Vec<(AssetId, String, Amount)>) -> Result<TxId, PayError> {
        self.send_payment(chain, payments, PaymentKind::Plain)
    }

    /// Sends the native coin from a contract inside a transaction.
    ///
    /// # Errors
    /// See [`PayError`]; [`PayError::Unsupported`] on Bitcoin.
    pub fn pay_from_contract(&self, chain: &ChainId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        self.send_payment(
            chain,
            vec![(AssetId::on_chain(chain, &AssetKind::Native), to.to_owned(), amount)],
            PaymentKind::Internal,
        )
    }

    /// Sends a payment whose transaction reverts: a block includes it, but it moves no money.
    ///
    /// # Errors
    /// See [`PayError`]; [`PayError::Unsupported`] on Bitcoin.
    pub fn pay_reverting(&self, chain: &ChainId, asset: &AssetId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        self.send_payment(chain, vec![(asset.clone(), to.to_owned(), amount)], PaymentKind::Reverting)
    }

    /// Sends a transfer of amount zero, as in address poisoning attacks.
    ///
    /// # Errors
    /// See [`PayError`].
    pub fn pay_zero(&self, chain: &ChainId, asset: &AssetId, to: &str) -> Result<TxId, PayError> {
        self.pay(chain, asset, to, Amount::ZERO)
    }

    /// Sends a transfer of an unlisted token, like a fake token that copies the symbol of a listed one.
    ///
    /// # Errors
    /// See [`PayError`]; [`PayError::Unsupported`] on Bitcoin.
    pub fn pay_fake_token(&self, chain: &ChainId, to: &str, amount: Amount) -> Result<TxId, PayError> {
        let account = AddressKey([0xfa; 20]);
        let contract = match self.find_family(chain)? {
            Family::Bitcoin => return Err(PayError::Unsupported),
            Family::Evm => chain::address::encode_evm_address(account).text,
            Family::Tron => chain::address::encode_tron_address(account).text,
        };
        let fake = AssetId::on_chain(chain, &AssetKind::Token { contract });
        self.send_payment(chain, vec![(fake, to.to_owned(), amount)], PaymentKind::Unlisted)
    }

    fn send_payment(
        &self,
        chain: &ChainId,
        payments: Vec<(AssetId, String, Amount)>,
        kind: PaymentKind,
    ) -> Result<TxId, PayError> {
        let family = self.find_family(chain)?;
        if family == Family::Bitcoin && matches!(kind, PaymentKind::Internal | PaymentKind::Reverting) {
            return Err(PayError::Unsupported);
        }
        let mut model = self.lock_model(chain);
        let mut moves = Vec::new();
        for (asset, to, amount) in payments {
            let to: Address = address::parse_address(family, &to)?;
            if kind != PaymentKind::Unlisted && !model.state.rules.endowment.contains_key(&asset) {
                return Err(PayError::UnknownAsset(asset));
            }
            moves.push(Move { asset, to, amount, internal: kind == PaymentKind::Internal });
        }
        let ModelChain { buyers, state, .. } = &mut *model;
        let tx = buyers
            .sign_payment_from_next_funded_wallet(state, moves, kind == PaymentKind::Reverting)
            .ok_or(PayError::InsufficientFunds)?;
        match model.verify_and_add_to_mempool(tx.raw().as_bytes()) {
            BroadcastOutcome::Accepted | BroadcastOutcome::AlreadyKnown => Ok(tx.txid),
            BroadcastOutcome::Rejected(reason) | BroadcastOutcome::Unknown(reason) => Err(PayError::Rejected(reason)),
        }
    }

    /// Returns the family of a chain of the set.
    pub fn find_family(&self, chain: &ChainId) -> Result<Family, PayError> {
        let node = self.nodes.get(chain).ok_or_else(|| PayError::UnknownChain(chain.clone()))?;
        Ok(node.lock_model().spec.family)
    }
}
