//! Statements that work on rows which they are given:
//! `with given (id bigint, state text) update orders set state = given.state from given where orders.id = given.id`.
//!
//! PostgreSQL runs such a statement once and gets each column as an array. SQLite has no round trip to save: it runs the
//! statement once for each row, the row's values in place of `given.id` and without its `from given`. So no row may depend
//! on what the statement did for another one.

use std::fmt::Write;

use crate::{Bind, Error};

/// Rows for a statement that is given some; `given![id, state]` makes one.
pub type BatchRows = Vec<Vec<Bind>>;

const GIVEN: &str = "with given (";

/// Stands for the one run of a statement that is given no rows.
pub(super) const ONCE: &[Vec<Bind>] = &[Vec::new()];

/// What a column of given rows holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Text,
    Blob,
}

struct Parsed<'a> {
    columns: Vec<(&'a str, Kind)>,
    body: &'a str,
}

/// Whether the statement works on given rows.
pub(super) fn is_given(sql: &str) -> bool {
    sql.starts_with(GIVEN)
}

fn parse(sql: &str) -> Result<Parsed<'_>, Error> {
    let Some(rest) = sql.strip_prefix(GIVEN) else { return Ok(Parsed { columns: Vec::new(), body: sql }) };
    let refused = || Error::Statement(format!("its given columns cannot be read: {sql}"));
    let (columns, body) = rest.split_once(')').ok_or_else(refused)?;
    let column = |text: &'static str, kind| move |column: &'_ str| column.ends_with(text).then_some(kind);
    let kinds = [column(" bigint", Kind::Int), column(" text", Kind::Text), column(" bytea", Kind::Blob)];
    let columns = columns.split(',').map(|column| {
        let kind = kinds.iter().find_map(|kind| kind(column))?;
        Some((column.split_whitespace().next()?, kind))
    });
    Ok(Parsed { columns: columns.collect::<Option<_>>().ok_or_else(refused)?, body })
}

/// The text for one row, whose values follow `binds` others.
pub(super) fn for_sqlite(sql: &str, binds: usize) -> Result<String, Error> {
    let Parsed { columns, body } = parse(sql)?;
    if columns.is_empty() {
        return Ok(body.to_owned());
    }
    let mut text = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find("given") {
        text.push_str(&rest[..at]);
        rest = &rest[at + "given".len()..];
        if let Some(column) = rest.strip_prefix('.') {
            let end = column.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(column.len());
            let place = columns.iter().position(|(name, _)| *name == &column[..end]);
            let place = place.ok_or_else(|| Error::Statement(format!("a column is not given: {sql}")))?;
            push(&mut text, format_args!("${}", binds + place + 1));
            rest = &column[end..];
        } else if let Some(joined) = rest.strip_prefix(',') {
            rest = joined;
        } else {
            text.truncate(text.trim_end().strip_suffix("from").unwrap_or(&text).len());
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// The text for all rows at once and the kinds of their columns, which follow `binds` others. Every place is moved behind
/// the `taken` places of other statements.
pub(super) fn for_postgres(sql: &str, binds: usize, taken: usize) -> Result<(String, Vec<Kind>), Error> {
    let Parsed { columns, body } = parse(sql)?;
    let mut text = String::with_capacity(sql.len() + 32 * columns.len());
    if !columns.is_empty() {
        text.push_str("with given (");
        for (number, (name, _)) in columns.iter().enumerate() {
            push(&mut text, format_args!("{}{name}", if number > 0 { ", " } else { "" }));
        }
        text.push_str(") as (select * from unnest(");
        for (number, (_, kind)) in columns.iter().enumerate() {
            let (comma, place) = (if number > 0 { ", " } else { "" }, taken + binds + number + 1);
            let kind = match kind {
                Kind::Int => "bigint",
                Kind::Text => "text",
                Kind::Blob => "bytea",
            };
            push(&mut text, format_args!("{comma}${place}::{kind}[]"));
        }
        text.push_str("))");
    }
    let mut parts = body.split('$');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let place = part[..end].parse::<usize>();
        let place = place.map_err(|_| Error::Statement(format!("a place has no number: {sql}")))?;
        push(&mut text, format_args!("${}{}", taken + place, &part[end..]));
    }
    Ok((text, columns.into_iter().map(|(_, kind)| kind).collect()))
}

pub(super) fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_texts_of_a_change() {
        let sql = "with given (id bigint, state text) update orders set state = given.state, at = $1
            from given where orders.id = given.id";
        assert_eq!(
            for_sqlite(sql, 1).unwrap(),
            " update orders set state = $3, at = $1
             where orders.id = $2"
        );
        let (text, kinds) = for_postgres(sql, 1, 4).unwrap();
        assert_eq!(
            text,
            "with given (id, state) as (select * from unnest($6::bigint[], $7::text[])) update orders \
             set state = given.state, at = $5
            from given where orders.id = given.id"
        );
        assert_eq!(kinds, [Kind::Int, Kind::Text]);
    }

    #[test]
    fn rows_join_tables() {
        let sql = "with given (key bytea) select a.id from given, addresses a where a.key = given.key";
        assert_eq!(for_sqlite(sql, 0).unwrap(), " select a.id from  addresses a where a.key = $1");
        let sql = "with given (key bytea) insert into keys (key) select given.key from given";
        assert_eq!(for_sqlite(sql, 0).unwrap(), " insert into keys (key) select $1 ");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for sql in
            ["with given (id uuid) select given.id from given", "with given (id bigint) select given.no from given"]
        {
            assert!(for_sqlite(sql, 0).is_err(), "{sql}");
        }
        assert!(for_postgres("select $x", 0, 0).is_err());
    }
}
