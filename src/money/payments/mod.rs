//! Payments: attempts to pay an order. A change of a payment is reported to the shop in the database transaction that
//! makes it; see [`crate::effects`].

mod store;

use chain::{Amount, AssetId};

use clock::Instant;
use db::{self, ResultRef, Tx};
use ids::{OrderId, PaymentId, Shop, UserId};

/// The way in which the buyer pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// The buyer pays on-chain, to the address of an invoice.
    Crypto,
    /// The user pays from the user's balance in CNY at the shop.
    BalanceCny,
    /// The user pays from the user's balance in USD at the shop. The price is converted at the current rate.
    BalanceCrypto,
    /// The buyer pays on Alipay's payment page.
    Alipay,
    /// The buyer pays on WeChat Pay's payment page.
    Wechat,
}

db::text_enum!(Method {
    Crypto => "crypto",
    BalanceCny => "balance_cny",
    BalanceCrypto => "balance_crypto",
    Alipay => "alipay",
    Wechat => "wechat",
});

/// The state of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No money has arrived.
    Pending,
    /// Money has arrived for the payment, but it is not confirmed yet.
    Confirming,
    /// The payment is paid. When a reorg removes its money, the payment keeps this state while the invoice waits for
    /// the money to be mined again.
    Success,
    /// The invoice of the payment was cancelled.
    Failed,
    /// The payment window ended without enough money.
    Expired,
}

db::text_enum!(State {
    Pending => "pending",
    Confirming => "confirming",
    Success => "success",
    Failed => "failed",
    Expired => "expired",
});

/// A change of a payment. The shop updates the order of the payment accordingly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentChange {
    /// Money has arrived for the payment, but it is not confirmed yet.
    Confirming(PaymentId),
    /// The confirmed money for the payment reaches the amount due.
    Paid(PaymentId),
    /// The payment window ended without enough money.
    Expired(PaymentId),
    /// A reorg removed money of a payment that was paid. The same transaction may be mined again.
    Reversed(PaymentId),
    /// A reorg removed money of the payment, and this money was not mined again in time.
    Lost(PaymentId),
}

/// The amount that a payment took from the balance of a user.
#[derive(Debug, Clone)]
pub struct BalanceDebit {
    /// The asset of the balance.
    pub asset: AssetId,
    /// The amount, in base units of the asset.
    pub amount: Amount,
    /// The exchange rate as decimal text, the source of the rate, and the time when the rate was observed; `None` when
    /// the price is in the currency of the balance.
    pub rate: Option<(String, String, Instant)>,
}

/// The data of a payment that is not stored yet.
#[derive(Debug, Clone)]
pub struct NewPayment {
    /// The order that the payment is for. The same database transaction inserts the order.
    pub order: ResultRef<OrderId>,
    /// The shop of the order.
    pub shop: Shop,
    /// The user whose balance is debited; `None` for a payment that is not from a balance.
    pub user: Option<UserId>,
    /// The way in which the buyer pays.
    pub method: Method,
    /// The state in which the payment is stored first.
    pub state: State,
    /// The amount that is taken from a user's balance; `None` for a payment that is not from a balance.
    pub taken: Option<BalanceDebit>,
    /// The URL of the provider's payment page; `None` unless the method is Alipay or WeChat Pay.
    pub pay_url: Option<String>,
    /// The id of the payment at the external payment provider; `None` when there is no provider, or when it assigned no
    /// id.
    pub provider_ref: Option<String>,
}

impl NewPayment {
    /// Returns the data of a payment in the state `Pending`. The fields that only some methods use are `None`.
    pub fn new_pending_payment(order: ResultRef<OrderId>, shop: Shop, method: Method) -> NewPayment {
        NewPayment {
            order,
            shop,
            user: None,
            method,
            state: State::Pending,
            taken: None,
            pay_url: None,
            provider_ref: None,
        }
    }
}

/// Queues the statement that inserts a payment. The result refers to the id of the new payment.
pub fn queue_payment_insert(tx: &mut Tx, now: Instant, new: &NewPayment) -> ResultRef<PaymentId> {
    store::queue_payment_insert(tx, now, new)
}

/// Returns the id of the order that the payment is for; `None` when the payment does not exist.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_order_of_payment(tx: &mut Tx, id: PaymentId) -> Result<Option<OrderId>, db::Error> {
    store::find_order_of_payment(tx, id).await
}

/// Returns the newest payment of an order; `None` when the order has none.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_newest_payment(tx: &mut Tx, order: OrderId) -> Result<Option<PaymentId>, db::Error> {
    store::find_newest_payment(tx, order).await
}

/// Closes a pending external payment (Alipay, WeChat Pay): as paid when `paid` is true, otherwise as expired. Returns
/// the payment change, which the caller must report to the shop. Returns `None`, and changes nothing, when the payment
/// is not pending or is not an external payment. The ledger does not contain the money of external payments.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn close_pending_external_payment(
    tx: &mut Tx,
    now: Instant,
    id: PaymentId,
    paid: bool,
) -> Result<Option<PaymentChange>, db::Error> {
    let to = if paid { State::Success } else { State::Expired };
    if !store::close_pending_external_payment(tx, now, id, to).await? {
        return Ok(None);
    }
    Ok(Some(if paid { PaymentChange::Paid(id) } else { PaymentChange::Expired(id) }))
}

/// Stores the new states of payments, and the closing time of payments whose new state is closed.
pub(crate) async fn set_payment_states_and_closing_times(
    tx: &mut Tx,
    now: Instant,
    to: &[(PaymentId, State)],
) -> Result<(), db::Error> {
    store::set_payment_states_and_closing_times(tx, now, to).await
}
