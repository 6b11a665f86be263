//! Transfers to watched addresses: TRX in transactions, TRX that contracts send in internal transactions, and tokens in
//! logs.

use chain::{
    Address, AddressKey, Amount, Asset, AssetId, AssetKind, Transfer, TransferIndex, TxId, TxPart,
    address::encode_tron_address, watch::WatchedAddresses,
};
use prost::Message;

use crate::{
    abi,
    address::{self, BadAddress},
    http_api::{InternalTransaction, Log},
    proto::{self, ContractType, TransferContract},
};

/// The values of `note` with which an internal transaction moves TRX, in hexadecimal: call, create, suicide.
const TRX_MOVING_NOTES: [&str; 3] = ["63616c6c", "637265617465", "73756963696465"];

/// The assets whose transfers the driver reports.
#[derive(Debug)]
pub struct TrackedAssets {
    /// TRX as an asset, or `None` when buyers cannot pay with it.
    pub native: Option<AssetId>,
    /// The token contracts with their assets. A contract is written as in logs: 40 hexadecimal digits, without the
    /// prefix `41`.
    tokens: Vec<(String, AssetId)>,
}

impl TrackedAssets {
    /// Returns the contract of one of the tracked tokens, or `None` when no token is tracked.
    pub fn find_first_token_contract(&self) -> Option<Address> {
        let (contract, _) = self.tokens.first()?;
        const_hex::decode_to_array(contract).ok().map(|key| encode_tron_address(AddressKey(key)))
    }

    /// Creates the list of the assets whose transfers are reported.
    ///
    /// # Errors
    ///
    /// Fails when a token contract is not a TRON address.
    pub fn from_assets(assets: &[Asset]) -> Result<TrackedAssets, BadAddress> {
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

/// A TRX transfer to a watched address.
pub struct TrxPayment {
    from: AddressKey,
    to: AddressKey,
    sun: u64,
}

impl TrxPayment {
    /// Converts the payment to a [`Transfer`] of the transaction `txid`.
    pub fn into_transfer(self, txid: TxId, tx_index: u32, asset: &AssetId) -> Transfer {
        Transfer {
            txid,
            index: TransferIndex { tx_index, part: TxPart::Value },
            asset: asset.clone(),
            to: self.to,
            from: Some(encode_tron_address(self.from).text),
            amount: self.sun.into(),
        }
    }
}

/// Returns the TRX transfer of a transaction, or `None` when the transaction does something else, the receiver is not
/// watched, or the amount is not positive.
pub fn parse_watched_trx_payment(raw: &[u8], watched: &WatchedAddresses<'_>) -> Option<TrxPayment> {
    let raw = proto::TransactionRaw::decode(raw).ok()?;
    let contract = raw.contract.first()?;
    if contract.r#type != i32::from(ContractType::Transfer) {
        return None;
    }
    let transfer = TransferContract::decode(contract.parameter.as_ref()?.value.as_slice()).ok()?;
    let to = address::parse_prefixed_bytes(&transfer.to_address).filter(|to| watched.contains(to))?;
    let sun = u64::try_from(transfer.amount).ok().filter(|sun| *sun > 0)?;
    Some(TrxPayment { from: address::parse_prefixed_bytes(&transfer.owner_address)?, to, sun })
}

/// Returns the transfer that a log of a tracked token reports, or `None` when the log reports something else, the
/// receiver is not watched, or the amount is zero.
pub fn parse_watched_token_transfer(
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

/// Returns the TRX transfer of an internal transaction, or `None` when the internal transaction failed or moves no TRX,
/// or the receiver is not watched.
pub fn parse_watched_internal_transfer(
    internal: &InternalTransaction<'_>,
    (txid, index): (TxId, TransferIndex),
    native: &AssetId,
    watched: &WatchedAddresses<'_>,
) -> Option<Transfer> {
    if internal.rejected || !TRX_MOVING_NOTES.contains(&internal.note) {
        return None;
    }
    let to: AddressKey = address::parse_hex_with_network_prefix(internal.to).filter(|to| watched.contains(to))?;
    let sun = internal.values.iter().filter(|value| value.token.is_none());
    let sun = sun.filter_map(|value| u64::try_from(value.value).ok()).map(Amount::from);
    let amount = Amount::checked_sum(sun).filter(|amount| !amount.is_zero())?;
    let from =
        address::parse_hex_with_network_prefix(internal.caller_address).map(|from| encode_tron_address(from).text);
    Some(Transfer { txid, index, asset: native.clone(), to, from, amount })
}
