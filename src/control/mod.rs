//! The control socket: a Unix socket in the data folder over which commands reach the running daemon. A request names
//! an operation and contains its arguments as JSON. This module only transports requests; a [`RequestHandler`] executes
//! them.

pub mod client;
mod json_line;
pub mod server;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of the socket in the data folder.
const SOCKET_FILE: &str = "control.sock";
/// The maximum time to send a request, to receive a request or to send a response. A client waits longer for its
/// response.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// A request, sent as one line of JSON. The type has no `Debug`, because the arguments may contain goods, which must
/// not be logged.
#[derive(Serialize, Deserialize)]
pub struct ControlRequest {
    /// The name of the requested operation, such as `backup`.
    pub operation: String,
    /// The arguments, in the JSON format that the operation defines.
    pub arguments: Value,
}

/// The response to a request, one line of JSON: the operation's output, or a sentence that explains to the operator why
/// the operation failed.
pub type ControlResponse = Result<Value, String>;

/// Executes the requests that arrive over the socket.
#[async_trait]
pub trait RequestHandler: Send + Sync + 'static {
    /// Executes a request. `uid` is the operating system's id of the user who sent it.
    async fn execute_request(&self, uid: u32, request: ControlRequest) -> ControlResponse;
}
