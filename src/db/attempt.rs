//! One run of a transaction's closure, the same for both databases.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::{Error, Tx};

/// The closure of a transaction.
pub trait Body<T, E>: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static {}

impl<T, E, F> Body<T, E> for F where F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static {}

/// Success only when the closure succeeded and no statement failed on the way, whatever the closure made of that.
pub(super) async fn attempt<T, E, F>(name: &'static str, tx: &mut Tx, body: F) -> Result<T, E>
where
    F: Body<T, E>,
    E: From<Error>,
{
    let run = async {
        let value = body(&mut *tx).await?;
        tx.flush().await?;
        Ok(value)
    };
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(payload) => Err(Error::Panicked { name, message: message(payload.as_ref()) }.into()),
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
