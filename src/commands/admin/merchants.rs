//! Merchants.

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::commands::admin::{Act, Refused};
use crate::commands::context::Context;
use records::audit_log::{self, Action};
use shop::merchants;

#[derive(Subcommand)]
pub enum Verb {
    /// Add a merchant.
    Create(Create),
    /// Show all of them.
    List,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Create {
    /// How configuration and commands call it: a-z, 0-9 and -.
    pub slug: String,
    /// How people call it; the slug if it is left out.
    #[arg(long)]
    pub name: Option<String>,
}

impl Verb {
    pub fn act(self) -> Act {
        match self {
            Verb::Create(create) => Act::CreateMerchant(create),
            Verb::List => Act::ListMerchants,
        }
    }
}

pub async fn create(context: &Context, new: Create) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let name = new.name.unwrap_or_else(|| new.slug.clone());
    let (slug, public_id) = (new.slug.clone(), Uuid::new_v4());
    context
        .db
        .write("create_merchant", move |tx| {
            Box::pin(async move {
                merchants::create(tx, now, public_id, &slug, &name).await.map_err(Refused::because)?;
                Ok::<_, Refused>(audit_log::record(tx, now, &actor, Action::MerchantCreate, &slug, &name).await?)
            })
        })
        .await?;
    let restart = match &context.daemon {
        Some(_) => " Restart the daemon to serve a surface for it.",
        None => "",
    };
    Ok(format!("Merchant `{}` was created ({}).{restart}", new.slug, public_id))
}

pub async fn list(context: &Context) -> Result<String, String> {
    let all = context.db.read("list_merchants", |tx| Box::pin(async move { merchants::list(tx).await })).await;
    let all = all.map_err(|e| Refused::Db(e).to_string())?;
    if all.is_empty() {
        return Ok("There is no merchant yet; create one with `settled admin merchant create SLUG`.".into());
    }
    let lines: Vec<String> = all.iter().map(|m| format!("{}\t{}\t{}", m.slug, m.public_id, m.name)).collect();
    Ok(lines.join("\n"))
}
