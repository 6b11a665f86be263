//! Import files: JSON, CSV or plain lines, from a file or from standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::de::DeserializeOwned;

use crate::commands::admin::csv::{CsvRecord, parse_csv_records};
use crate::commands::command_error::CommandError;

/// The maximum size of an import file, in bytes.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The Unicode byte order mark, which some editors write at the start of a file. It is not part of the text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The file from which a command imports records, and its format.
#[derive(clap::Args)]
pub struct ImportFile {
    /// The file to import; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Format of the file; by default it follows from the file extension.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// The format of an import file.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JSON array.
    Json,
    /// A header line with the names of the columns, then one line for each record.
    Csv,
    /// One record in each line.
    Lines,
}

impl ImportFile {
    /// Returns the format that the command line gives or, without it, the format that the file extension means. A file
    /// with an unknown extension has one record in each line.
    pub fn format_by_option_or_extension(&self) -> Format {
        let by_extension = match self.file.extension().and_then(|end| end.to_str()) {
            Some("json") => Format::Json,
            Some("csv") => Format::Csv,
            Some(_) | None => Format::Lines,
        };
        self.format.unwrap_or(by_extension)
    }

    /// Returns the whole text of the file or of standard input, without a byte order mark at its start. Fails when the
    /// text is larger than 256 MiB.
    pub fn read_text_from_file_or_stdin(&self) -> Result<String, CommandError> {
        let failed = |error: io::Error| CommandError::error_with_context(self.file.display(), error);
        let mut text = String::new();
        let mut read = |from: &mut dyn Read| from.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed);
        if self.file == Path::new("-") {
            read(&mut io::stdin())
        } else {
            read(&mut File::open(&self.file).map_err(failed)?)
        }?;
        if u64::try_from(text.len()).is_ok_and(|length| length > BYTES_MAX) {
            return Err(CommandError::general_error(format!(
                "{} is larger than {BYTES_MAX} bytes; split it",
                self.file.display()
            )));
        }
        if text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len_utf8());
        }
        Ok(text)
    }

    /// Returns the name of the file for error messages.
    pub fn display_name(&self) -> String {
        self.file.display().to_string()
    }

    /// Parses the text of the file as a JSON array.
    pub fn parse_json_array<T: DeserializeOwned>(&self, text: &str) -> Result<Vec<T>, CommandError> {
        serde_json::from_str(text).map_err(|e| CommandError::error_with_context(self.file.display(), e))
    }

    /// Parses the text of the file as CSV with a header line.
    pub fn parse_csv_file(&self, text: &str) -> Result<Vec<CsvRecord>, CommandError> {
        parse_csv_records(&self.file, text)
    }

    /// Reads the records of a JSON or CSV file. Fails for a file of plain lines. `parse_record` converts each record of
    /// a CSV file. `noun` names the records in error messages, in the plural, such as `coupons`.
    pub fn read_json_or_csv_records<T: DeserializeOwned>(
        &self,
        noun: &str,
        parse_record: impl Fn(CsvRecord) -> Result<T, CommandError>,
    ) -> Result<Vec<T>, CommandError> {
        let text = self.read_text_from_file_or_stdin()?;
        match self.format_by_option_or_extension() {
            Format::Json => self.parse_json_array(&text),
            Format::Csv => self.parse_csv_file(&text)?.into_iter().map(parse_record).collect(),
            Format::Lines => Err(CommandError::usage_error(format!(
                "{noun} are imported from JSON or CSV; give the format with --format"
            ))),
        }
    }
}
