//! The coins that this surface knows, and which of them can be paid with now.

use crate::{CURRENCY, Checkout};
use clock::Instant;

/// In the order in which they are listed.
pub const ALL: [&str; 7] = ["trc20_usdt", "erc20_usdt", "bep20_usdt", "btc", "eth", "trx", "bnb"];

pub fn is_known(code: &str) -> bool {
    ALL.contains(&code)
}

/// Configured for the shop's mode, with an account to take an address from and a fresh rate.
pub fn list_available(checkout: &Checkout, now: Instant) -> Vec<&'static str> {
    let available = |code: &str| {
        let Some((chain, coin)) = checkout.payment_service.assets.find(checkout.shop.mode, code) else { return false };
        let rate = checkout.payment_service.rates.rate(now, &coin.rate_symbol, CURRENCY.as_str());
        checkout.payment_service.addresses.can_issue(&chain.id) && rate.is_ok()
    };
    ALL.into_iter().filter(|code| available(code)).collect()
}
