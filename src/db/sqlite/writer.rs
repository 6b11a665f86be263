//! The writer thread. All transactions that are waiting form a group, which is committed durably as one. Each
//! transaction runs in a SAVEPOINT of its own, so that its failure does not undo the others. No caller gets a result
//! before the commit. The writer never waits for more transactions: while it commits one group, the transactions of the
//! next group arrive.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, ffi};
use tokio::sync::mpsc;

use crate::sqlite::command::{Command, Message};
use crate::sqlite::connections::sqlite_connection;
use crate::sqlite::log_size::{COMMITS_PER_ADJUSTMENT, limit_log_size_by_database_size};
use crate::sqlite::statement::to_error;
use crate::stats::Stats;
use crate::tx::{CommitHook, run_hooks_logging_panics};
use crate::{Error, Tx};

/// The maximum number of transactions that are committed together.
const GROUP_MAX: usize = 256;

pub(super) struct Writer {
    /// The connection through which all changes are made.
    tx: Tx,
    stats: Arc<Stats>,
    /// The error that every later transaction gets after a commit failed on the disk or a rollback failed; `None` while
    /// the writer works. Only SQLite's recovery at the next start finds out which commits are on the disk.
    halted: Option<Error>,
    /// The commits since the size of the log was adapted to the size of the database.
    commits_since_adjustment: u32,
}

impl Writer {
    /// Creates the writer. `tx` holds the connection through which all changes are made.
    pub fn new(tx: Tx, stats: Arc<Stats>) -> Writer {
        Writer { tx, stats, halted: None, commits_since_adjustment: 0 }
    }

    /// Runs the transactions of the queue in groups, until the queue is closed. The writer thread does nothing else.
    pub fn run_writer_thread(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(GROUP_MAX);
        while queue.blocking_recv_many(&mut messages, GROUP_MAX) > 0 {
            let mut group = Vec::with_capacity(messages.len());
            let mut close = None;
            for message in messages.drain(..) {
                match message {
                    Message::Run(command) => group.push(command),
                    Message::Close(closed) => {
                        close = Some(closed);
                        break;
                    }
                }
            }
            while !group.is_empty() {
                self.run_group_and_send_results(&mut group);
            }
            if let Some(closed) = close {
                drop(queue);
                self.checkpoint_log_unless_halted();
                let _caller_dropped = closed.send(());
                return;
            }
        }
    }

    /// Runs the commands of the group in one transaction, removes them from the group and sends their results. When
    /// SQLite rolls the whole transaction back, for example because the disk is full, the commands that have not run
    /// yet stay in the group for another transaction.
    fn run_group_and_send_results(&mut self, group: &mut Vec<Box<dyn Command>>) {
        let start = Instant::now();
        if let Some(error) = &self.halted {
            return send_results_or_group_error(group.drain(..), &Err(error.clone()));
        }
        if let Err(error) = self.run_control_statement("begin immediate") {
            return send_results_or_group_error(group.drain(..), &Err(error));
        }
        let is_only = group.len() == 1;
        let (mut ran, mut changed, mut hooks) = (0, false, Vec::new());
        let mut result = Ok(());
        for command in group.iter_mut() {
            ran += 1;
            self.stats.count_transaction();
            result = self.run_command_in_group(command.as_mut(), is_only, &mut changed, &mut hooks);
            if result.is_err() {
                break;
            }
        }
        result = match result {
            Ok(()) => self.commit_group_or_halt(changed),
            Err(error) => {
                self.roll_back_group_or_halt();
                Err(error)
            }
        };
        if result.is_ok() {
            run_hooks_logging_panics(hooks);
        }
        let name = group.first().map_or("", |command| command.name());
        tracing::debug!(
            name,
            commands = ran,
            elapsed_us = start.elapsed().as_micros(),
            "a group of transactions ended"
        );
        send_results_or_group_error(group.drain(..ran), &result);
    }

    /// Runs one command in the transaction of the group, and adds its hooks to `hooks` and its row changes to
    /// `changed`. When the command fails, only its own changes are rolled back, and this function returns no error. An
    /// error means that the transaction of the whole group is lost. `is_only` is true when the group has one command,
    /// which then needs no savepoint.
    fn run_command_in_group(
        &mut self,
        command: &mut dyn Command,
        is_only: bool,
        changed: &mut bool,
        hooks: &mut Vec<CommitHook>,
    ) -> Result<(), Error> {
        if !is_only {
            self.run_control_statement("savepoint command")?;
        }
        let succeeded = command.run_closure_and_keep_result(&mut self.tx);
        let failure = self.tx.failure();
        let effects = self.tx.take_effects_and_reset();
        if self.connection().is_autocommit() {
            return Err(failure.unwrap_or_else(|| Error::Unavailable("SQLite rolled the transaction back".into())));
        }
        if succeeded {
            *changed |= effects.changed;
            hooks.extend(effects.hooks);
        } else {
            self.run_control_statement(if is_only { "rollback" } else { "rollback to command" })?;
        }
        if is_only { Ok(()) } else { self.run_control_statement("release command") }
    }

    /// Commits the transaction of the group and counts the commit when rows changed. When the disk fails, all later
    /// transactions are refused.
    fn commit_group_or_halt(&mut self, changed: bool) -> Result<(), Error> {
        if self.connection().is_autocommit() {
            // There is nothing to commit: the only command of the group failed and was rolled back.
            return Ok(());
        }
        let Err(error) = self.connection().prepare_cached("commit").and_then(|mut commit| commit.raw_execute()) else {
            if changed {
                self.stats.count_commit();
                self.adjust_log_size_every_n_commits();
            }
            return Ok(());
        };
        let failed_disk = error.sqlite_error_code() == Some(ffi::ErrorCode::SystemIoFailure);
        if failed_disk {
            let unknown = Error::CommitUnknown(format!("{error}; restart the daemon"));
            tracing::error!(
                "a commit failed on the disk: {error}; nothing more is written until the daemon is restarted"
            );
            self.halted = Some(Error::Unavailable(format!("an earlier commit failed on the disk: {error}")));
            return Err(unknown);
        }
        self.roll_back_group_or_halt();
        Err(to_error(&error))
    }

    fn adjust_log_size_every_n_commits(&mut self) {
        self.commits_since_adjustment += 1;
        if self.commits_since_adjustment < COMMITS_PER_ADJUSTMENT {
            return;
        }
        self.commits_since_adjustment = 0;
        if let Err(error) = limit_log_size_by_database_size(self.connection()) {
            tracing::warn!("the size of the write-ahead log cannot be set: {error}");
        }
    }

    /// Rolls the transaction of the group back, unless SQLite has already done so. When the rollback fails, all later
    /// transactions are refused.
    fn roll_back_group_or_halt(&mut self) {
        if self.connection().is_autocommit() {
            return;
        }
        if let Err(error) = self.run_control_statement("rollback") {
            tracing::error!(
                "a transaction could not be rolled back: {error}; nothing more is written until the daemon is restarted"
            );
            self.halted = Some(Error::Unavailable(format!("an earlier transaction could not be rolled back: {error}")));
        }
    }

    fn run_control_statement(&self, sql: &'static str) -> Result<(), Error> {
        let run = || self.connection().prepare_cached(sql)?.raw_execute();
        run().map(drop).map_err(|e| to_error(&e))
    }

    fn connection(&self) -> &Connection {
        sqlite_connection(&self.tx)
    }

    /// Writes the write-ahead log back into the database file, unless the disk has failed before. Errors are only
    /// logged.
    fn checkpoint_log_unless_halted(self) {
        if self.halted.is_none() {
            let checkpoint = self.connection().query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
            if let Err(error) = checkpoint {
                tracing::warn!("the write-ahead log could not be written back into the database at the end: {error}");
            }
        }
    }
}

/// Sends each command its own result. When the group failed, each command gets the error of the group instead.
fn send_results_or_group_error(commands: impl Iterator<Item = Box<dyn Command>>, group: &Result<(), Error>) {
    for command in commands {
        command.send_result_or_group_error(group.clone());
    }
}
