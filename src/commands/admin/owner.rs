//! The shop to which a command applies: a merchant and a mode.

use serde::{Deserialize, Serialize};

use crate::commands::admin::parse;
use crate::commands::hints::format_hint;
use config::Config;
use ids::Mode;

/// The merchant and the mode that the operator gave. Without them, a command applies to the shop of the checkout surface.
#[derive(Clone, Default, clap::Args, Serialize, Deserialize)]
pub struct Owner {
    /// Slug of the merchant; by default the merchant of the checkout surface.
    #[arg(long)]
    pub merchant: Option<String>,
    /// The mode, `live` for real money or `test` for worthless coins; by default the mode of the checkout surface.
    #[arg(long, value_name = "live|test", value_parser = parse::parse_mode)]
    pub mode: Option<Mode>,
}

/// The merchant and the mode to which a command applies.
#[derive(Clone)]
pub struct ShopName {
    /// Slug of the merchant.
    pub merchant: String,
    pub mode: Mode,
    config: Config,
}

impl Owner {
    /// Returns the merchant and the mode that the operator gave. A merchant or mode that the operator did not give is
    /// that of the checkout surface.
    pub fn resolve_with_checkout_defaults(&self, config: &Config) -> ShopName {
        let surface = &config.surfaces.checkout.mount;
        ShopName {
            merchant: self.merchant.clone().unwrap_or_else(|| surface.merchant.clone()),
            mode: self.mode.unwrap_or(surface.mode),
            config: config.clone(),
        }
    }
}

impl ShopName {
    /// Returns, in backticks, the command line that runs `command` for this shop and installation. It has `--merchant`
    /// and `--mode` only if they differ from those of the checkout surface.
    pub fn format_hint(&self, command: &str) -> String {
        let surface = &self.config.surfaces.checkout.mount;
        let mut command = command.to_owned();
        if self.merchant != surface.merchant {
            command += &format!(" --merchant {}", self.merchant);
        }
        if self.mode != surface.mode {
            command += &format!(" --mode {}", self.mode.as_str());
        }
        format_hint(&self.config, &command)
    }

    /// Returns the command in backticks that creates the merchant.
    pub fn format_merchant_hint(&self) -> String {
        format_hint(&self.config, &format!("admin merchant create {}", self.merchant))
    }

    /// Returns a warning that starts with a space: buyers do not see a change of this shop, because the checkout
    /// surface sells for the same merchant in the other mode. Returns an empty text in all other cases.
    pub fn note_if_checkout_sells_other_mode(&self) -> String {
        let surface = &self.config.surfaces.checkout.mount;
        let is_other = surface.enabled && self.merchant == surface.merchant && self.mode != surface.mode;
        match is_other {
            true => {
                format!(" The checkout surface sells in {} mode, so buyers do not see this.", surface.mode.as_str())
            }
            false => String::new(),
        }
    }
}
