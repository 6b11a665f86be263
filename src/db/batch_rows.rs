//! Statements that run once for each of several given rows: `with given (id bigint, state text) update orders set state
//! = given.state from given where orders.id = given.id`.
//!
//! PostgreSQL runs such a statement once and gets each column as an array. SQLite has no round trip to save: it runs
//! the statement once for each row, with the values of the row in place of `given.id` and without `from given`. So the
//! result for one row must not depend on the result for another row.

use std::fmt::{Arguments, Write};

use crate::{Bind, Error};

/// The rows for each of which a statement runs; `batch_row![id, state]` makes one row.
pub type BatchRows = Vec<Vec<Bind>>;

/// The start of every statement with given rows.
const GIVEN: &str = "with given (";

/// One row without values. A statement that has no given rows runs once for this row.
pub(super) const RUN_ONCE: &[Vec<Bind>] = &[Vec::new()];

/// The type of a column of the given rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    Int,
    Text,
    Blob,
}

impl ColumnType {
    const ALL: [ColumnType; 3] = [ColumnType::Int, ColumnType::Text, ColumnType::Blob];

    const fn sql_type_name(self) -> &'static str {
        match self {
            ColumnType::Int => "bigint",
            ColumnType::Text => "text",
            ColumnType::Blob => "bytea",
        }
    }
}

/// A statement that was split after the list of its given columns.
struct ParsedStatement<'a> {
    /// The names and types of the given columns; empty for a statement without given rows.
    columns: Vec<(&'a str, ColumnType)>,
    /// The rest of the statement, after the list of given columns.
    body: &'a str,
}

/// Returns true when the statement starts with a list of given columns, `with given (…)`, so that it runs for each
/// given row.
pub(super) fn has_given_rows(sql: &str) -> bool {
    sql.starts_with(GIVEN)
}

/// Parses the list of given columns, such as `with given (id bigint)`. A statement without this list has no columns,
/// and its whole text is the body.
fn split_given_columns_from_body(sql: &str) -> Result<ParsedStatement<'_>, Error> {
    let Some(rest) = sql.strip_prefix(GIVEN) else { return Ok(ParsedStatement { columns: Vec::new(), body: sql }) };
    let invalid = || Error::Statement(format!("the columns of `given` cannot be parsed: {sql}"));
    let (columns, body) = rest.split_once(')').ok_or_else(invalid)?;
    let columns = columns.split(',').map(|column| {
        let (name, column_type) = column.trim().split_once(' ')?;
        let column_type = ColumnType::ALL.into_iter().find(|known| known.sql_type_name() == column_type)?;
        Some((name, column_type))
    });
    Ok(ParsedStatement { columns: columns.collect::<Option<_>>().ok_or_else(invalid)?, body })
}

/// Returns the SQL text that SQLite runs for one given row. `binds` is the number of values that do not come from the
/// row; the placeholders of the values of the row are numbered after them.
pub(super) fn build_sqlite_sql_for_one_row(sql: &str, binds: usize) -> Result<String, Error> {
    let ParsedStatement { columns, body } = split_given_columns_from_body(sql)?;
    if columns.is_empty() {
        return Ok(body.to_owned());
    }
    let mut text = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(start) = rest.find("given") {
        text.push_str(&rest[..start]);
        rest = &rest[start + "given".len()..];
        if let Some(column) = rest.strip_prefix('.') {
            let end = column.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(column.len());
            let number = columns.iter().position(|(name, _)| *name == &column[..end]);
            let number = number.ok_or_else(|| Error::Statement(format!("`given` lacks a column in: {sql}")))?;
            append_formatted(&mut text, format_args!("${}", binds + number + 1));
            rest = &column[end..];
        } else if let Some(other_tables) = rest.strip_prefix(',') {
            rest = other_tables;
        } else {
            text.truncate(text.trim_end().strip_suffix("from").unwrap_or(&text).len());
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// Returns the SQL text that PostgreSQL runs for all given rows, and the types of their columns. `binds` is the number
/// of values that do not come from the rows; the placeholders of the columns are numbered after them. `used` is the
/// number of placeholders of earlier statements in the same text; all numbers of this statement start after it.
pub(super) fn build_postgres_sql_for_all_rows(
    sql: &str,
    binds: usize,
    used: usize,
) -> Result<(String, Vec<ColumnType>), Error> {
    let ParsedStatement { columns, body } = split_given_columns_from_body(sql)?;
    let mut text = String::with_capacity(sql.len() + 32 * columns.len());
    if !columns.is_empty() {
        text.push_str(GIVEN);
        for (number, (name, _)) in columns.iter().enumerate() {
            append_formatted(&mut text, format_args!("{}{name}", if number > 0 { ", " } else { "" }));
        }
        text.push_str(") as (select * from unnest(");
        for (number, (_, column_type)) in columns.iter().enumerate() {
            let (comma, placeholder) = (if number > 0 { ", " } else { "" }, used + binds + number + 1);
            append_formatted(&mut text, format_args!("{comma}${placeholder}::{}[]", column_type.sql_type_name()));
        }
        text.push_str("))");
    }
    let mut pieces = body.split('$');
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_digit()).unwrap_or(piece.len());
        let placeholder = piece[..end].parse::<usize>();
        let placeholder = placeholder.map_err(|_| Error::Statement(format!("a placeholder has no number: {sql}")))?;
        append_formatted(&mut text, format_args!("${}{}", used + placeholder, &piece[end..]));
    }
    Ok((text, columns.into_iter().map(|(_, column_type)| column_type).collect()))
}

/// Appends a formatted piece of text to `text`.
pub(super) fn append_formatted(text: &mut String, piece: Arguments<'_>) {
    text.write_fmt(piece).expect("writing to a string never fails");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_a_text_for_each_database() {
        let sql = "with given (id bigint, state text) update orders set state = given.state, paid_at = $1
            from given where orders.id = given.id";
        assert_eq!(
            build_sqlite_sql_for_one_row(sql, 1).unwrap(),
            " update orders set state = $3, paid_at = $1
             where orders.id = $2"
        );
        let (text, types) = build_postgres_sql_for_all_rows(sql, 1, 4).unwrap();
        assert_eq!(
            text,
            "with given (id, state) as (select * from unnest($6::bigint[], $7::text[])) update orders \
             set state = given.state, paid_at = $5
            from given where orders.id = given.id"
        );
        assert_eq!(types, [ColumnType::Int, ColumnType::Text]);
    }

    #[test]
    fn given_rows_are_joined_with_tables() {
        let sql = "with given (key bytea) select a.id from given, addresses a where a.key = given.key";
        assert_eq!(build_sqlite_sql_for_one_row(sql, 0).unwrap(), " select a.id from  addresses a where a.key = $1");
        let sql = "with given (key bytea) insert into keys (key) select given.key from given";
        assert_eq!(build_sqlite_sql_for_one_row(sql, 0).unwrap(), " insert into keys (key) select $1 ");
    }

    #[test]
    fn a_statement_that_cannot_be_parsed_is_rejected() {
        for sql in
            ["with given (id uuid) select given.id from given", "with given (id bigint) select given.no from given"]
        {
            assert!(build_sqlite_sql_for_one_row(sql, 0).is_err(), "{sql}");
        }
        assert!(build_postgres_sql_for_all_rows("select $x", 0, 0).is_err());
    }
}
