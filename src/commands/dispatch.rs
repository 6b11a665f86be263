//! Executes the requests that arrive on the control socket of the daemon. Each request names one operation and contains
//! its arguments as JSON.

use async_trait::async_trait;
use serde_json::Value;

use crate::commands::context::Context;
use crate::commands::operation::Operation;
use crate::commands::{admin, backup, rescan, status};
use crate::control::{ControlRequest, ControlResponse, RequestHandler};
use records::audit_log::Actor;

/// Executes the requests of the control socket with the daemon's context.
pub struct Dispatcher(pub Context);

#[async_trait]
impl RequestHandler for Dispatcher {
    async fn execute_request(&self, uid: u32, request: ControlRequest) -> ControlResponse {
        let context = Context { actor: Actor::CommandLine { uid }, ..self.0.clone() };
        execute_named_operation(&context, request).await
    }
}

/// Executes the operation that the request names and returns its output. When no operation has the name, returns an
/// error text for the operator.
pub async fn execute_named_operation(context: &Context, request: ControlRequest) -> ControlResponse {
    let ControlRequest { operation, arguments } = request;
    match operation.as_str() {
        status::DescribeDaemon::NAME => decode_and_execute::<status::DescribeDaemon>(context, arguments).await,
        backup::CopyDatabase::NAME => decode_and_execute::<backup::CopyDatabase>(context, arguments).await,
        rescan::RescanNextPiece::NAME => decode_and_execute::<rescan::RescanNextPiece>(context, arguments).await,
        admin::stock_import::ImportStep::NAME => {
            decode_and_execute::<admin::stock_import::ImportStep>(context, arguments).await
        }
        admin::AdminOperation::NAME => decode_and_execute::<admin::AdminOperation>(context, arguments).await,
        name => {
            Err(format!("the daemon does not offer the operation `{name}`; use a `settled` of the daemon's version"))
        }
    }
}

/// Decodes the JSON arguments of an operation, executes the operation and returns its output as the response.
pub async fn decode_and_execute<O: Operation>(context: &O::Context, arguments: Value) -> ControlResponse {
    // The message does not contain the text of the parser's error, because this text may quote goods.
    let operation: O = serde_json::from_value(arguments).map_err(|_| {
        format!(
            "the daemon does not understand the arguments of `{}`; use a `settled` of the daemon's version",
            O::NAME
        )
    })?;
    let output = operation.execute(context).await?;
    serde_json::to_value(output).map_err(|e| format!("the output of `{}` cannot be serialised: {e}", O::NAME))
}
