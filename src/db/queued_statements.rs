//! Queued statements: inserts and updates that a transaction sends together. A queued statement may bind the id that an
//! earlier queued statement returns.
//!
//! PostgreSQL runs the whole queue as one statement, because each statement costs a round trip; SQLite runs the queued
//! statements one after another. On PostgreSQL, a queued statement does not see the changes of the other queued
//! statements, but it can use the ids that the earlier statements return. Every queued statement returns a column `id`.

use std::marker::PhantomData;

use crate::tx::DbConnection;
use crate::{Backend, Bind, Error, FromValue, Tx, postgres, sqlite};

/// A statement that was queued and has not run yet.
#[derive(Debug)]
pub(super) struct QueuedStatement {
    /// The SQL text, with placeholders `$1`, `$2`, …
    pub sql: &'static str,
    /// The values of the placeholders, in the order of their numbers.
    pub binds: Vec<Bind>,
}

/// A placeholder for the id that a queued statement will return. Later queued statements of the transaction bind the
/// placeholder instead of the id.
#[derive(Debug)]
pub struct ResultRef<T> {
    /// The index of the queued statement in its transaction, from 0.
    pub(super) statement: usize,
    pub(super) id: PhantomData<fn() -> T>,
}

/// The ids that one statement returned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReturnedRows {
    /// The number of rows that the statement returned.
    pub count: u64,
    /// The smallest id that was returned; `None` when no row was returned.
    pub least_id: Option<i64>,
}

impl Tx {
    /// Queues a statement, which must return a column `id`. All queued statements run together, in one round trip on
    /// PostgreSQL: at [`Tx::run_queued`], before the next statement that is not queued, or at the end of the
    /// transaction. A statement that returns no row does not fail; see [`Tx::row_count_of`].
    pub fn queue<T>(&mut self, sql: &'static str, binds: Vec<Bind>) -> ResultRef<T> {
        let statement = self.returned.len() + self.queued.len();
        self.queued.push(QueuedStatement { sql, binds });
        ResultRef { statement, id: PhantomData }
    }

    /// Runs the queued statements. Call this function when the following code needs their results.
    ///
    /// # Errors
    /// Any [`Error`] of a queued statement, or of a deferred one before it.
    pub async fn run_queued(&mut self) -> Result<(), Error> {
        let statements = std::mem::take(&mut self.queued);
        if statements.is_empty() {
            return Ok(());
        }
        let first = self.returned.len();
        let result = match self.backend() {
            Backend::Sqlite => self.run_queued_one_by_one(statements).await,
            Backend::Postgres => self.run_queued_as_one(statements).await,
        };
        // Every error ends the transaction, even one that occurs before a statement runs, such as an invalid reference.
        // The queue is empty now, so a commit would store only a part of what the caller wanted.
        self.record_failure(result)?;
        self.changed |= self.returned.iter().skip(first).any(|ids| ids.count > 0);
        Ok(())
    }

    /// Returns the number of rows that a queued statement returned. The number is 0 before the statement has run.
    pub fn row_count_of<T>(&self, result: ResultRef<T>) -> u64 {
        self.returned.get(result.statement).map_or(0, |ids| ids.count)
    }

    /// Returns the id of the one row that a queued statement returned.
    ///
    /// # Errors
    /// [`Error::UnexpectedRowCount`] when the statement did not return exactly one row, or has not run yet.
    pub fn id_of<T: FromValue>(&self, result: ResultRef<T>) -> Result<T, Error> {
        self.returned.get(result.statement).copied().unwrap_or_default().only_id()
    }

    /// Runs the queued statements one after another, for SQLite.
    async fn run_queued_one_by_one(&mut self, statements: Vec<QueuedStatement>) -> Result<(), Error> {
        for statement in statements {
            let (sql, binds) = statement.resolve_references(&self.returned)?;
            self.run_earlier_and_check_statement(sql, &[], &binds).await?;
            let DbConnection::Sqlite(connection) = &self.connection else { unreachable!("the backend is SQLite") };
            let result = sqlite::statement::execute_returning_least_id(connection, sql, &binds);
            let ids = self.record_failure(result)?;
            self.returned.push(ids);
        }
        Ok(())
    }

    /// Combines the queued statements into one and runs it, for PostgreSQL.
    async fn run_queued_as_one(&mut self, statements: Vec<QueuedStatement>) -> Result<(), Error> {
        let count = statements.len();
        let statements =
            statements.into_iter().map(|statement| statement.resolve_or_renumber_references(&self.returned)).collect();
        let (sql, binds) = combine_into_one_statement(statements)?;
        self.run_earlier_and_check_statement(&sql, &[], &binds).await?;
        let DbConnection::Postgres(connection) = &mut self.connection else {
            unreachable!("the backend is PostgreSQL")
        };
        let result = postgres::execute_returning_one_row(connection, sql, binds).await;
        let row = self.record_failure(result)?;
        for number in 0..count {
            self.returned.push(ReturnedRows { count: row.get_at(2 * number)?, least_id: row.get_at(2 * number + 1)? });
        }
        Ok(())
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

impl ReturnedRows {
    /// Returns the id of the one row that the statement returned.
    ///
    /// # Errors
    /// [`Error::UnexpectedRowCount`] when the statement did not return exactly one row.
    pub fn only_id<T: FromValue>(&self) -> Result<T, Error> {
        let id = self.least_id.filter(|_| self.count == 1);
        let id = id.ok_or(Error::UnexpectedRowCount { expected: 1, found: self.count })?;
        T::from_value(&Bind::Int(id))
            .ok_or_else(|| Error::Value { column: "id".into(), reason: "it is outside the range of its type".into() })
    }
}

impl QueuedStatement {
    /// Returns the SQL text and its values. Each reference is replaced by the id that the earlier statement returned;
    /// null when that statement returned no row.
    pub fn resolve_references(self, earlier: &[ReturnedRows]) -> Result<(&'static str, Vec<Bind>), Error> {
        let resolve = |bind| match bind {
            Bind::ResultRef(statement) => {
                let ids = earlier.get(statement).ok_or_else(|| forward_reference_error(statement))?;
                Ok(ids.least_id.map_or(Bind::Null, Bind::Int))
            }
            known @ (Bind::Null | Bind::Int(_) | Bind::Text(_) | Bind::Blob(_) | Bind::TooLarge(_)) => Ok(known),
        };
        Ok((self.sql, self.binds.into_iter().map(resolve).collect::<Result<_, Error>>()?))
    }

    /// Replaces each reference to a statement that has already run by the id that the statement returned. The other
    /// references are renumbered: 0 is the first statement that has not run yet.
    pub fn resolve_or_renumber_references(self, earlier: &[ReturnedRows]) -> QueuedStatement {
        let rebase = |bind| match bind {
            Bind::ResultRef(statement) => match earlier.get(statement) {
                Some(ids) => ids.least_id.map_or(Bind::Null, Bind::Int),
                None => Bind::ResultRef(statement - earlier.len()),
            },
            value @ (Bind::Null | Bind::Int(_) | Bind::Text(_) | Bind::Blob(_) | Bind::TooLarge(_)) => value,
        };
        QueuedStatement { sql: self.sql, binds: self.binds.into_iter().map(rebase).collect() }
    }
}

/// Combines all statements into one statement for PostgreSQL, which returns a single row. For each of the combined
/// statements, the row contains two columns: the number of rows and the smallest id that the statement returned.
pub(super) fn combine_into_one_statement(statements: Vec<QueuedStatement>) -> Result<(String, Vec<Bind>), Error> {
    let (mut sql, mut binds) = (String::with_capacity(4096), Vec::new());
    let mut results = String::from(" select ");
    for (number, statement) in statements.into_iter().enumerate() {
        let (opening, comma) = if number == 0 { ("with ", "") } else { (", ", ", ") };
        sql += &format!("{opening}s{number} as (");
        append_renumbered_statement(&mut sql, &mut binds, number, statement)?;
        sql.push(')');
        results += &format!("{comma}(select count(*) from s{number}), (select min(id) from s{number})");
    }
    sql += &results;
    Ok((sql, binds))
}

/// Appends the text of statement `number`, with its placeholders numbered after those of the earlier statements. A
/// reference to an earlier statement becomes a subselect of the id that this statement returns.
fn append_renumbered_statement(
    sql: &mut String,
    binds: &mut Vec<Bind>,
    number: usize,
    statement: QueuedStatement,
) -> Result<(), Error> {
    let mut placeholders = Vec::with_capacity(statement.binds.len());
    for bind in statement.binds {
        if let Bind::ResultRef(earlier) = bind {
            if earlier >= number {
                return Err(forward_reference_error(earlier));
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

fn forward_reference_error(statement: usize) -> Error {
    Error::Statement(format!("the id of statement {statement} was bound by an earlier statement"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(sql: &'static str, binds: Vec<Bind>) -> QueuedStatement {
        QueuedStatement { sql, binds }
    }

    #[test]
    fn placeholders_are_numbered_on_and_returned_ids_are_selected() {
        let order = insert("insert into o (a, b) values ($2, $1) returning id", vec![1.into(), 2.into()]);
        let line =
            insert("insert into l (o, c, d) values ($1, $2, $2) returning id", vec![Bind::ResultRef(0), 3.into()]);
        let (sql, binds) = combine_into_one_statement(vec![order, line]).unwrap();
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
        let statement = || insert("insert into b values ($1) returning id", vec![Bind::ResultRef(1)]);
        assert!(matches!(statement().resolve_references(&[ReturnedRows::default()]), Err(Error::Statement(_))));
        assert!(matches!(combine_into_one_statement(vec![statement()]), Err(Error::Statement(_))));
    }

    #[test]
    fn ids_of_statements_that_ran_are_bound_as_values() {
        let binds = vec![Bind::ResultRef(0), Bind::ResultRef(1), 7.into()];
        let rebased = insert("insert into b values ($1, $2, $3) returning id", binds);
        let rebased = rebased.resolve_or_renumber_references(&[ReturnedRows { count: 1, least_id: Some(42) }]);
        assert!(rebased.binds == [42.into(), Bind::ResultRef(0), 7.into()]);
    }
}
