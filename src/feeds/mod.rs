//! Exchange rates over HTTP: requests prices from several exchanges and decides which rate to accept.
//!
//! [`Feeds`] sends the requests and [`RateConsensus`] decides. When too few exchanges report a price, the last rate is
//! used until it is stale. An invoice keeps the rate with which it was created.

mod price_requests;
mod exchanges;
mod http;
mod error;
mod consensus;
mod price_math;

#[cfg(test)]
mod tests;

use rust_decimal::Decimal;

pub use consensus::{AgreedRate, RateConsensus, RateRejection};
pub use error::FeedError;
pub use price_requests::Feeds;

use clock::Instant;
use config::{ExchangeName, Pair};

/// The price of one pair at one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The exchange that returned the price.
    pub source: ExchangeName,
    /// The pair that the exchange quotes, such as BTC/USDT when BTC/USD was requested.
    pub pair: Pair,
    /// Price of one unit of the base, in units of the quote currency; above zero.
    pub price: Decimal,
    /// The time at which the price was valid. It is the time when the response was received if the exchange reports no
    /// time or a later one.
    pub at: Instant,
}
