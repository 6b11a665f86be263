//! What transactions did, by their receipts: logs of tokens and TRX that contracts sent. ErrorBody a receipt that says SUCCESS
//! is believed: a transaction that ran out of time keeps logs of transfers that never happened.

use chain::{
    Address, AddressKey, Amount, Asset, AssetId, AssetKind, Transfer, TransferIndex, TxId, TxPart,
    derive::tron_address, watch::WatchedAddresses,
};

use crate::{
    abi,
    address::{self, BadAddress},
    block::{ParsedBlock, parse_bytes32},
    proto::ContractRet,
    wire::{InternalTransaction, Log, TransactionInfo},
};

/// Kinds of calls that move TRX: call, create, suicide, in hex.
const MOVING: [&str; 3] = ["63616c6c", "637265617465", "73756963696465"];

/// What is looked for.
#[derive(Debug)]
pub struct TrackedAssets {
    pub native: Option<AssetId>,
    /// Contracts as logs name them: 40 hex digits.
    tokens: Vec<(String, AssetId)>,
}

/// Why receipts are not those of a block.
#[derive(Debug, PartialEq, Eq)]
pub enum ReceiptsError {
    /// The node does not have them all (yet).
    Incomplete,
    Wrong(String),
}

impl TrackedAssets {
    /// The contract of one of the tokens, if there are any.
    pub fn any_token(&self) -> Option<Address> {
        let (contract, _) = self.tokens.first()?;
        const_hex::decode_to_array(contract).ok().map(|key| tron_address(AddressKey(key)))
    }

    pub fn new(assets: &[Asset]) -> Result<TrackedAssets, BadAddress> {
        let mut found = TrackedAssets { native: None, tokens: Vec::new() };
        for asset in assets {
            match &asset.kind {
                AssetKind::Native => found.native = Some(asset.id.clone()),
                AssetKind::Token { contract } => {
                    let key = address::parse(contract)?.key;
                    found.tokens.push((const_hex::encode(key.0), asset.id.clone()));
                }
            }
        }
        Ok(found)
    }
}

/// Everything that reached watched addresses in a block, in order. The receipts must be those of the block's
/// transactions, each in its place.
pub fn list_transfers(
    body: &ParsedBlock,
    receipts: &[TransactionInfo<'_>],
    assets: &TrackedAssets,
    watched: &WatchedAddresses<'_>,
) -> Result<Vec<Transfer>, ReceiptsError> {
    if receipts.len() != body.txids.len() {
        return Err(ReceiptsError::Incomplete);
    }
    let mut transfers = body.payments.clone();
    for (index, (info, txid)) in receipts.iter().zip(&body.txids).enumerate() {
        if parse_bytes32(info.id) != Some(txid.0) || u64::try_from(info.block_number) != Ok(body.header.height) {
            return Err(ReceiptsError::Wrong(format!("the receipts of block {} are others", body.header.height)));
        }
        if info.receipt.result != Some(ContractRet::Success.name()) || info.result == Some("FAILED") {
            continue;
        }
        let tx_index = u32::try_from(index).map_err(|_| ReceiptsError::Wrong("too many transactions".to_owned()))?;
        let at = |part: TxPart| (*txid, TransferIndex { tx_index, part });
        for (position, log) in (0..).zip(&info.log) {
            transfers.extend(token_transfer(log, at(TxPart::Log(position)), assets, watched));
        }
        if let Some(native) = &assets.native {
            for (position, internal) in (0..).zip(&info.internal_transactions) {
                transfers.extend(internal_transfer(internal, at(TxPart::Internal(position)), native, watched));
            }
        }
    }
    transfers.sort_by_key(|transfer| transfer.index);
    Ok(transfers)
}

fn token_transfer(
    log: &Log<'_>,
    (txid, index): (TxId, TransferIndex),
    assets: &TrackedAssets,
    watched: &WatchedAddresses<'_>,
) -> Option<Transfer> {
    let [topic, from, to] = log.topics.as_slice() else { return None };
    if *topic != abi::TRANSFER_TOPIC {
        return None;
    }
    let (_, asset) = assets.tokens.iter().find(|(contract, _)| contract == log.address)?;
    let to = abi::address_in(to).filter(|to| watched.contains(to))?;
    let amount = abi::amount_in(log.data).filter(|amount| !amount.is_zero())?;
    let from = abi::address_in(from).map(|from| tron_address(from).text);
    Some(Transfer { txid, index, asset: asset.clone(), to, from, amount })
}

fn internal_transfer(
    internal: &InternalTransaction<'_>,
    (txid, index): (TxId, TransferIndex),
    native: &AssetId,
    watched: &WatchedAddresses<'_>,
) -> Option<Transfer> {
    if internal.rejected || !MOVING.contains(&internal.note) {
        return None;
    }
    let to: AddressKey = address::from_hex(internal.to).filter(|to| watched.contains(to))?;
    let sun = internal.values.iter().filter(|value| value.token.is_none());
    let sun = sun.filter_map(|value| u64::try_from(value.value).ok()).map(Amount::from);
    let amount = Amount::checked_sum(sun).filter(|amount| !amount.is_zero())?;
    let from = address::from_hex(internal.caller_address).map(|from| tron_address(from).text);
    Some(Transfer { txid, index, asset: native.clone(), to, from, amount })
}
