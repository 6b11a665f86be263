//! Files that are imported: JSON, CSV, or plain lines. `-` is standard input.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::de::DeserializeOwned;

use crate::commands::exit::CommandError;

/// Larger imports are split by whoever has them.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(clap::Args)]
pub struct Source {
    /// The file to import; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// What is in it; otherwise the end of its name says so.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An array.
    Json,
    /// A head line with the names of the columns, then a line for each record.
    Csv,
    /// One record in each line.
    Lines,
}

/// A record of a CSV file, with how it is called in messages.
pub struct Record {
    pub name: String,
    pub fields: BTreeMap<String, String>,
}

impl Record {
    /// Empty fields count as left out.
    pub fn take(&mut self, column: &str) -> Option<String> {
        self.fields.remove(column).filter(|field| !field.is_empty())
    }

    pub fn need(&mut self, column: &str) -> Result<String, CommandError> {
        let missing = format!("{}: the column `{column}` is missing or empty", self.name);
        self.take(column).ok_or_else(|| CommandError::failed(missing))
    }

    pub fn number<T: std::str::FromStr>(&mut self, column: &str) -> Result<Option<T>, CommandError> {
        let Some(text) = self.take(column) else { return Ok(None) };
        let refused = || {
            CommandError::failed(format!("{}: `{column}` is \"{text}\", which is no whole number in range", self.name))
        };
        text.parse().map(Some).map_err(|_| refused())
    }
}

impl Source {
    pub fn format(&self) -> Format {
        let by_name = match self.file.extension().and_then(|end| end.to_str()) {
            Some("json") => Format::Json,
            Some("csv") => Format::Csv,
            Some(_) | None => Format::Lines,
        };
        self.format.unwrap_or(by_name)
    }

    pub fn text(&self) -> Result<String, CommandError> {
        let failed = |error: io::Error| CommandError::with_context(self.file.display(), error);
        let mut text = String::new();
        let mut read = |from: &mut dyn Read| from.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed);
        if self.file == Path::new("-") {
            read(&mut io::stdin())
        } else {
            read(&mut File::open(&self.file).map_err(failed)?)
        }?;
        if u64::try_from(text.len()).is_ok_and(|length| length > BYTES_MAX) {
            return Err(CommandError::failed(format!(
                "{} is larger than {BYTES_MAX} bytes; split it",
                self.file.display()
            )));
        }
        Ok(text)
    }

    pub fn json<T: DeserializeOwned>(&self, text: &str) -> Result<Vec<T>, CommandError> {
        serde_json::from_str(text).map_err(|e| CommandError::with_context(self.file.display(), e))
    }

    /// The records of an array, or of a table whose lines `of_record` reads.
    pub fn records<T: DeserializeOwned>(
        &self,
        what: &str,
        of_record: impl Fn(Record) -> Result<T, CommandError>,
    ) -> Result<Vec<T>, CommandError> {
        let text = self.text()?;
        match self.format() {
            Format::Json => self.json(&text),
            Format::Csv => self.csv(&text)?.into_iter().map(of_record).collect(),
            Format::Lines => {
                Err(CommandError::usage(format!("{what} are imported from JSON or CSV; name the --format")))
            }
        }
    }

    pub fn csv(&self, text: &str) -> Result<Vec<Record>, CommandError> {
        let refused = |problem: String| CommandError::with_context(self.file.display(), problem);
        let mut rows = rows(text).map_err(refused)?.into_iter();
        let (_, head) = rows.next().ok_or_else(|| refused("it has no head line".into()))?;
        let record = |(line, fields): (usize, Vec<String>)| {
            let name = format!("{}, line {line}", self.file.display());
            if fields.len() != head.len() {
                return Err(CommandError::failed(format!(
                    "{name}: {} fields under {} columns",
                    fields.len(),
                    head.len()
                )));
            }
            Ok(Record { name, fields: head.iter().cloned().zip(fields).collect() })
        };
        rows.map(record).collect()
    }
}

/// Fields by RFC 4180, with the line in which each record begins. Empty lines are no records.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut rows = Vec::new();
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut line, mut began, mut quoted, mut was_quoted) = (1, 1, false, false);
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if quoted => quoted = false,
            c if quoted => field.push(c),
            '"' if field.is_empty() && !was_quoted => (quoted, was_quoted) = (true, true),
            '"' => return Err(format!("line {line}: a quotation mark stands inside a field")),
            ',' => {
                fields.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                end_row(&mut rows, began, &mut fields, &mut field, was_quoted);
                (began, was_quoted) = (line, false);
            }
            c if was_quoted => return Err(format!("line {line}: `{c}` stands behind a closing quotation mark")),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(format!("line {began}: a quotation mark is never closed"));
    }
    end_row(&mut rows, began, &mut fields, &mut field, was_quoted);
    Ok(rows)
}

fn end_row(
    rows: &mut Vec<(usize, Vec<String>)>,
    began: usize,
    fields: &mut Vec<String>,
    field: &mut String,
    was_quoted: bool,
) {
    if !fields.is_empty() || !field.is_empty() || was_quoted {
        fields.push(std::mem::take(field));
        rows.push((began, std::mem::take(fields)));
    }
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn csv_as_spreadsheets_write_it() {
        let text = "\u{feff}slug,name\r\na,\"Say \"\"hi\"\",\nthen go\"\r\n\r\nb,\n\"\",last";
        let read: Vec<(usize, Vec<String>)> = rows(text).unwrap();
        let expected = [
            (1, vec!["slug", "name"]),
            (2, vec!["a", "Say \"hi\",\nthen go"]),
            (5, vec!["b", ""]),
            (6, vec!["", "last"]),
        ];
        assert_eq!(read, expected.map(|(line, fields)| (line, fields.into_iter().map(String::from).collect())));
    }

    #[test]
    fn broken_csv_is_refused() {
        for text in ["a\"b", "\"never closed", "\"a\"b,c"] {
            assert!(rows(text).is_err(), "{text}");
        }
    }
}
