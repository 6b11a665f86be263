//! The text behind a QR code of a Bitcoin payment (BIP21).

use chain::Amount;

/// `bitcoin:ADDRESS?amount=BTC`, with the amount in whole coins. Bech32 texts need no escaping.
pub fn bip21(address: &str, amount: Amount) -> String {
    format!("bitcoin:{address}?amount={}", amount.to_decimal(8))
}
