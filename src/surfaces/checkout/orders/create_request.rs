//! The request body of `POST /api/orders`: parses and validates its fields. Rules that need the database, such as the
//! stock, are checked by the shop.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{assets, ids, wire};
use money::payments::Method;
use shop::orders;
use web::fields::{BadRequest, Fields};

/// The JSON body of the operation Create Order.
#[derive(ToSchema)]
#[schema(as = NewOrder)]
#[expect(dead_code, reason = "it documents what `OrderRequest::parse_and_validate` parses")]
pub struct OrderRequestSchema {
    /// The product's `id`; a slug is not accepted here.
    #[schema(rename = "productId")]
    product_id: Uuid,
    /// The number of units: at least the product's `min_quantity`, at most 200, and never more than the stock.
    #[schema(minimum = 1, maximum = 200)]
    quantity: u32,
    /// Used to contact the buyer and to look the order up.
    #[schema(rename = "contactEmail", format = "email", min_length = 5, max_length = 254)]
    contact_email: String,
    /// The payment method: `crypto`, `balance_cny`, `balance_crypto`, `alipay` or `wechat`.
    #[schema(rename = "paymentMethod")]
    payment_method: wire::Method,
    /// The asset to pay with, only when `paymentMethod` is `crypto`: `trc20_usdt`, `erc20_usdt`, `bep20_usdt`, `btc`,
    /// `eth`, `trx` or `bnb`.
    coin: Option<String>,
    /// The code of a coupon, in upper or lower case.
    #[schema(rename = "couponCode")]
    coupon_code: Option<String>,
}

/// A parsed request for a new order. Its serialisation is hashed to compare requests with the same idempotency key, so
/// equal requests have the same serialisation even if their JSON texts differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderRequest {
    /// The public id of the product to order.
    pub product: Uuid,
    /// The number of units, at least 1.
    pub quantity: u32,
    /// The e-mail address of the buyer, to which the mails about the order are sent.
    pub email: String,
    /// The payment method that the buyer chose.
    pub payment: PaymentChoice,
    /// The code of a coupon; `None` for an order without a discount.
    pub coupon: Option<String>,
}

/// The payment method that the buyer chose, with the code of the asset for an on-chain payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum PaymentChoice {
    /// The buyer transfers the asset with the code `coin`, such as `trc20_usdt`, on its chain.
    Crypto { coin: String },
    /// The user pays from the balance in CNY.
    BalanceCny,
    /// The user pays from the balance in USD.
    BalanceCrypto,
    /// The buyer pays on Alipay's payment page.
    Alipay,
    /// The buyer pays on WeChat Pay's payment page.
    Wechat,
}

impl OrderRequest {
    /// Parses and validates the fields of the request body. Fields that this surface does not know are ignored.
    pub fn parse_and_validate(fields: &Fields) -> Result<OrderRequest, BadRequest> {
        let product = ids::parse_hyphenated_uuid(fields.required_text("productId")?);
        Ok(OrderRequest {
            product: product.ok_or_else(|| BadRequest::for_field("productId", "must be the id of a product"))?,
            quantity: refuse_zero_and_cap_quantity(fields.required_unsigned_integer("quantity")?)?,
            email: trim_and_check_deliverable_email(fields.required_text("contactEmail")?)?,
            payment: PaymentChoice::parse_choice_and_asset(fields)?,
            coupon: fields.optional_nonblank_text("couponCode")?.map(|code| code.trim().to_owned()),
        })
    }
}

impl PaymentChoice {
    /// Parses the fields `paymentMethod` and `coin`. `coin` is ignored unless the method is `crypto`.
    fn parse_choice_and_asset(fields: &Fields) -> Result<PaymentChoice, BadRequest> {
        match fields.required_text("paymentMethod")? {
            "crypto" => match fields.required_text("coin")? {
                coin if assets::is_known_asset(coin) => Ok(PaymentChoice::Crypto { coin: coin.to_owned() }),
                _ => Err(BadRequest::for_field("coin", format!("must be one of {}", assets::ALL.join(", ")))),
            },
            "balance_cny" => Ok(PaymentChoice::BalanceCny),
            "balance_crypto" => Ok(PaymentChoice::BalanceCrypto),
            "alipay" => Ok(PaymentChoice::Alipay),
            "wechat" => Ok(PaymentChoice::Wechat),
            _ => {
                let known = "must be one of crypto, balance_cny, balance_crypto, alipay, wechat";
                Err(BadRequest::for_field("paymentMethod", known))
            }
        }
    }

    /// Returns the payment method, without the code of the asset.
    pub fn payment_method(&self) -> Method {
        match self {
            PaymentChoice::Crypto { .. } => Method::Crypto,
            PaymentChoice::BalanceCny => Method::BalanceCny,
            PaymentChoice::BalanceCrypto => Method::BalanceCrypto,
            PaymentChoice::Alipay => Method::Alipay,
            PaymentChoice::Wechat => Method::Wechat,
        }
    }

    /// Returns the code of the asset for a payment on a chain; `None` for all other payment methods.
    pub fn asset_code(&self) -> Option<&str> {
        match self {
            PaymentChoice::Crypto { coin } => Some(coin),
            PaymentChoice::BalanceCny
            | PaymentChoice::BalanceCrypto
            | PaymentChoice::Alipay
            | PaymentChoice::Wechat => None,
        }
    }
}

/// Refuses a quantity of 0. A quantity above `u32::MAX` becomes `u32::MAX`, which the shop refuses later as too large.
fn refuse_zero_and_cap_quantity(quantity: u64) -> Result<u32, BadRequest> {
    match u32::try_from(quantity).unwrap_or(u32::MAX) {
        0 => Err(BadRequest::for_field("quantity", "must be a positive integer")),
        quantity => Ok(quantity),
    }
}

/// Returns the e-mail address without surrounding whitespace. Fails when no e-mail can be sent to the address.
fn trim_and_check_deliverable_email(text: &str) -> Result<String, BadRequest> {
    let text = text.trim();
    if orders::is_deliverable_email(text) {
        Ok(text.to_owned())
    } else {
        Err(BadRequest::for_field("contactEmail", "must be a valid e-mail address"))
    }
}
