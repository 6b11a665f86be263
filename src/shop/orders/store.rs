//! All SQL of orders.

use chain::AssetId;

use crate::orders::{LineState, Order, OrderLine, OrderStatus, State};
use clock::Instant;
use db::{self, Locked, ResultRef, Row, Tx, execute, expect_changed, queued, row, rows};
use ids::{InvoiceId, LineId, OrderId, PaymentId, Shop};
use money::invoices::{self, InvoiceTerms, ReceivedSums};
use money::pricing::{Currency, Fiat};

/// Queues the statement that inserts an order. The result has the id of the order.
pub fn queue_order_insert(tx: &mut Tx, order: &Order) -> ResultRef<OrderId> {
    queued!(
        tx,
        "insert into orders (public_id, order_no, merchant_id, mode, surface, state, currency, original_amount,
            discount_amount, amount, user_id, coupon_id, created_at, expires_at, paid_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) returning id",
        &order.public_id,
        &order.order_no,
        order.shop.merchant,
        order.shop.mode,
        &order.surface,
        order.state,
        order.amount.currency,
        order.original_amount.minor,
        order.discount_amount.minor,
        order.amount.minor,
        order.user,
        order.coupon,
        order.created_at,
        order.expires_at,
        order.paid_at
    )
}

/// Queues the statement that inserts the buyer's e-mail address twice: as the buyer entered it (`email`), and in the
/// normalized form by which orders are found (`email_key`).
pub fn queue_order_contact_insert(
    tx: &mut Tx,
    order: ResultRef<OrderId>,
    email: &str,
    email_key: &str,
) -> ResultRef<OrderId> {
    queued!(
        tx,
        "insert into order_contacts (order_id, email, normalized_email) values ($1, $2, $3) returning order_id as id",
        order,
        email,
        email_key
    )
}

/// Queues the statement that inserts an order line. `number` is the line number, counted from 1. The result has the id
/// of the line.
pub fn queue_order_line_insert(
    tx: &mut Tx,
    order: ResultRef<OrderId>,
    number: i64,
    line: &OrderLine,
) -> ResultRef<LineId> {
    queued!(
        tx,
        "insert into order_lines (order_id, line_no, sku_id, quantity, unit_price, state)
         values ($1, $2, $3, $4, $5, $6) returning id",
        order,
        number,
        line.sku,
        line.quantity,
        line.unit_price.minor,
        line.state
    )
}

/// The status of an order as the query `select_status` returns it.
pub struct OrderStatusRow {
    /// The status of the order. The received amounts in it do not include unconfirmed transfers.
    pub status: OrderStatus,
    /// True when an unconfirmed transfer to the order's invoice is known.
    pub has_unconfirmed: bool,
}

/// The SQL that selects the status of an order: one row for each counted deposit of each payment, or one row for a
/// payment without deposits. The rows of the newest payment come first.
macro_rules! select_status {
    ($columns:literal, $condition:literal) => {
        concat!(
            "select ",
            $columns,
            " o.state, o.expires_at, p.id as payment_id, p.method, p.state as payment_state, p.pay_url, i.id as invoice_id,
                i.chain, i.asset, a.text as address, i.state as invoice_state, i.amount_due, i.tolerance, i.confirmations,
                i.expires_at as until_at, d.amount as deposit_amount, d.state as deposit_state, d.txid, d.height,
                d.confirm_height, c.height as cursor_height,
                exists (select 1 from unconfirmed s where s.invoice_id = i.id and s.state = 'seen') as has_unconfirmed
             from orders o
             join payments p on p.order_id = o.id
             left join invoices i on i.payment_id = p.id
             left join addresses a on a.id = i.address_id
             left join cursors c on c.chain = i.chain
             left join deposits d on d.invoice_id = i.id and d.disposition in ('counted', 'short') and d.state <> 'orphaned'
             where ",
            $condition,
            " order by p.id desc, d.id"
        )
    };
}

/// The SQL that selects an order together with its status. It returns the same rows as `select_status`.
macro_rules! select_order_and_status {
    ($condition:literal) => {
        select_status!(
            "o.id, o.public_id, o.order_no, o.merchant_id, o.mode, o.surface, o.currency, o.original_amount,
                o.discount_amount, o.amount, o.user_id, o.coupon_id, o.created_at, o.paid_at, o.paid_by_payment_id, o.closed_at,",
            $condition
        )
    };
}

/// Returns the status of the order with this public id, a UUID in hyphenated lower-case form; `None` when the surface
/// and shop have no such order. The statement searches by the public id alone, and the shop is compared afterwards:
/// PostgreSQL without table statistics could choose an index on the merchant, and then read all orders of the merchant.
pub async fn find_order_status(
    tx: &mut Tx,
    shop: Shop,
    surface: &str,
    public_id: &str,
) -> Result<Option<OrderStatusRow>, db::Error> {
    let found = rows!(tx, select_status!("o.merchant_id, o.mode, o.surface,", "o.public_id = $1"), public_id)?;
    let Some(first) = found.first() else { return Ok(None) };
    if !is_order_of(first, shop, surface)? {
        return Ok(None);
    }
    parse_order_status(first, &found).map(Some)
}

/// Returns true when the order was placed in this shop and on this surface.
fn is_order_of(row: &Row, shop: Shop, surface: &str) -> Result<bool, db::Error> {
    let owner = Shop { merchant: row.get("merchant_id")?, mode: row.get("mode")? };
    Ok(owner == shop && row.get::<String>("surface")? == surface)
}

/// Returns the order with this number and this normalized e-mail address (`email_key`), with its status; `None` when no
/// order of this surface and shop has them.
pub async fn find_order_by_number_and_email(
    tx: &mut Tx,
    shop: Shop,
    surface: &str,
    order_no: &str,
    email_key: &str,
) -> Result<Option<(Order, OrderStatusRow)>, db::Error> {
    let found = rows!(
        tx,
        select_order_and_status!(
            "o.order_no = $1
                and exists (select 1 from order_contacts k where k.order_id = o.id and k.normalized_email = $2)"
        ),
        order_no,
        email_key
    )?;
    let Some(first) = found.first() else { return Ok(None) };
    if !is_order_of(first, shop, surface)? {
        return Ok(None);
    }
    Ok(Some((parse_order(first)?, parse_order_status(first, &found)?)))
}

/// Returns the order of any shop with this number or public id, with its status; `None` when no shop has such an order.
pub async fn find_any_shop_order_by_number_or_id(
    tx: &mut Tx,
    number_or_id: &str,
) -> Result<Option<(Order, OrderStatusRow)>, db::Error> {
    let found = rows!(tx, select_order_and_status!("o.order_no = $1 or o.public_id = $1"), number_or_id)?;
    found.first().map(|first| Ok((parse_order(first)?, parse_order_status(first, &found)?))).transpose()
}

/// Returns the status of an order with its newest payment. `rows` are all rows of the order from `select_status`, and
/// `first` is the first of these rows.
fn parse_order_status(first: &Row, rows: &[Row]) -> Result<OrderStatusRow, db::Error> {
    let invoice = match first.get("invoice_id")? {
        Some(id) => Some((
            parse_invoice_terms(id, first)?,
            ReceivedSums::summarize_deposit_rows(take_rows_of_newest_payment(first, rows)?)?,
        )),
        None => None,
    };
    let status = OrderStatus {
        state: first.get("state")?,
        expires_at: first.get("expires_at")?,
        method: first.get("method")?,
        payment_state: first.get("payment_state")?,
        pay_url: first.get("pay_url")?,
        invoice,
    };
    Ok(OrderStatusRow { status, has_unconfirmed: first.get("has_unconfirmed")? })
}

/// Returns those rows at the start of `rows` that belong to the same payment as the row `first`.
fn take_rows_of_newest_payment<'a>(first: &Row, rows: &'a [Row]) -> Result<&'a [Row], db::Error> {
    let newest: PaymentId = first.get("payment_id")?;
    for (number, row) in rows.iter().enumerate() {
        if row.get::<PaymentId>("payment_id")? != newest {
            return Ok(&rows[..number]);
        }
    }
    Ok(rows)
}

fn parse_invoice_terms(id: InvoiceId, row: &Row) -> Result<InvoiceTerms, db::Error> {
    Ok(InvoiceTerms {
        id,
        chain: invoices::parse_stored_chain(&row.get::<String>("chain")?)?,
        asset: AssetId::from_stored(&row.get::<String>("asset")?),
        address: row.get("address")?,
        state: row.get("invoice_state")?,
        due: row.get("amount_due")?,
        tolerance: row.get("tolerance")?,
        confirmations: row.get("confirmations")?,
        expires_at: row.get("until_at")?,
    })
}

/// Locks the row of an order and returns the order; `None` when the order does not exist.
pub async fn lock_order(tx: &mut Tx, id: OrderId) -> Result<Option<Locked<Order>>, db::Error> {
    let found = row!(
        tx,
        "select id, public_id, order_no, merchant_id, mode, surface, state, currency, original_amount, discount_amount,
            amount, user_id, coupon_id, created_at, expires_at, paid_at, paid_by_payment_id, closed_at
         from orders where id = $1 for update",
        id
    )?;
    Ok(found.as_ref().map(parse_order).transpose()?.map(Locked::new))
}

fn parse_order(row: &Row) -> Result<Order, db::Error> {
    let currency: Currency = row.get("currency")?;
    let fiat = |column| Ok::<_, db::Error>(Fiat::new(currency, row.get(column)?));
    Ok(Order {
        id: row.get("id")?,
        public_id: row.get("public_id")?,
        order_no: row.get("order_no")?,
        shop: Shop { merchant: row.get("merchant_id")?, mode: row.get("mode")? },
        surface: row.get("surface")?,
        state: row.get("state")?,
        original_amount: fiat("original_amount")?,
        discount_amount: fiat("discount_amount")?,
        amount: fiat("amount")?,
        user: row.get("user_id")?,
        coupon: row.get("coupon_id")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        paid_at: row.get("paid_at")?,
        paid_by: row.get("paid_by_payment_id")?,
        closed_at: row.get("closed_at")?,
    })
}

/// Returns at most `limit` pending external payments of orders whose payment window has ended.
pub async fn list_overdue_external_payments(
    tx: &mut Tx,
    now: Instant,
    limit: u32,
) -> Result<Vec<PaymentId>, db::Error> {
    let found = rows!(
        tx,
        "select p.id from payments p join orders o on o.id = p.order_id
         where p.state = 'pending' and p.method in ('alipay', 'wechat') and o.expires_at < $1 order by p.order_id limit $2",
        now,
        limit
    )?;
    found.iter().map(|row| row.get("id")).collect()
}

/// Returns the lines of an order, sorted by line number.
pub async fn list_order_lines(tx: &mut Tx, order: &Order) -> Result<Vec<OrderLine>, db::Error> {
    let found = rows!(
        tx,
        "select l.id, p.public_id, l.sku_id, l.quantity, l.unit_price, l.state
         from order_lines l join skus s on s.id = l.sku_id join products p on p.id = s.product_id
         where l.order_id = $1 order by l.line_no",
        order.id
    )?;
    let line = |row: &Row| {
        Ok(OrderLine {
            id: row.get("id")?,
            product: row.get("public_id")?,
            sku: row.get("sku_id")?,
            quantity: row.get("quantity")?,
            unit_price: Fiat::new(order.amount.currency, row.get("unit_price")?),
            state: row.get("state")?,
        })
    };
    found.iter().map(line).collect()
}

/// Returns the e-mail address of an order's buyer as the buyer entered it; `None` after the address was erased.
pub async fn find_order_email(tx: &mut Tx, order: OrderId) -> Result<Option<String>, db::Error> {
    let found = row!(tx, "select email from order_contacts where order_id = $1", order)?;
    found.map(|row| row.get("email")).transpose()
}

/// Sets the payment that pays the order, in memory only. [`set_order_state_and_times`] writes it into the database.
pub fn set_paid_by_in_memory(order: Locked<Order>, payment: PaymentId) -> Locked<Order> {
    Locked::new(Order { paid_by: Some(payment), ..order.into_inner() })
}

/// Sets the state of an order and stores its `paid_by`. Sets `paid_at` when the order becomes paid, and `closed_at`
/// when it ends. Fails when the stored state differs from the state of `order`.
pub async fn set_order_state_and_times(
    tx: &mut Tx,
    now: Instant,
    order: Locked<Order>,
    to: State,
) -> Result<Locked<Order>, db::Error> {
    let (paid_at, closed_at) = match to {
        State::Paid => (Some(now), order.closed_at),
        State::Completed | State::Expired | State::Cancelled | State::Failed | State::Refunded => {
            (order.paid_at, Some(now))
        }
        State::Created | State::AwaitingPayment | State::Processing | State::PartiallyDelivered | State::Delivered => {
            (order.paid_at, order.closed_at)
        }
    };
    let n = execute!(
        tx,
        "update orders set state = $3, paid_at = $4, closed_at = $5, paid_by_payment_id = $6 where id = $1 and state = $2",
        order.id,
        order.state,
        to,
        paid_at,
        closed_at,
        order.paid_by
    )?;
    expect_changed(n, 1)?;
    Ok(Locked::new(Order { state: to, paid_at, closed_at, ..order.into_inner() }))
}

/// Sets the delivery state of an order line, and sets `delivered_at` when the line is delivered.
pub async fn set_order_line_state_and_time(
    tx: &mut Tx,
    now: Instant,
    line: LineId,
    to: LineState,
) -> Result<(), db::Error> {
    let delivered_at = match to {
        LineState::Delivered => Some(now),
        LineState::Pending | LineState::Failed => None,
    };
    let n = execute!(tx, "update order_lines set state = $2, delivered_at = $3 where id = $1", line, to, delivered_at)?;
    expect_changed(n, 1)
}
