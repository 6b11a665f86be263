//! The audit log: an append-only log of administrative actions. The database transaction of an action also writes the
//! entry in the audit log, so that neither the action nor the entry is stored alone.

mod store;

use std::fmt;

use clock::Instant;
use db::{self, Tx};

/// The person or program that performs an administrative action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// An operator at the command line: the Unix user id of the process that ran the command.
    CommandLine { uid: u32 },
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::CommandLine { uid } => write!(f, "uid {uid}"),
        }
    }
}

/// The kind of an administrative action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// An operator added a merchant.
    MerchantCreate,
    /// An operator created a product; the detail is its price.
    ProductCreate,
    /// An operator changed a product; the detail is its price.
    ProductChange,
    /// An operator activated or deactivated a product; the detail is the new state.
    ProductSetState,
    /// An operator imported stock items; the detail is the number of added items.
    StockImport,
    /// An operator took a stock item off sale; the subject is the number of the item.
    StockWithdraw,
    /// An operator created a coupon.
    CouponCreate,
    /// An operator deactivated a coupon.
    CouponDeactivate,
    /// An operator added a user.
    UserCreate,
    /// An operator disabled or enabled a user; the detail is the new state.
    UserSetState,
    /// An operator credited a user's balance; the detail is the amount and the operator's reference.
    UserCredit,
    /// An operator issued an access token for a user.
    TokenIssue,
    /// An operator revoked all access tokens of a user; the detail is the number of revoked tokens.
    TokenRevoke,
    /// An operator cancelled an unpaid order.
    OrderCancel,
    /// An operator confirmed an external payment of an order, such as one by Alipay.
    OrderConfirm,
    /// An operator closed a review; the detail is its kind and the operator's note.
    ReviewClose,
    /// An operator queued the parked mails again; the subject is the number of mails, such as `3 mails`.
    MailRetry,
    /// An operator resumed a halted chain; the detail is the reason of the halt.
    ChainResume,
    /// An operator repaired a restored database; the subject is the new epoch, the detail the skipped address indices.
    DatabaseRestore,
    /// An operator rejected a deposit that an endpoint contradicts; the detail is the operator's note.
    DepositReject,
    /// A rescan that an operator requested booked transfers; the detail is the range of blocks.
    ChainRescan,
}

db::text_enum!(Action {
    MerchantCreate => "merchant.create",
    ProductCreate => "product.create",
    ProductChange => "product.change",
    ProductSetState => "product.set_state",
    StockImport => "stock.import",
    StockWithdraw => "stock.withdraw",
    CouponCreate => "coupon.create",
    CouponDeactivate => "coupon.deactivate",
    UserCreate => "user.create",
    UserSetState => "user.set_state",
    UserCredit => "user.credit",
    TokenIssue => "token.issue",
    TokenRevoke => "token.revoke",
    OrderCancel => "order.cancel",
    OrderConfirm => "order.confirm",
    ReviewClose => "review.close",
    MailRetry => "mail.retry",
    ChainResume => "chain.resume",
    DatabaseRestore => "database.restore",
    DepositReject => "deposit.reject",
    ChainRescan => "chain.rescan",
});

/// Appends an entry to the audit log. `subject` names the object that the action changed, for example by the slug of a
/// product. `detail` is a text with further facts and may be empty. Neither text may contain secrets or goods.
pub async fn record_action(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    action: Action,
    subject: &str,
    detail: &str,
) -> Result<(), db::Error> {
    store::insert_audit_entry(tx, now, actor, action, subject, detail).await
}
