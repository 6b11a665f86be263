//! One attempt to pay an order. What happens to it is told to whoever sells, in the same transaction.

mod store;

use chain::{Amount, AssetId};

use clock::Instant;
use db::{self, Batch, ResultRef, Tx};
use ids::{OrderId, PaymentId, Shop, UserId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Crypto,
    BalanceCny,
    BalanceCrypto,
    Alipay,
    Wechat,
}

db::text_enum!(Method {
    Crypto => "crypto",
    BalanceCny => "balance_cny",
    BalanceCrypto => "balance_crypto",
    Alipay => "alipay",
    Wechat => "wechat",
});

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Pending,
    Confirming,
    Success,
    Failed,
    Expired,
}

db::text_enum!(State {
    Pending => "pending",
    Confirming => "confirming",
    Success => "success",
    Failed => "failed",
    Expired => "expired",
});

/// What became of a payment. The seller acts on it in the transaction that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentChange {
    /// Money is on its way.
    Confirming(PaymentId),
    Paid(PaymentId),
    /// The window ended without enough money.
    Expired(PaymentId),
    /// It was paid, and its money vanished with its block.
    Reversed(PaymentId),
    /// It was reversed, and its money did not come back in time.
    Lost(PaymentId),
}

/// What was taken from a balance, and at which rate.
#[derive(Debug, Clone)]
pub struct Taken {
    pub asset: AssetId,
    pub amount: Amount,
    /// Rate, source and time, where a conversion was needed.
    pub rate: Option<(String, String, Instant)>,
}

#[derive(Debug, Clone)]
pub struct NewPayment {
    pub order: ResultRef<OrderId>,
    /// The shop of the order.
    pub shop: Shop,
    /// The user whose balance pays; `None` for every other method.
    pub user: Option<UserId>,
    pub method: Method,
    pub state: State,
    pub taken: Option<Taken>,
    pub pay_url: Option<String>,
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

/// Stored with its order, in the same chain.
pub fn request(links: &mut Batch, now: Instant, new: &NewPayment) -> ResultRef<PaymentId> {
    store::insert_payment(links, now, new)
}

/// What it is for.
pub async fn find_order(tx: &mut Tx, id: PaymentId) -> Result<Option<OrderId>, db::Error> {
    store::find_order(tx, id).await
}

/// The newest attempt to pay an order.
pub async fn find_newest(tx: &mut Tx, order: OrderId) -> Result<Option<PaymentId>, db::Error> {
    store::find_newest(tx, order).await
}

/// Ends an attempt on somebody else's page: as a person saw it arrive there, or because its window is over. Such money is
/// never in this ledger. On-chain attempts end with their invoices; `None` for them, and for what has ended before.
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

pub(crate) async fn advance(tx: &mut Tx, now: Instant, to: &[(PaymentId, State)]) -> Result<(), db::Error> {
    store::set_states(tx, now, to).await
}
