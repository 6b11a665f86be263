//! The threads that read, each in a transaction that sees one moment of what is committed.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::Tx;
use crate::sqlite::command::{Command, Message};
use crate::sqlite::connection;
use crate::sqlite::statement::error_of;
use crate::tx::{Stats, run_hooks};

pub(super) fn run(mut tx: Tx, stats: &Stats, queue: &Mutex<mpsc::Receiver<Message>>) {
    loop {
        // The lock is held while waiting: one idle reader takes the next message, the others queue behind it.
        let message = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match message {
            Some(Message::Run(command)) => read_one(&mut tx, stats, command),
            Some(Message::Close(end)) => {
                drop(tx);
                // The one who closes may have gone.
                let _gone = end.send(());
                return;
            }
            None => return,
        }
    }
}

fn read_one(tx: &mut Tx, stats: &Stats, mut command: Box<dyn Command>) {
    let start = Instant::now();
    stats.count_transaction();
    let control = |tx: &Tx, sql| {
        let run = || connection(tx).prepare_cached(sql)?.raw_execute();
        run().map(drop).map_err(|e| error_of(&e))
    };
    let mut result = control(tx, "begin");
    if result.is_ok() {
        let kept = command.run(tx);
        let traces = tx.take_traces();
        if !connection(tx).is_autocommit() {
            result = control(tx, "rollback");
        }
        if kept && result.is_ok() {
            run_hooks(traces.hooks);
        }
    }
    tracing::debug!(name = command.name(), elapsed_us = start.elapsed().as_micros(), "a reading transaction ended");
    command.answer(result);
}
