//! The configuration of the demo: a text over the documented defaults, like any other.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::commands::dev::node::Node;
use crate::commands::exit::CommandError;
use config::Config;

const TEXT: &str = include_str!("dev.toml");

pub struct Wanted {
    pub listen: SocketAddr,
    /// `[[accounts]]` as TOML.
    pub accounts: String,
    /// Takes the place of the simulated Ethereum.
    pub node: Option<Node>,
}

/// For commands that never listen.
pub fn unknown() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))
}

pub fn load(folder: &Path, wanted: &Wanted) -> Result<Config, CommandError> {
    let listen = wanted.listen;
    let mut text =
        format!("[server]\nlisten = \"{listen}\"\npublic_url = \"http://{listen}\"\n\n{TEXT}\n{}", wanted.accounts);
    match &wanted.node {
        Some(node) => node.describe(&mut text),
        None => writeln!(text, "{ETHEREUM}"),
    }
    .expect("a string takes every text");
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("SETTLED__"))
        .collect();
    Ok(Config::parse(&folder.join("settled dev"), &text, env)?)
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
