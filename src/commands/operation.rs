//! Operations: the work that commands do. When a daemon has locked the data folder, a command sends its operation to
//! that daemon. Otherwise the command executes the operation in its own process.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use crate::commands::installation::{Installation, OfflineInstallation};
use crate::commands::private_files::create_private_folder_if_missing;
use crate::control::ControlRequest;
use crate::control::client;
use config::Config;
use db::file_lock::{DataFolderLock, DataFolderLockError};

/// The work that a command does. A value of this type contains the arguments of the command.
pub trait Operation: Serialize + DeserializeOwned + Send + 'static {
    /// The name of the operation in a request to the daemon.
    const NAME: &'static str;
    /// The type of the context with which the operation is executed.
    type Context: Sync;
    /// The type of the result that the operation returns to the command.
    type Output: Serialize + DeserializeOwned + Send;

    /// Executes the operation. An error is a sentence for the operator.
    fn execute(self, context: &Self::Context) -> impl Future<Output = Result<Self::Output, String>> + Send;
}

/// The process that executes the operations on a data folder.
pub enum Executor {
    /// The daemon that has locked the data folder.
    Daemon,
    /// This process, which keeps the data folder locked until the value is closed.
    ThisProcess(Box<OfflineInstallation>),
}

/// Tries to lock the data folder, which is created if it is missing. If the lock is free, opens the database and
/// returns this process as the executor. If another process has the lock, returns the daemon as the executor.
///
/// # Errors
/// Fails when the data folder, the database or the envelope keys cannot be opened, and when migrations are pending.
pub async fn lock_and_open_or_choose_daemon(config: &Config) -> Result<Executor, CommandError> {
    create_private_folder_if_missing(&config.data.folder)?;
    match DataFolderLock::lock_data_folder(&config.data.folder) {
        Ok(lock) => Ok(Executor::ThisProcess(Box::new(
            OfflineInstallation::open_if_no_migrations_pending(config.clone(), lock).await?,
        ))),
        Err(DataFolderLockError::Held { .. }) => Ok(Executor::Daemon),
        Err(error @ DataFolderLockError::Io { .. }) => Err(error.into()),
    }
}

/// Executes the operation in the daemon that has locked the data folder, or in this process when no daemon has locked
/// it.
///
/// # Errors
/// Fails when the installation cannot be opened, or when the operation fails.
pub async fn execute_in_daemon_or_locally<O>(
    installation: &Installation,
    operation: O,
) -> Result<O::Output, CommandError>
where
    O: Operation<Context = Context>,
{
    let config = installation.load_config()?;
    match lock_and_open_or_choose_daemon(&config).await? {
        Executor::Daemon => execute_in_daemon(&config.data.folder, &operation).await,
        Executor::ThisProcess(offline) => {
            let outcome = operation.execute(&offline.context).await;
            offline.close().await;
            outcome.map_err(CommandError::general_error)
        }
    }
}

/// Executes the operation in the daemon that runs on `folder`.
///
/// # Errors
/// Fails when no daemon runs, or when the operation fails.
pub async fn execute_in_daemon<O: Operation>(folder: &Path, operation: &O) -> Result<O::Output, CommandError> {
    let arguments = serde_json::to_value(operation)
        .map_err(|e| CommandError::error_with_context(format!("the arguments of `{}`", O::NAME), e))?;
    let response = client::send_request(folder, &ControlRequest { operation: O::NAME.to_owned(), arguments }).await?;
    let output = response.map_err(CommandError::general_error)?;
    serde_json::from_value(output).map_err(|_| client::ClientError::Malformed.into())
}
