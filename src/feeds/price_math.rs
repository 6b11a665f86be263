//! The median of prices, and the distance between two prices, as exact decimals.

use rust_decimal::Decimal;

/// Returns the median of prices in any order: the middle one, or the mean of the middle two; `None` without prices.
pub fn compute_median(prices: &[Decimal]) -> Option<Decimal> {
    let mut sorted = prices.to_vec();
    sorted.sort();
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    let lower = sorted.get(sorted.len() / 2 - 1)?;
    // Half of the difference is added to the lower price, because the sum of two large prices may overflow.
    lower.checked_add(upper.checked_sub(*lower)?.checked_div(Decimal::TWO)?)
}

/// Returns true when the difference between `price` and `from` is at most `percent` percent of `from`, which must be
/// above zero. Returns false when the numbers are too large to compare.
pub fn is_within_percent(price: Decimal, from: Decimal, percent: u32) -> bool {
    let allowed = from.checked_mul(Decimal::new(i64::from(percent), 2));
    let distance = price.checked_sub(from).map(|distance| distance.abs());
    matches!((distance, allowed), (Some(distance), Some(allowed)) if distance <= allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prices() -> impl Strategy<Value = Vec<Decimal>> {
        let price = (1_i64..=i64::MAX, 0_u32..=18).prop_map(|(digits, scale)| Decimal::new(digits, scale));
        proptest::collection::vec(price, 1..9)
    }

    proptest! {
        #[test]
        fn at_most_half_of_the_prices_are_on_each_side_of_the_median(prices in prices()) {
            let median = compute_median(&prices).unwrap();
            let below = prices.iter().filter(|price| **price < median).count();
            let above = prices.iter().filter(|price| **price > median).count();
            prop_assert!(below <= prices.len() / 2 && above <= prices.len() / 2);
        }

        #[test]
        fn the_median_does_not_depend_on_the_order(prices in prices()) {
            let mut reversed = prices.clone();
            reversed.reverse();
            prop_assert_eq!(compute_median(&prices), compute_median(&reversed));
        }

        #[test]
        fn a_price_is_near_itself(prices in prices(), percent in 1_u32..=100) {
            prop_assert!(is_within_percent(prices[0], prices[0], percent));
        }
    }

    #[test]
    fn medians_and_distances_of_known_prices() {
        let median_of =
            |texts: &[&str]| compute_median(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Decimal>>());
        assert_eq!(median_of(&[]), None);
        assert_eq!(median_of(&["3"]), Some(Decimal::from(3)));
        assert_eq!(median_of(&["1", "100", "2"]), Some(Decimal::from(2)));
        assert_eq!(median_of(&["1.01", "1.02"]), Some(Decimal::new(1015, 3)));
        for (price, percent, near) in [("102", 2, true), ("102.01", 2, false), ("98", 2, true), ("97.9", 2, false)] {
            assert_eq!(is_within_percent(price.parse().unwrap(), Decimal::ONE_HUNDRED, percent), near, "{price}");
        }
    }
}
