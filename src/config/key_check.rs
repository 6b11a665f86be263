//! Checks the keys (option names) of a configuration file, and suggests a known key for each unknown one.

use toml::Table;
use toml::de::{DeTable, DeValue};

use crate::layers::{Layers, find_default_section};

/// The allowed keys of the tables in each list of tables. The default configuration cannot show these keys, because its
/// lists are empty.
const LIST_KEYS: [(&str, &[&str]); 4] = [
    ("accounts", &["chain-family", "purpose", "epoch", "path", "xpub"]),
    (
        "endpoints",
        &[
            "url",
            "url_file",
            "solidity_url",
            "own",
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

/// Collects the problems of a configuration file: unknown keys, and floating point numbers, which are not exact.
pub(super) struct KeyCheck<'a> {
    pub(super) layers: &'a Layers<'a>,
    pub(super) defaults: &'a Table,
    pub(super) problems: &'a mut Vec<String>,
}

impl KeyCheck<'_> {
    /// Reports the unknown keys and the floating point numbers of a table and of its inner tables. `path` has the names
    /// of the sections that lead to the table; it is unchanged after the call.
    pub(super) fn report_unknown_keys_and_floats(&mut self, table: &DeTable<'_>, path: &mut Vec<String>) {
        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            if self.is_known_key(path, name) {
                path.push(name.to_owned());
                self.report_floats_and_inner_keys(value.get_ref(), value.span().start, path);
                path.pop();
            } else {
                let line = self.find_line_number(key.span().start);
                let hint = self.suggest_key_or_section(path, name);
                let section = if path.is_empty() { String::new() } else { format!(" in [{}]", path.join(".")) };
                self.problems
                    .push(format!("{}:{line}: unknown key `{name}`{section}; {hint}", self.layers.name_in_messages()));
            }
        }
    }

    /// Reports the value when it is a floating point number, and checks tables and lists inside the value. `start` is
    /// the position of the value in the file, in bytes; `path` is the path of its key.
    fn report_floats_and_inner_keys(&mut self, value: &DeValue<'_>, start: usize, path: &mut Vec<String>) {
        match value {
            DeValue::Table(table) => self.report_unknown_keys_and_floats(table, path),
            DeValue::Array(elements) => {
                for element in elements.iter() {
                    self.report_floats_and_inner_keys(element.get_ref(), element.span().start, path);
                }
            }
            DeValue::Float(number) => {
                let (line, key) = (self.find_line_number(start), path.join("."));
                let number = number.as_str();
                let problem =
                    format!("{key} = {number} would lose digits; write whole numbers, or decimals as \"{number}\"");
                self.problems.push(format!("{}:{line}: {problem}", self.layers.name_in_messages()));
            }
            DeValue::String(_) | DeValue::Integer(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    /// Returns true when the section with this path may have the key. Chains and fixed rates may have any name.
    fn is_known_key(&self, path: &[String], name: &str) -> bool {
        match path {
            [] => self.defaults.contains_key(name) || name == "accounts",
            [section] if section == "chains" => true,
            [section, table] if section == "rates" && table == "fixed" => true,
            path => self.list_known_keys(path).contains(&name),
        }
    }

    /// Returns the keys that the section with this path may have.
    fn list_known_keys(&self, path: &[String]) -> Vec<&str> {
        if let Some(known) = find_default_section(self.defaults, path) {
            return known.keys().map(String::as_str).collect();
        }
        let list = path.last().and_then(|list| LIST_KEYS.iter().find(|(name, _)| name == list));
        list.map_or_else(Vec::new, |(_, keys)| keys.to_vec())
    }

    /// Returns a suggestion for an unknown key: a key with a similar name, or else the section with this key, or else
    /// all known keys.
    fn suggest_key_or_section(&self, path: &[String], name: &str) -> String {
        let here = self.list_known_keys(path);
        let near = here.iter().map(|key| (edit_distance(key, name), key)).min();
        if let Some((edits, key)) = near
            && edits <= (name.len() / 3).max(2)
        {
            return format!("did you mean `{key}`?");
        }
        if let Some(section) = find_path_of_section_with_key(self.defaults, name, "") {
            return format!("it stands in [{section}]");
        }
        format!("known here: {}", here.join(", "))
    }

    /// Returns the line number, counted from 1, of a byte position in the file.
    fn find_line_number(&self, start: usize) -> usize {
        self.layers.text.bytes().take(start).filter(|b| *b == b'\n').count() + 1
    }
}

/// Returns the path, such as `mail.smtp`, of the first section below `table` that has the key `name`; `None` when no
/// section has the key. `path` is the path of `table` itself.
fn find_path_of_section_with_key(table: &Table, name: &str, path: &str) -> Option<String> {
    let inner = table.iter().filter_map(|(key, value)| value.as_table().map(|table| (key, table)));
    inner.fold(None, |found, (key, table)| {
        found.or_else(|| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if table.contains_key(name) { Some(path) } else { find_path_of_section_with_key(table, name, &path) }
        })
    })
}

/// Returns the Levenshtein distance of two texts: the fewest insertions, deletions and replacements of one letter.
fn edit_distance(a: &str, b: &str) -> usize {
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
