//! Macros that bind values of any type to a statement. Each macro takes a `Tx`, the SQL text, and the values of the
//! placeholders `$1`, `$2`, … in this order.

/// `execute!(tx, "update … where id = $1", id)?` runs a statement and returns the number of changed rows.
#[macro_export]
macro_rules! execute {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.execute(sql, binds).await
    }};
}

/// `rows!(tx, "select … where a = $1", a)?` returns all rows.
#[macro_export]
macro_rules! rows {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.rows(sql, binds).await
    }};
}

/// `row!(tx, "select … where id = $1", id)?` returns the row, or `None`. More than one row is an error.
#[macro_export]
macro_rules! row {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.row(sql, binds).await
    }};
}

/// `batch_row![id, state]` makes one row of [`BatchRows`](crate::BatchRows).
#[macro_export]
macro_rules! batch_row {
    ($($bind:expr),+ $(,)?) => { vec![$($crate::Bind::from($bind)),+] };
}

/// `rows_for_each!(tx, batch_rows, "with given (id bigint) select … from given, orders where …", mode)?` runs a
/// statement for each given row and returns the rows of all runs, in no order.
#[macro_export]
macro_rules! rows_for_each {
    ($tx:expr, $given:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let given: $crate::BatchRows = $given;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.rows_for_each(sql, given, binds).await
    }};
}

/// `deferred!(tx, "update … where id = $1", id)?` schedules a statement that must change exactly one row. SQLite runs
/// the statement at once; PostgreSQL runs it before the next statement that is not deferred, or at the end of the
/// transaction. See [`Tx::defer_or_execute_statement`](crate::Tx::defer_or_execute_statement).
#[macro_export]
macro_rules! deferred {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.defer_or_execute_statement(sql, Vec::new(), binds, Some(1)).await
    }};
}

/// `deferred_for_each!(tx, batch_rows, "with given (id bigint) update … from given where …", mode)?` schedules a
/// statement that must change exactly one row for each given row.
#[macro_export]
macro_rules! deferred_for_each {
    ($tx:expr, $given:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let given: $crate::BatchRows = $given;
        let binds = vec![$($crate::Bind::from($bind)),*];
        let expected = u64::try_from(given.len()).unwrap_or(u64::MAX);
        match given.is_empty() {
            true => Ok(()),
            false => $tx.defer_or_execute_statement(sql, given, binds, Some(expected)).await,
        }
    }};
}

/// `queued!(tx, "insert into … values ($1) returning id", a)` queues a statement and returns a
/// [`ResultRef`](crate::ResultRef), a placeholder for the id that the statement will return; see
/// [`Tx::queue`](crate::Tx::queue).
#[macro_export]
macro_rules! queued {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: &'static str = $sql;
        let binds = vec![$($crate::Bind::from($bind)),*];
        $tx.queue(sql, binds)
    }};
}
