//! Computes the cost of a transaction: bandwidth for its bytes, energy for the contract's work, and the fee limit,
//! which limits burned and lent energy together. Prices are chain parameters that block producers vote on, so they are
//! read from the chain.

use chain::{AddressKey, SourceError};
use rpc::{Rejection, Request, Verdict};
use serde_json::json;

use crate::{
    Tron, address,
    http_api::{self, ApiView, serialize_body},
};

/// The energy that a fee limit covers, in percent of the simulated energy. A call may need more when it runs than in
/// the simulation: the energy penalty of a popular contract changes by up to 20 % per maintenance period.
const LIMIT_PERCENT: u64 = 125;

/// The prices of bandwidth, energy and new accounts, in sun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourcePrices {
    /// Price of one unit of energy that is neither staked nor lent.
    pub energy: u64,
    /// Price of one byte of bandwidth that is neither staked nor free.
    pub bandwidth: u64,
    /// The fee for creating an account. The account that first sends something to the new account pays it.
    pub new_account: u64,
    /// An additional fee for creating an account. It is not charged when staked bandwidth covers the transaction.
    pub new_account_bandwidth: u64,
    /// The maximum fee limit that the chain accepts.
    pub fee_limit_max: u64,
}

/// The resources that an account can still use without burning TRX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Energy from staked TRX, or lent by another account.
    pub energy: u64,
    /// The unused bandwidth from staked TRX, in bytes.
    pub bandwidth: u64,
    /// The unused part of the free daily bandwidth, in bytes. A transaction uses either this or the staked bandwidth,
    /// never a part of each.
    pub free_bandwidth: u64,
}

/// The cost of a contract call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallCost {
    /// The fee limit of the transaction, in sun. It covers the whole energy of the call, because energy that is staked
    /// or lent counts towards the limit too.
    pub fee_limit: u64,
    /// The balance that the sender needs, in sun. With a lower balance, the chain lowers the fee limit without an
    /// error, and the call runs out of energy.
    pub trx_needed: u64,
}

/// The reason why a transaction has no valid cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallCostError {
    /// The call needs a fee limit above the operator's or the chain's maximum. Both values are in sun.
    #[error("the call needs a fee limit of {needed} sun, but at most {allowed} sun are allowed")]
    TooExpensive { needed: u64, allowed: u64 },
    /// The cost in sun is too large to compute.
    #[error("the cost of the transaction exceeds 64 bits")]
    OutOfRange,
}

impl ResourcePrices {
    /// Returns the cost of a call that uses `energy` and `bytes` of bandwidth, for an account with the resources
    /// `have`. `fee_limit_max` is the maximum fee limit that the operator allows, in sun.
    ///
    /// # Errors
    ///
    /// Fails when the needed fee limit is above the operator's or the chain's maximum.
    pub fn compute_call_cost_within_limit(
        &self,
        energy: u64,
        bytes: u64,
        have: Resources,
        fee_limit_max: u64,
    ) -> Result<CallCost, CallCostError> {
        let energy_limit = energy.checked_mul(LIMIT_PERCENT).ok_or(CallCostError::OutOfRange)?.div_ceil(100);
        let fee_limit = energy_limit.checked_mul(self.energy).ok_or(CallCostError::OutOfRange)?;
        let allowed = fee_limit_max.min(self.fee_limit_max);
        if fee_limit > allowed {
            return Err(CallCostError::TooExpensive { needed: fee_limit, allowed });
        }
        let burned =
            energy_limit.saturating_sub(have.energy).checked_mul(self.energy).ok_or(CallCostError::OutOfRange)?;
        let trx_needed =
            burned.checked_add(self.compute_bandwidth_fee(bytes, have)?).ok_or(CallCostError::OutOfRange)?;
        Ok(CallCost { fee_limit, trx_needed })
    }

    /// Returns the price of `bytes` of bandwidth, in sun. The price is 0 when the staked or the free bandwidth covers
    /// all bytes; otherwise all bytes must be paid.
    ///
    /// # Errors
    ///
    /// Fails when the price exceeds 64 bits.
    pub fn compute_bandwidth_fee(&self, bytes: u64, have: Resources) -> Result<u64, CallCostError> {
        if bytes <= have.bandwidth || bytes <= have.free_bandwidth {
            return Ok(0);
        }
        bytes.checked_mul(self.bandwidth).ok_or(CallCostError::OutOfRange)
    }

    /// Returns the fee of a TRX transfer, in sun. `creates_account` is true when the receiver does not exist yet; then
    /// the free bandwidth is not used.
    ///
    /// # Errors
    ///
    /// Fails when the fee exceeds 64 bits.
    pub fn compute_trx_transfer_fee(
        &self,
        bytes: u64,
        have: Resources,
        creates_account: bool,
    ) -> Result<u64, CallCostError> {
        if !creates_account {
            return self.compute_bandwidth_fee(bytes, have);
        }
        let bandwidth = if bytes <= have.bandwidth { 0 } else { self.new_account_bandwidth };
        self.new_account.checked_add(bandwidth).ok_or(CallCostError::OutOfRange)
    }
}

impl Tron {
    /// Returns the prices of resources that are in force at the newest block.
    ///
    /// # Errors
    ///
    /// Fails when no endpoint returns them.
    pub async fn fetch_resource_prices(&self) -> Result<ResourcePrices, SourceError> {
        let path = ApiView::Head.api_path("getchainparameters");
        let answer = self.pool.send_request(Request::http_post(&path, serialize_body(&json!({}))), |reply| {
            let chain: http_api::ChainParameters<'_> = http_api::parse_json_or_node_error(reply)?;
            let value = |key: &str| chain.parameters.iter().find(|parameter| parameter.key == key).map(|p| p.value);
            let price = |key: &str| {
                // Nodes leave out parameters whose value is zero.
                u64::try_from(value(key).unwrap_or(0)).map_err(|_| Rejection::Invalid(format!("{key} is negative")))
            };
            if value("getEnergyFee").is_none() || value("getTransactionFee").is_none() {
                return Err(Rejection::Invalid("no prices among the chain's parameters".to_owned()));
            }
            Ok(Verdict::Accept(ResourcePrices {
                energy: price("getEnergyFee")?,
                bandwidth: price("getTransactionFee")?,
                new_account: price("getCreateNewAccountFeeInSystemContract")?,
                new_account_bandwidth: price("getCreateAccountFee")?,
                fee_limit_max: price("getMaxFeeLimit")?,
            }))
        });
        answer.await.map_err(|failure| failure.into_source_error(0))
    }

    /// Returns the unused resources of an account; all are 0 for an account that is not activated.
    ///
    /// # Errors
    ///
    /// Fails when no endpoint answers.
    pub async fn fetch_unused_resources(&self, account: AddressKey) -> Result<Resources, SourceError> {
        let path = ApiView::Head.api_path("getaccountresource");
        let request = serialize_body(&json!({ "address": address::to_prefixed_hex(account) }));
        let answer = self.pool.send_request(Request::http_post(&path, request), |reply| {
            let account: http_api::AccountResource = http_api::parse_json_or_node_error(reply)?;
            let left = Resources {
                energy: account.energy_limit.saturating_sub(account.energy_used),
                bandwidth: account.net_limit.saturating_sub(account.net_used),
                free_bandwidth: account.free_net_limit.saturating_sub(account.free_net_used),
            };
            // Every activated account has free bandwidth. When there is none, the account is not activated or the node
            // is behind, so another endpoint is asked too.
            Ok(if account.free_net_limit > 0 { Verdict::Accept(left) } else { Verdict::Fallback(left) })
        });
        answer.await.map_err(|failure| failure.into_source_error(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: ResourcePrices = ResourcePrices {
        energy: 100,
        bandwidth: 1_000,
        new_account: 1_000_000,
        new_account_bandwidth: 100_000,
        fee_limit_max: 15_000_000_000,
    };

    #[test]
    fn the_fee_limit_covers_lent_energy_too() {
        let lent = Resources { energy: 200_000, bandwidth: 0, free_bandwidth: 600 };
        let cost = PRICES.compute_call_cost_within_limit(130_285, 345, lent, 40_000_000).unwrap();
        assert_eq!(cost, CallCost { fee_limit: 16_285_700, trx_needed: 0 });
        let poor = PRICES.compute_call_cost_within_limit(130_285, 345, Resources::default(), 40_000_000).unwrap();
        assert_eq!(poor, CallCost { fee_limit: 16_285_700, trx_needed: 16_285_700 + 345_000 });
        assert_eq!(
            PRICES.compute_call_cost_within_limit(130_285, 345, lent, 10_000_000),
            Err(CallCostError::TooExpensive { needed: 16_285_700, allowed: 10_000_000 })
        );
        assert_eq!(PRICES.compute_call_cost_within_limit(u64::MAX, 345, lent, 1), Err(CallCostError::OutOfRange));
    }

    #[test]
    fn bandwidth_is_all_or_nothing() {
        let half = Resources { energy: 0, bandwidth: 300, free_bandwidth: 300 };
        assert_eq!(PRICES.compute_bandwidth_fee(345, half), Ok(345_000));
        assert_eq!(PRICES.compute_bandwidth_fee(300, half), Ok(0));
        assert_eq!(PRICES.compute_trx_transfer_fee(267, half, false), Ok(0));
        assert_eq!(PRICES.compute_trx_transfer_fee(267, half, true), Ok(1_000_000));
        assert_eq!(PRICES.compute_trx_transfer_fee(301, half, true), Ok(1_100_000));
    }
}
