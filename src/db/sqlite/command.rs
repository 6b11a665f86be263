//! Transactions as messages to a database thread, and the way their results return to the caller.

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use crate::transaction_body::{TransactionBody, run_body_and_flush_catching_panics};
use crate::{Error, Tx};

/// A message to a thread of the database.
pub(super) enum Message {
    /// Runs a transaction.
    Run(Box<dyn Command>),
    /// Ends the thread. The thread sends a message on this channel when it ends.
    Close(oneshot::Sender<()>),
}

/// A transaction that waits for a thread. The trait hides the types of the closure and its result, so that one queue
/// can hold all transactions.
pub(super) trait Command: Send {
    /// Returns the name of the transaction, for logs.
    fn name(&self) -> &'static str;
    /// Runs the closure of the transaction and returns true when it succeeded. The result of the closure is kept until
    /// [`Command::send_result_or_group_error`].
    fn run_closure_and_keep_result(&mut self, tx: &mut Tx) -> bool;
    /// Sends the caller the result of the closure. When the transaction was committed in a group and the group failed,
    /// sends the error of the group.
    fn send_result_or_group_error(self: Box<Self>, group: Result<(), Error>);
}

/// A closure with the channel on which its result is sent to the caller.
struct Job<T, E, F> {
    name: &'static str,
    /// The closure; `None` after it has run.
    body: Option<F>,
    /// The result of the closure; `None` before it has run.
    outcome: Option<Result<T, E>>,
    sender: oneshot::Sender<Result<T, E>>,
}

/// Sends a transaction to the threads of a queue and waits for its result.
pub(super) async fn run_on_database_thread<T, E, F>(
    queue: &mpsc::Sender<Message>,
    name: &'static str,
    body: F,
) -> Result<T, E>
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

    fn run_closure_and_keep_result(&mut self, tx: &mut Tx) -> bool {
        let Some(body) = self.body.take() else { return false };
        // A statement of SQLite never waits. So if the closure is not finished at the first poll, it awaits something
        // other than its database.
        let outcome = run_body_and_flush_catching_panics(self.name, tx, body).now_or_never();
        let outcome = outcome.unwrap_or_else(|| Err(Error::Suspended { name: self.name }.into()));
        let succeeded = outcome.is_ok();
        self.outcome = Some(outcome);
        succeeded
    }

    fn send_result_or_group_error(self: Box<Self>, group: Result<(), Error>) {
        let outcome = match (group, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(Error::Unavailable("the transaction was not run".into()).into()),
            (Err(error), _) => Err(error.into()),
        };
        // Sending fails when the caller was dropped. Even then the transaction has run to its end.
        let _caller_dropped = self.sender.send(outcome);
    }
}
