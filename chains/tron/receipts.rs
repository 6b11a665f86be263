//! Finds transfers in transaction receipts: token transfers in logs, and TRX that contracts sent in internal
//! transactions. Only receipts with the result SUCCESS count, because a transaction that ran out of time keeps logs of
//! transfers that never happened.

use chain::{
    Address, AddressKey, Amount, Asset, AssetId, AssetKind, Transfer, TransferIndex, TxId, TxPart,
    address::encode_tron_address, watch::WatchedAddresses,
};

use crate::{
    abi,
    address::{self, BadAddress},
    block::{ParsedBlock, parse_bytes32},
    proto::ContractRet,
    wire::{InternalTransaction, Log, TransactionInfo},
};

/// The notes of internal transactions that move TRX, as hexadecimal text: call, create, suicide.
const TRX_MOVING_NOTES: [&str; 3] = ["63616c6c", "637265617465", "73756963696465"];

/// The assets whose transfers the driver reports.
#[derive(Debug)]
pub struct TrackedAssets {
    /// TRX, or `None` when it is not accepted.
    pub native: Option<AssetId>,
    /// Token contracts in the form that logs contain (40 hexadecimal digits without the prefix `41`), with their
    /// assets.
    tokens: Vec<(String, AssetId)>,
}

/// The reason why receipts do not match their block.
#[derive(Debug, PartialEq, Eq)]
pub enum ReceiptsError {
    /// The node does not have all receipts (yet).
    Incomplete,
    /// The receipts belong to other transactions. The text names the block.
    Wrong(String),
}

impl TrackedAssets {
    /// Returns the contract of any tracked token, or `None` when no token is tracked.
    pub fn find_any_token(&self) -> Option<Address> {
        let (contract, _) = self.tokens.first()?;
        const_hex::decode_to_array(contract).ok().map(|key| encode_tron_address(AddressKey(key)))
    }

    /// # Errors
    ///
    /// Fails when a token contract is not a TRON address.
    pub fn new(assets: &[Asset]) -> Result<TrackedAssets, BadAddress> {
        let mut found = TrackedAssets { native: None, tokens: Vec::new() };
        for asset in assets {
            match &asset.kind {
                AssetKind::Native => found.native = Some(asset.id.clone()),
                AssetKind::Token { contract } => {
                    let key = address::parse_tron_address(contract)?.key;
                    found.tokens.push((const_hex::encode(key.0), asset.id.clone()));
                }
            }
        }
        Ok(found)
    }
}

/// Returns all transfers to watched addresses in a block, in chain order. The receipts must be those of the block's
/// transactions, in the same order.
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
            return Err(ReceiptsError::Wrong(format!(
                "the receipts of block {} belong to other transactions",
                body.header.height
            )));
        }
        if info.receipt.result != Some(ContractRet::Success.name()) || info.result == Some("FAILED") {
            continue;
        }
        let tx_index = u32::try_from(index).map_err(|_| ReceiptsError::Wrong("too many transactions".to_owned()))?;
        let transfer_id = |part: TxPart| (*txid, TransferIndex { tx_index, part });
        for (position, log) in (0..).zip(&info.log) {
            transfers.extend(parse_token_transfer(log, transfer_id(TxPart::Log(position)), assets, watched));
        }
        if let Some(native) = &assets.native {
            for (position, internal) in (0..).zip(&info.internal_transactions) {
                transfers.extend(parse_internal_transfer(
                    internal,
                    transfer_id(TxPart::Internal(position)),
                    native,
                    watched,
                ));
            }
        }
    }
    transfers.sort_by_key(|transfer| transfer.index);
    Ok(transfers)
}

fn parse_token_transfer(
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
    let to = abi::parse_address_word(to).filter(|to| watched.contains(to))?;
    let amount = abi::parse_amount_word(log.data).filter(|amount| !amount.is_zero())?;
    let from = abi::parse_address_word(from).map(|from| encode_tron_address(from).text);
    Some(Transfer { txid, index, asset: asset.clone(), to, from, amount })
}

fn parse_internal_transfer(
    internal: &InternalTransaction<'_>,
    (txid, index): (TxId, TransferIndex),
    native: &AssetId,
    watched: &WatchedAddresses<'_>,
) -> Option<Transfer> {
    if internal.rejected || !TRX_MOVING_NOTES.contains(&internal.note) {
        return None;
    }
    let to: AddressKey = address::parse_prefixed_hex(internal.to).filter(|to| watched.contains(to))?;
    let sun = internal.values.iter().filter(|value| value.token.is_none());
    let sun = sun.filter_map(|value| u64::try_from(value.value).ok()).map(Amount::from);
    let amount = Amount::checked_sum(sun).filter(|amount| !amount.is_zero())?;
    let from = address::parse_prefixed_hex(internal.caller_address).map(|from| encode_tron_address(from).text);
    Some(Transfer { txid, index, asset: native.clone(), to, from, amount })
}
