//! What a QR code of a payment holds.

use crate::{Amount, Asset, Family};

/// On Bitcoin a BIP21 address with the amount in whole coins, `bitcoin:ADDRESS?amount=0.00012`; bech32 texts need no
/// escaping. Elsewhere the plain address: wallets read EIP-681 in different ways, and some of them send tokens to the
/// contract that such a text names first.
pub fn payment_uri(family: Family, asset: &Asset, address: &str, amount: Amount) -> String {
    match family {
        Family::Bitcoin => format!("bitcoin:{address}?amount={}", amount.to_decimal(asset.decimals)),
        Family::Evm | Family::Tron => address.to_owned(),
    }
}
