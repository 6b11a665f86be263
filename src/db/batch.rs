//! Batches: lists of statements that are sent together. A later statement may bind the id that an earlier one returns.
//!
//! PostgreSQL runs a batch as one statement, because each statement costs a round trip; SQLite runs its statements one
//! after another. So a statement of a batch sees no change of the earlier ones, only the ids that they returned. Every
//! statement of a batch returns a column `id`.

use std::marker::PhantomData;

use crate::{Bind, Error, FromValue};

/// A list of statements that run together; [`Tx::run_batch`](crate::Tx::run_batch) runs them in their order.
#[derive(Debug, Default)]
pub struct Batch {
    statements: Vec<Statement>,
}

#[derive(Debug)]
pub(super) struct Statement {
    /// The SQL text, with placeholders `$1`, `$2`, …
    pub sql: &'static str,
    /// The values of the placeholders, in order.
    pub binds: Vec<Bind>,
}

/// Stands for the id that a statement of a batch will return. Later statements of the same batch bind it like a value.
#[derive(Debug)]
pub struct ResultRef<T> {
    statement: usize,
    id: PhantomData<fn() -> T>,
}

/// The ids that the statements of a batch returned.
#[derive(Debug)]
pub struct BatchResult {
    pub(super) returned: Vec<ReturnedIds>,
}

/// The ids that one statement returned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReturnedIds {
    /// The number of rows that the statement returned.
    pub rows: u64,
    /// The least id; `None` when no row was returned.
    pub least: Option<i64>,
}

impl Batch {
    /// Adds a statement, which must return a column `id`.
    pub fn add<T>(&mut self, sql: &'static str, binds: Vec<Bind>) -> ResultRef<T> {
        self.statements.push(Statement { sql, binds });
        ResultRef { statement: self.statements.len() - 1, id: PhantomData }
    }

    pub(super) fn into_statements(self) -> Vec<Statement> {
        self.statements
    }
}

impl<T> Clone for ResultRef<T> {
    fn clone(&self) -> ResultRef<T> {
        *self
    }
}

impl<T> Copy for ResultRef<T> {}

impl<T> From<ResultRef<T>> for Bind {
    fn from(result: ResultRef<T>) -> Bind {
        Bind::ResultRef(result.statement)
    }
}

impl BatchResult {
    /// Returns the number of rows that a statement returned.
    pub fn count_rows<T>(&self, result: ResultRef<T>) -> u64 {
        self.returned.get(result.statement).map_or(0, |ids| ids.rows)
    }

    /// Returns the id of the one row that a statement returned.
    ///
    /// # Errors
    /// [`Error::UnexpectedRowCount`] when the statement did not return exactly one row.
    pub fn id<T: FromValue>(&self, result: ResultRef<T>) -> Result<T, Error> {
        let found = self.count_rows(result);
        let id = self.returned.get(result.statement).and_then(|ids| ids.least).filter(|_| found == 1);
        let id = id.ok_or(Error::UnexpectedRowCount { expected: 1, found })?;
        T::from_value(&Bind::Int(id))
            .ok_or_else(|| Error::Value { column: "id".into(), reason: "it is outside the range of its type".into() })
    }
}

impl Statement {
    /// Returns the text and the values, with the ids that earlier statements returned in place of references.
    pub fn resolve(self, earlier: &[ReturnedIds]) -> Result<(&'static str, Vec<Bind>), Error> {
        let resolve = |bind| match bind {
            Bind::ResultRef(statement) => {
                let ids = earlier.get(statement).ok_or_else(|| not_earlier(statement))?;
                Ok(ids.least.map_or(Bind::Null, Bind::Int))
            }
            known @ (Bind::Null | Bind::Int(_) | Bind::Text(_) | Bind::Blob(_) | Bind::TooLarge(_)) => Ok(known),
        };
        Ok((self.sql, self.binds.into_iter().map(resolve).collect::<Result<_, Error>>()?))
    }
}

/// Combines all statements into one for PostgreSQL. Its only row holds, for each of them, the number of rows and the
/// least id that it returned.
pub(super) fn combine(statements: Vec<Statement>) -> Result<(String, Vec<Bind>), Error> {
    let (mut sql, mut binds) = (String::with_capacity(4096), Vec::new());
    let mut results = String::from(" select ");
    for (number, statement) in statements.into_iter().enumerate() {
        let (opening, comma) = if number == 0 { ("with ", "") } else { (", ", ", ") };
        sql += &format!("{opening}s{number} as (");
        append(&mut sql, &mut binds, number, statement)?;
        sql.push(')');
        results += &format!("{comma}(select count(*) from s{number}), (select min(id) from s{number})");
    }
    sql += &results;
    Ok((sql, binds))
}

/// Appends the text of statement `number`, with its placeholders numbered after those of the earlier statements.
fn append(sql: &mut String, binds: &mut Vec<Bind>, number: usize, statement: Statement) -> Result<(), Error> {
    let mut placeholders = Vec::with_capacity(statement.binds.len());
    for bind in statement.binds {
        if let Bind::ResultRef(earlier) = bind {
            if earlier >= number {
                return Err(not_earlier(earlier));
            }
            placeholders.push(format!("(select id from s{earlier})"));
        } else {
            binds.push(bind);
            placeholders.push(format!("${}", binds.len()));
        }
    }
    let mut pieces = statement.sql.split('$');
    sql.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = piece.split_at(digits);
        let placeholder = number.parse::<usize>().ok().and_then(|number| placeholders.get(number.checked_sub(1)?));
        let missing = || Error::Statement(format!("a placeholder has no value in: {}", statement.sql));
        sql.push_str(placeholder.ok_or_else(missing)?);
        sql.push_str(rest);
    }
    Ok(())
}

fn not_earlier(statement: usize) -> Error {
    Error::Statement(format!("the id of statement {statement} was bound by an earlier statement of its batch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered_on_and_returned_ids_are_selected() {
        let mut batch = Batch::default();
        let order: ResultRef<i64> =
            batch.add("insert into o (a, b) values ($2, $1) returning id", vec![1.into(), 2.into()]);
        let _line: ResultRef<i64> =
            batch.add("insert into l (o, c, d) values ($1, $2, $2) returning id", vec![order.into(), 3.into()]);
        let (sql, binds) = combine(batch.into_statements()).unwrap();
        assert_eq!(
            sql,
            "with s0 as (insert into o (a, b) values ($2, $1) returning id), \
             s1 as (insert into l (o, c, d) values ((select id from s0), $3, $3) returning id) \
             select (select count(*) from s0), (select min(id) from s0), (select count(*) from s1), (select min(id) from s1)"
        );
        assert!(binds == [1.into(), 2.into(), 3.into()]);
    }

    #[test]
    fn an_id_is_bound_only_after_its_statement() {
        let mut other = Batch::default();
        let _first: ResultRef<i64> = other.add("insert into a default values returning id", Vec::new());
        let second: ResultRef<i64> = other.add("insert into a default values returning id", Vec::new());
        let statement = || Statement { sql: "insert into b values ($1) returning id", binds: vec![second.into()] };
        assert!(matches!(statement().resolve(&[ReturnedIds::default()]), Err(Error::Statement(_))));
        assert!(matches!(combine(vec![statement()]), Err(Error::Statement(_))));
    }
}
