//! The one thread that writes. Whatever waits for it shares one durable commit; a SAVEPOINT keeps one command's refusal
//! from the others. Nobody is answered before the commit. There is no artificial delay: the running commit is the
//! collecting window.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, ffi};
use tokio::sync::mpsc;

use crate::sqlite::command::{Command, Message};
use crate::sqlite::connection;
use crate::sqlite::statement::error_of;
use crate::tx::{Hook, Stats, run_hooks};
use crate::{Error, Tx};

const GROUP_MAX: usize = 256;

pub(super) struct Writer {
    tx: Tx,
    stats: Arc<Stats>,
    /// Why nothing is written any more: after a failed sync nobody knows what the disk holds until SQLite recovers.
    halted: Option<Error>,
}

impl Writer {
    pub fn new(tx: Tx, stats: Arc<Stats>) -> Writer {
        Writer { tx, stats, halted: None }
    }

    pub fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(GROUP_MAX);
        while queue.blocking_recv_many(&mut messages, GROUP_MAX) > 0 {
            let mut group = Vec::with_capacity(messages.len());
            let mut close = None;
            for message in messages.drain(..) {
                match message {
                    Message::Run(command) => group.push(command),
                    Message::Close(end) => {
                        close = Some(end);
                        break;
                    }
                }
            }
            while !group.is_empty() {
                self.store(&mut group);
            }
            if let Some(end) = close {
                drop(queue);
                self.finish();
                // The one who closes may have gone.
                let _gone = end.send(());
                return;
            }
        }
    }

    /// Runs the commands from the front in one transaction, removes and answers them. Usually all; when SQLite gave up
    /// the whole transaction on the way (disk full), those that ran.
    fn store(&mut self, group: &mut Vec<Box<dyn Command>>) {
        let start = Instant::now();
        if let Some(error) = &self.halted {
            return answer_all(group.drain(..), &Err(error.clone()));
        }
        if let Err(error) = self.control("begin immediate") {
            return answer_all(group.drain(..), &Err(error));
        }
        let alone = group.len() == 1;
        let (mut ran, mut changed, mut hooks) = (0, false, Vec::new());
        let mut result = Ok(());
        for command in group.iter_mut() {
            ran += 1;
            self.stats.count_transaction();
            result = self.run_one(command.as_mut(), alone, &mut changed, &mut hooks);
            if result.is_err() {
                break;
            }
        }
        result = match result {
            Ok(()) => self.commit(changed),
            Err(error) => {
                self.abandon();
                Err(error)
            }
        };
        if result.is_ok() {
            run_hooks(hooks);
        }
        let name = group.first().map_or("", |command| command.name());
        tracing::debug!(
            name,
            commands = ran,
            elapsed_us = start.elapsed().as_micros(),
            "a group of transactions ended"
        );
        answer_all(group.drain(..ran), &result);
    }

    /// An error here means that the whole transaction is gone, not that the command was refused.
    fn run_one(
        &mut self,
        command: &mut dyn Command,
        alone: bool,
        changed: &mut bool,
        hooks: &mut Vec<Hook>,
    ) -> Result<(), Error> {
        if !alone {
            self.control("savepoint command")?;
        }
        let kept = command.run(&mut self.tx);
        let failure = self.tx.failure();
        let traces = self.tx.take_traces();
        if self.connection().is_autocommit() {
            return Err(failure.unwrap_or_else(|| Error::Unavailable("SQLite gave up the transaction".into())));
        }
        if kept {
            *changed |= traces.changed;
            hooks.extend(traces.hooks);
        } else {
            self.control(if alone { "rollback" } else { "rollback to command" })?;
        }
        if alone { Ok(()) } else { self.control("release command") }
    }

    fn commit(&mut self, changed: bool) -> Result<(), Error> {
        if self.connection().is_autocommit() {
            // The only command was refused and rolled back.
            return Ok(());
        }
        let Err(error) = self.connection().prepare_cached("commit").and_then(|mut commit| commit.raw_execute()) else {
            if changed {
                self.stats.count_commit();
            }
            return Ok(());
        };
        let failed_disk = error.sqlite_error_code() == Some(ffi::ErrorCode::SystemIoFailure);
        if failed_disk {
            let halted = Error::CommitUnknown(format!("{error}; the daemon must be started again"));
            tracing::error!(
                "a commit failed on the disk: {error}; nothing more is written until the daemon starts again"
            );
            self.halted = Some(Error::Unavailable(format!("an earlier commit failed on the disk: {error}")));
            return Err(halted);
        }
        self.abandon();
        Err(error_of(&error))
    }

    fn abandon(&mut self) {
        if self.connection().is_autocommit() {
            return;
        }
        if let Err(error) = self.control("rollback") {
            tracing::error!(
                "a transaction could not be rolled back: {error}; nothing more is written until the daemon starts again"
            );
            self.halted = Some(Error::Unavailable(format!("an earlier transaction could not be rolled back: {error}")));
        }
    }

    fn control(&self, sql: &'static str) -> Result<(), Error> {
        let run = || self.connection().prepare_cached(sql)?.raw_execute();
        run().map(drop).map_err(|e| error_of(&e))
    }

    fn connection(&self) -> &Connection {
        connection(&self.tx)
    }

    fn finish(self) {
        if self.halted.is_none() {
            let checkpoint = self.connection().query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
            if let Err(error) = checkpoint {
                tracing::warn!("the write-ahead log could not be folded in at the end: {error}");
            }
        }
    }
}

fn answer_all(commands: impl Iterator<Item = Box<dyn Command>>, group: &Result<(), Error>) {
    for command in commands {
        command.answer(group.clone());
    }
}
