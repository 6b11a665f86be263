//! Transactions that are sent to a thread, and their results.

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use crate::transaction_body::{TransactionBody, run_body_catching_panics};
use crate::{Error, Tx};

/// A message to a thread of the database.
pub(super) enum Message {
    /// Runs a transaction.
    Run(Box<dyn Command>),
    /// Ends the thread, which uses the sender to report its end.
    Close(oneshot::Sender<()>),
}

/// A transaction without its type parameters.
pub(super) trait Command: Send {
    /// Returns the name of the transaction, for logs.
    fn name(&self) -> &'static str;
    /// Runs the closure and returns true when it succeeded. Its result is kept until [`Command::send_result`].
    fn run_closure(&mut self, tx: &mut Tx) -> bool;
    /// Sends the caller the result of the closure, or the error of the group with which the transaction was committed.
    fn send_result(self: Box<Self>, group: Result<(), Error>);
}

/// A closure with the channel for its result.
struct Job<T, E, F> {
    name: &'static str,
    /// The closure; `None` after it has run.
    body: Option<F>,
    /// The result of the closure; `None` before it has run.
    outcome: Option<Result<T, E>>,
    sender: oneshot::Sender<Result<T, E>>,
}

/// Sends a transaction to the threads of a queue and waits for its result.
pub(super) async fn submit_command<T, E, F>(queue: &mpsc::Sender<Message>, name: &'static str, body: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    F: TransactionBody<T, E>,
{
    let closed = || E::from(Error::Unavailable("the database is closed".into()));
    let (sender, receiver) = oneshot::channel();
    let job = Box::new(Job { name, body: Some(body), outcome: None, sender });
    queue.send(Message::Run(job)).await.map_err(|_| closed())?;
    receiver.await.unwrap_or_else(|_| Err(closed()))
}

impl<T, E, F> Command for Job<T, E, F>
where
    T: Send,
    E: From<Error> + Send,
    F: TransactionBody<T, E>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn run_closure(&mut self, tx: &mut Tx) -> bool {
        let Some(body) = self.body.take() else { return false };
        // Statements of SQLite never wait, so a closure that is pending awaits something other than its database.
        let outcome = run_body_catching_panics(self.name, tx, body).now_or_never();
        let outcome = outcome.unwrap_or_else(|| Err(Error::Suspended { name: self.name }.into()));
        let succeeded = outcome.is_ok();
        self.outcome = Some(outcome);
        succeeded
    }

    fn send_result(self: Box<Self>, group: Result<(), Error>) {
        let outcome = match (group, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(Error::Unavailable("the transaction was not run".into()).into()),
            (Err(error), _) => Err(error.into()),
        };
        // Sending fails when the caller was dropped. The transaction has run nevertheless.
        let _caller_dropped = self.sender.send(outcome);
    }
}
