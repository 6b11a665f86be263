//! What a transaction will cost: bandwidth for its bytes, energy for what a contract does, and the limit that caps both
//! burned and lent energy. ResourcePrices are parameters of the chain that producers vote on; they are read, never compiled in.

use chain::{AddressKey, SourceError};
use rpc::{Rejection, Request, RpcError, Verdict};
use serde_json::json;

use crate::{Tron, address, reader::ApiView, source::body, transaction::TransactionParams, wire};

/// A call is simulated before it is sent and may need more when it runs: the price of popular contracts moves by a fifth
/// per maintenance period.
const RESERVE_PERCENT: u64 = 125;

/// ResourcePrices of the chain, in sun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourcePrices {
    /// Of one energy that is neither staked nor lent.
    pub energy: u64,
    /// Of one byte that is neither staked nor free.
    pub bandwidth: u64,
    /// A new account costs its creator both; the second is saved by staked bandwidth.
    pub new_account: u64,
    pub new_account_bandwidth: u64,
    /// What no transaction may exceed.
    pub fee_limit_max: u64,
}

/// What an account may use without burning TRX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    pub energy: u64,
    /// By stake.
    pub bandwidth: u64,
    /// By the day's allowance. Either this or the staked bandwidth pays, never both together.
    pub free_bandwidth: u64,
}

/// What a call would do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulation {
    /// With the penalty of popular contracts.
    pub energy: u64,
    /// The words it would answer; why it would fail.
    pub outcome: Result<Vec<String>, String>,
}

/// What a call costs and how it must be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallCost {
    /// For the transaction. It caps lent energy too, so it covers all of it.
    pub fee_limit: u64,
    /// What the sender must have, in sun: with less, the limit is cut silently and the call runs out of energy.
    pub trx_needed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallCostError {
    /// Above what the operator or the chain allows.
    #[error("the call needs a fee limit of {needed} sun, {allowed} are allowed")]
    TooExpensive { needed: u64, allowed: u64 },
    #[error("an amount is out of range")]
    OutOfRange,
}

impl ResourcePrices {
    /// The bill of a call that needs `energy` and has `bytes` of bandwidth, for an account with `have`. `ceiling` is the
    /// highest fee limit in sun that the operator allows.
    pub fn call_cost(&self, energy: u64, bytes: u64, have: Resources, ceiling: u64) -> Result<CallCost, CallCostError> {
        let reserved = energy.checked_mul(RESERVE_PERCENT).ok_or(CallCostError::OutOfRange)?.div_ceil(100);
        let fee_limit = reserved.checked_mul(self.energy).ok_or(CallCostError::OutOfRange)?;
        let allowed = ceiling.min(self.fee_limit_max);
        if fee_limit > allowed {
            return Err(CallCostError::TooExpensive { needed: fee_limit, allowed });
        }
        let burned = reserved.saturating_sub(have.energy).checked_mul(self.energy).ok_or(CallCostError::OutOfRange)?;
        let trx_needed = burned.checked_add(self.bandwidth_fee(bytes, have)?).ok_or(CallCostError::OutOfRange)?;
        Ok(CallCost { fee_limit, trx_needed })
    }

    /// What `bytes` cost, in sun: one kind of bandwidth pays for all of them, or none does.
    pub fn bandwidth_fee(&self, bytes: u64, have: Resources) -> Result<u64, CallCostError> {
        if bytes <= have.bandwidth || bytes <= have.free_bandwidth {
            return Ok(0);
        }
        bytes.checked_mul(self.bandwidth).ok_or(CallCostError::OutOfRange)
    }

    /// What sending TRX costs besides the amount, in sun. To an account that does not exist yet no free bandwidth counts.
    pub fn transfer_fee(&self, bytes: u64, have: Resources, creates: bool) -> Result<u64, CallCostError> {
        if !creates {
            return self.bandwidth_fee(bytes, have);
        }
        let bandwidth = if bytes <= have.bandwidth { 0 } else { self.new_account_bandwidth };
        self.new_account.checked_add(bandwidth).ok_or(CallCostError::OutOfRange)
    }
}

impl Tron {
    /// The prices in force at the head.
    pub async fn prices(&self) -> Result<ResourcePrices, SourceError> {
        let path = ApiView::Head.path("getchainparameters");
        let answer = self.pool.send(Request::post(&path, body(&json!({}))), |reply| {
            let said: wire::ChainParameters<'_> = wire::parse_reply(reply)?;
            let value = |key: &str| said.parameters.iter().find(|parameter| parameter.key == key).map(|p| p.value);
            let price = |key: &str| {
                // Zero values are left out; a negative one is none.
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

    /// What an account has left; nothing if it is not activated.
    pub async fn resources(&self, of: AddressKey) -> Result<Resources, SourceError> {
        let path = ApiView::Head.path("getaccountresource");
        let question = body(&json!({ "address": address::to_hex(of) }));
        let answer = self.pool.send(Request::post(&path, question), |reply| {
            let said: wire::AccountResource = wire::parse_reply(reply)?;
            let left = Resources {
                energy: said.energy_limit.saturating_sub(said.energy_used),
                bandwidth: said.net_limit.saturating_sub(said.net_used),
                free_bandwidth: said.free_net_limit.saturating_sub(said.free_net_used),
            };
            // Whoever exists has an allowance; a node that lags may not know him yet.
            Ok(if said.free_net_limit > 0 { Verdict::Accept(left) } else { Verdict::Fallback(left) })
        });
        answer.await.map_err(|failure| failure.into_source_error(0))
    }

    /// The TRX of an account in the solidified view, in sun.
    pub async fn balance(&self, of: AddressKey) -> Result<u64, SourceError> {
        let path = ApiView::Solid.path("getaccount");
        let question = body(&json!({ "address": address::to_hex(of) }));
        let answer = self.pool.send(Request::post(&path, question), |reply| {
            let said: wire::AccountState<'_> = wire::parse_reply(reply)?;
            let sun = u64::try_from(said.balance).map_err(|_| Rejection::Invalid("a negative balance".to_owned()))?;
            Ok(if said.address.is_some() { Verdict::Accept(sun) } else { Verdict::Fallback(sun) })
        });
        answer.await.map_err(|failure| failure.into_source_error(0))
    }

    /// Runs a call without sending it, as `owner` at the head. A call that fails here would burn energy on the chain.
    pub async fn simulate(
        &self,
        owner: AddressKey,
        contract: AddressKey,
        data: &[u8],
    ) -> Result<Simulation, SourceError> {
        let path = ApiView::Head.path("triggerconstantcontract");
        let question = json!({
            "owner_address": address::to_hex(owner),
            "contract_address": address::to_hex(contract),
            "data": const_hex::encode(data),
        });
        let answer = self.pool.send(Request::post(&path, body(&question)), |reply| {
            let said = wire::parse_constant_call(reply)?;
            Ok(Verdict::Accept(Simulation { energy: said.energy_used, outcome: outcome(&said) }))
        });
        answer.await.map_err(|failure| failure.into_source_error(0))
    }

    /// What a new transaction is held to: a solidified reference block, and an expiration `lifetime_ms` after the head.
    pub async fn transaction_params(
        &self,
        lifetime_ms: i64,
        timestamp_ms: i64,
    ) -> Result<TransactionParams, SourceError> {
        let (reference, head) = (self.newest(ApiView::Solid).await?, self.newest(ApiView::Head).await?);
        let expiration_ms = head.time.saturating_mul(1_000).saturating_add(lifetime_ms);
        Ok(TransactionParams::new(reference.block_ref(), expiration_ms, timestamp_ms))
    }

    /// Whether a transaction stands in a solidified block, and how it ended. `None` while no endpoint has it there.
    pub async fn solid_outcome(&self, txid: chain::TxId) -> Result<Option<(u64, Result<(), String>)>, SourceError> {
        let path = ApiView::Solid.path("gettransactioninfobyid");
        let question = body(&json!({ "value": txid.to_string() }));
        let answer: Result<_, RpcError> = self
            .pool
            .send(Request::post(&path, question), |reply| {
                let info: wire::TransactionInfo<'_> = wire::parse_reply(reply)?;
                if info.id.is_empty() {
                    return Ok(Verdict::Fallback(None));
                }
                let height =
                    u64::try_from(info.block_number).map_err(|_| Rejection::Invalid("a negative height".to_owned()))?;
                // Left out where the virtual machine did not run; where it did, silence is no success.
                let silence = if info.contract_address.is_some() { "no result" } else { "SUCCESS" };
                let vm = info.receipt.result.unwrap_or(silence);
                let failed = info.result == Some("FAILED") || vm != "SUCCESS";
                Ok(Verdict::Accept(Some((height, if failed { Err(vm.to_owned()) } else { Ok(()) }))))
            })
            .await;
        answer.map_err(|failure| failure.into_source_error(0))
    }
}

/// A revert is reported as `result: true` with a message, or by the transaction's own `ret`.
fn outcome(said: &wire::ConstantCall<'_>) -> Result<Vec<String>, String> {
    let failed = said.transaction.ret.iter().any(|ret| ret.ret == Some("FAILED"));
    match (&said.result.message, &said.result.code) {
        (Some(message), _) => Err(wire::decode_message(message)),
        (None, Some(code)) => Err(code.clone().into_owned()),
        (None, None) if failed || !said.result.result => Err("failed without a reason".to_owned()),
        (None, None) => Ok(said.constant_result.iter().map(|word| (*word).to_owned()).collect()),
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
    fn the_limit_covers_lent_energy_too() {
        let lent = Resources { energy: 200_000, bandwidth: 0, free_bandwidth: 600 };
        let bill = PRICES.call_cost(130_285, 345, lent, 40_000_000).unwrap();
        assert_eq!(bill, CallCost { fee_limit: 16_285_700, trx_needed: 0 });
        let poor = PRICES.call_cost(130_285, 345, Resources::default(), 40_000_000).unwrap();
        assert_eq!(poor, CallCost { fee_limit: 16_285_700, trx_needed: 16_285_700 + 345_000 });
        assert_eq!(
            PRICES.call_cost(130_285, 345, lent, 10_000_000),
            Err(CallCostError::TooExpensive { needed: 16_285_700, allowed: 10_000_000 })
        );
        assert_eq!(PRICES.call_cost(u64::MAX, 345, lent, 1), Err(CallCostError::OutOfRange));
    }

    #[test]
    fn bandwidth_is_all_or_nothing() {
        let half = Resources { energy: 0, bandwidth: 300, free_bandwidth: 300 };
        assert_eq!(PRICES.bandwidth_fee(345, half), Ok(345_000));
        assert_eq!(PRICES.bandwidth_fee(300, half), Ok(0));
        assert_eq!(PRICES.transfer_fee(267, half, false), Ok(0));
        assert_eq!(PRICES.transfer_fee(267, half, true), Ok(1_000_000));
        assert_eq!(PRICES.transfer_fee(301, half, true), Ok(1_100_000));
    }

    #[test]
    fn a_revert_says_true() {
        let read = |text: &str| outcome(&serde_json::from_str(text).unwrap());
        let ok = r#"{"result":{"result":true},"energy_used":1,"constant_result":["01"],"transaction":{"ret":[{}]}}"#;
        assert_eq!(read(ok), Ok(vec!["01".to_owned()]));
        let reverted = r#"{"result":{"result":true,"message":"524556455254206f70636f6465206578656375746564"},
            "constant_result":[""],"transaction":{"ret":[{"ret":"FAILED"}]}}"#;
        assert_eq!(read(reverted), Err("REVERT opcode executed".to_owned()));
        assert!(read(r#"{"result":{"code":"OTHER_ERROR"}}"#).is_err());
        assert!(read("{}").is_err());
    }
}
