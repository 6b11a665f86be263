//! Chains.

use chain::ChainId;
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::{Act, Refused};
use crate::commands::control::Context;
use crate::money::deposits;
use crate::reviews;

#[derive(Subcommand)]
pub enum Verb {
    /// Follow a chain again that was halted, after a person compared the nodes.
    Resume(Resume),
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Resume {
    /// Name of the chain in the configuration.
    pub chain: String,
}

impl Verb {
    pub fn act(self) -> Act {
        match self {
            Verb::Resume(resume) => Act::ResumeChain(resume),
        }
    }
}

pub async fn resume(context: &Context, resume: Resume) -> Result<String, String> {
    let chain = ChainId::new(&resume.chain).map_err(|e| e.to_string())?;
    if !context.config.chains.contains_key(&chain) {
        return Err(format!("there is no chain `{chain}` in the configuration"));
    }
    let (now, actor, id) = (context.clock.now(), context.actor.clone(), chain.clone());
    let why = context
        .db
        .write("resume_chain", move |tx| {
            Box::pin(async move {
                let note = format!("{actor} resumed it");
                let why = deposits::resume(tx, now, &id, &note).await?;
                let why = why.ok_or_else(|| Refused::Because(format!("{id} is not halted")))?;
                reviews::record_act(tx, now, &actor, "chain.resume", id.as_str(), &why).await?;
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
