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
    assert_eq!(quote.due.to_decimal(6), "0.69061");
    assert_eq!(quote.rate.to_string(), "7.24");
}

#[test]
fn a_token_with_18_decimals_is_quoted_with_6_at_most() {
    let quote = example_rates().compute_quote_with_spread(NOW, "USDT", 18, 6, Fiat::new(Currency::CNY, 500)).unwrap();
    assert_eq!(quote.due.to_decimal(18), "0.69061");
}

#[test]
fn an_amount_due_has_the_fewest_decimals_that_cost_at_most_a_ten_thousandth() {
    let rates = example_rates();
    for (name, value) in [("ONE", "1"), ("ETH", "3200"), ("TINY", "0.00000001")] {
        rates.set_rate(name, "USD", Rate { value: value.parse().unwrap(), source: "fixed".into(), observed_at: NOW });
    }
    for (base, decimals, kept, cents, expected) in [
        ("ONE", 18, 18, 1_000_000, "10000"),
        ("ONE", 18, 18, 1_000_001, "10001"),
        ("ONE", 18, 18, 10_000_001, "100001"),
        ("ONE", 18, 18, 100_001, "1000.1"),
        ("ONE", 18, 18, 12_345_678, "123457"),
        ("ONE", 6, 2, 1, "0.01"),
        ("ETH", 18, 18, 100, "0.0003125"),
        ("ETH", 18, 18, 333, "0.0010407"),
        // Eight places are the most, even where they cost more than 0.01 %.
        ("ETH", 18, 18, 1, "0.00000313"),
        ("ETH", 18, 6, 1, "0.000004"),
        ("BTC", 8, 8, 69, "0.00001062"),
        ("TINY", 0, 0, 1, "1000000"),
    ] {
        let price = Fiat::new(Currency::USD, cents);
        let due = rates.compute_quote_with_spread(NOW, base, decimals, kept, price).unwrap().due;
        assert_eq!(due.to_decimal(decimals), expected, "{cents} cents in {base}");
    }
}

#[test]
fn every_currency_has_the_minor_units_of_the_standard() {
    assert!(minor_units::DECIMALS_BY_CODE.is_sorted());
    let currency = |code: &str| Currency::new(code).unwrap();
    for (code, decimals) in [("USD", 2), ("CNY", 2), ("JPY", 0), ("KRW", 0), ("KWD", 3), ("TND", 3), ("CLF", 4)] {
        assert_eq!(currency(code).decimals(), decimals, "{code}");
    }
    for unknown in ["", "US", "usd", "USDT", "XAU", "XXX", "BTC", "ZZZ"] {
        assert_eq!(Currency::new(unknown), None, "{unknown}");
    }
    for (text, code, minor, shown) in [
        ("500", "JPY", 500, "500"),
        ("0.5", "KWD", 500, "0.5"),
        ("1.234", "KWD", 1_234, "1.234"),
        ("0.50", "CNY", 50, "0.5"),
    ] {
        let price = Fiat::parse_decimal(text, currency(code)).unwrap();
        assert_eq!((price.minor, price.to_decimal().to_string()), (minor, shown.to_owned()), "{text} {code}");
    }
    assert_eq!(
        Fiat::parse_decimal("0.5", currency("JPY")),
        Err("`0.5` has too many decimal places; JPY has 0".to_owned())
    );
}

#[test]
fn a_price_is_converted_by_the_minor_units_of_its_currency() {
    let rates = example_rates();
    for (code, rate) in [("JPY", "150"), ("KWD", "0.3")] {
        rates.set_rate("USD", code, Rate { value: rate.parse().unwrap(), source: "fixed".into(), observed_at: NOW });
    }
    for (code, minor, usdt, cents) in
        [("JPY", 1_500, "10", 1_000), ("KWD", 3_000, "10", 1_000), ("CNY", 7_240, "10", 1_000)]
    {
        let price = Fiat::new(Currency::new(code).unwrap(), minor);
        let quote = rates.compute_quote_with_spread(NOW, "USDT", 6, 6, price).unwrap();
        assert_eq!(quote.due.to_decimal(6), usdt, "{price:?}");
        assert_eq!(convert_price_to_usd_cents_rounded_up(&rates, NOW, price), Some(cents), "{price:?}");
    }
}

#[test]
fn a_rate_from_the_future_gives_no_quote() {
    let price = Fiat::new(Currency::USD, 500);
    let quote = |rates: &RateBook, now| rates.compute_quote_with_spread(now, "BTC", 8, 8, price);
    assert!(quote(&example_rates(), NOW.plus_ms(-5_000)).is_ok());
    assert!(matches!(quote(&example_rates(), NOW.plus_ms(-5_001)), Err(QuoteError::Stale { .. })));
    let rates = example_rates();
    rates.set_rate(
        "BTC",
        "USD",
        Rate { value: Decimal::from(65_000), source: "configured".into(), observed_at: Rate::CONFIGURED },
    );
    assert!(quote(&rates, Instant(0)).is_ok(), "a configured rate has no age");
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
