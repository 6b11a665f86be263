//! A transaction on its way to a thread and back.

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use crate::attempt::{Body, attempt};
use crate::{Error, Tx};

pub(super) enum Message {
    Run(Box<dyn Command>),
    Close(oneshot::Sender<()>),
}

/// A transaction with its types erased: run by a thread, answered when its group is stored.
pub(super) trait Command: Send {
    fn name(&self) -> &'static str;
    /// Whether the closure succeeded; its answer is kept until [`Command::answer`].
    fn run(&mut self, tx: &mut Tx) -> bool;
    fn answer(self: Box<Self>, group: Result<(), Error>);
}

struct Job<T, E, F> {
    name: &'static str,
    body: Option<F>,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

pub(super) async fn submit<T, E, F>(queue: &mpsc::Sender<Message>, name: &'static str, body: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    F: Body<T, E>,
{
    let closed = || E::from(Error::Unavailable("it is closed".into()));
    let (reply, answer) = oneshot::channel();
    let job = Box::new(Job { name, body: Some(body), outcome: None, reply });
    queue.send(Message::Run(job)).await.map_err(|_| closed())?;
    answer.await.unwrap_or_else(|_| Err(closed()))
}

impl<T, E, F> Command for Job<T, E, F>
where
    T: Send,
    E: From<Error> + Send,
    F: Body<T, E>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, tx: &mut Tx) -> bool {
        let Some(body) = self.body.take() else { return false };
        // A statement never waits here, so a closure that is pending waits for something that is not its database.
        let outcome = attempt(self.name, tx, body).now_or_never();
        let outcome = outcome.unwrap_or_else(|| Err(Error::Suspended { name: self.name }.into()));
        let stored = outcome.is_ok();
        self.outcome = Some(outcome);
        stored
    }

    fn answer(self: Box<Self>, group: Result<(), Error>) {
        let outcome = match (group, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(Error::Unavailable("the transaction was not run".into()).into()),
            (Err(error), _) => Err(error.into()),
        };
        // A caller that went away is not told; what it asked for is done.
        let _gone = self.reply.send(outcome);
    }
}
