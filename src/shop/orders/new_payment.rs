//! The payment of a new order. The payment is planned before anything is stored. Afterwards, in the transaction of the
//! order, an invoice is created, a balance is debited, or an external payment is stored.

use std::sync::Arc;

use chain::{Amount, Asset, AssetId, Family};

use crate::orders::{CreateOrderError, Order};
use crate::users;
use clock::Instant;
use db::{Db, ResultRef, Tx};
use ids::{OrderId, PaymentId, Shop, UserId};
use money::addresses::{Addresses, ReservedAddress};
use money::assets::{Assets, PaymentAsset};
use money::invoices::{self, NewInvoice};
use money::ledger::{self, Account, EntryLine, JournalEntry, PostError};
use money::payments::{self, BalanceDebit, Method, NewPayment};
use money::pricing::{self, Currency, Fiat, Quote, RateBook};

/// The assets, rates, addresses and tolerance from which new payments are made. Only the rates and the addresses change
/// while the daemon runs.
#[derive(Debug, Clone)]
pub struct PaymentService {
    /// The assets that buyers can pay with.
    pub assets: Arc<Assets>,
    /// The current exchange rates, from which amounts due are computed.
    pub rates: RateBook,
    /// The issuers of payment addresses. Each on-chain payment gets a new address.
    pub addresses: Addresses,
    /// The amount by which an on-chain payment may be too low and still be accepted.
    pub tolerance: Tolerance,
}

/// The amount by which an on-chain payment may be below the amount due and still be accepted. It is a share of the
/// amount due or a fixed value, whichever is larger, but at most half of the amount due.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// The share of the amount due, in basis points.
    pub basis_points: u32,
    /// The fixed value by which a payment may be too low, in USD.
    pub usd: Fiat,
}

/// The payment method that the buyer chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentMethod {
    /// An on-chain payment in the asset with this code, such as `trc20_usdt`.
    Crypto(String),
    /// The buyer pays from the user's balance in CNY.
    BalanceCny,
    /// The buyer pays from the user's balance in USD, which is topped up with crypto assets.
    BalanceCrypto,
    /// The buyer pays on the page `pay_url` of Alipay or WeChat Pay. `provider_ref` is the provider's own id of the
    /// payment, when the provider gave one.
    External { provider: Provider, pay_url: String, provider_ref: Option<String> },
}

/// A company on whose page the buyer pays, outside this daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Alipay: the buyer pays on Alipay's payment page.
    Alipay,
    /// WeChat Pay: the buyer pays on WeChat Pay's payment page.
    Wechat,
}

/// The data that the buyer needs to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentInstructions {
    /// The order is already paid, so the buyer has nothing to do.
    AlreadyPaid,
    /// The buyer sends `due` base units of the asset to the address.
    Transfer { asset: Asset, family: Family, address: String, due: Amount },
    /// The buyer pays on the page `pay_url` of the external provider.
    External { pay_url: String },
}

/// The plan of a payment: the data from which the payment will be stored.
pub(super) enum PaymentPlan {
    /// The order costs nothing, so it is paid at once.
    Free { method: Method },
    /// The buyer pays on a chain. `price_usd_cents` is the price in US cents, `None` when no rate is known;
    /// `confirmations` is the number of confirmations that the payment needs at least.
    Invoice {
        asset: Asset,
        family: Family,
        quote: Quote,
        tolerance: Amount,
        price_usd_cents: Option<i64>,
        confirmations: u32,
    },
    /// The amount `taken` is debited from the balance of the user.
    Balance { method: Method, user: UserId, taken: BalanceDebit },
    /// The buyer pays on the page `pay_url` of an external provider.
    External { method: Method, pay_url: String, provider_ref: Option<String> },
}

impl PaymentMethod {
    /// Returns the method that is stored with the payment, without the asset, the payment page and the other fields of
    /// this value.
    fn to_method_without_details(&self) -> Method {
        match self {
            PaymentMethod::Crypto(_) => Method::Crypto,
            PaymentMethod::BalanceCny => Method::BalanceCny,
            PaymentMethod::BalanceCrypto => Method::BalanceCrypto,
            PaymentMethod::External { provider: Provider::Alipay, .. } => Method::Alipay,
            PaymentMethod::External { provider: Provider::Wechat, .. } => Method::Wechat,
        }
    }
}

impl PaymentPlan {
    /// Returns true when the order is paid as soon as this payment is stored.
    pub fn is_paid_at_once(&self) -> bool {
        match self {
            PaymentPlan::Free { .. } | PaymentPlan::Balance { .. } => true,
            PaymentPlan::Invoice { .. } | PaymentPlan::External { .. } => false,
        }
    }
}

impl PaymentService {
    /// Reserves an address for an on-chain payment, before the transaction of the order begins. Returns `None` for
    /// other payment methods, and for an asset that is not accepted, so that [`plan_payment_or_free`](Self::plan_payment_or_free) then
    /// refuses the order.
    pub async fn reserve_address_if_on_chain(
        &self,
        db: &Db,
        shop: Shop,
        payment_method: &PaymentMethod,
    ) -> Result<Option<ReservedAddress>, CreateOrderError> {
        let PaymentMethod::Crypto(code) = payment_method else { return Ok(None) };
        match self.assets.find_payment_asset(shop.mode, code) {
            Some((chain, _)) if self.addresses.can_issue_address(&chain.id) => {
                self.addresses.reserve_address(db, &chain.id).await.map(Some).map_err(CreateOrderError::Issue)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Plans the payment of `price`. Fails with `MethodUnavailable` when the method needs an exchange rate and no fresh
    /// rate is known. A price of 0 gives the plan `Free`, whatever the method is.
    pub(super) fn plan_payment_or_free(
        &self,
        now: Instant,
        shop: Shop,
        user: Option<UserId>,
        payment_method: &PaymentMethod,
        price: Fiat,
    ) -> Result<PaymentPlan, CreateOrderError> {
        let method = payment_method.to_method_without_details();
        let plan = match payment_method {
            PaymentMethod::Crypto(code) => self.plan_invoice(now, shop, code, price)?,
            PaymentMethod::BalanceCny => {
                let user = user.ok_or(CreateOrderError::UserRequired)?;
                PaymentPlan::Balance { method, user, taken: compute_debit_of_cny_price(price)? }
            }
            PaymentMethod::BalanceCrypto => {
                let user = user.ok_or(CreateOrderError::UserRequired)?;
                PaymentPlan::Balance { method, user, taken: self.convert_price_to_usd_debit(now, price)? }
            }
            PaymentMethod::External { pay_url, provider_ref, .. } => {
                PaymentPlan::External { method, pay_url: pay_url.clone(), provider_ref: provider_ref.clone() }
            }
        };
        Ok(if price.minor == 0 { PaymentPlan::Free { method } } else { plan })
    }

    /// Plans an on-chain payment in the asset with this code. Fails when the asset is not accepted, no address can be
    /// issued, no fresh exchange rate is known, or the amount due is below the minimum of the asset.
    fn plan_invoice(&self, now: Instant, shop: Shop, code: &str, price: Fiat) -> Result<PaymentPlan, CreateOrderError> {
        let (chain, payment_asset) =
            self.assets.find_payment_asset(shop.mode, code).ok_or(CreateOrderError::MethodUnavailable)?;
        if !self.addresses.can_issue_address(&chain.id) {
            return Err(CreateOrderError::MethodUnavailable);
        }
        let asset = payment_asset.asset.clone();
        let quote = self.rates.compute_quote_with_spread(
            now,
            &payment_asset.rate_symbol,
            asset.decimals,
            asset.quote_decimals,
            price,
        );
        let quote = quote.map_err(|_| CreateOrderError::MethodUnavailable)?;
        if quote.due < payment_asset.min_due {
            return Err(CreateOrderError::AmountBelowMinimum {
                due: quote.due.to_decimal(asset.decimals),
                min: payment_asset.min_due.to_decimal(asset.decimals),
                symbol: asset.symbol,
            });
        }
        let tolerance =
            self.compute_tolerance(now, payment_asset, quote.due).ok_or(CreateOrderError::AmountOutOfRange)?;
        let price_usd_cents = pricing::convert_price_to_usd_cents_rounded_up(&self.rates, now, price);
        let confirmations = chain.depths.required_confirmations(price_usd_cents);
        Ok(PaymentPlan::Invoice { asset, family: chain.family, quote, tolerance, price_usd_cents, confirmations })
    }

    /// Returns the amount by which a payment of `due` may be too low, in base units of the asset: the configured share
    /// of `due` or the configured value in USD, whichever is larger, but at most half of `due`. Without a fresh
    /// exchange rate in USD, only the share counts. `None` when the amount is out of range.
    fn compute_tolerance(&self, now: Instant, payment_asset: &PaymentAsset, due: Amount) -> Option<Amount> {
        let share = due.mul_ratio_rounded_down(u64::from(self.tolerance.basis_points), 10_000)?;
        let rate =
            self.rates.find_fresh_direct_or_crossed_rate(now, &payment_asset.rate_symbol, Currency::USD.as_str()).ok();
        let value = rate.and_then(|rate| {
            pricing::convert_price_to_amount_rounded_up(self.tolerance.usd, rate.value, payment_asset.asset.decimals)
        });
        Some(share.max(value.unwrap_or(Amount::ZERO)).min(due.mul_ratio_rounded_down(1, 2)?))
    }

    /// Returns the amount to debit from a USD balance: the price converted at the current rate and rounded up to the
    /// decimal places of the balance.
    fn convert_price_to_usd_debit(&self, now: Instant, price: Fiat) -> Result<BalanceDebit, CreateOrderError> {
        let rate = self
            .rates
            .find_fresh_direct_or_crossed_rate(now, "USD", price.currency.as_str())
            .map_err(|_| CreateOrderError::MethodUnavailable)?;
        let amount = pricing::convert_price_to_amount_rounded_up(price, rate.value, users::USD_DECIMALS);
        Ok(BalanceDebit {
            asset: users::to_balance_asset(Currency::USD),
            amount: amount.ok_or(CreateOrderError::AmountOutOfRange)?,
            rate: Some((rate.value.normalize().to_string(), rate.source, rate.observed_at.min(now))),
        })
    }
}

/// Returns the amount to debit from a CNY balance, which is the price itself. Fails when the price is in another
/// currency.
fn compute_debit_of_cny_price(price: Fiat) -> Result<BalanceDebit, CreateOrderError> {
    if price.currency != Currency::CNY {
        return Err(CreateOrderError::MethodUnavailable);
    }
    let minor = u64::try_from(price.minor).map_err(|_| CreateOrderError::AmountOutOfRange)?;
    Ok(BalanceDebit { asset: users::to_balance_asset(Currency::CNY), amount: Amount::from(minor), rate: None })
}

/// A payment whose SQL statements are queued, with the data that [`issue_address_or_debit_balance`] needs.
pub(super) enum QueuedPayment {
    Free,
    External { pay_url: String },
    Invoice { asset: Asset, family: Family, due: Amount, address: ReservedAddress },
    Balance { payment: ResultRef<PaymentId>, user: UserId, taken: BalanceDebit },
}

/// Queues the statements that store the payment and, for an on-chain payment, its invoice.
pub(super) fn queue_payment_and_invoice_inserts(
    tx: &mut Tx,
    now: Instant,
    order: &Order,
    id: ResultRef<OrderId>,
    plan: PaymentPlan,
    address: Option<ReservedAddress>,
) -> Result<QueuedPayment, CreateOrderError> {
    match plan {
        PaymentPlan::Free { method } => {
            let free = NewPayment {
                state: payments::State::Success,
                ..NewPayment::new_pending_payment(id, order.shop, method)
            };
            payments::queue_payment_insert(tx, now, &free);
            Ok(QueuedPayment::Free)
        }
        PaymentPlan::Balance { method, user, taken } => {
            let pending = NewPayment::new_pending_payment(id, order.shop, method);
            let paid =
                NewPayment { state: payments::State::Success, user: Some(user), taken: Some(taken.clone()), ..pending };
            let payment = payments::queue_payment_insert(tx, now, &paid);
            Ok(QueuedPayment::Balance { payment, user, taken })
        }
        PaymentPlan::External { method, pay_url, provider_ref } => {
            let pending = NewPayment::new_pending_payment(id, order.shop, method);
            let external = NewPayment { pay_url: Some(pay_url.clone()), provider_ref, ..pending };
            payments::queue_payment_insert(tx, now, &external);
            Ok(QueuedPayment::External { pay_url })
        }
        PaymentPlan::Invoice { asset, family, quote, tolerance, price_usd_cents, confirmations } => {
            let address = address.filter(|address| *address.chain() == asset.chain);
            let address = address.ok_or(CreateOrderError::MethodUnavailable)?;
            let due = quote.due;
            let invoice = NewInvoice {
                payment: payments::queue_payment_insert(
                    tx,
                    now,
                    &NewPayment::new_pending_payment(id, order.shop, Method::Crypto),
                ),
                shop: order.shop,
                asset: asset.clone(),
                price: order.amount,
                price_usd_cents,
                quote,
                tolerance,
                confirmations,
                expires_at: order.expires_at.unwrap_or(now),
            };
            invoices::queue_invoice_and_address_insert(tx, now, &address, &invoice);
            Ok(QueuedPayment::Invoice { asset, family, due, address })
        }
    }
}

/// Issues the address of an on-chain payment, or debits the user's balance, and returns the payment instructions for
/// the buyer. This function must be called after the queued statements have run, in the same transaction.
pub(super) async fn issue_address_or_debit_balance(
    tx: &mut Tx,
    now: Instant,
    order: &Order,
    queued: QueuedPayment,
) -> Result<PaymentInstructions, CreateOrderError> {
    match queued {
        QueuedPayment::Free => Ok(PaymentInstructions::AlreadyPaid),
        QueuedPayment::External { pay_url } => Ok(PaymentInstructions::External { pay_url }),
        QueuedPayment::Invoice { asset, family, due, address } => {
            Ok(PaymentInstructions::Transfer { asset, family, address: address.watch_and_issue_address(), due })
        }
        QueuedPayment::Balance { payment, user, taken } => {
            pay_merchant_from_user_balance(tx, now, order, tx.id_of(payment)?, user, taken).await?;
            Ok(PaymentInstructions::AlreadyPaid)
        }
    }
}

/// Books a payment from a balance in the ledger: debits the user's balance and credits the available balance of the
/// merchant. Fails when the user's balance is too low.
async fn pay_merchant_from_user_balance(
    tx: &mut Tx,
    now: Instant,
    order: &Order,
    payment: PaymentId,
    user: UserId,
    taken: BalanceDebit,
) -> Result<(), CreateOrderError> {
    let (asset, amount): (AssetId, Amount) = (taken.asset, taken.amount);
    let credit = Account::MerchantAvailable(order.shop.merchant);
    let line = EntryLine { debit: Account::User(user), credit, asset, amount };
    let entry = format!("payment/{payment}/paid");
    let entry = JournalEntry::new_post_entry(order.shop.mode, entry, "order paid from a balance", vec![line]);
    match ledger::book_journal_entries(tx, now, &[entry]).await {
        Ok(()) => Ok(()),
        Err(PostError::Insufficient { .. }) => Err(CreateOrderError::InsufficientBalance),
        Err(
            PostError::BadAmount(_) | PostError::OutOfRange(_) | PostError::AboveHold { .. } | PostError::NoHold(_),
        ) => Err(CreateOrderError::AmountOutOfRange),
        Err(PostError::Db(error)) => Err(CreateOrderError::Db(error)),
    }
}
