use proptest::prelude::*;

use super::*;

const NOW: Instant = Instant(1_000_000);

fn book() -> RateBook {
    let book = RateBook::new(60_000, 0);
    let rate = |value: &str| Rate { value: value.parse().unwrap(), source: "fixed".into(), at: NOW };
    book.set("USDT", "USD", rate("1"));
    book.set("USD", "CNY", rate("7.24"));
    book.set("BTC", "USD", rate("65000"));
    book
}

#[test]
fn the_contracts_example_is_reproduced() {
    let quote = book().quote(NOW, "USDT", 6, 6, Fiat::new(Currency::CNY, 500)).unwrap();
    assert_eq!(quote.due.to_decimal(6), "0.690608");
    assert_eq!(quote.rate.to_string(), "7.24");
}

#[test]
fn a_token_with_18_decimals_is_quoted_with_6() {
    let quote = book().quote(NOW, "USDT", 18, 6, Fiat::new(Currency::CNY, 500)).unwrap();
    assert_eq!(quote.due.to_decimal(18), "0.690608");
}

#[test]
fn no_rate_or_a_stale_one_quotes_nothing() {
    let price = Fiat::new(Currency::CNY, 500);
    assert!(matches!(book().quote(NOW, "ETH", 18, 18, price), Err(QuoteError::NoRate { .. })));
    let later = NOW.plus_ms(60_001);
    assert!(matches!(book().quote(later, "BTC", 8, 8, price), Err(QuoteError::Stale { .. })));
    let book = book();
    book.withdraw("USDT", "USD");
    assert!(book.quote(NOW, "USDT", 6, 6, price).is_err());
}

#[test]
fn the_spread_is_on_top() {
    let book = RateBook { spread_basis_points: 100, ..book() };
    let quote = book.quote(NOW, "USDT", 6, 6, Fiat::new(Currency::USD, 9_900)).unwrap();
    assert_eq!(quote.due.to_decimal(6), "100");
}

proptest! {
    /// The amount pays the price, and one base unit less would not.
    #[test]
    fn due_is_the_least_amount_that_pays(minor in 1i64..10_000_000_000, mantissa in 1i64..1_000_000_000_000, scale in 0u32..12, decimals in 0u8..=18) {
        let rate = Decimal::new(mantissa, scale);
        if let Some(due) = amount_for(Fiat::new(Currency::USD, minor), rate, decimals) {
            // due · rate ≥ price, over integers: due · mantissa · 100 ≥ minor · 10^(scale + decimals)
            let needed = Units::from(minor) * Units::from(10).pow(Units::from(scale + u32::from(decimals)));
            let pays = |units: Units| units * Units::from(mantissa) * Units::from(100) >= needed;
            prop_assert!(pays(due.units()));
            prop_assert!(!pays(due.units() - Units::from(1)));
        }
    }
}
