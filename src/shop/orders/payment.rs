//! How an order is paid: what its price comes to is decided before anything is stored, then asked for or taken.

use std::sync::Arc;

use chain::{Amount, Asset, AssetId, Family};

use crate::orders::{CreateError, Order};
use crate::users;
use clock::Instant;
use db::{Batch, BatchResult, Db, ResultRef, Tx};
use ids::{OrderId, PaymentId, Shop, UserId};
use money::addresses::{Addresses, ReservedAddress};
use money::assets::{self, Assets, PaymentAsset};
use money::invoices::{self, NewInvoice};
use money::ledger::{self, Account, Entry, Leg, PostError};
use money::payments::{self, Method, NewPayment, Taken};
use money::pricing::{self, Currency, Fiat, Quote, RateBook};

/// What taking money needs beside the database. Fixed while the daemon runs, but for the rates in it.
#[derive(Debug, Clone)]
pub struct PaymentService {
    pub assets: Arc<Assets>,
    pub rates: RateBook,
    pub addresses: Addresses,
    pub tolerance: Tolerance,
}

/// How far below the quote an on-chain payment still counts as paid: a share of it or a value, whichever is more, and never
/// more than half of it.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    pub basis_points: u32,
    pub usd: Fiat,
}

/// How the buyer wants to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentMethod {
    /// On a chain, with the coin of this code.
    Crypto(String),
    BalanceCny,
    BalanceCrypto,
    /// On the page of somebody else, who was asked for it before.
    External {
        provider: Provider,
        pay_url: String,
        provider_ref: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    Alipay,
    Wechat,
}

/// What the buyer has to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentInstructions {
    /// Nothing: it is paid.
    AlreadyPaid,
    /// Send `due` base units of the asset to the address.
    Transfer {
        asset: Asset,
        family: Family,
        address: String,
        due: Amount,
    },
    External {
        pay_url: String,
    },
}

/// What a price comes to.
pub(super) enum PaymentPlan {
    Free { method: Method },
    Invoice { asset: Asset, family: Family, quote: Quote, tolerance: Amount, confirmations: u32 },
    Balance { method: Method, user: UserId, taken: Taken },
    External { method: Method, pay_url: String, provider_ref: Option<String> },
}

impl PaymentMethod {
    fn method(&self) -> Method {
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
    pub fn is_paid_at_once(&self) -> bool {
        match self {
            PaymentPlan::Free { .. } | PaymentPlan::Balance { .. } => true,
            PaymentPlan::Invoice { .. } | PaymentPlan::External { .. } => false,
        }
    }
}

impl PaymentService {
    /// What an order with these means needs beside its transaction, and before it: an address, where it has to be paid on a
    /// chain. None for a coin that is not taken here, which is for the order to refuse.
    pub async fn reserve_address(
        &self,
        db: &Db,
        shop: Shop,
        payment_method: &PaymentMethod,
    ) -> Result<Option<ReservedAddress>, CreateError> {
        let PaymentMethod::Crypto(code) = payment_method else { return Ok(None) };
        match self.assets.find(shop.mode, code) {
            Some((chain, _)) if self.addresses.can_issue(&chain.id) => {
                self.addresses.reserve(db, &chain.id).await.map(Some).map_err(CreateError::Issue)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Fails closed: without a fresh rate a method that needs one is not available.
    pub(super) fn plan(
        &self,
        now: Instant,
        shop: Shop,
        user: Option<UserId>,
        payment_method: &PaymentMethod,
        price: Fiat,
    ) -> Result<PaymentPlan, CreateError> {
        let method = payment_method.method();
        let plan = match payment_method {
            PaymentMethod::Crypto(code) => self.plan_invoice(now, shop, code, price)?,
            PaymentMethod::BalanceCny => {
                let user = user.ok_or(CreateError::UserRequired)?;
                PaymentPlan::Balance { method, user, taken: take_cny(price)? }
            }
            PaymentMethod::BalanceCrypto => {
                let user = user.ok_or(CreateError::UserRequired)?;
                PaymentPlan::Balance { method, user, taken: self.take_usd(now, price)? }
            }
            PaymentMethod::External { pay_url, provider_ref, .. } => {
                PaymentPlan::External { method, pay_url: pay_url.clone(), provider_ref: provider_ref.clone() }
            }
        };
        Ok(if price.minor == 0 { PaymentPlan::Free { method } } else { plan })
    }

    fn plan_invoice(&self, now: Instant, shop: Shop, code: &str, price: Fiat) -> Result<PaymentPlan, CreateError> {
        let (chain, coin) = self.assets.find(shop.mode, code).ok_or(CreateError::MethodUnavailable)?;
        if !self.addresses.can_issue(&chain.id) {
            return Err(CreateError::MethodUnavailable);
        }
        let asset = coin.asset.clone();
        let quote = self.rates.quote(now, &coin.rate_symbol, asset.decimals, asset.quote_decimals, price);
        let quote = quote.map_err(|_| CreateError::MethodUnavailable)?;
        let tolerance = self.tolerance(now, coin, quote.due).ok_or(CreateError::AmountOutOfRange)?;
        let confirmations = chain.depths.confirmations(assets::worth_in_usd(&self.rates, now, price));
        Ok(PaymentPlan::Invoice { asset, family: chain.family, quote, tolerance, confirmations })
    }

    /// Of the two the share alone, while nobody knows what the coin is worth in USD.
    fn tolerance(&self, now: Instant, coin: &PaymentAsset, due: Amount) -> Option<Amount> {
        let share = due.checked_mul_ratio(u64::from(self.tolerance.basis_points), 10_000)?;
        let rate = self.rates.rate(now, &coin.rate_symbol, Currency::USD.as_str()).ok();
        let value = rate.and_then(|rate| pricing::amount_for(self.tolerance.usd, rate.value, coin.asset.decimals));
        Some(share.max(value.unwrap_or(Amount::ZERO)).min(due.checked_mul_ratio(1, 2)?))
    }

    /// At the rate in force, rounded up to the balance's last decimal place.
    fn take_usd(&self, now: Instant, price: Fiat) -> Result<Taken, CreateError> {
        let rate = self.rates.rate(now, "USD", price.currency.as_str()).map_err(|_| CreateError::MethodUnavailable)?;
        let amount = pricing::amount_for(price, rate.value, users::USD_DECIMALS);
        Ok(Taken {
            asset: users::balance_asset(Currency::USD),
            amount: amount.ok_or(CreateError::AmountOutOfRange)?,
            rate: Some((rate.value.normalize().to_string(), rate.source, rate.at.min(now))),
        })
    }
}

/// The order's amount as it is.
fn take_cny(price: Fiat) -> Result<Taken, CreateError> {
    if price.currency != Currency::CNY {
        return Err(CreateError::MethodUnavailable);
    }
    let minor = u64::try_from(price.minor).map_err(|_| CreateError::AmountOutOfRange)?;
    Ok(Taken { asset: users::balance_asset(Currency::CNY), amount: Amount::from(minor), rate: None })
}

/// What a payment needs after the chain that stores it.
pub(super) enum RequestedPayment {
    Nothing,
    Page { pay_url: String },
    PaymentAsset { asset: Asset, family: Family, due: Amount, address: ReservedAddress },
    Balance { payment: ResultRef<PaymentId>, user: UserId, taken: Taken },
}

/// Stores the payment, and what it asks for, with its order.
pub(super) fn request_payment(
    links: &mut Batch,
    now: Instant,
    order: &Order,
    id: ResultRef<OrderId>,
    plan: PaymentPlan,
    address: Option<ReservedAddress>,
) -> Result<RequestedPayment, CreateError> {
    match plan {
        PaymentPlan::Free { method } => {
            let free = NewPayment { state: payments::State::Success, ..NewPayment::pending(id, method) };
            payments::request(links, now, &free);
            Ok(RequestedPayment::Nothing)
        }
        PaymentPlan::Balance { method, user, taken } => {
            let pending = NewPayment::pending(id, method);
            let settled = NewPayment { state: payments::State::Success, taken: Some(taken.clone()), ..pending };
            let payment = payments::request(links, now, &settled);
            Ok(RequestedPayment::Balance { payment, user, taken })
        }
        PaymentPlan::External { method, pay_url, provider_ref } => {
            let pending = NewPayment::pending(id, method);
            let external = NewPayment { pay_url: Some(pay_url.clone()), provider_ref, ..pending };
            payments::request(links, now, &external);
            Ok(RequestedPayment::Page { pay_url })
        }
        PaymentPlan::Invoice { asset, family, quote, tolerance, confirmations } => {
            let address = address.filter(|address| *address.chain() == asset.chain);
            let address = address.ok_or(CreateError::MethodUnavailable)?;
            let due = quote.due;
            let invoice = NewInvoice {
                payment: payments::request(links, now, &NewPayment::pending(id, Method::Crypto)),
                shop: order.shop,
                asset: asset.clone(),
                price: order.amount,
                quote,
                tolerance,
                confirmations,
                expires_at: order.expires_at.unwrap_or(now),
            };
            invoices::request(links, now, &address, &invoice);
            Ok(RequestedPayment::PaymentAsset { asset, family, due, address })
        }
    }
}

/// Hands the address out, or takes the money; the chain has run, and refused nothing.
pub(super) async fn finish_payment_request(
    tx: &mut Tx,
    now: Instant,
    order: &Order,
    asked: RequestedPayment,
    done: &BatchResult,
) -> Result<PaymentInstructions, CreateError> {
    match asked {
        RequestedPayment::Nothing => Ok(PaymentInstructions::AlreadyPaid),
        RequestedPayment::Page { pay_url } => Ok(PaymentInstructions::External { pay_url }),
        RequestedPayment::PaymentAsset { asset, family, due, address } => {
            Ok(PaymentInstructions::Transfer { asset, family, address: address.issue(), due })
        }
        RequestedPayment::Balance { payment, user, taken } => {
            take(tx, now, order, done.id(payment)?, user, taken).await
        }
    }
}

async fn take(
    tx: &mut Tx,
    now: Instant,
    order: &Order,
    payment: PaymentId,
    user: UserId,
    taken: Taken,
) -> Result<PaymentInstructions, CreateError> {
    let (asset, amount): (AssetId, Amount) = (taken.asset, taken.amount);
    let credit = Account::MerchantAvailable(order.shop.merchant);
    let leg = Leg { debit: Account::User(user), credit, asset, amount };
    let entry = format!("payment/{payment}/paid");
    let entry = Entry::posted(order.shop.mode, entry, "order paid from a balance", vec![leg]);
    match ledger::book(tx, now, &[entry]).await {
        Ok(()) => Ok(PaymentInstructions::AlreadyPaid),
        Err(PostError::Insufficient { .. }) => Err(CreateError::InsufficientBalance),
        Err(
            PostError::BadAmount(_) | PostError::OutOfRange(_) | PostError::AboveHold { .. } | PostError::NoHold(_),
        ) => Err(CreateError::AmountOutOfRange),
        Err(PostError::Db(error)) => Err(CreateError::Db(error)),
    }
}
