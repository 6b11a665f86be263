//! Dust: deposits that are too small to be payments.

use std::collections::HashMap;
use std::sync::Arc;

use chain::{Amount, Asset, AssetId};

use crate::pricing::{self, Fiat, RateBook};
use clock::Instant;

/// The value below which a deposit is dust. Dust is not counted as a payment, because spammers transfer tiny amounts to
/// every address that appears on a chain.
#[derive(Debug, Clone, Default)]
pub struct Dust {
    /// The dust limit in a fiat currency, and the rates that convert it to an amount of an asset. `None` means that no
    /// deposit is dust.
    value: Option<(Fiat, RateBook)>,
    /// For each asset: its symbol in the rate book, and its number of decimal places.
    assets: Arc<HashMap<AssetId, (String, u8)>>,
}

impl Dust {
    /// Returns a dust limit. `value` is the limit, an amount in a fiat currency. `assets` lists each asset with the
    /// symbol under which `rates` contains its exchange rate.
    pub fn new_dust_limit<'a>(
        value: Fiat,
        rates: RateBook,
        assets: impl IntoIterator<Item = (&'a Asset, &'a str)>,
    ) -> Dust {
        let assets = assets.into_iter();
        let assets = assets.map(|(asset, symbol)| (asset.id.clone(), (symbol.to_owned(), asset.decimals)));
        Dust { value: Some((value, rates)), assets: Arc::new(assets.collect()) }
    }

    /// Returns the amount of the asset, in base units, below which a deposit is dust. Returns zero, so that no deposit
    /// is dust, while no fresh exchange rate of the asset is known.
    pub fn compute_dust_limit_or_zero(&self, now: Instant, asset: &AssetId) -> Amount {
        let priced = self.value.as_ref().zip(self.assets.get(asset));
        let bound = priced.and_then(|((value, rates), (symbol, decimals))| {
            let rate = rates.find_fresh_direct_or_crossed_rate(now, symbol, value.currency.as_str()).ok()?;
            pricing::convert_price_to_amount_rounded_up(*value, rate.value, *decimals)
        });
        bound.unwrap_or(Amount::ZERO)
    }
}

/// Returns true when a deposit of `amount` is dust. All amounts are base units.
///
/// A deposit is dust when it is below `bound`, the dust limit of its asset, with two exceptions. First, when the amount
/// `due` of the invoice is at or below the limit, the invoice accepts such small payments. `due` is `None` for a
/// deposit in another asset than the invoice requests. Second, a deposit of at least `missing`, the rest that the
/// invoice still needs, completes the payment. `missing` is zero when the invoice needs nothing more.
pub fn is_dust_amount(amount: Amount, bound: Amount, due: Option<Amount>, missing: Amount) -> bool {
    amount < bound && due.is_none_or(|due| due > bound) && (missing.is_zero() || amount < missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_deposits_that_complete_nothing_are_dust() {
        let sum = Amount::from_units;
        // Each row is: amount, bound, due, missing, expected result.
        let table = [
            (9, 10, Some(100), 100, true),
            (10, 10, Some(100), 100, false),
            (9, 10, Some(100), 9, false),
            (8, 10, Some(100), 9, true),
            (9, 10, Some(100), 0, true),
            (9, 10, Some(10), 10, false),
            (1, 10, Some(11), 11, true),
            (9, 10, None, 0, true),
            (10, 10, None, 0, false),
            (1, 0, None, 0, false),
        ];
        for (amount, bound, due, missing, expected) in table {
            let found = is_dust_amount(sum(amount), sum(bound), due.map(sum), sum(missing));
            assert_eq!(found, expected, "{amount} below {bound}, due {due:?}, missing {missing}");
        }
    }
}
