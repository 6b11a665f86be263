//! Deferred statements: statements whose results the transaction does not need. PostgreSQL runs them together, in one
//! round trip; SQLite runs each of them at once.

use std::sync::atomic::Ordering;

use crate::batch_rows::BatchRows;
use crate::tx::DbConnection;
use crate::{Backend, Bind, Error, Tx, expect_changed, postgres};

/// A statement whose result the code of the transaction does not need.
pub(super) struct DeferredStatement {
    /// The SQL text, with placeholders `$1`, `$2`, …
    pub sql: &'static str,
    /// The rows for which the statement runs; empty for a statement without given rows, which runs once.
    pub given: BatchRows,
    /// The values of the placeholders, in the order of their numbers.
    pub binds: Vec<Bind>,
    /// The number of rows that the statement must change; `None` when any number is allowed.
    pub expected: Option<u64>,
}

impl Tx {
    /// Schedules a statement whose result the caller does not need. The statement must change `expected` rows; `None`
    /// allows any number.
    ///
    /// PostgreSQL runs all deferred statements as one statement, before the next statement that is not deferred or at
    /// the end of the transaction. So no deferred statement may depend on the changes of another deferred statement,
    /// nor change the same row. On PostgreSQL only, a deferred statement may select from the table `changed_before`,
    /// which contains the rows that the deferred statement just before it returned.
    ///
    /// # Errors
    /// On SQLite, where the statement runs at once: any [`Error`] of the statement, and [`Error::UnexpectedRowCount`].
    /// On PostgreSQL this function never fails; the error ends the next statement or the commit instead.
    pub async fn defer_or_execute_statement(
        &mut self,
        sql: &'static str,
        given: BatchRows,
        binds: Vec<Bind>,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        match self.backend() {
            Backend::Sqlite => {
                let found = match given.is_empty() {
                    true => self.execute(sql, binds).await?,
                    false => self.execute_for_each(sql, given, binds).await?,
                };
                let checked = expected.map_or(Ok(()), |expected| expect_changed(found, expected));
                self.record_failure(checked)
            }
            Backend::Postgres => {
                self.deferred.push(DeferredStatement { sql, given, binds, expected });
                Ok(())
            }
        }
    }

    /// Runs the statements that were deferred so far. Call this function when the following code depends on their
    /// changes.
    ///
    /// # Errors
    /// Any [`Error`] of these statements, and the error of an earlier statement that already failed.
    pub async fn run_deferred(&mut self) -> Result<(), Error> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let deferred = std::mem::take(&mut self.deferred);
        let DbConnection::Postgres(connection) = &mut self.connection else { return Ok(()) };
        if deferred.is_empty() {
            return Ok(());
        }
        self.stats.statements.fetch_add(1, Ordering::Relaxed);
        let result = postgres::execute_deferred_statements(connection, deferred).await;
        self.record_changes_or_failure(result).map(drop)
    }
}
