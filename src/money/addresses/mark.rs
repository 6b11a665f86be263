//! The high-water mark of the address indices: for each account key, the next index that was never leased, and the epoch of
//! the issued addresses. The database has one, and each instance keeps a copy in a file outside it. A database whose mark
//! is below the file was restored from a backup, and would issue addresses again. Pure: no database, no files.

use std::collections::BTreeMap;
use std::fmt::Write;

use chain::{AccountKeyBytes, Family};

use db::FromValue;
use ids::Mode;

/// The first line of a mark file.
const HEADER: &str = "settled address mark 1";
/// The last line of a mark file. A file without it is incomplete.
const END: &str = "end";

/// The high-water mark of the address indices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressMark {
    /// The epoch of the issued addresses, which each restore raises.
    pub epoch: u64,
    /// The accounts by their key bytes.
    pub accounts: BTreeMap<AccountKeyBytes, MarkedAccount>,
}

/// The mark of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedAccount {
    /// The family of the chains on which the addresses are used.
    pub family: Family,
    /// The purpose of the addresses, as in the configuration.
    pub purpose: String,
    /// The mode of the payments to the addresses.
    pub mode: Mode,
    /// The derivation path of the account; may be empty.
    pub path: String,
    /// The lowest index that was never leased.
    pub next_index: u32,
}

impl MarkedAccount {
    /// Returns a name of the account for people, such as `m/84'/0'/0' (bitcoin, deposit)`.
    pub fn describe(&self) -> String {
        let path = if self.path.is_empty() { "account without a path" } else { &self.path };
        format!("{path} ({}, {})", family_to_text(self.family), self.purpose)
    }
}

/// Returns the stored text of a family.
pub const fn family_to_text(family: Family) -> &'static str {
    match family {
        Family::Bitcoin => "bitcoin",
        Family::Evm => "evm",
        Family::Tron => "tron",
    }
}

/// Returns the family with this stored text; `None` for any other text.
pub fn parse_family(text: &str) -> Option<Family> {
    [Family::Bitcoin, Family::Evm, Family::Tron].into_iter().find(|family| family_to_text(*family) == text)
}

impl AddressMark {
    /// Returns true when no index was ever leased.
    pub fn is_empty(&self) -> bool {
        self.accounts.values().all(|account| account.next_index == 0)
    }

    /// Returns a sentence that says how this mark of a database is behind the mark of a file; `None` when it is not.
    pub fn describe_lag_behind(&self, file: &AddressMark) -> Option<String> {
        for (key, marked) in &file.accounts {
            let own = self.accounts.get(key).map_or(0, |account| account.next_index);
            if own < marked.next_index {
                return Some(format!(
                    "the database has leased {own} address indices of {} and the file has recorded {}",
                    marked.describe(),
                    marked.next_index
                ));
            }
        }
        (self.epoch < file.epoch)
            .then(|| format!("the database is at epoch {} and the file at epoch {}", self.epoch, file.epoch))
    }

    /// Raises this mark to `other` where `other` is higher.
    pub fn raise_to(&mut self, other: &AddressMark) {
        self.epoch = self.epoch.max(other.epoch);
        for (key, account) in &other.accounts {
            let own = self.accounts.entry(*key).or_insert_with(|| account.clone());
            own.next_index = own.next_index.max(account.next_index);
        }
    }

    /// Returns the text of the mark file.
    pub fn to_file_text(&self) -> String {
        let mut text = format!("{HEADER}\nepoch {}\n", self.epoch);
        for (key, account) in &self.accounts {
            let key: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
            let MarkedAccount { family, purpose, mode, path, next_index } = account;
            let (family, mode) = (family_to_text(*family), mode.as_str());
            writeln!(text, "account {family} {purpose} {mode} {next_index} {key} {path}")
                .expect("writing to a string cannot fail");
        }
        text + END + "\n"
    }

    /// Parses the text of a mark file.
    ///
    /// # Errors
    /// A sentence that names the first line that is wrong.
    pub fn parse_file_text(text: &str) -> Result<AddressMark, String> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(format!("its first line is not `{HEADER}`"));
        }
        let epoch = lines.next().and_then(|line| line.strip_prefix("epoch ")?.parse().ok());
        let mut mark =
            AddressMark { epoch: epoch.ok_or("its second line is not an epoch")?, accounts: BTreeMap::new() };
        for line in &mut lines {
            if line == END {
                return Ok(mark);
            }
            let (key, account) = parse_account_line(line).ok_or_else(|| format!("this line is wrong: {line}"))?;
            mark.accounts.insert(key, account);
        }
        Err(format!("its last line is not `{END}`"))
    }
}

fn parse_account_line(line: &str) -> Option<(AccountKeyBytes, MarkedAccount)> {
    let mut words = line.strip_prefix("account ")?.splitn(6, ' ');
    let (family, purpose, mode) = (parse_family(words.next()?)?, words.next()?.to_owned(), words.next()?);
    let (next_index, key) = (words.next()?.parse().ok()?, words.next()?);
    let path = words.next().unwrap_or_default().to_owned();
    if key.len() != 130 || !key.is_ascii() {
        return None;
    }
    let mut bytes = [0; 65];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(key.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    let mode = Mode::from_value(&db::Value::from(mode))?;
    Some((AccountKeyBytes(bytes), MarkedAccount { family, purpose, mode, path, next_index }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(epoch: u64, indices: &[(u8, u32)]) -> AddressMark {
        let account = |next_index| MarkedAccount {
            family: Family::Evm,
            purpose: "deposit".into(),
            mode: Mode::Live,
            path: "m/44'/60'/0'".into(),
            next_index,
        };
        AddressMark {
            epoch,
            accounts: indices.iter().map(|(key, next)| (AccountKeyBytes([*key; 65]), account(*next))).collect(),
        }
    }

    #[test]
    fn a_mark_file_is_read_as_it_was_written() {
        for mark in [mark(1, &[]), mark(7, &[(1, 64), (2, 0)])] {
            assert_eq!(AddressMark::parse_file_text(&mark.to_file_text()), Ok(mark));
        }
        let mut without_path = mark(1, &[(3, 9)]);
        without_path.accounts.values_mut().for_each(|account| account.path = String::new());
        assert_eq!(AddressMark::parse_file_text(&without_path.to_file_text()), Ok(without_path));
    }

    #[test]
    fn a_damaged_mark_file_is_refused() {
        let text = mark(7, &[(1, 64), (2, 128)]).to_file_text();
        for end in 1..text.len() - 1 {
            assert!(AddressMark::parse_file_text(&text[..end]).is_err(), "{}", &text[..end]);
        }
        assert!(AddressMark::parse_file_text(&text.replace(" 64 ", " x ")).is_err());
        assert!(AddressMark::parse_file_text(&text.replace("evm", "doge")).is_err());
    }

    #[test]
    fn a_database_below_the_file_is_behind() {
        let file = mark(3, &[(1, 64), (2, 128)]);
        for (database, behind) in [
            (mark(3, &[(1, 64), (2, 128)]), false),
            (mark(4, &[(1, 640), (2, 128), (3, 1)]), false),
            (mark(2, &[(1, 64), (2, 128)]), true),
            (mark(3, &[(1, 63), (2, 128)]), true),
            (mark(3, &[(1, 64)]), true),
            (mark(1, &[]), true),
        ] {
            assert_eq!(database.describe_lag_behind(&file).is_some(), behind, "{database:?}");
        }
        let mut raised = mark(2, &[(1, 100)]);
        raised.raise_to(&file);
        assert_eq!(raised, mark(3, &[(1, 100), (2, 128)]));
    }
}
