//! The operations that the daemon offers on its control socket. Each request names one of them.

use async_trait::async_trait;

use crate::commands::context::Context;
use crate::commands::operation::{Operation, execute_request};
use crate::commands::{admin, backup, rescan, status};
use crate::control::{Handler, Request, Response};
use records::audit_log::Actor;

/// Executes the requests of the control socket with the daemon's context.
pub struct Dispatcher(pub Context);

#[async_trait]
impl Handler for Dispatcher {
    async fn handle(&self, uid: u32, request: Request) -> Response {
        let context = Context { actor: Actor::CommandLine { uid }, ..self.0.clone() };
        dispatch_request(&context, request).await
    }
}

/// Executes the operation that the request names and returns its output. An unknown name is an error for the operator.
pub async fn dispatch_request(context: &Context, request: Request) -> Response {
    let Request { operation, arguments } = request;
    match operation.as_str() {
        status::Status::NAME => execute_request::<status::Status>(context, arguments).await,
        backup::Backup::NAME => execute_request::<backup::Backup>(context, arguments).await,
        rescan::RescanRange::NAME => execute_request::<rescan::RescanRange>(context, arguments).await,
        admin::AdminOperation::NAME => execute_request::<admin::AdminOperation>(context, arguments).await,
        name => {
            Err(format!("the daemon does not offer the operation `{name}`; use a `settled` of the daemon's version"))
        }
    }
}
