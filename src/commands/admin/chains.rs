//! The commands `settled admin chain …`.

use std::fmt::Write;

use chain::{Amount, ChainId, Family};
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::{AdminError, AdminOperation};
use crate::commands::context::Context;
use config::ChainConfig;
use money::cursors;
use money::deposits::{self, UnspentOutput};

/// The maximum number of outputs in one listing. It keeps the response below the size limit of the control socket.
const LISTED_MAX: i64 = 20_000;

/// The subcommands of `settled admin chain`.
#[derive(Subcommand)]
pub enum Command {
    /// Resume a halted chain, after you compared its nodes.
    Resume(Resume),
    /// List the unspent outputs of the Bitcoin deposit addresses: output, block, state, amount, address index, address.
    Unspent(ListUnspent),
}

/// Selects the halted chain to resume.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Resume {
    /// Name of the chain in the configuration.
    pub chain: String,
}

/// Selects the Bitcoin chain whose unspent outputs are listed.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct ListUnspent {
    /// Name of the chain in the configuration.
    pub chain: String,
}

impl Command {
    /// Returns the operation that this subcommand requests, with its arguments.
    pub fn into_operation(self) -> AdminOperation {
        match self {
            Command::Resume(resume) => AdminOperation::ResumeChain(resume),
            Command::Unspent(unspent) => AdminOperation::ListUnspent(unspent),
        }
    }
}

/// Returns the configuration of the chain with this name. Fails when no such chain is configured.
fn require_chain_config<'c>(context: &'c Context, name: &str) -> Result<&'c ChainConfig, String> {
    let id = ChainId::parse(name).map_err(|e| e.to_string())?;
    context.config.chains.get(&id).ok_or_else(|| format!("there is no chain `{id}` in the configuration"))
}

/// Returns one line for each of the 20,000 oldest unspent outputs of the deposit addresses, and a last line with the
/// number and the sum of the listed outputs. Fails when the chain is not a Bitcoin chain.
pub async fn list_unspent_outputs_with_sum(context: &Context, unspent: ListUnspent) -> Result<String, String> {
    let chain = require_chain_config(context, &unspent.chain)?;
    if chain.family != Family::Bitcoin {
        return Err(format!("{} has no unspent outputs, because it is not a Bitcoin chain", chain.id));
    }
    let decimals = chain.assets().find(|(_, asset)| asset.is_native()).map_or(0, |(_, asset)| asset.decimals);
    let id = chain.id.clone();
    let outputs = context
        .db
        .read("list_unspent_outputs", move |tx| {
            Box::pin(async move { deposits::list_unspent_outputs(tx, &id, LISTED_MAX).await })
        })
        .await
        .map_err(|e| e.to_string())?;
    let mut text = String::new();
    for UnspentOutput { output, amount, height, state, address, index } in &outputs {
        let (amount, state) = (amount.to_decimal(decimals), state.as_str());
        let _ = writeln!(text, "{}:{} {height} {state} {amount} {index} {address}", output.txid, output.vout);
    }
    if outputs.len() >= usize::try_from(LISTED_MAX).unwrap_or(usize::MAX) {
        text += "and more; these are the oldest\n";
    }
    let sum = Amount::checked_sum(outputs.iter().map(|output| output.amount))
        .ok_or("the sum of the outputs is out of range")?;
    Ok(format!("{text}{} outputs, {} in total", outputs.len(), sum.to_decimal(decimals)))
}

/// Resumes a halted chain and returns a message with the reason of the halt. Fails when the chain is not halted.
pub async fn resume_halted_chain(context: &Context, resume: Resume) -> Result<String, String> {
    let chain = require_chain_config(context, &resume.chain)?.id.clone();
    let (now, actor, id) = (context.clock.now(), context.actor.clone(), chain.clone());
    let reason = context
        .db
        .write("resume_halted_chain", move |tx| {
            Box::pin(async move {
                let reason = cursors::halt::resume_halted_chain(tx, now, &actor, &id).await?;
                reason.ok_or_else(|| AdminError::Refused(format!("{id} is not halted")))
            })
        })
        .await?;
    let next = match &context.daemon {
        Some(_) => "The daemon follows it again within 30 seconds",
        None => "The daemon follows it again when it is started",
    };
    Ok(format!(
        "{chain} was halted: {reason}. {next}, and halts it again if its nodes still disagree with the stored blocks."
    ))
}
