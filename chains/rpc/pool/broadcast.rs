//! Sends a request, such as a signed transaction, to all endpoints with the role `broadcast`.

use futures_util::future;
use tokio::time::Instant;

use super::Pool;
use crate::{Request, Role, RpcError, http::TransportError};

impl Pool {
    /// Sends a request to all endpoints with the role `broadcast` at the same time, even to endpoints that would get no
    /// requests now because they failed. Ignores `request.target`. Returns, for each endpoint, its index and the body
    /// of its reply or the reason of the failure.
    pub async fn send_to_all_broadcast_endpoints(&self, request: Request) -> Vec<(usize, Result<Vec<u8>, String>)> {
        let request = &request;
        let recipients = (0..self.endpoints.len()).filter(|i| self.endpoints[*i].endpoint.has_role(Role::Broadcast));
        let replies = recipients.map(|endpoint| async move {
            self.endpoints[endpoint].lock_health().charge_requests(1, Instant::now());
            let reply = match self.count_and_send_http_request(endpoint, request, 1, self.config.deadline).await {
                Ok(exchange) => Ok(exchange.body),
                Err(TransportError::Failed { reason, .. }) => Err(reason),
                Err(TransportError::TooLarge { bytes_max }) => Err(RpcError::reply_too_large(bytes_max).to_string()),
            };
            (endpoint, reply)
        });
        future::join_all(replies).await
    }
}
