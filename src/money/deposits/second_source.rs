//! The rules for deposits that wait for a second source: the delay until an endpoint of another provider is asked
//! again, and the deposits that are confirmed although no such endpoint can be asked. Only chains on which a false
//! block costs nothing need a second source. No database, no clock, no endpoint.

use std::collections::HashMap;
use std::sync::Arc;

use chain::amount::Units;
use chain::{Amount, Asset, AssetId, Family, Height};
use rust_decimal::Decimal;

use crate::pricing::{Currency, Fiat, RateBook, convert_price_to_usd_cents_rounded_up};
use clock::Instant;

/// The period, in milliseconds, in which the total value of deposits that are confirmed without a second source is
/// limited: 24 hours.
pub const SINGLE_SOURCE_PERIOD_MS: i64 = 86_400_000;
/// The minimum number of solidified TRON blocks, beyond the required confirmations, after which a deposit may be
/// confirmed without a second source.
const TRON_FURTHER_BLOCKS: Height = 20;
/// The delay, in milliseconds, before the next check of a deposit whose first check failed. The delay doubles with
/// every further failed check.
const RETRY_MS: i64 = 1_000;
/// Maximum delay, in milliseconds, before the next check of a deposit that waits for an answer.
const WAITING_RETRY_MAX_MS: i64 = 30_000;
/// Maximum delay, in milliseconds, before the next check of a deposit that an endpoint contradicts, or that was confirmed
/// without a second source.
const DECIDED_RETRY_MAX_MS: i64 = 300_000;

/// The maximum value of deposits that one chain confirms in 24 hours without a second source, with the rates that
/// convert deposits to US dollars.
#[derive(Debug, Clone)]
pub struct SingleSourceLimit {
    usd_cents_max: i64,
    rates: RateBook,
    /// For each asset: its symbol in the rates, and its number of decimal places.
    assets: Arc<HashMap<AssetId, (String, u8)>>,
}

/// The price of an invoice and the amount due, from which the value of a deposit is computed.
#[derive(Debug, Clone)]
pub struct InvoicePrice {
    /// The asset that the invoice requests.
    pub asset: AssetId,
    /// The amount due, in base units.
    pub due: Amount,
    /// The price in a fiat currency, for which the amount due was quoted.
    pub price: Fiat,
}

impl SingleSourceLimit {
    /// Returns a limit of `usd_cents_max` US cents in 24 hours. `assets` lists each asset with its symbol in `rates`.
    pub fn new<'a>(
        usd_cents_max: i64,
        rates: RateBook,
        assets: impl IntoIterator<Item = (&'a Asset, &'a str)>,
    ) -> SingleSourceLimit {
        let assets = assets.into_iter();
        let assets = assets.map(|(asset, symbol)| (asset.id.clone(), (symbol.to_owned(), asset.decimals)));
        SingleSourceLimit { usd_cents_max, rates, assets: Arc::new(assets.collect()) }
    }

    /// Returns the limit in US cents.
    pub fn usd_cents_max(&self) -> i64 {
        self.usd_cents_max
    }

    /// Returns the value of a deposit in US cents, rounded up: at the frozen rate of its invoice when the invoice
    /// requests this asset, otherwise at a fresh rate. `None` when neither gives a value.
    pub fn compute_usd_at_frozen_or_fresh_rate(
        &self,
        now: Instant,
        asset: &AssetId,
        amount: Amount,
        invoice: &InvoicePrice,
    ) -> Option<i64> {
        let at_frozen_rate = || {
            let minor = u64::try_from(invoice.price.minor).ok()?;
            let numerator = amount.units().checked_mul(Units::from(minor))?;
            let minor = divide_rounded_up(numerator, invoice.due.units())?;
            convert_price_to_usd_cents_rounded_up(&self.rates, now, Fiat::new(invoice.price.currency, minor))
        };
        let frozen = (*asset == invoice.asset).then(at_frozen_rate).flatten();
        frozen.or_else(|| {
            let (symbol, decimals) = self.assets.get(asset)?;
            let rate = self.rates.find_fresh_direct_or_crossed_rate(now, symbol, Currency::USD.as_str()).ok()?;
            convert_amount_to_cents_rounded_up(amount, rate.value, *decimals)
        })
    }
}

/// Returns `amount * rate` in cents, rounded up. `rate` is the price of one whole unit, which has `decimals` decimal
/// places. `None` when the result is out of range.
fn convert_amount_to_cents_rounded_up(amount: Amount, rate: Decimal, decimals: u8) -> Option<i64> {
    let mantissa = u128::try_from(rate.mantissa()).ok().filter(|mantissa| *mantissa > 0)?;
    let cents = Units::from(mantissa).checked_mul(Units::from(100))?;
    let scale = u64::from(rate.scale()) + u64::from(decimals);
    divide_rounded_up(amount.units().checked_mul(cents)?, Units::from(10).checked_pow(Units::from(scale))?)
}

/// Returns the quotient, rounded up; `None` when it is out of range or the divisor is zero.
fn divide_rounded_up(numerator: Units, divisor: Units) -> Option<i64> {
    let quotient = numerator.checked_div(divisor)?;
    let exact = quotient.checked_mul(divisor)? == numerator;
    let quotient = if exact { quotient } else { quotient.checked_add(Units::from(1))? };
    i64::try_from(quotient).ok()
}

/// A deposit that no endpoint of another provider can show or contradict now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnansweredDeposit {
    /// The height of its block.
    pub height: Height,
    /// The height that the cursor must reach before the deposit has its required confirmations.
    pub confirm_height: Height,
    /// Its value in US cents; `None` when no rate gives its value.
    pub usd_cents: Option<i64>,
}

/// The decision about a deposit that no endpoint of another provider can show or contradict now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SingleSourceDecision {
    /// The deposit has too few confirmations to be confirmed by a single source.
    WaitForDepth,
    /// The deposit is confirmed; its value, in US cents, counts towards the limit.
    Confirm(i64),
    /// The deposit would exceed the limit, so it waits for a second source.
    ExceedsLimit,
    /// No rate gives the value of the deposit, so it waits for a second source.
    UnknownValue,
}

/// Decides about a deposit that only one source shows. It is confirmed when it has twice its required confirmations (on
/// TRON, at least 20 blocks more than required) and when its value fits in the limit. The block that the endpoint
/// reports as final plays no role. `cursor` is the height of the last block that the follower has read. `used_cents` is
/// the value, in US cents, that was confirmed without a second source in the last 24 hours.
pub fn decide_without_second_source(
    family: Family,
    cursor: Height,
    deposit: UnansweredDeposit,
    used_cents: i64,
    limit_cents: i64,
) -> SingleSourceDecision {
    let confirmations = deposit.confirm_height.saturating_sub(deposit.height).saturating_add(1);
    let further = match family {
        Family::Tron => confirmations.max(TRON_FURTHER_BLOCKS),
        Family::Bitcoin | Family::Evm => confirmations,
    };
    if cursor < deposit.confirm_height.saturating_add(further) {
        return SingleSourceDecision::WaitForDepth;
    }
    match deposit.usd_cents {
        None => SingleSourceDecision::UnknownValue,
        Some(cents) if used_cents.saturating_add(cents) <= limit_cents => SingleSourceDecision::Confirm(cents),
        Some(_) => SingleSourceDecision::ExceedsLimit,
    }
}

/// Returns the delay, in milliseconds, after which a deposit is checked again. `failed_checks` is the number of checks
/// that did not show the deposit, including the last one. `waits` is true while no endpoint has shown or contradicted
/// the deposit and it is not confirmed; then the maximum delay is shorter.
pub fn compute_retry_delay_ms(failed_checks: u32, waits: bool) -> i64 {
    let max = if waits { WAITING_RETRY_MAX_MS } else { DECIDED_RETRY_MAX_MS };
    let doublings = failed_checks.saturating_sub(1).min(20);
    RETRY_MS.saturating_mul(1 << doublings).min(max)
}

#[cfg(test)]
mod tests {
    use crate::pricing::Rate;

    use super::*;

    const NOW: Instant = Instant(1_000_000_000);

    #[test]
    fn a_deposit_without_a_second_source_needs_twice_its_depth_and_room_in_the_limit() {
        use SingleSourceDecision::*;
        let deposit = |confirm_height, usd_cents| UnansweredDeposit { height: 100, confirm_height, usd_cents };
        // Each row is: family, cursor, confirm height, value, used before, decision. The limit is 50,000 cents.
        let table = [
            (Family::Evm, 122, 111, Some(1), 0, WaitForDepth),
            (Family::Evm, 123, 111, Some(1), 0, Confirm(1)),
            (Family::Evm, 123, 111, Some(50_000), 0, Confirm(50_000)),
            (Family::Evm, 123, 111, Some(50_001), 0, ExceedsLimit),
            (Family::Evm, 123, 111, Some(10), 49_990, Confirm(10)),
            (Family::Evm, 123, 111, Some(11), 49_990, ExceedsLimit),
            (Family::Evm, 123, 111, Some(i64::MAX), i64::MAX, ExceedsLimit),
            (Family::Evm, 122, 111, None, 0, WaitForDepth),
            (Family::Evm, 123, 111, None, 0, UnknownValue),
            (Family::Evm, 100, 100, Some(1), 0, WaitForDepth),
            (Family::Evm, 101, 100, Some(1), 0, Confirm(1)),
            (Family::Tron, 119, 100, Some(1), 0, WaitForDepth),
            (Family::Tron, 120, 100, Some(1), 0, Confirm(1)),
            (Family::Tron, 159, 129, Some(1), 0, Confirm(1)),
            (Family::Tron, 158, 129, Some(1), 0, WaitForDepth),
        ];
        for (family, cursor, confirm_height, cents, used, expected) in table {
            let decision = decide_without_second_source(family, cursor, deposit(confirm_height, cents), used, 50_000);
            assert_eq!(decision, expected, "{family:?} at {cursor}, {confirm_height}, {cents:?}, {used}");
        }
    }

    #[test]
    fn checks_are_repeated_less_and_less_often() {
        let delays = |waits| [1, 2, 3, 6, 10, u32::MAX].map(|n| compute_retry_delay_ms(n, waits));
        assert_eq!(delays(true), [1_000, 2_000, 4_000, 30_000, 30_000, 30_000]);
        assert_eq!(delays(false), [1_000, 2_000, 4_000, 32_000, 300_000, 300_000]);
    }

    #[test]
    fn a_deposit_is_valued_at_the_frozen_rate_then_at_a_fresh_one() {
        let rates = RateBook::new(90_000, 0);
        let rate = |text: &str, observed_at| Rate { value: text.parse().unwrap(), source: "x".into(), observed_at };
        rates.set_rate("USD", "CNY", rate("8", NOW));
        rates.set_rate("ETH", "USD", rate("3000.5", NOW));
        rates.set_rate("OLD", "USD", rate("1", Instant(0)));
        let token = |name: &str, decimals| {
            let kind = chain::AssetKind::Token { contract: name.to_owned() };
            Asset::new(chain::ChainId::parse("model").unwrap(), kind, name, decimals, decimals)
        };
        let (eth, old) = (token("ETH", 18), token("OLD", 6));
        let limit = SingleSourceLimit::new(50_000, rates, [(&eth, "ETH"), (&old, "OLD")]);
        let price = |currency: &str, asset: &Asset| InvoicePrice {
            asset: asset.id.clone(),
            due: Amount::from(1_000),
            price: Fiat::new(Currency::new(currency).unwrap(), 8_000),
        };
        let value = |asset: &Asset, amount: u64, invoice: &InvoicePrice| {
            limit.compute_usd_at_frozen_or_fresh_rate(NOW, &asset.id, Amount::from(amount), invoice)
        };
        assert_eq!(value(&eth, 1_000, &price("CNY", &eth)), Some(1_000), "80 CNY are 10 USD");
        assert_eq!(value(&eth, 500, &price("USD", &eth)), Some(4_000));
        assert_eq!(value(&eth, 1, &price("CNY", &eth)), Some(1), "a part of a cent counts as a cent");
        assert_eq!(value(&eth, 1_000_000_000_000_000, &price("EUR", &eth)), Some(301), "there is no rate of EUR");
        assert_eq!(value(&eth, 10_000_000_000_000_000, &price("CNY", &old)), Some(3_001));
        assert_eq!(value(&old, 1_000, &price("CNY", &old)), Some(1_000), "the frozen rate does not age");
        assert_eq!(value(&old, 1_000, &price("CNY", &eth)), None, "its own rate is too old");
        let foreign = token("other", 6);
        assert_eq!(value(&foreign, 1_000, &price("CNY", &eth)), None);
    }
}
