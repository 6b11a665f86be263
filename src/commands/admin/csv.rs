//! CSV files (RFC 4180): a parser, and records whose fields are found by the name of their column.

use std::collections::BTreeMap;
use std::path::Path;

use crate::commands::command_error::CommandError;

/// A record of a CSV file: one row below the header line.
pub struct CsvRecord {
    /// The file and the line number of the record, such as `items.csv, line 3`, for error messages.
    pub name: String,
    /// The number of the line, counted from 1, in which the record begins.
    pub line: usize,
    /// The fields by column name.
    pub fields: BTreeMap<String, String>,
}

impl CsvRecord {
    /// Takes the field of a column out of the record and returns it; `None` when the field is missing or empty.
    pub fn take_field(&mut self, column: &str) -> Option<String> {
        self.fields.remove(column).filter(|field| !field.is_empty())
    }

    /// Takes the field of a column out of the record and returns it.
    ///
    /// # Errors
    /// Fails when the field is missing or empty.
    pub fn take_required_field(&mut self, column: &str) -> Result<String, CommandError> {
        let missing = format!("{}: the column `{column}` is missing or empty", self.name);
        self.take_field(column).ok_or_else(|| CommandError::general_error(missing))
    }

    /// Removes the field of a column and parses it as `true` or `false`; false when the field is missing or empty.
    pub fn take_flag_field(&mut self, column: &str) -> Result<bool, CommandError> {
        let Some(text) = self.take_field(column) else { return Ok(false) };
        text.to_lowercase().parse().map_err(|_| {
            CommandError::general_error(format!("{}: `{column}` is \"{text}\"; write true or false", self.name))
        })
    }

    /// Takes the field of a column out of the record and parses it as a number; `None` when the field is missing or
    /// empty.
    pub fn take_number_field<T: std::str::FromStr>(&mut self, column: &str) -> Result<Option<T>, CommandError> {
        let Some(text) = self.take_field(column) else { return Ok(None) };
        let refused = || {
            CommandError::general_error(format!(
                "{}: `{column}` is \"{text}\", which is not a whole number in range",
                self.name
            ))
        };
        text.parse().map(Some).map_err(|_| refused())
    }
}

/// Parses the text of a CSV file into one record for each row below the header line. `file` is its path for error
/// messages.
pub fn parse_csv_records(file: &Path, text: &str) -> Result<Vec<CsvRecord>, CommandError> {
    let refused = |problem: String| CommandError::error_with_context(file.display(), problem);
    let mut rows = parse_csv_rows(text).map_err(refused)?.into_iter();
    let (_, header) = rows.next().ok_or_else(|| refused("the file has no header line".into()))?;
    let record = |(line, fields): (usize, Vec<String>)| {
        let name = format!("{}, line {line}", file.display());
        if fields.len() != header.len() {
            return Err(CommandError::general_error(format!(
                "{name}: {} fields, but the header has {} columns",
                fields.len(),
                header.len()
            )));
        }
        Ok(CsvRecord { name, line, fields: header.iter().cloned().zip(fields).collect() })
    };
    rows.map(record).collect()
}

/// Returns the fields of each row, with the number of the line, counted from 1, in which the row begins. Empty lines
/// are skipped. A quotation mark in a wrong place is an error.
fn parse_csv_rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut rows = Vec::new();
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut line, mut first_line, mut is_quoted, mut was_quoted) = (1, 1, false, false);
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        // A carriage return without a line feed ends a line too: old spreadsheets write such files.
        let is_line_end = c == '\n' || (c == '\r' && chars.peek() != Some(&'\n'));
        line += usize::from(is_line_end);
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if is_quoted => is_quoted = false,
            c if is_quoted => field.push(c),
            '"' if field.is_empty() && !was_quoted => (is_quoted, was_quoted) = (true, true),
            '"' => return Err(format!("line {line}: a quotation mark inside an unquoted field")),
            ',' => {
                fields.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\r' if !is_line_end => {}
            '\r' | '\n' => {
                push_row_unless_empty(&mut rows, first_line, &mut fields, &mut field, was_quoted);
                (first_line, was_quoted) = (line, false);
            }
            c if was_quoted => return Err(format!("line {line}: `{c}` follows a closing quotation mark")),
            c => field.push(c),
        }
    }
    if is_quoted {
        return Err(format!("line {first_line}: a quotation mark is not closed"));
    }
    push_row_unless_empty(&mut rows, first_line, &mut fields, &mut field, was_quoted);
    Ok(rows)
}

/// Appends the current row to `rows` and clears `fields` and `field` for the next row. An empty line is not appended.
/// `field` is the last field of the row, and `was_quoted` says that it was quoted, so that `""` is a field although it
/// is empty.
fn push_row_unless_empty(
    rows: &mut Vec<(usize, Vec<String>)>,
    first_line: usize,
    fields: &mut Vec<String>,
    field: &mut String,
    was_quoted: bool,
) {
    if !fields.is_empty() || !field.is_empty() || was_quoted {
        fields.push(std::mem::take(field));
        rows.push((first_line, std::mem::take(fields)));
    }
}

#[cfg(test)]
mod tests {
    use super::parse_csv_rows;

    #[test]
    fn csv_files_of_spreadsheets_are_parsed() {
        let text = "\u{feff}slug,name\r\na,\"Say \"\"hi\"\",\nthen go\"\r\n\r\nb,\n\"\",last";
        let parsed: Vec<(usize, Vec<String>)> = parse_csv_rows(text).unwrap();
        let expected = [
            (1, vec!["slug", "name"]),
            (2, vec!["a", "Say \"hi\",\nthen go"]),
            (5, vec!["b", ""]),
            (6, vec!["", "last"]),
        ];
        assert_eq!(parsed, expected.map(|(line, fields)| (line, fields.into_iter().map(String::from).collect())));
        let old = parse_csv_rows("slug,name\ra,\"one\rtwo\"\r\rb,c\r").unwrap();
        let expected = [(1, vec!["slug", "name"]), (2, vec!["a", "one\rtwo"]), (5, vec!["b", "c"])];
        assert_eq!(old, expected.map(|(line, fields)| (line, fields.into_iter().map(String::from).collect())));
    }

    #[test]
    fn malformed_csv_is_rejected() {
        for text in ["a\"b", "\"never closed", "\"a\"b,c"] {
            assert!(parse_csv_rows(text).is_err(), "{text}");
        }
    }
}
