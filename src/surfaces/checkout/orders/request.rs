//! Parses and validates the body of Create Order, except for the rules that need the database.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{assets, ids, wire};
use money::payments::Method;
use shop::orders;
use web::fields::{BadRequest, Fields};

/// The body of Create Order.
#[derive(ToSchema)]
#[schema(as = NewOrder)]
#[expect(dead_code, reason = "it documents what `OrderRequest::parse_order_request` parses")]
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
    payment_method: wire::Method,
    /// Only with `crypto`: `trc20_usdt`, `erc20_usdt`, `bep20_usdt`, `btc`, `eth`, `trx` or `bnb`.
    coin: Option<String>,
    /// The code of a coupon, in upper or lower case.
    #[schema(rename = "couponCode")]
    coupon_code: Option<String>,
}

/// A parsed request. Its serialisation is the fingerprint of the request for the idempotency key, so equal requests
/// must have the same serialisation, whatever their JSON text is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderRequest {
    /// The `id` of the product to order.
    pub product: Uuid,
    /// The number of units, at least 1.
    pub quantity: u32,
    /// The e-mail address of the buyer, to which the mails about the order are sent.
    pub email: String,
    /// The buyer's choice of payment.
    pub payment: Payment,
    /// The code of a coupon; `None` for an order without a discount.
    pub coupon: Option<String>,
}

/// The buyer's choice of payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Payment {
    /// A transfer on a chain, in the asset with the code `coin`, such as `trc20_usdt`.
    Crypto { coin: String },
    /// The user's CNY balance.
    BalanceCny,
    /// The user's USD balance.
    BalanceCrypto,
    /// The page of Alipay.
    Alipay,
    /// The page of WeChat Pay.
    Wechat,
}

impl OrderRequest {
    /// Parses the fields of the body; fields that the surface does not know are ignored.
    pub fn parse_order_request(fields: &Fields) -> Result<OrderRequest, BadRequest> {
        let product = ids::parse_public_id(fields.required_text("productId")?);
        Ok(OrderRequest {
            product: product.ok_or_else(|| BadRequest::for_field("productId", "must be the id of a product"))?,
            quantity: parse_quantity(fields.required_integer("quantity")?)?,
            email: parse_email(fields.required_text("contactEmail")?)?,
            payment: Payment::parse_payment(fields)?,
            coupon: fields.optional_text("couponCode")?.map(|code| code.trim().to_owned()),
        })
    }
}

impl Payment {
    /// Parses the fields `paymentMethod` and `coin`. `coin` is ignored unless the method is `crypto`.
    fn parse_payment(fields: &Fields) -> Result<Payment, BadRequest> {
        match fields.required_text("paymentMethod")? {
            "crypto" => match fields.required_text("coin")? {
                coin if assets::is_known_asset(coin) => Ok(Payment::Crypto { coin: coin.to_owned() }),
                _ => Err(BadRequest::for_field("coin", format!("must be one of {}", assets::ALL.join(", ")))),
            },
            "balance_cny" => Ok(Payment::BalanceCny),
            "balance_crypto" => Ok(Payment::BalanceCrypto),
            "alipay" => Ok(Payment::Alipay),
            "wechat" => Ok(Payment::Wechat),
            _ => {
                let known = "must be one of crypto, balance_cny, balance_crypto, alipay, wechat";
                Err(BadRequest::for_field("paymentMethod", known))
            }
        }
    }

    /// Returns the payment method, without the asset.
    pub fn payment_method(&self) -> Method {
        match self {
            Payment::Crypto { .. } => Method::Crypto,
            Payment::BalanceCny => Method::BalanceCny,
            Payment::BalanceCrypto => Method::BalanceCrypto,
            Payment::Alipay => Method::Alipay,
            Payment::Wechat => Method::Wechat,
        }
    }

    /// Returns the code of the asset for a payment on a chain; `None` for all other payment methods.
    pub fn asset_code(&self) -> Option<&str> {
        match self {
            Payment::Crypto { coin } => Some(coin),
            Payment::BalanceCny | Payment::BalanceCrypto | Payment::Alipay | Payment::Wechat => None,
        }
    }
}

/// Parses a quantity of at least 1. Returns `u32::MAX` for larger quantities, which the maximum quantity of an order
/// rejects later.
fn parse_quantity(quantity: u64) -> Result<u32, BadRequest> {
    match u32::try_from(quantity).unwrap_or(u32::MAX) {
        0 => Err(BadRequest::for_field("quantity", "must be a positive integer")),
        quantity => Ok(quantity),
    }
}

/// Parses an e-mail address to which mail can be sent.
fn parse_email(text: &str) -> Result<String, BadRequest> {
    let text = text.trim();
    if orders::is_deliverable_email(text) {
        Ok(text.to_owned())
    } else {
        Err(BadRequest::for_field("contactEmail", "must be a valid e-mail address"))
    }
}
