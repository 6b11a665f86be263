//! The configuration: a TOML file overrides `config/default.toml`, and environment variables override both.
//!
//! A loaded configuration is valid: every key is known, every value is in range, and every enabled part has all options
//! that it needs. The configuration contains only the paths of secret files, which are read when the secret is used.

mod layers;
mod key_check;
mod preset;
mod deserializers;
mod validate;
mod account_path;
mod account_keys;
mod chains;
mod ip_network;
mod rates;
mod secret;
mod surfaces;

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

pub use account_keys::{AccountKey, Purpose};
pub use chains::{AddressKind, Api, ChainConfig, Confirmation, Driver, Endpoint, Finality, Role, Trace, Verify};
pub use ip_network::IpNetwork;
pub use rates::{ExchangeName, Pair, Rates, RatesMode};
pub use secret::{SecretError, SecretFile};
pub use surfaces::{AssetRef, Checkout, Mount, Surfaces};

/// The text of `config/default.toml`, which describes every option and contains its default.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// The prefix of environment variables that set options.
const ENV_PREFIX: &str = "SETTLED__";

/// All options of the daemon. `config/default.toml` describes each of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file from which the configuration was loaded, as an absolute path. `None` when there is no file, as in
    /// `settled dev`, which builds its configuration from its data folder.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// `[server]`: the HTTP server of all surfaces.
    pub server: Server,
    /// `[data]`: the folder in which the daemon stores its files.
    pub data: Data,
    /// `[database]`: the address of the database and the number of its connections.
    pub database: Database,
    /// `[log]`: the format and the levels of the log.
    pub log: Log,
    /// `[surfaces]`: which HTTP APIs are served, and for which shop.
    pub surfaces: Surfaces,
    /// `[chains.NAME]`: the options of each chain, by the name of the chain.
    pub chains: chains::Chains,
    /// `[[accounts]]`: the account keys from which deposit addresses are derived.
    #[serde(default)]
    pub accounts: Vec<AccountKey>,
    /// `[rates]`: the sources and conditions of exchange rates.
    pub rates: Rates,
    /// `[policy]`: how far a payment may be too low or too late, and below which value it is ignored.
    pub policy: Policy,
    /// `[mail]`: the e-mails to buyers.
    pub mail: Mail,
}

/// `[server]`: the HTTP server of all surfaces.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The IP address and the port on which the server listens.
    pub listen: SocketAddr,
    /// The address at which clients reach the daemon, for links and for the API documents.
    #[serde(deserialize_with = "deserializers::deserialize_url")]
    pub public_url: Url,
    /// The networks of trusted proxies. The header `X-Forwarded-For` is used only when it comes from one of them.
    pub trusted_proxies: Vec<IpNetwork>,
    /// Maximum number of requests of one client per minute, on average.
    pub requests_per_minute: u32,
    /// Maximum number of connections that wait in the kernel until they are accepted.
    pub listen_backlog: u32,
    /// Maximum number of open connections of all clients.
    pub connections_max: usize,
    /// Maximum number of open connections of one client.
    pub connections_per_client: u32,
    /// Maximum size of a request body, in bytes.
    pub body_bytes_max: usize,
    /// The maximum time until the body of a request has arrived. The same limit then applies to the time until the
    /// response is ready.
    #[serde(rename = "request_timeout_ms", deserialize_with = "deserializers::deserialize_milliseconds")]
    pub request_timeout: Duration,
    #[serde(rename = "stall_timeout_ms", deserialize_with = "deserializers::deserialize_milliseconds")]
    /// Maximum time for which a client may stop reading its response before it is disconnected.
    pub stall_timeout: Duration,
    /// Maximum time for which a shutdown waits for running requests.
    #[serde(rename = "shutdown_timeout_ms", deserialize_with = "deserializers::deserialize_milliseconds")]
    pub shutdown_timeout: Duration,
}

/// `[data]`: the folder in which the daemon stores its files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The path of the folder that holds the database, the keys and the control socket.
    pub folder: PathBuf,
    /// The file with the highest leased address indices; empty for a file in a folder beside the data folder.
    pub mark_path: PathBuf,
}

/// `[database]`: the address of the database and the number of its connections.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `sqlite:FILE`, relative to the data folder, or a PostgreSQL URL without a password.
    pub url: String,
    /// The file with the password of the PostgreSQL user; unset when the server asks for no password.
    pub password_file: SecretFile,
    /// Number of threads that read from a SQLite database.
    pub readers: u32,
    /// Maximum number of connections to PostgreSQL.
    pub pool: u32,
}

/// `[log]`: the daemon's log on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The format of log lines: text for people, or JSON for programs.
    pub format: LogFormat,
    /// The log level, with optional levels for single modules, such as `info,settled::feeds=debug`.
    pub level: String,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines of text for people.
    Text,
    /// One JSON object in each line, for programs.
    Json,
}

/// `[policy]`: how far a payment may be too low or too late, and below which value it is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The amount that may be missing when an invoice is accepted as paid, in basis points of the amount due.
    pub tolerance_basis_points: u32,
    #[serde(rename = "tolerance_usd", deserialize_with = "deserializers::deserialize_decimal_as_cents")]
    /// The amount that may be missing when an invoice is accepted as paid, in US cents. The larger one of this limit
    /// and `tolerance_basis_points` applies.
    pub tolerance_usd_cents: i64,
    #[serde(rename = "dust_usd", deserialize_with = "deserializers::deserialize_decimal_as_cents")]
    /// The value below which a deposit is too small to be a payment (dust), in US cents.
    pub dust_usd_cents: i64,
    #[serde(rename = "single_source_max_usd", deserialize_with = "deserializers::deserialize_decimal_as_cents")]
    /// Maximum value of the deposits that a chain confirms in 24 hours without a second source, in US cents.
    pub single_source_max_usd_cents: i64,
    #[serde(rename = "grace_seconds", deserialize_with = "deserializers::deserialize_seconds")]
    /// The time for which an unpaid invoice stays open after the end of its payment window, because block times are not
    /// exact.
    pub grace: Duration,
    #[serde(rename = "balance_timeout_seconds", deserialize_with = "deserializers::deserialize_seconds")]
    /// Maximum time for which an expired invoice stays open because no endpoint returns balances.
    pub balance_timeout: Duration,
}

/// `[mail]`: the e-mails to buyers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// The way in which mails are sent: to the log, to a folder, or by SMTP.
    pub transport: MailTransport,
    /// The sender of every mail, such as `Shop <orders@example.com>`.
    pub from: String,
    /// URL of the page on which buyers look up an order, with the placeholder `{order_no}`; empty when there is no
    /// page.
    pub order_url: String,
    /// `[mail.smtp]`: the mail server, which only the transport `smtp` needs.
    pub smtp: Smtp,
}

/// The way in which mails leave the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTransport {
    /// Each mail is written to the log and not sent.
    Log,
    /// Each mail is written to a file in a folder and not sent.
    File,
    /// Each mail is sent by SMTP to the configured mail server.
    Smtp,
}

/// `[mail.smtp]`: the mail server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// The host name of the mail server, which its TLS certificate must contain.
    pub host: String,
    /// The TCP port of the mail server.
    pub port: u16,
    /// The encryption of the connection to the mail server; may be none.
    pub security: SmtpSecurity,
    /// The user name for the login; empty for a server without a login.
    pub user: String,
    /// The file with the password for the login.
    pub password_file: SecretFile,
    /// The file with certificates of further certificate authorities (PEM) that may sign the server's certificate.
    pub ca_file: SecretFile,
    /// Time limit for the login, and for sending one mail.
    #[serde(rename = "timeout_ms", deserialize_with = "deserializers::deserialize_milliseconds")]
    pub timeout: Duration,
}

/// The encryption of the connection to the mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    /// The connection uses TLS from its start.
    Tls,
    /// The connection starts without encryption and then changes to TLS (STARTTLS). It is an error when the server does
    /// not offer STARTTLS.
    Starttls,
    /// The connection is not encrypted.
    None,
}

/// All problems of a configuration. Each problem is a sentence with the name of the option and a suggestion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// One sentence for each problem; never empty.
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

/// Returns the configuration of `config/default.toml` without any file or environment variable. Relative paths in it
/// stay relative.
impl Default for Config {
    fn default() -> Config {
        Config::merge_and_validate(&layers::Layers::default())
            .expect("a test shows that the embedded defaults are valid")
    }
}

impl Config {
    /// Loads the configuration from the file and the environment variables of this process. A relative path in the file
    /// is relative to the folder of the file.
    ///
    /// # Errors
    /// Fails when the file cannot be read or an option is wrong.
    pub fn load_file_and_environment(path: &Path) -> Result<Config, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let advice = match e.kind() == std::io::ErrorKind::PermissionDenied {
                true => {
                    "Give the user that runs this command read access to the file, such as with `chgrp settled` and \
                     `chmod 640`, and access to the folders above it"
                }
                false => "Write a configuration with `settled init` or name one with `--config`",
            };
            format!("{}: {e}. {advice}.", path.display())
        })?;
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(ENV_PREFIX))
            .collect();
        Config::parse_and_validate(path, &text, env)
    }

    /// Merges the TOML text of a configuration and environment variables with the defaults, and validates the result.
    /// `path` is the path of the file, for error messages and as the base of relative paths.
    ///
    /// # Errors
    /// Fails when an option is wrong.
    pub fn parse_and_validate(path: &Path, text: &str, env: Vec<(String, String)>) -> Result<Config, Error> {
        let mut config = Config::merge_and_validate(&layers::Layers { file: path.display().to_string(), text, env })?;
        let file = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
        config.make_paths_absolute(file.parent().unwrap_or(Path::new("/")));
        config.file = Some(file);
        Ok(config)
    }

    /// Merges the layers and validates the result. Relative paths stay relative.
    fn merge_and_validate(layers: &layers::Layers<'_>) -> Result<Config, Error> {
        let table = layers::check_and_merge_layers(layers)?;
        let config: Config = table.try_into().map_err(|e: toml::de::Error| {
            let message = e.to_string();
            format!("{}: {}", layers.name_in_messages(), message.trim_end().replace('\n', " "))
        })?;
        let problems = validate::find_config_problems(&config);
        if problems.is_empty() {
            return Ok(config);
        }
        Err(Error {
            problems: problems.into_iter().map(|problem| format!("{}: {problem}", layers.name_in_messages())).collect(),
        })
    }

    /// Makes the data folder and the paths of secret files absolute: a relative path is relative to `folder`.
    fn make_paths_absolute(&mut self, folder: &Path) {
        self.data.folder = folder.join(&self.data.folder);
        if !self.data.mark_path.as_os_str().is_empty() {
            self.data.mark_path = folder.join(&self.data.mark_path);
        }
        let chains = self.chains.values_mut();
        let endpoints = chains.flat_map(|chain| chain.endpoints.iter_mut());
        let endpoint_files = endpoints
            .flat_map(|endpoint| [&mut endpoint.url_file, &mut endpoint.headers_file, &mut endpoint.login_file]);
        for file in endpoint_files.chain([
            &mut self.database.password_file,
            &mut self.mail.smtp.password_file,
            &mut self.mail.smtp.ca_file,
        ]) {
            file.make_path_absolute(folder);
        }
    }

    /// Returns the path of the file with the highest leased address indices. Without the option, the file `addresses` in
    /// the folder whose name is that of the data folder with `-mark` appended.
    pub fn mark_path(&self) -> PathBuf {
        let folder = &self.data.folder;
        match folder.file_name() {
            _ if !self.data.mark_path.as_os_str().is_empty() => self.data.mark_path.clone(),
            Some(name) => {
                let mut beside = name.to_owned();
                beside.push("-mark");
                folder.with_file_name(beside).join("addresses")
            }
            None => folder.join("addresses.mark"),
        }
    }

    /// Returns the options with which the database is opened. Reads the password of a PostgreSQL user from its file,
    /// and makes the path of a SQLite file absolute.
    ///
    /// # Errors
    /// Fails when the password file cannot be read.
    pub fn load_database_config(&self) -> Result<db::Config, Error> {
        let Database { url, password_file, readers, pool } = &self.database;
        let url = match url.strip_prefix("sqlite:") {
            Some(file) => format!("sqlite:{}", self.data.folder.join(file).display()),
            None => add_password_from_file(url, password_file)?,
        };
        Ok(db::Config { readers: *readers, pg_pool: *pool, ..db::Config::new(url) })
    }

    /// Returns an asset of the checkout surface and its chain; `None` when the surface has no such asset or the chain
    /// is not enabled. `code` is the code of the asset on the surface, such as `erc20_usdt`.
    pub fn find_checkout_asset_of_enabled_chain(&self, code: &str) -> Option<(&ChainConfig, &chain::Asset)> {
        let asset = self.surfaces.checkout.assets.get(code)?;
        let chain = self.chains.get(&asset.chain).filter(|chain| chain.enabled)?;
        Some((chain, chain.find_asset(&asset.code)?))
    }
}

/// Adds the password that the file contains to a database URL. Returns the same URL when no password file is
/// configured.
fn add_password_from_file(url: &str, password_file: &SecretFile) -> Result<String, Error> {
    use secrecy::ExposeSecret;

    let mut url = Url::parse(url).map_err(|e| format!("[database] url: {e}"))?;
    if let Some(password) = password_file.read_secret().map_err(|e| format!("[database] password_file: {e}"))? {
        let set = url.set_password(Some(password.expose_secret()));
        set.map_err(|()| {
            "[database] url names no user, so it cannot have a password; write \"postgres://USER@HOST/DATABASE\""
                .to_owned()
        })?;
    }
    Ok(url.into())
}
