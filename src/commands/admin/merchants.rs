//! The commands `settled admin merchant …`.

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::commands::admin::owner::ShopName;
use crate::commands::admin::{AdminError, AdminOperation};
use crate::commands::context::Context;
use crate::commands::hints::format_hint;
use db::Tx;
use ids::Shop;
use shop::merchants;

/// The subcommands of `settled admin merchant`.
#[derive(Subcommand)]
pub enum Command {
    /// Add a merchant.
    Create(Create),
    /// List all merchants.
    List,
}

/// The slug and the name of the merchant to create.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Create {
    /// Name of the merchant in the configuration and in commands: a-z, 0-9 and -.
    pub slug: String,
    /// Name that people see; by default the slug.
    #[arg(long)]
    pub name: Option<String>,
}

impl Command {
    /// Returns the operation that this subcommand requests, with its arguments.
    pub fn into_operation(self) -> AdminOperation {
        match self {
            Command::Create(create) => AdminOperation::CreateMerchant(create),
            Command::List => AdminOperation::ListMerchants,
        }
    }
}

/// Creates a merchant and returns a message with its public id.
pub async fn create_merchant(context: &Context, new: Create) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let name = new.name.unwrap_or_else(|| new.slug.clone());
    let (slug, public_id) = (new.slug.clone(), Uuid::new_v4());
    context
        .db
        .write("create_merchant", move |tx| {
            Box::pin(async move {
                let created = merchants::create_merchant(tx, now, &actor, public_id, &slug, &name).await;
                created.map_err(AdminError::from_refusal)
            })
        })
        .await?;
    let restart = match &context.daemon {
        Some(_) => " Restart the daemon to serve a surface for it.",
        None => "",
    };
    Ok(format!("Merchant `{}` was created ({}).{restart}", new.slug, public_id))
}

/// Returns one line for each merchant.
pub async fn list_merchants(context: &Context) -> Result<String, String> {
    let all =
        context.db.read("list_merchants", |tx| Box::pin(async move { merchants::list_merchants(tx).await })).await;
    let all = all.map_err(|e| AdminError::Db(e).to_string())?;
    if all.is_empty() {
        let create = format_hint(&context.config, "admin merchant create SLUG");
        return Ok(format!("There is no merchant yet; create one with {create}."));
    }
    let lines: Vec<String> = all.iter().map(|m| format!("{}\t{}\t{}", m.slug, m.public_id, m.name)).collect();
    Ok(lines.join("\n"))
}

/// Returns the shop of a merchant in a mode. Fails when the merchant does not exist; the error then names the command
/// that creates the merchant.
pub async fn require_shop(tx: &mut Tx, shop: &ShopName) -> Result<Shop, AdminError> {
    let merchant = merchants::find_merchant_by_slug(tx, &shop.merchant).await?.ok_or_else(|| {
        let (slug, create) = (&shop.merchant, shop.format_merchant_hint());
        AdminError::Refused(format!("there is no merchant `{slug}`; create it with {create}"))
    })?;
    Ok(Shop { merchant: merchant.id, mode: shop.mode })
}
