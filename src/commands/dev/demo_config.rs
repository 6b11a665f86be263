//! The configuration of the demo: the settings of `dev.toml` and defaults for all other settings.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::commands::command_error::CommandError;
use crate::commands::dev::evm_node::DemoNode;
use crate::commands::dev::keys;
use config::Config;

const TEXT: &str = include_str!("dev.toml");

/// The settings that differ between runs of the demo.
pub struct Options {
    /// The address and port on which the demo listens.
    pub listen: SocketAddr,
    /// The account keys, as `[[accounts]]` tables in TOML.
    pub accounts: String,
    /// The node that replaces the simulated Ethereum; `None` when Ethereum is simulated.
    pub node: Option<DemoNode>,
}

/// Returns a listen address for commands that need a complete configuration but never listen.
fn placeholder_listen_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))
}

/// Returns the configuration of the demo in `folder`. Fails when no demo was ever started there.
pub fn load_existing_demo_config(folder: &Path) -> Result<Config, CommandError> {
    let seed = keys::open_demo_seed_if_exists(folder)?.ok_or_else(|| {
        CommandError::daemon_error(format!(
            "{} is not a data folder of `settled dev`; start the demo first",
            folder.display()
        ))
    })?;
    build_demo_config_with_env(
        folder,
        &Options {
            listen: placeholder_listen_address(),
            accounts: keys::derive_accounts_toml_from_seed(&seed)?,
            node: None,
        },
    )
}

/// Returns the configuration of the demo in a data folder. Environment variables that begin with `SETTLED__` override
/// its settings.
pub fn build_demo_config_with_env(folder: &Path, options: &Options) -> Result<Config, CommandError> {
    let listen = options.listen;
    let mut text =
        format!("[server]\nlisten = \"{listen}\"\npublic_url = \"http://{listen}\"\n\n{TEXT}\n{}", options.accounts);
    match &options.node {
        Some(node) => node.append_chain_config_toml(&mut text),
        None => writeln!(text, "{ETHEREUM}"),
    }
    .expect("writing to a string cannot fail");
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("SETTLED__"))
        .collect();
    let config = Config::parse_and_validate(&folder.join("settled dev"), &text, env)?;
    Ok(Config { file: None, ..config })
}

/// Replaces port 0 by a port that was free just now, so that the configuration and the printed texts contain the real
/// port. Returns any other address unchanged.
pub fn replace_port_zero_by_free_port(listen: SocketAddr) -> Result<SocketAddr, CommandError> {
    if listen.port() != 0 {
        return Ok(listen);
    }
    let probe = std::net::TcpListener::bind(listen).and_then(|listener| listener.local_addr());
    probe.map_err(|e| CommandError::error_with_context(format!("cannot listen on {listen}"), e))
}

const ETHEREUM: &str = r#"
[chains.ethereum]
enabled = true
driver = "simnet"
mode = "test"
block_time_ms = 1_000
poll_ms = 250
confirmations = [{ depth = 6 }]
finality = "depth"
final_depth_min = 0
final_depth = 12
"#;
