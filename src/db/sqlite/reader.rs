//! The reader threads. Each runs one transaction at a time, on a snapshot of the committed data.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::Tx;
use crate::sqlite::command::{Command, Message};
use crate::sqlite::connections::sqlite_connection;
use crate::sqlite::statement::to_error;
use crate::stats::Stats;
use crate::tx::run_hooks_logging_panics;

/// Runs the transactions from the queue, one after the other, until a message ends this thread or the queue is closed.
pub(super) fn run_reader_thread(mut tx: Tx, stats: &Stats, queue: &Mutex<mpsc::Receiver<Message>>) {
    loop {
        // The idle reader that holds the lock takes the next message; the other idle readers wait for the lock.
        let message = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match message {
            Some(Message::Run(command)) => run_read_and_send_result(&mut tx, stats, command),
            Some(Message::Close(closed)) => {
                drop(tx);
                let _caller_dropped = closed.send(());
                return;
            }
            None => return,
        }
    }
}

fn run_read_and_send_result(tx: &mut Tx, stats: &Stats, mut command: Box<dyn Command>) {
    let start = Instant::now();
    stats.count_transaction();
    let control = |tx: &Tx, sql| {
        let run = || sqlite_connection(tx).prepare_cached(sql)?.raw_execute();
        run().map(drop).map_err(|e| to_error(&e))
    };
    let mut result = control(tx, "begin");
    if result.is_ok() {
        let succeeded = command.run_closure_and_keep_result(tx);
        let effects = tx.take_effects_and_reset();
        if !sqlite_connection(tx).is_autocommit() {
            result = control(tx, "rollback");
        }
        if succeeded && result.is_ok() {
            run_hooks_logging_panics(effects.hooks);
        }
    }
    let (name, elapsed_us) = (command.name(), start.elapsed().as_micros());
    tracing::debug!(name, elapsed_us, "read transaction {name} ended");
    command.send_result_or_group_error(result);
}
