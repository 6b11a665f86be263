//! Typed ids. The number is the database's; what a surface shows is a public id of its own.

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
    AccountId
    AddressId
    CouponId
    DepositId
    InvoiceId
    LineId
    MerchantId
    OrderId
    PaymentId
    /// The sequence number of a posting, also of one that is a hold.
    PostingSeq
    ProductId
    SkuId
    StockItemId
    UserId
}

/// Live money or the simulated chains. Everything that a merchant owns belongs to one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Live,
    Test,
}

/// Whose objects a call may see and change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shop {
    pub merchant: MerchantId,
    pub mode: Mode,
}

db::text_enum!(Mode { Live => "live", Test => "test" });
