//! What a buyer asks for, read and checked as far as that needs no database.

use email_address::{EmailAddress, Options};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{assets, ids};
use money::payments::Method;
use web::body::{BadRequest, Fields};

const EMAIL_LENGTH_MAX: usize = 254;

/// The body of Create Order.
#[derive(ToSchema)]
#[schema(as = NewOrder)]
#[expect(dead_code, reason = "it documents what `OrderRequest::parse` reads")]
pub struct OrderRequestSchema {
    /// The product's `id`; a slug is not accepted here.
    #[schema(rename = "productId")]
    product_id: Uuid,
    /// At least the product's `min_quantity`, at most 200, never more than the stock.
    #[schema(minimum = 1, maximum = 200)]
    quantity: u32,
    /// Used to contact the buyer and to look the order up.
    #[schema(rename = "contactEmail", format = "email")]
    contact_email: String,
    /// `crypto`, `balance_cny`, `balance_crypto`, `alipay` or `wechat`.
    #[schema(rename = "paymentMethod")]
    payment_method: crate::wire::Method,
    /// Only with `crypto`: `trc20_usdt`, `erc20_usdt`, `bep20_usdt`, `btc`, `eth`, `trx` or `bnb`.
    coin: Option<String>,
    #[schema(rename = "couponCode")]
    coupon_code: Option<String>,
}

/// Serialised, it is what an idempotency key belongs to: equal requests read equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderRequest {
    pub product: Uuid,
    pub quantity: u32,
    pub email: String,
    pub payment: Payment,
    pub coupon: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Payment {
    Crypto { coin: String },
    BalanceCny,
    BalanceCrypto,
    Alipay,
    Wechat,
}

impl OrderRequest {
    pub fn parse(fields: &Fields) -> Result<OrderRequest, BadRequest> {
        let product = ids::parse(fields.text("productId")?);
        Ok(OrderRequest {
            product: product.ok_or_else(|| BadRequest::field("productId", "must be the id of a product"))?,
            quantity: quantity(fields.integer("quantity")?)?,
            email: email(fields.text("contactEmail")?)?,
            payment: Payment::parse(fields)?,
            coupon: fields.optional_text("couponCode")?.map(|code| code.trim().to_owned()),
        })
    }
}

impl Payment {
    /// `coin` is read only where it matters.
    fn parse(fields: &Fields) -> Result<Payment, BadRequest> {
        match fields.text("paymentMethod")? {
            "crypto" => match fields.text("coin")? {
                coin if assets::is_known(coin) => Ok(Payment::Crypto { coin: coin.to_owned() }),
                _ => Err(BadRequest::field("coin", format!("must be one of {}", assets::ALL.join(", ")))),
            },
            "balance_cny" => Ok(Payment::BalanceCny),
            "balance_crypto" => Ok(Payment::BalanceCrypto),
            "alipay" => Ok(Payment::Alipay),
            "wechat" => Ok(Payment::Wechat),
            _ => {
                let known = "must be one of crypto, balance_cny, balance_crypto, alipay, wechat";
                Err(BadRequest::field("paymentMethod", known))
            }
        }
    }

    pub fn method(&self) -> Method {
        match self {
            Payment::Crypto { .. } => Method::Crypto,
            Payment::BalanceCny => Method::BalanceCny,
            Payment::BalanceCrypto => Method::BalanceCrypto,
            Payment::Alipay => Method::Alipay,
            Payment::Wechat => Method::Wechat,
        }
    }

    pub fn coin(&self) -> Option<&str> {
        match self {
            Payment::Crypto { coin } => Some(coin),
            Payment::BalanceCny | Payment::BalanceCrypto | Payment::Alipay | Payment::Wechat => None,
        }
    }
}

/// One that does not fit is refused later, by the product's own limits, like any other that is too large.
fn quantity(wanted: u64) -> Result<u32, BadRequest> {
    match u32::try_from(wanted).unwrap_or(u32::MAX) {
        0 => Err(BadRequest::field("quantity", "must be a positive integer")),
        quantity => Ok(quantity),
    }
}

/// An address that mail can reach: without a name beside it, with a domain of at least two labels.
pub fn email(text: &str) -> Result<String, BadRequest> {
    let options = Options { minimum_sub_domains: 2, allow_domain_literal: false, allow_display_text: false };
    let text = text.trim();
    let valid = text.len() <= EMAIL_LENGTH_MAX && EmailAddress::parse_with_options(text, options).is_ok();
    valid.then(|| text.to_owned()).ok_or_else(|| BadRequest::field("contactEmail", "must be a valid e-mail address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for text in ["buyer@example.com", " Buyer+tag@Example.co.uk ", "a.b@x-y.example"] {
            assert_eq!(email(text).unwrap(), text.trim());
        }
        let long = format!("{}@example.com", "a".repeat(250));
        for text in [
            "",
            "buyer",
            "buyer@",
            "@example.com",
            "a b@example.com",
            "a@b",
            "a@@example.com",
            "A <a@example.com>",
            "a@[127.0.0.1]",
            "a@example..com",
            "a@example.com, b@example.com",
            &long,
        ] {
            assert!(email(text).is_err(), "{text}");
        }
    }
}
