//! The commands `settled admin deposit …`.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::reviews::NOTE_LENGTH_MAX;
use crate::commands::admin::{AdminError, AdminOperation};
use crate::commands::context::Context;
use crate::commands::rescan::find_or_open_rescanner;
use ids::DepositId;
use money::deposits::{self, RejectError};

/// The subcommands of `settled admin deposit`.
#[derive(Subcommand)]
pub enum Command {
    /// Reject a deposit that an endpoint contradicts: it never counts, and its invoice no longer waits for it. First
    /// remove the endpoint that invented it, or a balance check or a rescan books it again.
    Reject(Reject),
}

/// Selects the deposit to reject and explains the decision.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Reject {
    /// Number of the deposit: 7 for the review of deposit/7.
    pub deposit: i64,
    /// Your decision and its reason; it is stored.
    #[arg(long)]
    pub note: String,
}

impl Command {
    /// Returns the operation that this subcommand requests, with its arguments.
    pub fn into_operation(self) -> AdminOperation {
        match self {
            Command::Reject(reject) => AdminOperation::RejectDeposit(reject),
        }
    }
}

/// Rejects a contradicted deposit. Fails when there is no such deposit, or when it was confirmed or shown meanwhile.
pub async fn reject_contradicted_deposit(context: &Context, reject: Reject) -> Result<String, String> {
    let (id, note) = (DepositId(reject.deposit), reject.note.trim().to_owned());
    if !(1..=NOTE_LENGTH_MAX).contains(&note.chars().count()) {
        return Err(format!("a note has 1 to {NOTE_LENGTH_MAX} characters"));
    }
    let chain = context
        .db
        .read("find_deposit_chain", move |tx| Box::pin(async move { deposits::find_deposit_chain(tx, id).await }))
        .await
        .map_err(|e| AdminError::from(e).to_string())?;
    let chain = chain.ok_or_else(|| RejectError::Missing(id).to_string())?;
    let deposits = find_or_open_rescanner(context, &chain).await?.deposit_service().clone();
    let (now, actor) = (context.clock.now(), context.actor.clone());
    context
        .db
        .write("reject_contradicted_deposit", move |tx| {
            Box::pin(async move { deposits.reject_contradicted_deposit(tx, now, &actor, id, &note).await })
        })
        .await
        .map_err(|error: RejectError| error.to_string())?;
    Ok(format!("Deposit {id} is rejected. It does not count, and its review is closed."))
}
