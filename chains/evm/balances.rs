//! What addresses hold after a block. A rise becomes money, so nobody is believed alone.
//!
//! Coins are proven by the state root in the block's own header. Tokens keep their balances where each contract likes, which
//! no proof can show in general: what is not zero there counts only if two endpoints tell it alike.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{MutexGuard, atomic::Ordering},
};

use alloy_primitives::{B256, Bytes, keccak256};
use alloy_trie::{Nibbles, TrieAccount, proof::verify_proof};
use chain::{Address, Amount, AssetKind, BlockRef, Height, SourceError};
use futures_util::{StreamExt, TryStreamExt, stream};
use rpc::{Answer, RefusalKind, Rejection, Reply, RpcError};
use ruint::aliases::U256;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tracing::warn;

use crate::{Evm, block, hex};

/// Balances asked for in one batch.
const BALANCES_MAX: usize = 100;
/// Proofs in one batch; each has some kilobytes.
const PROOFS_MAX: usize = 50;
/// Second opinions that are under way at once.
const CONCURRENCY: usize = 3;
/// `balanceOf(address)`
const BALANCE_CALL: &str = "0x70a08231";
/// The hash of no block.
const NO_BLOCK: B256 = B256::repeat_byte(0x5e);

/// What is remembered between questions.
#[derive(Debug, Default)]
pub struct Memory {
    /// The block whose state root was read last.
    state: Option<(B256, B256)>,
    /// Whether endpoints answer for the block that is named rather than for their newest one.
    heeds_hashes: HashMap<usize, bool>,
}

/// The account's part of an answer to `eth_getProof` (EIP-1186).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Proof<'a> {
    account_proof: Vec<Bytes>,
    balance: &'a str,
    nonce: &'a str,
    storage_hash: B256,
    code_hash: B256,
}

/// What is proven of an address.
#[derive(Debug, Clone, Copy)]
struct Account {
    nonce: u64,
    balance: Amount,
}

impl Evm {
    /// Balances after exactly that block, in the order asked.
    pub(crate) async fn read_balances(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        if *asset == AssetKind::Native
            && self.config.verify.header
            && let Some(proven) = self.proven(at, addresses).await?
        {
            return Ok(proven.into_iter().map(|account| account.balance).collect());
        }
        self.balances_by_two(at, asset, addresses).await
    }

    /// Which addresses cannot have got so much in the block at `at`, after `parent`. What nobody proves contradicts nothing,
    /// and who sent something in between may have less.
    pub(crate) async fn contradicted(&self, parent: &BlockRef, at: &BlockRef, got: &[(Address, Amount)]) -> Vec<bool> {
        let addresses: Vec<Address> = got.iter().map(|(address, _)| address.clone()).collect();
        let Ok(Some(after)) = self.proven(at, &addresses).await else { return vec![false; got.len()] };
        let Ok(Some(before)) = self.proven(parent, &addresses).await else {
            // States are forgotten from the oldest on. Who never sent anything has at least what it got.
            let short = |((_, sum), after): (&(Address, Amount), &Account)| after.nonce == 0 && after.balance < *sum;
            return got.iter().zip(&after).map(short).collect();
        };
        let short = |((_, sum), (before, after)): (&(Address, Amount), (&Account, &Account))| {
            let least = before.balance.checked_add(*sum);
            before.nonce == after.nonce && least.is_none_or(|least| after.balance < least)
        };
        got.iter().zip(before.iter().zip(&after)).map(short).collect()
    }

    /// `None` where no endpoint proves accounts of that block.
    async fn proven(&self, at: &BlockRef, addresses: &[Address]) -> Result<Option<Vec<Account>>, SourceError> {
        let root = self.state_root(at).await?;
        let block = named(at);
        let params: Vec<Value> = addresses.iter().map(|address| json!([address.text, [], block])).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let proof: Proof<'_> = reply.result()?;
            let account = proof.account(&addresses[i], root).ok_or_else(|| {
                Rejection::Wrong(format!(
                    "the balance of {} is not in the state of block {}",
                    addresses[i].text, at.height
                ))
            })?;
            Ok(Answer::Sure(account))
        };
        match self.pool.ask_many("eth_getProof", &params, PROOFS_MAX, accept).await {
            Ok(accounts) => Ok(Some(accounts)),
            Err(RpcError::Missing(_) | RpcError::TooLarge(_)) => Ok(None),
            Err(RpcError::Refused(refusal)) if refusal.kind != RefusalKind::NotThere => Ok(None),
            Err(failure) => Err(failure.at(at.height)),
        }
    }

    async fn state_root(&self, at: &BlockRef) -> Result<B256, SourceError> {
        let hash = B256::from(at.hash.0);
        if let Some((_, root)) = self.memory().state.filter(|(of, _)| *of == hash) {
            return Ok(root);
        }
        let params = (hash, false);
        let answer = self.pool.ask("eth_getBlockByHash", &params, |reply| {
            let Some(raw) = reply.result::<Option<&RawValue>>()? else { return Ok(Answer::Doubtful(None)) };
            let (header, ours) = block::header(raw, self.config.verify).map_err(Rejection::Wrong)?;
            if ours.hash != at.hash {
                return Err(Rejection::Wrong(format!("asked for block {hash}, got {}", ours.hash)));
            }
            Ok(Answer::Sure(Some(header.state_root)))
        });
        let root = answer.await.map_err(|failure| failure.at(at.height))?;
        let root = root.ok_or(SourceError::BlockNotFound(at.height))?;
        self.memory().state = Some((hash, root));
        Ok(root)
    }

    /// What one endpoint says, and a second one too wherever it is not zero: nothing cannot be a rise.
    async fn balances_by_two(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        let block = named(at);
        let (method, params): (&str, Vec<Value>) = match asset {
            AssetKind::Native => {
                ("eth_getBalance", addresses.iter().map(|address| json!([address.text, block])).collect())
            }
            AssetKind::Token { contract } => {
                let call = |address: &Address| json!([{ "to": contract, "data": balance_call(address) }, block]);
                ("eth_call", addresses.iter().map(call).collect())
            }
        };
        let read = |reply: &Reply<'_>| {
            let text = reply.result::<&str>()?;
            let balance = match asset {
                AssetKind::Native => hex::number(text),
                AssetKind::Token { .. } => hex::bytes(text).map(U256::from_be_bytes::<32>),
            };
            let balance = balance.ok_or_else(|| Rejection::Wrong("a balance that is no number".to_owned()))?;
            Ok((reply.endpoint, Amount::new(balance)))
        };
        let accept = |_: usize, reply: &Reply<'_>| read(reply).map(Answer::Sure);
        let first = self.pool.ask_many(method, &params, BALANCES_MAX, accept).await;
        let first = first.map_err(|failure| failure.at(at.height))?;

        if self.readers() < 2 && first.iter().any(|(_, balance)| !balance.is_zero()) {
            self.warn_single_endpoint();
            return Err(SourceError::Unsupported(
                "no proof of balances, and no second endpoint to confirm them".into(),
            ));
        }
        let confirmed = first.into_iter().zip(&params).map(|((endpoint, balance), params)| async move {
            if balance.is_zero() {
                return Ok((balance, None));
            }
            let second = self.pool.ask_excluding(endpoint, method, params, |reply| read(reply).map(Answer::Sure)).await;
            let (other, second) = second.map_err(|failure| {
                SourceError::Unavailable(format!("no second endpoint confirms a balance: {failure}"))
            })?;
            if second == balance {
                return Ok((balance, Some([endpoint, other])));
            }
            let (one, two) = (self.pool.label(endpoint), self.pool.label(other));
            let height = at.height;
            Err(SourceError::InvalidResponse(format!(
                "of block {height} {one} tells a balance of {balance} and {two} one of {second}"
            )))
        });
        let confirmed = stream::iter(confirmed.collect::<Vec<_>>()).buffered(CONCURRENCY);
        let confirmed: Vec<(Amount, Option<[usize; 2]>)> = confirmed.try_collect().await?;
        let heard: BTreeSet<usize> = confirmed.iter().filter_map(|(_, heard)| *heard).flatten().collect();
        for endpoint in heard {
            self.require_eip1898(endpoint, at.height).await?;
        }
        Ok(confirmed.into_iter().map(|(balance, _)| balance).collect())
    }

    /// A node that passes over the block's hash (EIP-1898) and tells its newest balances lets money count twice: once as a
    /// rise, and once with its block. Only a word about the block decides, because it is remembered: a gateway that said
    /// nothing in time is not trusted for that.
    async fn require_eip1898(&self, endpoint: usize, height: Height) -> Result<(), SourceError> {
        let known = self.memory().heeds_hashes.get(&endpoint).copied();
        let heeds = match known {
            Some(heeds) => heeds,
            None => {
                let params = json!([alloy_primitives::Address::ZERO, { "blockHash": NO_BLOCK }]);
                let accept =
                    |reply: &Reply<'_>| reply.result::<Option<&str>>().map(|told| Answer::Sure(told.is_some()));
                let heeds = match self.pool.ask_only(endpoint, "eth_getBalance", &params, accept).await {
                    Ok(told) => !told,
                    Err(RpcError::Refused(refusal)) if is_of_the_block(refusal.kind) => true,
                    Err(failure) => return Err(failure.at(height)),
                };
                self.memory().heeds_hashes.insert(endpoint, heeds);
                heeds
            }
        };
        if heeds {
            return Ok(());
        }
        let label = self.pool.label(endpoint);
        Err(SourceError::Unsupported(format!("{label} tells balances of another block than it is asked for")))
    }

    fn warn_single_endpoint(&self) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            warn!(
                chain = %self.config.chain,
                "balances that only one endpoint tells and nothing proves are not booked; a second endpoint, or one \
                 with eth_getProof for coins, would let them count"
            );
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no panic while the memory is held")
    }
}

impl Proof<'_> {
    /// What the state with this root has for the address. An account that is not there holds nothing.
    fn account(&self, of: &Address, root: B256) -> Option<Account> {
        let (nonce, balance) = (hex::quantity(self.nonce)?, hex::number(self.balance)?);
        let account = alloy_rlp::encode(TrieAccount::new(nonce, balance, self.storage_hash, self.code_hash));
        let key = Nibbles::unpack(keccak256(of.key.0));
        let has = |account| verify_proof(root, key, account, &self.account_proof).is_ok();
        let absent = || nonce == 0 && balance.is_zero() && has(None);
        let proven = has(Some(account)) || absent();
        proven.then_some(Account { nonce, balance: Amount::new(balance) })
    }
}

/// Whether a node refuses because of what it was asked, rather than for a reason of its own. Nodes have many words for a
/// block that they do not know.
fn is_of_the_block(kind: RefusalKind) -> bool {
    match kind {
        RefusalKind::NotThere | RefusalKind::Pruned | RefusalKind::Other => true,
        RefusalKind::MethodMissing | RefusalKind::TooLarge | RefusalKind::Quota => false,
    }
}

/// By block hash (EIP-1898), so that a reorganisation cannot change the question.
fn named(at: &BlockRef) -> Value {
    json!({ "blockHash": B256::from(at.hash.0) })
}

/// The calldata of `balanceOf`: the address in a word of its own.
fn balance_call(of: &Address) -> String {
    format!("{BALANCE_CALL}{:0>64}", const_hex::encode(of.key.0))
}
