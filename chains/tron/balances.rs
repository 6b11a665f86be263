//! Balances of accounts in TRX: after the newest solidified block, and after a past block.

use chain::{Address, AddressKey, Amount, AssetKind, BlockRef, SourceError};
use rpc::{Rejection, Request, RpcError, Target, Verdict};
use serde_json::json;

use crate::{
    Tron, address, block,
    http_api::{self, ApiView, serialize_body},
};

impl Tron {
    /// Returns the TRX balance of an account after the newest solidified block, in sun.
    ///
    /// # Errors
    ///
    /// Fails when no endpoint answers.
    pub async fn fetch_solidified_trx_balance(&self, account: AddressKey) -> Result<u64, SourceError> {
        self.fetch_solidified_balance_from_target(Target::Any, account)
            .await
            .map_err(|failure| failure.into_source_error(0))
    }

    /// Returns the TRX balance of an account after the newest solidified block of the endpoints of `target`, in sun.
    pub(crate) async fn fetch_solidified_balance_from_target(
        &self,
        target: Target,
        account: AddressKey,
    ) -> Result<u64, RpcError> {
        let path = ApiView::Solid.api_path("getaccount");
        let request = serialize_body(&json!({ "address": address::to_prefixed_hex(account) }));
        let request = Request::http_post(&path, request).with_target(target);
        let answer = self.pool.send_request(request, |reply| {
            let state: http_api::AccountState<'_> = http_api::parse_json_or_node_error(reply)?;
            let sun = u64::try_from(state.balance).map_err(|_| Rejection::Invalid("a negative balance".to_owned()))?;
            Ok(if state.address.is_some() { Verdict::Accept(sun) } else { Verdict::Fallback(sun) })
        });
        answer.await
    }

    /// Returns the TRX balance of each address after the block `at`, in sun, from the endpoints of `target`. Only nodes
    /// that keep the history of balances (`storage.balance.history.lookup`) can answer. Such a node returns the block in which the balance
    /// changed last (java-tron: `Wallet.getAccountBalance`). A balance of 0 that changed in the requested block proves
    /// nothing: nodes return it for unknown accounts too, and nodes without the history return it for all accounts.
    pub(crate) async fn fetch_past_trx_balances(
        &self,
        target: Target,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError> {
        if *asset != AssetKind::Native {
            return Err(SourceError::Unsupported("the balance of a token after a past block".to_owned()));
        }
        let path = ApiView::Head.api_path("getaccountbalance");
        let mut balances = Vec::with_capacity(addresses.len());
        for address in addresses {
            let request = json!({
                "account_identifier": { "address": address::to_prefixed_hex(address.key) },
                "block_identifier": { "hash": at.hash.to_string(), "number": at.height },
            });
            let request = Request::http_post(&path, serialize_body(&request)).with_target(target);
            let answer = self.pool.send_request(request, |reply| {
                let past: http_api::PastBalance<'_> = http_api::parse_json_or_node_error(reply)?;
                Ok(judge_past_balance_by_last_change(at, &past))
            });
            let unsupported = || SourceError::Unsupported("past balances".to_owned());
            match answer.await {
                Ok(balance) => balances.push(balance.ok_or_else(unsupported)?),
                Err(RpcError::NodeError(_) | RpcError::MethodMissing(_)) => return Err(unsupported()),
                Err(failure) => return Err(failure.into_source_error(at.height)),
            }
        }
        Ok(balances)
    }
}

/// Accepts the balance in a node's reply if the balance changed last before the block `at`, or in this block to more
/// than 0. A balance of 0 that changed in this block is used only when no other endpoint has a better reply. The
/// balance is `None` when the reply does not contain it or is about another block.
fn judge_past_balance_by_last_change(at: &BlockRef, past: &http_api::PastBalance<'_>) -> Verdict<Option<Amount>> {
    let (Some(changed), Ok(sun)) = (&past.block_identifier, u64::try_from(past.balance)) else {
        return Verdict::Fallback(None);
    };
    let amount = Some(Amount::from(sun));
    match u64::try_from(changed.number) {
        Ok(height) if height < at.height => Verdict::Accept(amount),
        Ok(height) if height == at.height && block::parse_bytes32(changed.hash) == Some(at.hash.0) => {
            if sun > 0 {
                Verdict::Accept(amount)
            } else {
                Verdict::Fallback(amount)
            }
        }
        Ok(_) | Err(_) => Verdict::Fallback(None),
    }
}
