//! Merges the layers of the configuration: options in the file replace the embedded defaults, and environment variables
//! replace both. For a chain, its own options replace those of its preset, and the preset replaces `[chain_defaults]`.

use toml::{Table, Value, de::DeTable};

use crate::key_check::KeyCheck;
use crate::{DEFAULT_TOML, ENV_PREFIX, Error, preset};

/// The name of the table with the defaults of every chain.
const CHAIN_DEFAULTS: &str = "chain_defaults";

/// The layers of the configuration that replace embedded defaults: one file, and environment variables.
#[derive(Default)]
pub struct Layers<'a> {
    /// The file's name in messages; empty when there are only defaults.
    pub file: String,
    /// The TOML text of the file; empty when there are only defaults.
    pub text: &'a str,
    /// Environment variables that begin with `SETTLED__`.
    pub env: Vec<(String, String)>,
}

impl Layers<'_> {
    /// Returns the name of the configuration file, as messages show it.
    pub fn name_in_messages(&self) -> &str {
        if self.file.is_empty() { "config/default.toml" } else { &self.file }
    }
}

/// Checks the keys of the file and merges the defaults, the file and the environment variables into one table, from
/// which [`super::Config`] is deserialised.
pub fn check_and_merge_layers(layers: &Layers<'_>) -> Result<Table, Error> {
    let defaults: Table = DEFAULT_TOML.parse().map_err(|e| format!("config/default.toml: {e}"))?;
    let spanned = DeTable::parse(layers.text).map_err(|e| {
        let hint = describe_typographic_quote(layers.text).unwrap_or_default();
        format!("{}: {}{hint}", layers.name_in_messages(), e.to_string().trim_end())
    })?;
    let mut problems = Vec::new();
    KeyCheck { layers, defaults: &defaults, problems: &mut problems }
        .report_unknown_keys_and_floats(spanned.get_ref(), &mut Vec::new());
    if !problems.is_empty() {
        return Err(Error { problems });
    }
    let mut table = defaults.clone();
    override_values_recursively(
        &mut table,
        layers.text.parse().map_err(|e| format!("{}: {e}", layers.name_in_messages()))?,
    );
    for (name, text) in &layers.env {
        match set_option_from_env(&mut table, &defaults, name, text) {
            Ok(()) => {}
            Err(problem) => problems.push(problem),
        }
    }
    merge_defaults_and_presets_into_chains(layers.name_in_messages(), &mut table, &mut problems);
    if problems.is_empty() { Ok(table) } else { Err(Error { problems }) }
}

/// Returns a hint about the first typographic quotation mark outside comments, with its line; `None` when the text has
/// none. TOML accepts only straight quotation marks, and word processors replace them.
fn describe_typographic_quote(text: &str) -> Option<String> {
    text.lines().enumerate().find_map(|(number, line)| {
        let line = line.split('#').next().unwrap_or_default();
        let quote =
            line.chars().find(|letter| "\u{201c}\u{201d}\u{201e}\u{2018}\u{2019}\u{ab}\u{bb}".contains(*letter))?;
        let number = number.saturating_add(1);
        Some(format!("; line {number} has the quotation mark {quote} of a word processor; write straight quotes"))
    })
}

/// Copies all values of `layer` to `base`. When both have a table with the same key, the tables are merged in the same
/// way; every other value of `base` is replaced.
fn override_values_recursively(base: &mut Table, layer: Table) {
    for (key, value) in layer {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(layer)) => override_values_recursively(base, layer),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Replaces each table `[chains.NAME]` with a complete one: first the chain defaults, over them the options of the
/// preset, and over both the chain's own options. Adds NAME as the option `id`, and removes the table of the chain
/// defaults. Unknown presets are added to `problems`.
fn merge_defaults_and_presets_into_chains(file: &str, table: &mut Table, problems: &mut Vec<String>) {
    let Some(Value::Table(defaults)) = table.remove(CHAIN_DEFAULTS) else { return };
    let Some(Value::Table(chains)) = table.get_mut("chains") else { return };
    for (name, value) in chains.iter_mut() {
        let Value::Table(own) = value else { continue };
        let mut chain = defaults.clone();
        let preset = own.get("preset").or(defaults.get("preset")).and_then(Value::as_str).unwrap_or_default();
        match preset::find_preset_options(preset) {
            Ok(options) => override_values_recursively(&mut chain, options),
            Err(problem) => problems.push(format!("{file}: chains.{name}.preset: {problem}")),
        }
        let assets = merge_own_over_preset_assets(chain.get("assets"), own.get("assets"));
        override_values_recursively(&mut chain, std::mem::take(own));
        chain.insert("assets".to_owned(), assets);
        chain.insert("id".to_owned(), Value::String(name.clone()));
        *value = Value::Table(chain);
    }
}

/// Merges the chain's own assets with the assets of its preset. An own asset replaces the preset's asset with the same
/// code. When the own assets are not a list, they are returned unchanged, so that the deserialisation reports an error.
fn merge_own_over_preset_assets(preset: Option<&Value>, own: Option<&Value>) -> Value {
    let (preset, own) = match (preset, own) {
        (Some(Value::Array(preset)), Some(Value::Array(own))) => (preset, own),
        (preset, own) => return own.or(preset).cloned().unwrap_or_else(|| Value::Array(Vec::new())),
    };
    let is_kept = |asset: &&Value| !own.iter().any(|other| other.get("code") == asset.get("code"));
    Value::Array(preset.iter().filter(is_kept).chain(own).cloned().collect())
}

/// Sets the option that an environment variable names: `SETTLED__SERVER__LISTEN` sets `listen` in `[server]`. The text
/// is parsed as the type of the option's default.
fn set_option_from_env(table: &mut Table, defaults: &Table, name: &str, text: &str) -> Result<(), String> {
    let path: Vec<String> = name[ENV_PREFIX.len()..].split("__").map(str::to_lowercase).collect();
    let (key, sections) = path.split_last().expect("splitting yields at least one part");
    let mut target = table;
    for (depth, section) in sections.iter().enumerate() {
        let known = find_default_section(defaults, &path[..depth]).is_some_and(|known| known.contains_key(section))
            || target.contains_key(section);
        let next = target.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        let section = next.as_table_mut().filter(|_| known);
        target = section.ok_or_else(|| format!("{name}: there is no section [{}]", path[..=depth].join(".")))?;
    }
    let known = find_default_section(defaults, sections).and_then(|known| known.get(key));
    let value = match known {
        None | Some(Value::Table(_)) => return Err(format!("{name}: there is no option `{}`", path.join("."))),
        Some(Value::String(_)) => Value::String(text.to_owned()),
        Some(Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_)) => {
            text.parse().map_err(|_| {
                format!("{name}: `{text}` is not a value of TOML; the default of `{}` is one", path.join("."))
            })?
        }
    };
    target.insert(key.clone(), value);
    Ok(())
}

/// Returns the default options of the section with this path; `None` when there is no such section. Every section of a
/// chain has the defaults in `[chain_defaults]`.
pub(super) fn find_default_section<'a>(defaults: &'a Table, path: &[impl AsRef<str>]) -> Option<&'a Table> {
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    let path = match path.as_slice() {
        ["chains", _chain, rest @ ..] => [&[CHAIN_DEFAULTS], rest].concat(),
        other => other.to_vec(),
    };
    path.iter().try_fold(defaults, |table, key| table.get(*key).and_then(Value::as_table))
}
