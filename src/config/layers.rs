//! Three texts become one table: the embedded defaults, the file over them, environment variables over both. A chain is
//! laid over its preset, the preset over what every chain begins with.

use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use crate::{DEFAULT, ENV_PREFIX, Error, preset};

/// The table of what every chain begins with.
const CHAIN_DEFAULTS: &str = "chain_defaults";

/// Keys of the tables that stand in lists; the defaults have no example of them.
const ELEMENTS: [(&str, &[&str]); 4] = [
    ("accounts", &["chain-family", "purpose", "epoch", "path", "xpub"]),
    (
        "endpoints",
        &[
            "url",
            "url_file",
            "solidity_url",
            "headers_file",
            "login_file",
            "requests_per_second",
            "requests_per_day",
            "roles",
        ],
    ),
    ("confirmations", &["below_usd", "depth"]),
    ("assets", &["code", "contract", "symbol", "decimals", "quote_decimals"]),
];

#[derive(Default)]
pub struct Input<'a> {
    /// As it stands in messages; empty: there are only defaults.
    pub file: String,
    pub text: &'a str,
    /// Variables that begin with `SETTLED__`.
    pub env: Vec<(String, String)>,
}

impl Input<'_> {
    pub fn name(&self) -> &str {
        if self.file.is_empty() { "config/default.toml" } else { &self.file }
    }
}

/// The table that [`super::Config`] is read from.
pub fn resolve(input: &Input<'_>) -> Result<Table, Error> {
    let defaults: Table = DEFAULT.parse().map_err(|e| format!("config/default.toml: {e}"))?;
    let written = DeTable::parse(input.text).map_err(|e| format!("{}: {e}", input.name()))?;
    let mut problems = Vec::new();
    Unknown { input, defaults: &defaults, problems: &mut problems }.look_into(written.get_ref(), &mut Vec::new());
    if !problems.is_empty() {
        return Err(Error { problems });
    }
    let mut table = defaults.clone();
    lay_over(&mut table, input.text.parse().map_err(|e| format!("{}: {e}", input.name()))?);
    for (name, text) in &input.env {
        match set_by_env(&mut table, &defaults, name, text) {
            Ok(()) => {}
            Err(problem) => problems.push(problem),
        }
    }
    lay_chains_over_presets(input.name(), &mut table, &mut problems);
    if problems.is_empty() { Ok(table) } else { Err(Error { problems }) }
}

/// Tables are merged, everything else is replaced.
fn lay_over(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn lay_chains_over_presets(file: &str, table: &mut Table, problems: &mut Vec<String>) {
    let Some(Value::Table(base)) = table.remove(CHAIN_DEFAULTS) else { return };
    let Some(Value::Table(chains)) = table.get_mut("chains") else { return };
    for (name, value) in chains.iter_mut() {
        let Value::Table(written) = value else { continue };
        let mut chain = base.clone();
        let preset = written.get("preset").or(base.get("preset")).and_then(Value::as_str).unwrap_or_default();
        match preset::facts(preset) {
            Ok(facts) => lay_over(&mut chain, facts),
            Err(problem) => problems.push(format!("{file}: chains.{name}.preset: {problem}")),
        }
        let assets = assets_by_code(chain.get("assets"), written.get("assets"));
        lay_over(&mut chain, std::mem::take(written));
        chain.insert("assets".to_owned(), assets);
        chain.insert("id".to_owned(), Value::String(name.clone()));
        *value = Value::Table(chain);
    }
}

/// The preset's assets with those of the chain beside them; an equal code replaces. What is no list is left to the types.
fn assets_by_code(preset: Option<&Value>, written: Option<&Value>) -> Value {
    let (preset, written) = match (preset, written) {
        (Some(Value::Array(preset)), Some(Value::Array(written))) => (preset, written),
        (preset, written) => return written.or(preset).cloned().unwrap_or_else(|| Value::Array(Vec::new())),
    };
    let replaced = |asset: &&Value| !written.iter().any(|own| own.get("code") == asset.get("code"));
    Value::Array(preset.iter().filter(replaced).chain(written).cloned().collect())
}

/// `SETTLED__SERVER__LISTEN` sets [server] listen. The type is the one that the option has by default.
fn set_by_env(table: &mut Table, defaults: &Table, name: &str, text: &str) -> Result<(), String> {
    let path: Vec<String> = name[ENV_PREFIX.len()..].split("__").map(str::to_lowercase).collect();
    let (key, sections) = path.split_last().expect("splitting yields at least one part");
    let mut place = table;
    for (depth, section) in sections.iter().enumerate() {
        let known = known_at(defaults, &path[..depth]).is_some_and(|known| known.contains_key(section))
            || place.contains_key(section);
        let next = place.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        let section = next.as_table_mut().filter(|_| known);
        place = section.ok_or_else(|| format!("{name}: there is no section [{}]", path[..=depth].join(".")))?;
    }
    let known = known_at(defaults, sections).and_then(|known| known.get(key));
    let value = match known {
        None | Some(Value::Table(_)) => return Err(format!("{name}: there is no option `{}`", path.join("."))),
        Some(Value::String(_)) => Value::String(text.to_owned()),
        Some(Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_)) => {
            text.parse().map_err(|_| {
                format!("{name}: `{text}` is not a value of TOML; the default of `{}` is one", path.join("."))
            })?
        }
    };
    place.insert(key.clone(), value);
    Ok(())
}

/// The defaults of a section, by its path. Every chain has the keys of [chain_defaults].
fn known_at<'a>(defaults: &'a Table, path: &[impl AsRef<str>]) -> Option<&'a Table> {
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    let path = match path.as_slice() {
        ["chains", _chain, rest @ ..] => [&[CHAIN_DEFAULTS], rest].concat(),
        other => other.to_vec(),
    };
    path.iter().try_fold(defaults, |table, key| table.get(*key).and_then(Value::as_table))
}

/// Looks for keys that nobody would read, and for numbers that nobody would read exactly.
struct Unknown<'a> {
    input: &'a Input<'a>,
    defaults: &'a Table,
    problems: &'a mut Vec<String>,
}

impl Unknown<'_> {
    fn look_into(&mut self, table: &DeTable<'_>, path: &mut Vec<String>) {
        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            if self.is_known(path, name) {
                path.push(name.to_owned());
                self.look_at(value.get_ref(), value.span().start, path);
                path.pop();
            } else {
                let line = self.line(key.span().start);
                let hint = self.hint(path, name);
                let section = if path.is_empty() { String::new() } else { format!(" in [{}]", path.join(".")) };
                self.problems.push(format!("{}:{line}: unknown key `{name}`{section}; {hint}", self.input.name()));
            }
        }
    }

    fn look_at(&mut self, value: &DeValue<'_>, start: usize, path: &mut Vec<String>) {
        match value {
            DeValue::Table(table) => self.look_into(table, path),
            DeValue::Array(elements) => {
                for element in elements.iter() {
                    self.look_at(element.get_ref(), element.span().start, path);
                }
            }
            DeValue::Float(number) => {
                let (line, key) = (self.line(start), path.join("."));
                let number = number.as_str();
                let problem =
                    format!("{key} = {number} would lose digits; write whole numbers, or decimals as \"{number}\"");
                self.problems.push(format!("{}:{line}: {problem}", self.input.name()));
            }
            DeValue::String(_) | DeValue::Integer(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    fn is_known(&self, path: &[String], name: &str) -> bool {
        match path {
            [] => self.defaults.contains_key(name) || name == "accounts",
            [section] if section == "chains" => true,
            [section, table] if section == "rates" && table == "fixed" => true,
            path => self.keys_at(path).contains(&name),
        }
    }

    fn keys_at(&self, path: &[String]) -> Vec<&str> {
        if let Some(known) = known_at(self.defaults, path) {
            return known.keys().map(String::as_str).collect();
        }
        let list = path.last().and_then(|list| ELEMENTS.iter().find(|(name, _)| name == list));
        list.map_or_else(Vec::new, |(_, keys)| keys.to_vec())
    }

    /// The nearest spelling here, or the section in which such a key stands, or what can stand here.
    fn hint(&self, path: &[String], name: &str) -> String {
        let here = self.keys_at(path);
        let near = here.iter().map(|key| (distance(key, name), key)).min();
        if let Some((edits, key)) = near
            && edits <= (name.len() / 3).max(2)
        {
            return format!("did you mean `{key}`?");
        }
        if let Some(section) = section_with(self.defaults, name, "") {
            return format!("it stands in [{section}]");
        }
        format!("known here: {}", here.join(", "))
    }

    fn line(&self, start: usize) -> usize {
        self.input.text.bytes().take(start).filter(|b| *b == b'\n').count() + 1
    }
}

/// The first section that has this key.
fn section_with(table: &Table, name: &str, path: &str) -> Option<String> {
    let inner = table.iter().filter_map(|(key, value)| value.as_table().map(|table| (key, table)));
    inner.fold(None, |found, (key, table)| {
        found.or_else(|| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if table.contains_key(name) { Some(path) } else { section_with(table, name, &path) }
        })
    })
}

/// Edits between two words: insertions, deletions and replacements of one letter.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
