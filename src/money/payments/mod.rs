//! Payments: attempts to pay an order. The seller learns of every change in the transaction that makes it; see
//! [`crate::effects`].

#![deny(missing_docs)]

mod store;

use chain::{Amount, AssetId};

use clock::Instant;
use db::{self, Batch, ResultRef, Tx};
use ids::{OrderId, PaymentId, Shop, UserId};

/// The way in which a payment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// On a chain, to the address of an invoice.
    Crypto,
    /// From the user's balance in CNY.
    BalanceCny,
    /// From the user's balance in USD, converted at the rate in force.
    BalanceCrypto,
    /// On the page of Alipay.
    Alipay,
    /// On the page of WeChat Pay.
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
    /// Waits for money.
    Pending,
    /// Money has arrived and is not confirmed yet.
    Confirming,
    /// Paid. A payment whose block vanished stays in this state until its money is lost for good.
    Success,
    /// Its invoice was cancelled.
    Failed,
    /// The window ended without enough money.
    Expired,
}

db::text_enum!(State {
    Pending => "pending",
    Confirming => "confirming",
    Success => "success",
    Failed => "failed",
    Expired => "expired",
});

/// A change of a payment on which the seller acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentChange {
    /// Money has arrived and is not confirmed yet.
    Confirming(PaymentId),
    /// Enough money is confirmed.
    Paid(PaymentId),
    /// The window ended without enough money.
    Expired(PaymentId),
    /// It was paid, and then its money vanished with its block. The money may come back.
    Reversed(PaymentId),
    /// It was reversed, and the money did not come back in time.
    Lost(PaymentId),
}

/// The amount that was taken from a balance, and the rate.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The asset of the balance.
    pub asset: AssetId,
    /// Base units.
    pub amount: Amount,
    /// Rate, source and time of the rate, where a conversion was needed.
    pub rate: Option<(String, String, Instant)>,
}

/// A payment to store.
#[derive(Debug, Clone)]
pub struct NewPayment {
    /// The order, stored in the same batch.
    pub order: ResultRef<OrderId>,
    /// The shop of the order.
    pub shop: Shop,
    /// The user whose balance pays; `None` for every other method.
    pub user: Option<UserId>,
    /// The way in which it is paid.
    pub method: Method,
    /// The state in which it is stored.
    pub state: State,
    /// The amount taken from a balance; `None` for the other methods.
    pub taken: Option<Taken>,
    /// The external page on which the buyer pays; `None` for the other methods.
    pub pay_url: Option<String>,
    /// The id of the payment at the external provider.
    pub provider_ref: Option<String>,
}

impl NewPayment {
    /// A payment that waits for money from outside.
    pub fn pending(order: ResultRef<OrderId>, shop: Shop, method: Method) -> NewPayment {
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

/// Adds the statement that stores a payment to the batch of its order.
pub fn request(links: &mut Batch, now: Instant, new: &NewPayment) -> ResultRef<PaymentId> {
    store::insert_payment(links, now, new)
}

/// Returns the order that a payment is for.
pub async fn find_order(tx: &mut Tx, id: PaymentId) -> Result<Option<OrderId>, db::Error> {
    store::find_order(tx, id).await
}

/// Returns the newest payment of an order.
pub async fn find_newest(tx: &mut Tx, order: OrderId) -> Result<Option<PaymentId>, db::Error> {
    store::find_newest(tx, order).await
}

/// Closes a pending payment on an external page: as paid when the operator saw the money there, otherwise as expired. Such money
/// is never in this ledger. Returns `None` when the payment is not on an external page or not pending.
pub async fn close_external(
    tx: &mut Tx,
    now: Instant,
    id: PaymentId,
    paid: bool,
) -> Result<Option<PaymentChange>, db::Error> {
    let to = if paid { State::Success } else { State::Expired };
    if !store::set_external_closed(tx, now, id, to).await? {
        return Ok(None);
    }
    Ok(Some(if paid { PaymentChange::Paid(id) } else { PaymentChange::Expired(id) }))
}

/// Stores the new states of payments.
pub(crate) async fn advance(tx: &mut Tx, now: Instant, to: &[(PaymentId, State)]) -> Result<(), db::Error> {
    store::set_states(tx, now, to).await
}
