//! The JSON values in the responses of this surface, and their conversions from products, orders, payments and
//! invoices.

use chain::Family;
use chain::payment_uri::build_uri_or_plain_address;
use serde::Serialize;
use utoipa::ToSchema;

use clock::Instant;
use money::assets::Assets;
use money::invoices::{self, InvoiceTerms, ReceivedSums};
use money::payments;
use shop::catalog;
use shop::orders::new_payment::PaymentInstructions;
use shop::orders::{self, OrderDetails, OrderLine, OrderStatus, PlacedOrder};
use web::number::Number;

/// An active product with its price.
#[derive(Serialize, ToSchema)]
pub struct Product {
    /// The product's id, a UUID; it is the `productId` of a new order.
    id: String,
    slug: String,
    name_zh: String,
    name_en: String,
    /// The number of units that a buyer can order now.
    stock: u64,
    /// The smallest quantity in one order.
    min_quantity: u32,
    /// The price of one unit in CNY.
    price: Number,
}

/// An order that was just created.
#[derive(Serialize, ToSchema)]
pub struct Order {
    /// The order's id, a UUID; the status endpoint finds the order by it.
    id: String,
    /// The order number. Query Order finds the order by this number and the e-mail address.
    order_no: String,
    status: Status,
    payment_status: PaymentStatus,
    fulfillment_status: FulfillmentStatus,
    product_id: String,
    quantity: u32,
    unit_price: Number,
    /// The amount before the coupon's discount.
    original_amount: Number,
    discount_amount: Number,
    /// The amount to pay, after the coupon's discount.
    amount: Number,
    currency: String,
    payment_method: Method,
    /// The time of creation, RFC 3339 in UTC.
    created_at: String,
    /// The end of the payment window; `null` when the order was paid at once.
    #[schema(required)]
    expires_at: Option<String>,
}

/// The data that the buyer needs to pay.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Payment {
    /// The buyer sends the amount to the address.
    OnChain(OnChainPayment),
    /// The buyer pays on the page of Alipay or WeChat Pay.
    External(ExternalPayment),
}

/// Payment method `crypto`: the amount to send, and the address to send it to.
#[derive(Serialize, ToSchema)]
#[schema(as = CoinPayment)]
pub struct OnChainPayment {
    coin: String,
    /// The address to pay to. No other order uses it.
    address: String,
    /// The exact amount to send, as a decimal number.
    expected_amount: String,
    /// The text for a QR code: a BIP 21 URI on Bitcoin, the address on other chains.
    qr_code: String,
    #[schema(required)]
    expires_at: Option<String>,
}

/// Payment methods `alipay` and `wechat`: the page on which the buyer pays.
#[derive(Serialize, ToSchema)]
pub struct ExternalPayment {
    pay_url: String,
    #[schema(required)]
    expires_at: Option<String>,
}

/// An order that its buyer looked up.
#[derive(Serialize, ToSchema)]
pub struct FoundOrder {
    id: String,
    order_no: String,
    status: Status,
    payment_status: PaymentStatus,
    fulfillment_status: FulfillmentStatus,
    product_id: String,
    quantity: u32,
    amount: Number,
    currency: String,
    payment_method: Method,
    created_at: String,
    /// The delivered credentials, one for each unit. `null` unless `status` is `completed`.
    #[schema(required)]
    credentials: Option<Vec<String>>,
}

/// The progress of an order's payment.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Progress {
    /// Payment method `crypto`: the amount that has arrived, and its confirmations.
    OnChain(OnChainProgress),
    /// Payment methods `alipay` and `wechat`: the page on which the buyer pays.
    External(ExternalPayment),
}

/// The progress of an on-chain payment.
#[derive(Serialize, ToSchema)]
#[schema(as = CoinProgress)]
pub struct OnChainProgress {
    coin: String,
    address: String,
    expected_amount: String,
    /// The amount that has arrived so far, confirmed or not.
    received_amount: String,
    /// The number of confirmations of the transfer that has the fewest confirmations.
    confirmations: u64,
    required_confirmations: u32,
    /// The hash of the newest transaction that pays the order; `null` while there is none.
    #[schema(required)]
    tx_hash: Option<String>,
    /// The text for a QR code with the amount that is still missing; `null` when nothing more is to be paid.
    #[schema(required)]
    qr_code: Option<String>,
    expires_at: String,
}

/// The state of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The order waits for its payment.
    Pending,
    /// The order is paid, but its delivery has not begun.
    Paid,
    /// The delivery is in progress.
    Processing,
    /// All items are delivered.
    Completed,
    /// The payment window ended without full payment.
    Expired,
    /// The order was cancelled and will not be delivered.
    Cancelled,
    /// The order was paid, but it cannot be delivered, or its payment disappeared in a reorganisation of the chain.
    Failed,
    /// The payment was returned to the buyer.
    Refunded,
}

/// The state of an order's payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// No payment has arrived.
    Pending,
    /// A payment has arrived and waits for confirmations.
    Confirming,
    /// Everything that has arrived is confirmed, and it is less than the amount due.
    Underpaid,
    /// The amount due is paid and confirmed.
    Paid,
    /// The order can no longer be paid, for example because it has expired or was cancelled.
    Expired,
    /// The payment was returned to the buyer.
    Refunded,
}

/// The state of an order's delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FulfillmentStatus {
    /// The delivery has not begun.
    Pending,
    /// The delivery is in progress.
    Processing,
    /// All items are delivered. A later refund does not change this.
    Delivered,
    /// The order cannot be delivered.
    Failed,
}

/// A payment method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The buyer transfers an asset on its chain.
    Crypto,
    /// A logged-in user pays from the balance in CNY.
    BalanceCny,
    /// A logged-in user pays from the balance in USD.
    BalanceCrypto,
    /// The buyer pays on Alipay's payment page.
    Alipay,
    /// The buyer pays on WeChat Pay's payment page.
    Wechat,
}

impl From<catalog::Product> for Product {
    fn from(product: catalog::Product) -> Product {
        let name = |first: &str, second: &str| {
            let text = product
                .texts
                .find_text_in_language_or_variant("name", first)
                .or_else(|| product.texts.find_text_in_language_or_variant("name", second));
            text.unwrap_or(&product.slug).to_owned()
        };
        Product {
            name_zh: name("zh", "en"),
            name_en: name("en", "zh"),
            id: product.public_id,
            slug: product.slug,
            stock: product.stock,
            min_quantity: product.min_quantity,
            price: product.unit_price.to_decimal().into(),
        }
    }
}

impl Order {
    /// Returns the JSON value of an order that was just created.
    pub fn from_placed_order(created: &PlacedOrder, method: payments::Method) -> Order {
        let order = &created.order;
        let line = created.lines.first();
        let payment_status = if order.state.is_unpaid() { PaymentStatus::Pending } else { PaymentStatus::Paid };
        Order {
            id: order.public_id.clone(),
            order_no: order.order_no.clone(),
            status: order.state.into(),
            payment_status,
            fulfillment_status: order.state.into(),
            product_id: line.map(|line| line.product.clone()).unwrap_or_default(),
            quantity: line.map_or(0, |line| line.quantity),
            unit_price: line.map_or(order.amount, |line| line.unit_price).to_decimal().into(),
            original_amount: order.original_amount.to_decimal().into(),
            discount_amount: order.discount_amount.to_decimal().into(),
            amount: order.amount.to_decimal().into(),
            currency: order.amount.currency.to_string(),
            payment_method: method.into(),
            created_at: order.created_at.to_string(),
            expires_at: order.expires_at.map(|at| at.to_string()),
        }
    }
}

impl Payment {
    /// Returns the payment instructions for the buyer as a JSON value; `None` when the order is already paid.
    /// `asset_code` is the code of the asset that the buyer chose; `None` for payments that are not on a chain.
    pub fn from_instructions(created: &PlacedOrder, asset_code: Option<&str>) -> Option<Payment> {
        let expires_at = created.order.expires_at.map(|at| at.to_string());
        match &created.instructions {
            PaymentInstructions::AlreadyPaid => None,
            PaymentInstructions::Transfer { asset, family, address, due } => Some(Payment::OnChain(OnChainPayment {
                coin: asset_code.unwrap_or_default().to_owned(),
                address: address.clone(),
                expected_amount: due.to_decimal(asset.decimals),
                qr_code: build_uri_or_plain_address(*family, asset, address, *due),
                expires_at,
            })),
            PaymentInstructions::External { pay_url } => {
                Some(Payment::External(ExternalPayment { pay_url: pay_url.clone(), expires_at }))
            }
        }
    }
}

impl FoundOrder {
    /// Returns the JSON value of an order for its buyer. `credentials` are the texts of the delivered items; `None`
    /// until the order is completed.
    pub fn from_order_details(
        details: &OrderDetails,
        lines: &[OrderLine],
        credentials: Option<Vec<String>>,
    ) -> FoundOrder {
        let order = &details.order;
        let line = lines.first();
        FoundOrder {
            id: order.public_id.clone(),
            order_no: order.order_no.clone(),
            status: order.state.into(),
            payment_status: derive_payment_status(&details.status),
            fulfillment_status: order.state.into(),
            product_id: line.map(|line| line.product.clone()).unwrap_or_default(),
            quantity: line.map_or(0, |line| line.quantity),
            amount: order.amount.to_decimal().into(),
            currency: order.amount.currency.to_string(),
            payment_method: details.status.method.into(),
            created_at: order.created_at.to_string(),
            credentials,
        }
    }
}

impl Progress {
    /// Returns the progress of an order's payment; `None` for a payment from a balance, and for an on-chain payment
    /// whose asset is no longer configured.
    pub fn from_order_status(status: &OrderStatus, now: Instant, assets: &Assets) -> Option<Progress> {
        if let Some((terms, received)) = &status.invoice {
            return OnChainProgress::from_invoice(terms, received, now, assets).map(Progress::OnChain);
        }
        let pay_url = status.pay_url.clone()?;
        let expires_at = status.expires_at.map(|at| at.to_string());
        Some(Progress::External(ExternalPayment { pay_url, expires_at }))
    }
}

/// Returns the number of confirmations that the received deposits of an invoice need, by their value; 0 when there are
/// no deposits.
fn confirmations_required_by_deposits(received: &ReceivedSums) -> u32 {
    let needed = received.required_confirmations.unwrap_or(0);
    u32::try_from(needed).unwrap_or(u32::MAX)
}

impl OnChainProgress {
    /// Returns the progress of an on-chain payment; `None` when the asset or the chain of the invoice is no longer
    /// configured.
    fn from_invoice(
        terms: &InvoiceTerms,
        received: &ReceivedSums,
        now: Instant,
        assets: &Assets,
    ) -> Option<OnChainProgress> {
        let payment_asset = assets.find_payment_asset_by_id(&terms.asset)?;
        let family = assets.find_followed_chain(&terms.chain)?.family;
        let missing = terms.due.saturating_sub(received.total_with_unconfirmed());
        // An invoice may stay open after its payment window, while a transfer that was made in time is unconfirmed. A
        // transfer that is made after the window would be too late, so no QR code is shown then.
        let is_payable = terms.state == invoices::State::Open && missing > terms.tolerance && now <= terms.expires_at;
        Some(OnChainProgress {
            coin: payment_asset.code.clone(),
            address: terms.address.clone(),
            expected_amount: terms.due.to_decimal(payment_asset.asset.decimals),
            received_amount: received.total_with_unconfirmed().to_decimal(payment_asset.asset.decimals),
            confirmations: received.confirmations.unwrap_or(0),
            required_confirmations: terms.confirmations.max(confirmations_required_by_deposits(received)),
            tx_hash: received.txid.map(|txid| match family {
                Family::Evm => format!("0x{txid}"),
                Family::Bitcoin | Family::Tron => txid.to_string(),
            }),
            qr_code: is_payable
                .then(|| build_uri_or_plain_address(family, &payment_asset.asset, &terms.address, missing)),
            expires_at: terms.expires_at.to_string(),
        })
    }
}

impl From<orders::State> for Status {
    fn from(state: orders::State) -> Status {
        match state {
            orders::State::Created | orders::State::AwaitingPayment => Status::Pending,
            orders::State::Paid => Status::Paid,
            orders::State::Processing | orders::State::PartiallyDelivered => Status::Processing,
            orders::State::Delivered | orders::State::Completed => Status::Completed,
            orders::State::Expired => Status::Expired,
            orders::State::Cancelled => Status::Cancelled,
            orders::State::Failed => Status::Failed,
            orders::State::Refunded => Status::Refunded,
        }
    }
}

impl From<orders::State> for FulfillmentStatus {
    fn from(state: orders::State) -> FulfillmentStatus {
        match state {
            orders::State::Created
            | orders::State::AwaitingPayment
            | orders::State::Paid
            | orders::State::Expired
            | orders::State::Cancelled => FulfillmentStatus::Pending,
            orders::State::Processing | orders::State::PartiallyDelivered => FulfillmentStatus::Processing,
            // A refund takes nothing back that was delivered.
            orders::State::Delivered | orders::State::Completed | orders::State::Refunded => {
                FulfillmentStatus::Delivered
            }
            orders::State::Failed => FulfillmentStatus::Failed,
        }
    }
}

impl From<payments::Method> for Method {
    fn from(method: payments::Method) -> Method {
        match method {
            payments::Method::Crypto => Method::Crypto,
            payments::Method::BalanceCny => Method::BalanceCny,
            payments::Method::BalanceCrypto => Method::BalanceCrypto,
            payments::Method::Alipay => Method::Alipay,
            payments::Method::Wechat => Method::Wechat,
        }
    }
}

/// Returns the payment status of an order: from the state of the order when it is refunded, expired or cancelled,
/// otherwise from its invoice or, without an invoice, its newest payment.
pub fn derive_payment_status(status: &OrderStatus) -> PaymentStatus {
    match status.state {
        orders::State::Refunded => PaymentStatus::Refunded,
        // An expired or cancelled order can no longer be paid, so the state of its payment is not shown.
        orders::State::Expired | orders::State::Cancelled => PaymentStatus::Expired,
        orders::State::Created
        | orders::State::AwaitingPayment
        | orders::State::Paid
        | orders::State::Processing
        | orders::State::PartiallyDelivered
        | orders::State::Delivered
        | orders::State::Completed
        | orders::State::Failed => derive_status_from_invoice_or_payment(status),
    }
}

/// Returns the payment status of an order that is neither refunded, expired nor cancelled: from its invoice or, without
/// an invoice, from the state of its newest payment.
fn derive_status_from_invoice_or_payment(status: &OrderStatus) -> PaymentStatus {
    match (&status.invoice, status.payment_state) {
        (Some((terms, received)), _) => derive_status_from_invoice(terms.state, received),
        (None, payments::State::Pending) => PaymentStatus::Pending,
        (None, payments::State::Confirming) => PaymentStatus::Confirming,
        (None, payments::State::Success) => PaymentStatus::Paid,
        (None, payments::State::Failed | payments::State::Expired) => PaymentStatus::Expired,
    }
}

/// Returns the payment status of an on-chain payment, from the state of its invoice and the received amounts.
fn derive_status_from_invoice(state: invoices::State, received: &ReceivedSums) -> PaymentStatus {
    match state {
        invoices::State::Paid => PaymentStatus::Paid,
        invoices::State::Expired | invoices::State::Cancelled => PaymentStatus::Expired,
        invoices::State::Open | invoices::State::Reversed if received.has_unconfirmed_amount() => {
            PaymentStatus::Confirming
        }
        invoices::State::Open | invoices::State::Reversed if !received.confirmed.is_zero() => PaymentStatus::Underpaid,
        invoices::State::Open | invoices::State::Reversed => PaymentStatus::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_an_order_has_a_status() {
        use FulfillmentStatus as F;
        use Status as S;
        use orders::State::*;
        let table = [
            (Created, S::Pending, F::Pending),
            (AwaitingPayment, S::Pending, F::Pending),
            (Paid, S::Paid, F::Pending),
            (Processing, S::Processing, F::Processing),
            (PartiallyDelivered, S::Processing, F::Processing),
            (Delivered, S::Completed, F::Delivered),
            (Completed, S::Completed, F::Delivered),
            (Expired, S::Expired, F::Pending),
            (Cancelled, S::Cancelled, F::Pending),
            (Failed, S::Failed, F::Failed),
            (Refunded, S::Refunded, F::Delivered),
        ];
        assert_eq!(table.map(|(state, ..)| state), orders::State::ALL);
        for (state, status, fulfillment) in table {
            assert_eq!((Status::from(state), FulfillmentStatus::from(state)), (status, fulfillment), "{state:?}");
        }
    }

    #[test]
    fn the_payment_status_of_an_invoice_shows_what_has_arrived() {
        use invoices::State::*;
        let received = |seen: u128, confirmed: u128| ReceivedSums {
            seen: chain::Amount::from_units(seen),
            confirmed: chain::Amount::from_units(confirmed),
            ..ReceivedSums::default()
        };
        for (state, seen, confirmed, expected) in [
            (Open, 0, 0, PaymentStatus::Pending),
            (Open, 5, 0, PaymentStatus::Confirming),
            (Open, 5, 3, PaymentStatus::Confirming),
            (Open, 5, 5, PaymentStatus::Underpaid),
            (Paid, 9, 9, PaymentStatus::Paid),
            (Reversed, 0, 0, PaymentStatus::Pending),
            (Reversed, 9, 0, PaymentStatus::Confirming),
            (Expired, 0, 0, PaymentStatus::Expired),
            (Cancelled, 0, 0, PaymentStatus::Expired),
        ] {
            assert_eq!(
                derive_status_from_invoice(state, &received(seen, confirmed)),
                expected,
                "{state:?} {seen} {confirmed}"
            );
        }
    }
}
