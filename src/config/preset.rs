//! Presets: properties of known networks from `config/chains/*.toml`, converted to options of `[chains.NAME]`. The
//! tests of the chain drivers read the same files.

use toml::{Table, Value};

/// The names of all presets, each with the text of its file.
pub const ALL: &[(&str, &str)] = &[
    ("base", include_str!("../../config/chains/base.toml")),
    ("bitcoin", include_str!("../../config/chains/bitcoin.toml")),
    ("bsc", include_str!("../../config/chains/bsc.toml")),
    ("ethereum", include_str!("../../config/chains/ethereum.toml")),
    ("nile", include_str!("../../config/chains/nile.toml")),
    ("polygon", include_str!("../../config/chains/polygon.toml")),
    ("regtest", include_str!("../../config/chains/regtest.toml")),
    ("sepolia", include_str!("../../config/chains/sepolia.toml")),
    ("shasta", include_str!("../../config/chains/shasta.toml")),
    ("signet", include_str!("../../config/chains/signet.toml")),
    ("testnet4", include_str!("../../config/chains/testnet4.toml")),
    ("tron", include_str!("../../config/chains/tron.toml")),
];

/// Returns the options of a preset; an empty table when `name` is empty.
///
/// # Errors
/// Fails when there is no such preset.
pub fn find_preset_options(name: &str) -> Result<Table, String> {
    if name.is_empty() {
        return Ok(Table::new());
    }
    let Some((_, text)) = ALL.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = ALL.iter().map(|(known, _)| *known).collect();
        return Err(format!("there is no preset \"{name}\"; known are {}", known.join(", ")));
    };
    let facts: Table = text.parse().map_err(|e| format!("config/chains/{name}.toml: {e}"))?;
    Ok(convert_to_chain_options(facts))
}

/// Converts the properties of a network to options of a chain: the chain id becomes `identity`, `test` becomes `mode`,
/// and the native coin and the tokens become `assets`.
fn convert_to_chain_options(mut facts: Table) -> Table {
    facts.remove("name");
    if let Some(number) = facts.remove("chain_id") {
        facts.insert("identity".to_owned(), Value::String(number.to_string()));
    }
    if let Some(test) = facts.remove("test") {
        let mode = if test == Value::Boolean(true) { "test" } else { "live" };
        facts.insert("mode".to_owned(), Value::String(mode.to_owned()));
    }
    if let Some(depth @ Value::Integer(_)) = facts.get("confirmations").cloned() {
        let tier = Table::from_iter([("depth".to_owned(), depth)]);
        facts.insert("confirmations".to_owned(), Value::Array(vec![Value::Table(tier)]));
    }
    let tokens = facts.remove("tokens").and_then(|tokens| tokens.as_array().cloned()).unwrap_or_default();
    let assets = facts.remove("native").into_iter().chain(tokens).map(add_symbol_as_asset_code).collect();
    facts.insert("assets".to_owned(), Value::Array(assets));
    facts
}

/// Adds the option `code` to an asset of a preset: the symbol in lower case, which is unique within a preset.
fn add_symbol_as_asset_code(mut asset: Value) -> Value {
    let symbol = asset.get("symbol").and_then(Value::as_str).map(str::to_lowercase);
    if let (Some(code), Some(table)) = (symbol, asset.as_table_mut()) {
        table.insert("code".to_owned(), Value::String(code));
    }
    asset
}
