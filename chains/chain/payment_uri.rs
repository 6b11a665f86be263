//! The text in the QR code of a payment.

use crate::{Amount, Asset, Family};

/// The text that a wallet scans. On Bitcoin it is a BIP21 URI with the amount in whole coins,
/// `bitcoin:ADDRESS?amount=0.00012` (Bech32 texts need no escaping). On other chains it is the plain address: wallets
/// interpret EIP-681 in different ways, and some send tokens to the contract that such a URI names first.
pub fn build_payment_uri(family: Family, asset: &Asset, address: &str, amount: Amount) -> String {
    match family {
        Family::Bitcoin => format!("bitcoin:{address}?amount={}", amount.to_decimal(asset.decimals)),
        Family::Evm | Family::Tron => address.to_owned(),
    }
}
