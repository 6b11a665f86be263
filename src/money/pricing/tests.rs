use proptest::prelude::*;

use chain::amount::Units;
use clock::Instant;
use rust_decimal::Decimal;

use super::*;

const NOW: Instant = Instant(1_000_000);

fn example_rates() -> RateBook {
    example_rates_with_spread(0)
}

fn example_rates_with_spread(basis_points: u32) -> RateBook {
    let rates = RateBook::new(60_000, basis_points);
    let rate = |value: &str| Rate { value: value.parse().unwrap(), source: "fixed".into(), observed_at: NOW };
    rates.set_rate("USDT", "USD", rate("1"));
    rates.set_rate("USD", "CNY", rate("7.24"));
    rates.set_rate("BTC", "USD", rate("65000"));
    rates
}

#[test]
fn the_example_of_the_contract_gives_its_amount() {
    let quote = example_rates().compute_quote_with_spread(NOW, "USDT", 6, 6, Fiat::new(Currency::CNY, 500)).unwrap();
    assert_eq!(quote.due.to_decimal(6), "0.690608");
    assert_eq!(quote.rate.to_string(), "7.24");
}

#[test]
fn a_token_with_18_decimals_is_quoted_with_6() {
    let quote = example_rates().compute_quote_with_spread(NOW, "USDT", 18, 6, Fiat::new(Currency::CNY, 500)).unwrap();
    assert_eq!(quote.due.to_decimal(18), "0.690608");
}

#[test]
fn there_is_no_quote_without_a_fresh_rate() {
    let price = Fiat::new(Currency::CNY, 500);
    assert!(matches!(
        example_rates().compute_quote_with_spread(NOW, "ETH", 18, 18, price),
        Err(QuoteError::NoRate { .. })
    ));
    let later = NOW.plus_ms(60_001);
    assert!(matches!(
        example_rates().compute_quote_with_spread(later, "BTC", 8, 8, price),
        Err(QuoteError::Stale { .. })
    ));
    let rates = example_rates();
    rates.remove_rate("USDT", "USD");
    assert!(rates.compute_quote_with_spread(NOW, "USDT", 6, 6, price).is_err());
}

#[test]
fn the_buyer_pays_the_spread() {
    let rates = example_rates_with_spread(100);
    let quote = rates.compute_quote_with_spread(NOW, "USDT", 6, 6, Fiat::new(Currency::USD, 9_900)).unwrap();
    assert_eq!(quote.due.to_decimal(6), "100");
}

proptest! {
    /// The computed amount pays the price, and one base unit less does not.
    #[test]
    fn the_amount_due_is_the_least_that_pays_the_price(minor in 1i64..10_000_000_000, mantissa in 1i64..1_000_000_000_000, scale in 0u32..12, decimals in 0u8..=18) {
        let rate = Decimal::new(mantissa, scale);
        if let Some(due) = convert_price_to_amount_rounded_up(Fiat::new(Currency::USD, minor), rate, decimals) {
            // due · rate ≥ price, as integers: due · mantissa · 100 ≥ minor · 10^(scale + decimals)
            let needed = Units::from(minor) * Units::from(10).pow(Units::from(scale + u32::from(decimals)));
            let pays = |units: Units| units * Units::from(mantissa) * Units::from(100) >= needed;
            prop_assert!(pays(due.units()));
            prop_assert!(!pays(due.units() - Units::from(1)));
        }
    }
}
