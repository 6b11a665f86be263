//! The commands `settled admin mail …`.

use clap::Subcommand;

use crate::commands::admin::{AdminError, AdminOperation};
use crate::commands::context::Context;

/// The subcommands of `settled admin mail`.
#[derive(Subcommand)]
pub enum Command {
    /// Queue the parked mails again, after you fixed the cause. A mail is parked when it could not be delivered within
    /// five days.
    Retry,
}

impl Command {
    /// Returns the operation that this command requests.
    pub fn into_operation(self) -> AdminOperation {
        match self {
            Command::Retry => AdminOperation::RetryMails,
        }
    }
}

/// Queues all parked mails again, and returns their number as text.
pub async fn retry_parked_mails(context: &Context) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let count = context
        .db
        .write("retry_mails", move |tx| {
            Box::pin(async move { Ok::<_, AdminError>(mail::requeue_parked_mails(tx, now, &actor).await?) })
        })
        .await?;
    context.wake.wake();
    Ok(match count {
        0 => "No mail is parked.".into(),
        count => format!("{count} mails are queued again."),
    })
}
