//! Typed row ids, public ids, and the mode and the shop that an object belongs to. Row ids are internal: surfaces show
//! public ids.

use rand::Rng;
use uuid::Uuid;

use clock::Instant;

/// Defines a type for each kind of row id, which is stored in the database as an integer.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$name> for db::Bind {
            fn from(id: $name) -> db::Bind {
                db::Bind::Int(id.0)
            }
        }

        impl db::FromValue for $name {
            fn from_value(value: &db::Value) -> Option<$name> {
                i64::from_value(value).map($name)
            }
        }
    )* };
}

ids! {
    /// The row id of a ledger account.
    AccountId
    /// The row id of an address.
    AddressId
    /// The row id of a coupon.
    CouponId
    /// The row id of a deposit.
    DepositId
    /// The row id of an invoice.
    InvoiceId
    /// The row id of a line of an order.
    LineId
    /// The row id of a merchant.
    MerchantId
    /// The row id of an order.
    OrderId
    /// The row id of a payment.
    PaymentId
    /// The sequence number of a posting in the ledger. A hold is a pending posting, so this number also identifies a
    /// hold.
    PostingSeq
    /// The row id of a product.
    ProductId
    /// The row id of a SKU.
    SkuId
    /// The row id of a stock item.
    StockItemId
    /// The row id of a user.
    UserId
}

/// The mode, live or test. Every order, user, product and other object of a merchant belongs to exactly one mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The mode for real money.
    Live,
    /// The mode for test money, on test networks or simulated chains.
    Test,
}

/// A merchant in one mode. One call reads and changes only the objects of one shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shop {
    /// The merchant who owns the objects of the shop.
    pub merchant: MerchantId,
    /// The mode, live or test, to which the objects of the shop belong.
    pub mode: Mode,
}

db::text_enum!(Mode { Live => "live", Test => "test" });

/// Returns a public id for an object that is created at `now`: a UUID of version 7 (RFC 9562). Its first 48 bits are the
/// time in milliseconds, so that new rows stand side by side in a unique index. Its other 74 free bits are random, so
/// that nobody can guess it.
pub fn generate_public_id(now: Instant) -> Uuid {
    let milliseconds = u64::try_from(now.0).unwrap_or_default();
    let mut random = [0; 10];
    rand::rng().fill_bytes(&mut random);
    uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_ids_grow_with_time_and_differ_within_a_millisecond() {
        let now = Instant(1_770_811_199_999);
        let (first, second) = (generate_public_id(now), generate_public_id(now));
        assert_eq!((first.get_version_num(), &first.to_string()[..13]), (7, &second.to_string()[..13]));
        // The random bits begin after the time and the four bits of the version.
        let differing = (first.as_u128() ^ second.as_u128()).count_ones();
        assert!((10..=64).contains(&differing), "{differing} of 74 random bits differ");
        assert!(generate_public_id(now.plus_ms(1)).to_string() > first.to_string());
    }
}
