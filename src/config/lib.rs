//! The configuration: one TOML file over `config/default.toml`, environment variables over both.
//!
//! What is returned here was checked: every key is known, every value lies within its bounds, and what is enabled can
//! work. Files with secrets are named but not read before somebody asks for them.

mod accounts;
mod chains;
mod validate;
mod layers;
mod network;
mod preset;
mod rates;
mod secret;
mod surfaces;
mod text;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use url::Url;

pub use accounts::{Account, Purpose};
pub use chains::{AddressKind, Api, ChainConfig, Confirmation, Driver, Endpoint, Finality, Role, Trace, Verify};
pub use network::IpNetwork;
pub use rates::{Pair, Rates, RatesMode, SourceName};
pub use secret::{SecretError, SecretFile};
pub use surfaces::{AssetRef, Checkout, Mount, Surfaces};

/// The file that documents every option and holds its default.
pub const DEFAULT: &str = include_str!("../../config/default.toml");

/// Begins the names of environment variables that set options.
const ENV_PREFIX: &str = "SETTLED__";

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub data: Data,
    pub database: Database,
    pub log: Log,
    pub surfaces: Surfaces,
    pub chains: chains::Chains,
    #[serde(default)]
    pub accounts: Vec<Account>,
    pub rates: Rates,
    pub policy: Policy,
    pub mail: Mail,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub listen: SocketAddr,
    #[serde(deserialize_with = "text::url")]
    pub public_url: Url,
    pub trusted_proxies: Vec<IpNetwork>,
    pub requests_per_minute: u32,
    pub connections_max: usize,
    pub connections_per_client: u32,
    pub body_bytes_max: usize,
    #[serde(rename = "request_timeout_ms", deserialize_with = "text::milliseconds")]
    pub request_timeout: Duration,
    #[serde(rename = "stall_timeout_ms", deserialize_with = "text::milliseconds")]
    pub stall_timeout: Duration,
    #[serde(rename = "shutdown_timeout_ms", deserialize_with = "text::milliseconds")]
    pub shutdown_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    pub folder: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    pub url: String,
    pub password_file: SecretFile,
    pub readers: u32,
    pub pool: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub tolerance_basis_points: u32,
    #[serde(rename = "tolerance_usd", deserialize_with = "text::cents")]
    pub tolerance_usd_cents: i64,
    #[serde(rename = "dust_usd", deserialize_with = "text::cents")]
    pub dust_usd_cents: i64,
    #[serde(rename = "grace_seconds", deserialize_with = "text::seconds")]
    pub grace: Duration,
    #[serde(rename = "balance_timeout_seconds", deserialize_with = "text::seconds")]
    pub balance_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    pub transport: MailTransport,
    pub from: String,
    pub order_url: String,
    pub attempts_max: u32,
    pub smtp: Smtp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTransport {
    Log,
    File,
    Smtp,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    pub host: String,
    pub port: u16,
    pub security: SmtpSecurity,
    pub user: String,
    pub password_file: SecretFile,
    #[serde(rename = "timeout_ms", deserialize_with = "text::milliseconds")]
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    Tls,
    Starttls,
    None,
}

/// Everything that is wrong, each with where it stands and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub problems: Vec<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(problem: String) -> Error {
        Error { problems: vec![problem] }
    }
}

/// The documented defaults; relative paths are left as they stand.
impl Default for Config {
    fn default() -> Config {
        Config::resolve(&layers::Input::default()).expect("a test resolves the embedded defaults")
    }
}

impl Config {
    /// Reads the file and the environment of this process. Relative paths in the file begin at its folder.
    pub fn load(path: &Path) -> Result<Config, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let advice = match e.kind() == std::io::ErrorKind::PermissionDenied {
                true => {
                    "Let the user that runs this read it, such as with `chgrp settled` and `chmod 640`, and enter the folders \
                     above it"
                }
                false => "Write a configuration with `settled init` or name one with `--config`",
            };
            format!("{}: {e}. {advice}.", path.display())
        })?;
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(ENV_PREFIX))
            .collect();
        Config::parse(path, &text, env)
    }

    /// The same from a text and from variables at hand; `path` stands in messages and its folder begins relative paths.
    pub fn parse(path: &Path, text: &str, env: Vec<(String, String)>) -> Result<Config, Error> {
        let mut config = Config::resolve(&layers::Input { file: path.display().to_string(), text, env })?;
        let folder = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
        config.begin_paths_at(folder.parent().unwrap_or(Path::new("/")));
        Ok(config)
    }

    fn resolve(input: &layers::Input<'_>) -> Result<Config, Error> {
        let table = layers::resolve(input)?;
        let config: Config = table.try_into().map_err(|e: toml::de::Error| {
            let refused = e.to_string();
            format!("{}: {}", input.name(), refused.trim_end().replace('\n', " "))
        })?;
        let problems = validate::problems(&config);
        if problems.is_empty() {
            return Ok(config);
        }
        Err(Error { problems: problems.into_iter().map(|problem| format!("{}: {problem}", input.name())).collect() })
    }

    fn begin_paths_at(&mut self, folder: &Path) {
        self.data.folder = folder.join(&self.data.folder);
        let chains = self.chains.values_mut();
        let endpoints = chains.flat_map(|chain| chain.endpoints.iter_mut());
        let of_endpoints = endpoints
            .flat_map(|endpoint| [&mut endpoint.url_file, &mut endpoint.headers_file, &mut endpoint.login_file]);
        for file in of_endpoints.chain([&mut self.database.password_file, &mut self.mail.smtp.password_file]) {
            file.begin_at(folder);
        }
    }

    /// How to open the database: with its password, and a path of SQLite that begins at the data folder.
    pub fn database_config(&self) -> Result<db::Config, Error> {
        let Database { url, password_file, readers, pool } = &self.database;
        let url = match url.strip_prefix("sqlite:") {
            Some(file) => format!("sqlite:{}", self.data.folder.join(file).display()),
            None => with_password(url, password_file)?,
        };
        Ok(db::Config { readers: *readers, pg_pool: *pool, ..db::Config::new(url) })
    }

    /// The chain and the code of the asset behind a coin of the checkout surface, if that chain is enabled.
    pub fn checkout_asset(&self, coin: &str) -> Option<(&ChainConfig, &chain::Asset)> {
        let asset = self.surfaces.checkout.assets.get(coin)?;
        let chain = self.chains.get(&asset.chain).filter(|chain| chain.enabled)?;
        Some((chain, chain.asset(&asset.code)?))
    }
}

fn with_password(url: &str, password_file: &SecretFile) -> Result<String, Error> {
    use secrecy::ExposeSecret;

    let mut url = Url::parse(url).map_err(|e| format!("[database] url: {e}"))?;
    if let Some(password) = password_file.read().map_err(|e| format!("[database] password_file: {e}"))? {
        let set = url.set_password(Some(password.expose_secret()));
        set.map_err(|()| "[database] url has no user to whom the password could belong".to_owned())?;
    }
    Ok(url.into())
}
