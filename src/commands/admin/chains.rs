//! Chains.

use std::fmt::Write;

use chain::{Amount, ChainId, Family};
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::{Act, Refused};
use crate::commands::context::Context;
use config::ChainConfig;
use money::deposits::{self, Unspent as Spendable};
use records::audit_log::{self, Action};

/// Outputs shown at once: an answer has a length that it may not pass.
const LISTED_MAX: i64 = 20_000;

#[derive(Subcommand)]
pub enum Verb {
    /// Follow a chain again that was halted, after a person compared the nodes.
    Resume(Resume),
    /// What lies on our Bitcoin addresses and can be spent: output, block, amount, index of the address, address.
    Unspent(Unspent),
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Resume {
    /// Name of the chain in the configuration.
    pub chain: String,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Unspent {
    /// Name of the chain in the configuration.
    pub chain: String,
}

impl Verb {
    pub fn act(self) -> Act {
        match self {
            Verb::Resume(resume) => Act::ResumeChain(resume),
            Verb::Unspent(unspent) => Act::ListUnspent(unspent),
        }
    }
}

fn configured<'c>(context: &'c Context, name: &str) -> Result<&'c ChainConfig, String> {
    let id = ChainId::new(name).map_err(|e| e.to_string())?;
    context.config.chains.get(&id).ok_or_else(|| format!("there is no chain `{id}` in the configuration"))
}

pub async fn unspent(context: &Context, unspent: Unspent) -> Result<String, String> {
    let chain = configured(context, &unspent.chain)?;
    if chain.family != Family::Bitcoin {
        return Err(format!("{} has balances and no outputs", chain.id));
    }
    let decimals = chain.assets().find(|(_, asset)| asset.is_native()).map_or(0, |(_, asset)| asset.decimals);
    let id = chain.id.clone();
    let outputs = context
        .db
        .read("list_unspent", move |tx| Box::pin(async move { deposits::list_unspent(tx, &id, LISTED_MAX).await }))
        .await
        .map_err(|e| e.to_string())?;
    let mut text = String::new();
    for Spendable { output, amount, height, state, address, index } in &outputs {
        let (amount, state) = (amount.to_decimal(decimals), state.as_str());
        let _ = writeln!(text, "{}:{} {height} {state} {amount} {index} {address}", output.txid, output.vout);
    }
    if outputs.len() >= usize::try_from(LISTED_MAX).unwrap_or(usize::MAX) {
        text += "and more; these are the oldest\n";
    }
    let sum = Amount::checked_sum(outputs.iter().map(|output| output.amount)).ok_or("the sum leaves the range")?;
    Ok(format!("{text}{} outputs with {} together", outputs.len(), sum.to_decimal(decimals)))
}

pub async fn resume(context: &Context, resume: Resume) -> Result<String, String> {
    let chain = configured(context, &resume.chain)?.id.clone();
    let (now, actor, id) = (context.clock.now(), context.actor.clone(), chain.clone());
    let why = context
        .db
        .write("resume_chain", move |tx| {
            Box::pin(async move {
                let note = format!("{actor} resumed it");
                let why = deposits::resume(tx, now, &id, &note).await?;
                let why = why.ok_or_else(|| Refused::Rejected(format!("{id} is not halted")))?;
                audit_log::record(tx, now, &actor, Action::ChainResume, id.as_str(), &why).await?;
                Ok::<_, Refused>(why)
            })
        })
        .await?;
    let next = match &context.daemon {
        Some(_) => "The daemon goes on within half a minute",
        None => "The daemon goes on when it is started",
    };
    Ok(format!("{chain} stood still because {why}. {next}, and halts again if its nodes still have another chain."))
}
