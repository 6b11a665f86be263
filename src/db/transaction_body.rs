//! The closure of a transaction, and the function that runs it in the same way on both databases.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::{Error, Tx};

/// The closure of a transaction. It must await nothing but its [`Tx`].
pub trait TransactionBody<T, E>: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static {}

impl<T, E, F> TransactionBody<T, E> for F where
    F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static
{
}

/// Runs the closure, and then the statements that the closure deferred or queued and that have not run yet. A panic
/// becomes [`Error::Panicked`]. Neither commits nor rolls back.
pub(super) async fn run_body_and_flush_catching_panics<T, E, F>(
    name: &'static str,
    tx: &mut Tx,
    body: F,
) -> Result<T, E>
where
    F: TransactionBody<T, E>,
    E: From<Error>,
{
    let run = async {
        let value = body(&mut *tx).await?;
        // `run_deferred_and_queued` also fails when an earlier statement failed and the closure ignored its error.
        tx.run_deferred_and_queued().await?;
        Ok(value)
    };
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(payload) => Err(Error::Panicked { name, message: extract_panic_message(payload.as_ref()) }.into()),
    }
}

/// Returns the text of a panic; `no message` when it has no text.
fn extract_panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
