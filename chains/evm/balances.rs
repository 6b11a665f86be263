//! Reads the balances of addresses after a block. A balance increase may be booked as a payment, so the driver does not
//! rely on the unproven reply of a single endpoint.
//!
//! Native balances are proven by the state root in the block's header. Each token contract stores its balances in its
//! own way, so they cannot be proven in general: a token balance above zero is used only if two endpoints return the
//! same balance.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{MutexGuard, atomic::Ordering},
};

use alloy_primitives::{B256, Bytes, keccak256};
use alloy_trie::{Nibbles, TrieAccount, proof::verify_proof};
use chain::{Address, Amount, AssetKind, BlockRef, Height, SourceError};
use futures_util::{StreamExt, TryStreamExt, stream};
use rpc::{NodeErrorKind, Rejection, Reply, Request, RpcError, Target, Verdict};
use ruint::aliases::U256;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tracing::warn;

use crate::{Evm, block, hex};

/// Maximum number of balances requested in one JSON-RPC batch.
const BALANCES_PER_BATCH: usize = 100;
/// Maximum number of account proofs requested in one JSON-RPC batch. A proof has a few kilobytes.
const PROOFS_PER_BATCH: usize = 50;
/// Maximum number of balances that are compared with a second endpoint at the same time.
const CONCURRENCY: usize = 3;
/// Selector of `balanceOf(address)` (ERC-20).
const BALANCE_OF_SELECTOR: &str = "0x70a08231";
/// The hash of a block that does not exist. A request for the balance at this block shows whether an endpoint ignores
/// the block hash.
const NONEXISTENT_BLOCK: B256 = B256::repeat_byte(0x5e);

/// Results that the driver keeps for later requests of balances.
#[derive(Debug, Default)]
pub struct BalanceCache {
    /// The hash of the block whose state root was requested last, and the state root; `None` before the first request.
    last_state_root: Option<(B256, B256)>,
    /// For each endpoint index: true when the endpoint returns the balance at the requested block hash (EIP-1898),
    /// false when it ignores the hash and returns the latest balance.
    honors_block_hash: HashMap<usize, bool>,
}

/// The part of the reply to `eth_getProof` (EIP-1186) that proves the state of an account.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountProof<'a> {
    account_proof: Vec<Bytes>,
    balance: &'a str,
    nonce: &'a str,
    storage_hash: B256,
    code_hash: B256,
}

/// The result of comparing the proven balances of an address with the sum of the transfers that the address received in
/// a block, according to a node's traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumProof {
    /// The balance increased by the sum at least.
    Received,
    /// The balance did not increase by the sum.
    NotReceived,
    /// No endpoint returned the proofs, or the address also sent coins.
    Missing,
}

/// The state of an account, proven by the state root.
#[derive(Debug, Clone, Copy)]
struct ProvenAccount {
    nonce: u64,
    balance: Amount,
}

impl Evm {
    /// Returns the balances after block `at`, in the order of `addresses`. Each balance is proven by the state root, or
    /// returned by endpoints of two providers. A balance of zero may be the unproven reply of a single endpoint.
    pub(crate) async fn fetch_verified_balances(
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
            && let Some(proven) = self.fetch_proven_accounts_unless_refused(at, addresses).await?
        {
            return Ok(proven.into_iter().map(|account| account.balance).collect());
        }
        self.fetch_balances_agreed_unless_zero(at, asset, addresses).await
    }

    /// Returns, for each sum in `received`, what the proven balances say about it: whether the balance of the address
    /// increased by the sum in block `at`, whose parent is `parent`. Nothing is proven for an address that also sent
    /// coins in the block.
    pub(crate) async fn check_sums_against_proven_balances(
        &self,
        parent: &BlockRef,
        at: &BlockRef,
        received: &[(Address, Amount)],
    ) -> Vec<SumProof> {
        let addresses: Vec<Address> = received.iter().map(|(address, _)| address.clone()).collect();
        let Ok(Some(after)) = self.fetch_proven_accounts_unless_refused(at, &addresses).await else {
            return vec![SumProof::Missing; received.len()];
        };
        let Ok(Some(before)) = self.fetch_proven_accounts_unless_refused(parent, &addresses).await else {
            // Nodes delete the oldest states first, so the state of the parent may be missing. The balance of an
            // address that never sent anything is at least the amount that it received.
            let judge = |((_, sum), after): (&(Address, Amount), &ProvenAccount)| {
                let is_contradicted = after.nonce == 0 && after.balance < *sum;
                if is_contradicted { SumProof::NotReceived } else { SumProof::Missing }
            };
            return received.iter().zip(&after).map(judge).collect();
        };
        let judge = |((_, sum), (before, after)): (&(Address, Amount), (&ProvenAccount, &ProvenAccount))| {
            let expected_min = before.balance.checked_add(*sum);
            match expected_min {
                _ if before.nonce != after.nonce => SumProof::Missing,
                Some(expected_min) if after.balance >= expected_min => SumProof::Received,
                Some(_) | None => SumProof::NotReceived,
            }
        };
        received.iter().zip(before.iter().zip(&after)).map(judge).collect()
    }

    /// Returns the balances after block `at`, in the order of `addresses`: native balances that the state root proves
    /// or, if no endpoint offers proofs and for tokens, the unproven balances of `endpoint`.
    pub(crate) async fn fetch_proven_balances_or_from_endpoint(
        &self,
        endpoint: usize,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        if *asset == AssetKind::Native
            && self.config.verify.header
            && let Ok(Some(proven)) = self.fetch_proven_accounts_unless_refused(at, addresses).await
        {
            return Ok(proven.into_iter().map(|account| account.balance).collect());
        }
        let (method, params) = build_balance_calls(at, asset, addresses);
        let accept = |_: usize, reply: &Reply<'_>| parse_balance(asset, reply).map(Verdict::Accept);
        let only = Target::Only(endpoint);
        let answers =
            self.pool.send_calls_batched_or_one_by_one_to(only, method, &params, BALANCES_PER_BATCH, accept).await;
        let balances = answers.into_all_results().map_err(|failure| failure.into_source_error(at.height))?;
        self.ensure_endpoint_honors_block_hash(endpoint, at.height).await?;
        Ok(balances)
    }

    /// Returns the accounts after block `at`, proven by its state root, in the order of `addresses`; `None` when no
    /// endpoint offers proofs for that block.
    async fn fetch_proven_accounts_unless_refused(
        &self,
        at: &BlockRef,
        addresses: &[Address],
    ) -> Result<Option<Vec<ProvenAccount>>, SourceError> {
        let root = self.get_or_fetch_state_root(at).await?;
        let block = to_block_hash_parameter(at);
        let params: Vec<Value> = addresses.iter().map(|address| json!([address.text, [], block])).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let proof: AccountProof<'_> = reply.parse_result()?;
            let account = proof.verify_against_state_root(&addresses[i], root).ok_or_else(|| {
                Rejection::Invalid(format!(
                    "the proof for {} does not match the state root of block {}",
                    addresses[i].text, at.height
                ))
            })?;
            Ok(Verdict::Accept(account))
        };
        match self
            .pool
            .send_calls_batched_or_one_by_one("eth_getProof", &params, PROOFS_PER_BATCH, accept)
            .await
            .into_all_results()
        {
            Ok(accounts) => Ok(Some(accounts)),
            Err(RpcError::MethodMissing(_) | RpcError::TooLarge(_)) => Ok(None),
            Err(RpcError::NodeError(node_error)) if node_error.kind != NodeErrorKind::NotFound => Ok(None),
            Err(failure) => Err(failure.into_source_error(at.height)),
        }
    }

    /// Returns the state root of a block. If the cache does not contain the root, requests the block's header and
    /// verifies the header.
    async fn get_or_fetch_state_root(&self, at: &BlockRef) -> Result<B256, SourceError> {
        let hash = B256::from(at.hash.0);
        if let Some((_, root)) = self.lock_balance_cache().last_state_root.filter(|(block, _)| *block == hash) {
            return Ok(root);
        }
        let params = (hash, false);
        let answer = self.pool.send_request(Request::json_rpc_call("eth_getBlockByHash", &params), |reply| {
            let Some(raw) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let (header, chain_header) =
                block::parse_header_verifying_if_configured(raw, self.config.verify).map_err(Rejection::Invalid)?;
            if chain_header.hash != at.hash {
                return Err(Rejection::Invalid(format!(
                    "block {hash} was requested, but block {} was returned",
                    chain_header.hash
                )));
            }
            Ok(Verdict::Accept(Some(header.state_root)))
        });
        let root = answer.await.map_err(|failure| failure.into_source_error(at.height))?;
        let root = root.ok_or(SourceError::BlockNotFound(at.height))?;
        self.lock_balance_cache().last_state_root = Some((hash, root));
        Ok(root)
    }

    /// Requests each balance from one endpoint, and every balance above zero from a second endpoint too. A zero balance
    /// needs no second reply, because it cannot be booked as a payment.
    async fn fetch_balances_agreed_unless_zero(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        let (method, params) = build_balance_calls(at, asset, addresses);
        let parse_balance = |reply: &Reply<'_>| parse_balance(asset, reply).map(|balance| (reply.endpoint, balance));
        let accept = |_: usize, reply: &Reply<'_>| parse_balance(reply).map(Verdict::Accept);
        let first = self
            .pool
            .send_calls_batched_or_one_by_one(method, &params, BALANCES_PER_BATCH, accept)
            .await
            .into_all_results();
        let first = first.map_err(|failure| failure.into_source_error(at.height))?;

        if self.pool.count_providers_own_node_as_two() < 2 && first.iter().any(|(_, balance)| !balance.is_zero()) {
            self.warn_once_about_single_endpoint();
            return Err(SourceError::Unsupported(
                "the endpoint does not prove balances, and there is no second endpoint to confirm them".into(),
            ));
        }
        let confirmed = first.into_iter().zip(&params).map(|((endpoint, balance), params)| async move {
            if balance.is_zero() {
                return Ok((balance, None));
            }
            let second = self
                .pool
                .send_request(
                    Request::json_rpc_call(method, params).with_target(Target::Excluding(endpoint)),
                    |reply| parse_balance(reply).map(Verdict::Accept),
                )
                .await;
            let (other, second) = second.map_err(|failure| {
                SourceError::Unavailable(format!("no second endpoint confirms the balance: {failure}"))
            })?;
            if second == balance {
                return Ok((balance, Some([endpoint, other])));
            }
            let (first_label, second_label) = (self.pool.endpoint_label(endpoint), self.pool.endpoint_label(other));
            let height = at.height;
            Err(SourceError::InvalidResponse(format!(
                "at block {height}, {first_label} returns a balance of {balance} and {second_label} one of {second}"
            )))
        });
        let confirmed = stream::iter(confirmed.collect::<Vec<_>>()).buffered(CONCURRENCY);
        let confirmed: Vec<(Amount, Option<[usize; 2]>)> = confirmed.try_collect().await?;
        let confirming: BTreeSet<usize> = confirmed.iter().filter_map(|(_, endpoints)| *endpoints).flatten().collect();
        for endpoint in confirming {
            self.ensure_endpoint_honors_block_hash(endpoint, at.height).await?;
        }
        Ok(confirmed.into_iter().map(|(balance, _)| balance).collect())
    }

    /// Fails when the endpoint ignores the block hash (EIP-1898) and returns the latest balance. With such a balance,
    /// the same payment would be credited twice: once as a balance increase and once with its block. This function
    /// requests a balance in a block that does not exist, for which a correct endpoint returns an error. The result is
    /// stored for later calls, unless the request failed for another reason.
    async fn ensure_endpoint_honors_block_hash(&self, endpoint: usize, height: Height) -> Result<(), SourceError> {
        let cached = self.lock_balance_cache().honors_block_hash.get(&endpoint).copied();
        let is_supported = match cached {
            Some(is_supported) => is_supported,
            None => {
                let params = json!([alloy_primitives::Address::ZERO, { "blockHash": NONEXISTENT_BLOCK }]);
                let accept = |reply: &Reply<'_>| {
                    reply.parse_result::<Option<&str>>().map(|balance| Verdict::Accept(balance.is_some()))
                };
                let is_supported = match self
                    .pool
                    .send_request(
                        Request::json_rpc_call("eth_getBalance", &params).with_target(Target::Probe(endpoint)),
                        accept,
                    )
                    .await
                {
                    Ok(balance) => !balance,
                    Err(RpcError::NodeError(node_error)) if may_be_block_related_error(node_error.kind) => true,
                    Err(failure) => return Err(failure.into_source_error(height)),
                };
                self.lock_balance_cache().honors_block_hash.insert(endpoint, is_supported);
                is_supported
            }
        };
        if is_supported {
            return Ok(());
        }
        let label = self.pool.endpoint_label(endpoint);
        Err(SourceError::Unsupported(format!(
            "{label} ignores the block hash and returns the balance of another block"
        )))
    }

    fn warn_once_about_single_endpoint(&self) {
        if !self.single_endpoint_warned.swap(true, Ordering::Relaxed) {
            warn!(
                chain = %self.config.chain,
                "balances that a single endpoint returns without a proof are not booked; add a second endpoint, or for \
                 native coins one that offers eth_getProof"
            );
        }
    }

    fn lock_balance_cache(&self) -> MutexGuard<'_, BalanceCache> {
        self.balance_cache.lock().expect("no panic while the balance cache is locked")
    }
}

impl AccountProof<'_> {
    /// Returns the account if the proof matches the state root, and `None` otherwise. If the proof shows that the
    /// account does not exist, the returned account is empty.
    fn verify_against_state_root(&self, address: &Address, root: B256) -> Option<ProvenAccount> {
        let (nonce, balance) = (hex::parse_quantity(self.nonce)?, hex::parse_u256(self.balance)?);
        let account = alloy_rlp::encode(TrieAccount::new(nonce, balance, self.storage_hash, self.code_hash));
        let key = Nibbles::unpack(keccak256(address.key.0));
        let matches_root = |account| verify_proof(root, key, account, &self.account_proof).is_ok();
        let is_absent = || nonce == 0 && balance.is_zero() && matches_root(None);
        let is_proven = matches_root(Some(account)) || is_absent();
        is_proven.then_some(ProvenAccount { nonce, balance: Amount::new(balance) })
    }
}

/// Returns the method and the parameters that request the balance of each address after block `at`.
fn build_balance_calls(at: &BlockRef, asset: &AssetKind, addresses: &[Address]) -> (&'static str, Vec<Value>) {
    let block = to_block_hash_parameter(at);
    match asset {
        AssetKind::Native => ("eth_getBalance", addresses.iter().map(|address| json!([address.text, block])).collect()),
        AssetKind::Token { contract } => {
            let call = |address: &Address| json!([{ "to": contract, "data": encode_balance_of_call(address) }, block]);
            ("eth_call", addresses.iter().map(call).collect())
        }
    }
}

/// Parses the reply to a call of [`build_balance_calls`].
fn parse_balance(asset: &AssetKind, reply: &Reply<'_>) -> Result<Amount, Rejection> {
    let text = reply.parse_result::<&str>()?;
    let balance = match asset {
        AssetKind::Native => hex::parse_u256(text),
        AssetKind::Token { .. } => hex::parse_bytes(text).map(U256::from_be_bytes::<32>),
    };
    balance.map(Amount::new).ok_or_else(|| Rejection::Invalid("a balance is not a number".to_owned()))
}

/// Returns true when a node's error concerns the requested block and not the node itself. Nodes use many different
/// texts for an unknown block, so the function also returns true for an error of unknown kind.
fn may_be_block_related_error(kind: NodeErrorKind) -> bool {
    match kind {
        NodeErrorKind::NotFound | NodeErrorKind::Pruned | NodeErrorKind::Other => true,
        NodeErrorKind::MethodMissing | NodeErrorKind::TooLarge | NodeErrorKind::RateLimited => false,
    }
}

/// Returns the parameter that selects a block by its hash (EIP-1898). A number would select another block after a
/// reorg.
fn to_block_hash_parameter(at: &BlockRef) -> Value {
    json!({ "blockHash": B256::from(at.hash.0) })
}

/// Returns the calldata of `balanceOf(address)`: the selector, and the address padded to 32 bytes.
fn encode_balance_of_call(address: &Address) -> String {
    format!("{BALANCE_OF_SELECTOR}{:0>64}", const_hex::encode(address.key.0))
}
