//! Order numbers such as `CO2026021179HTK7Q2M9XD4TABE`: the prefix of the surface, the day in UTC, the time of day in four
//! digits, and 65 random bits.

use rand::CryptoRng;
use uuid::Uuid;

use clock::Instant;

/// The digits of Crockford's base 32. They leave out I, L and O, which are easily misread, and U, which could form
/// offensive words.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// The number of random digits in an order number. Each digit has 5 random bits.
const RANDOM_DIGITS: usize = 13;
/// The number of digits for the time of day. The last of them counts steps of 82 ms, so that the numbers of orders that
/// are created one after the other stand side by side in the database's index.
const TIME_DIGITS: u32 = 4;
/// The milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// The public id and the number of an order. Each attempt to create an order generates new ones, because the number of
/// a failed attempt may belong to another order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderReference {
    /// The order's id in the APIs: a UUID of version 7, see [`ids::generate_public_id`].
    pub public_id: Uuid,
    /// The order number that buyers and operators see.
    pub order_no: String,
}

impl OrderReference {
    /// Returns an order reference with a new public id and a new order number that starts with `prefix`. The order number
    /// grows with time, and ends in 65 random bits, so that nobody can guess it.
    pub fn new_random(rng: &mut impl CryptoRng, prefix: &str, now: Instant) -> OrderReference {
        let mut random = [0; RANDOM_DIGITS];
        rng.fill_bytes(&mut random);
        let digits: String = random.iter().map(|byte| char::from(DIGITS[usize::from(byte & 31)])).collect();
        OrderReference {
            public_id: ids::generate_public_id(now),
            order_no: format!("{prefix}{}{}{digits}", format_utc_day(now), format_time_of_day(now)),
        }
    }
}

/// Returns the day of `now` in UTC as eight digits, such as `20260211`.
fn format_utc_day(now: Instant) -> String {
    let text = now.to_string();
    text.chars().take(10).filter(|c| *c != '-').collect()
}

/// Returns the time of day of `now` as four digits of Crockford's base 32, which are a fraction of the day: `0000` at
/// midnight UTC and `ZZZZ` in the last 82 ms of the day.
fn format_time_of_day(now: Instant) -> String {
    let steps = 1 << (5 * TIME_DIGITS);
    let step = now.0.rem_euclid(DAY_MS) * steps / DAY_MS;
    let digit = |place| usize::try_from(step >> (5 * place) & 31).map_or('0', |digit| char::from(DIGITS[digit]));
    (0..TIME_DIGITS).rev().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_its_day_and_cannot_be_guessed() {
        let now = Instant(1_770_811_199_999);
        let reference = OrderReference::new_random(&mut rand::rng(), "CO", now);
        assert_eq!(reference.order_no.len(), 27);
        assert!(reference.order_no.starts_with("CO20260211"), "{}", reference.order_no);
        assert!(reference.order_no[10..].bytes().all(|b| DIGITS.contains(&b)));
        assert_ne!(reference.order_no, OrderReference::new_random(&mut rand::rng(), "CO", now).order_no);
    }

    #[test]
    fn numbers_grow_through_the_day() {
        let midnight = Instant(1_770_768_000_000);
        let time_of_day = |ms| format_time_of_day(midnight.plus_ms(ms));
        let times =
            [(0, "0000"), (82, "0000"), (83, "0001"), (DAY_MS / 2, "G000"), (DAY_MS - 1, "ZZZZ"), (DAY_MS, "0000")];
        for (ms, digits) in times {
            assert_eq!(time_of_day(ms), digits, "{ms} ms after midnight");
        }
        let number = |ms| OrderReference::new_random(&mut rand::rng(), "CO", midnight.plus_ms(ms)).order_no;
        assert!(number(0) < number(100) && number(DAY_MS - 1) < number(DAY_MS));
    }
}
