//! The assets with which buyers can pay on this surface (HTTP API). In requests and responses, the code of an asset is
//! the field `coin`.

use crate::{CURRENCY, SharedState};
use clock::Instant;

/// The codes of all assets of this surface, in the sequence in which responses list them.
pub const ALL: [&str; 7] = ["trc20_usdt", "erc20_usdt", "bep20_usdt", "btc", "eth", "trx", "bnb"];

/// Returns true when this surface knows an asset with this code, even if buyers cannot pay with the asset now.
pub fn is_known_asset(code: &str) -> bool {
    ALL.contains(&code)
}

/// Returns the codes of the assets that buyers can pay with now: those that are configured for the shop's mode, on a
/// chain where addresses can be issued, and with an exchange rate that is not stale.
pub fn list_available_assets(checkout: &SharedState, now: Instant) -> Vec<&'static str> {
    let is_available = |code: &str| {
        let Some((chain, asset)) = checkout.payment_service.assets.find_payment_asset(checkout.shop.mode, code) else {
            return false;
        };
        let rate = checkout.payment_service.rates.find_fresh_direct_or_crossed_rate(
            now,
            &asset.rate_symbol,
            CURRENCY.as_str(),
        );
        checkout.payment_service.addresses.can_issue_address(&chain.id) && rate.is_ok()
    };
    ALL.into_iter().filter(|code| is_available(code)).collect()
}
