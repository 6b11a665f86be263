//! The payment assets of this surface, and the assets that are available now. Requests and responses call an asset
//! `coin`.

use crate::{CURRENCY, Checkout};
use clock::Instant;

/// The codes of all assets, in the order in which they are listed.
pub const ALL: [&str; 7] = ["trc20_usdt", "erc20_usdt", "bep20_usdt", "btc", "eth", "trx", "bnb"];

/// Returns true when the surface has an asset with this code, available or not.
pub fn is_known_asset(code: &str) -> bool {
    ALL.contains(&code)
}

/// Returns the codes of the available assets: an asset is available when it is configured for the shop's mode,
/// addresses can be issued on its chain, and its exchange rate is not stale.
pub fn list_available_assets(checkout: &Checkout, now: Instant) -> Vec<&'static str> {
    let is_available = |code: &str| {
        let Some((chain, asset)) = checkout.payment_service.assets.find_payment_asset(checkout.shop.mode, code) else {
            return false;
        };
        let rate =
            checkout.payment_service.rates.find_fresh_or_crossed_rate(now, &asset.rate_symbol, CURRENCY.as_str());
        checkout.payment_service.addresses.can_issue_address(&chain.id) && rate.is_ok()
    };
    ALL.into_iter().filter(|code| is_available(code)).collect()
}
