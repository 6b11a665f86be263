//! Order numbers such as `CO20260211K7Q2M9XD4TAB`: the prefix of the surface, the day in UTC, and 60 random bits.

use rand::CryptoRng;
use uuid::Uuid;

use clock::Instant;

/// The digits of Crockford's base 32. They leave out I, L and O, which are easily misread, and U, which could form
/// offensive words.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// The number of random digits in an order number. Each digit has 5 random bits.
const RANDOM_DIGITS: usize = 12;

/// The public id and the number of an order. Each attempt to create an order generates new ones, because the number of
/// a failed attempt may belong to another order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderReference {
    /// The order's id in the APIs: a random UUID (version 4).
    pub public_id: Uuid,
    /// The order number that buyers and operators see.
    pub order_no: String,
}

impl OrderReference {
    /// Returns an order reference with a random public id (UUID version 4) and a random order number that starts with
    /// `prefix`.
    pub fn new_random(rng: &mut impl CryptoRng, prefix: &str, now: Instant) -> OrderReference {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        let public_id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        let mut random = [0; RANDOM_DIGITS];
        rng.fill_bytes(&mut random);
        let digits: String = random.iter().map(|byte| char::from(DIGITS[usize::from(byte & 31)])).collect();
        OrderReference { public_id, order_no: format!("{prefix}{}{digits}", format_utc_day(now)) }
    }
}

/// Returns the day of `now` in UTC as eight digits, such as `20260211`.
fn format_utc_day(now: Instant) -> String {
    let text = now.to_string();
    text.chars().take(10).filter(|c| *c != '-').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_its_day_and_cannot_be_guessed() {
        let now = Instant(1_770_811_199_999);
        let reference = OrderReference::new_random(&mut rand::rng(), "CO", now);
        assert_eq!(reference.order_no.len(), 22);
        assert!(reference.order_no.starts_with("CO20260211"), "{}", reference.order_no);
        assert!(reference.order_no[10..].bytes().all(|b| DIGITS.contains(&b)));
        assert_eq!(reference.public_id.get_version_num(), 4);
        assert_ne!(reference.order_no, OrderReference::new_random(&mut rand::rng(), "CO", now).order_no);
    }
}
