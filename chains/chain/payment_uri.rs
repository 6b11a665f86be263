//! The text in the QR code of a payment: a payment URI or an address.

use crate::{Amount, Asset, Family};

/// Returns the text for the QR code that a wallet scans. On Bitcoin the text is a BIP21 URI with the amount in whole
/// coins, such as `bitcoin:ADDRESS?amount=0.00012`; Bech32 addresses need no escaping. On other chains the text is the
/// plain address, because wallets read EIP-681 URIs in different ways: some send tokens to the token contract instead
/// of the receiver.
pub fn build_uri_or_plain_address(family: Family, asset: &Asset, address: &str, amount: Amount) -> String {
    match family {
        Family::Bitcoin => format!("bitcoin:{address}?amount={}", amount.to_decimal(asset.decimals)),
        Family::Evm | Family::Tron => address.to_owned(),
    }
}
