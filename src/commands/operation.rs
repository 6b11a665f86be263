//! Operations: the work behind the commands. A command sends its operation to the daemon that holds the data folder, or
//! carries it out in this process when no daemon holds it.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::commands::context::Context;
use crate::commands::exit::CommandError;
use crate::commands::installation::{Installation, Offline, create_data_folder};
use crate::control::client;
use crate::control::{Request, Response};
use config::Config;
use db::file_lock::{DataFolderLock, DataFolderLockError};
use serde_json::Value;

/// The work behind a command. The value holds the arguments.
pub trait Operation: Serialize + DeserializeOwned + Send + 'static {
    /// The name of the operation in requests.
    const NAME: &'static str;
    /// The context that the operation needs.
    type Context: Sync;
    /// The value that the command gets.
    type Output: Serialize + DeserializeOwned + Send;

    /// Carries the operation out. An error is a sentence for the operator.
    fn execute(self, context: &Self::Context) -> impl Future<Output = Result<Self::Output, String>> + Send;
}

/// The process that carries out operations on a data folder.
pub enum Executor {
    /// The daemon that holds the data folder.
    Daemon,
    /// This process, which holds the data folder until the value is closed.
    ThisProcess(Box<Offline>),
}

/// Returns this process as the executor if no daemon holds the data folder, which is created if it is missing.
///
/// # Errors
/// Fails when the data folder or the database cannot be opened.
pub async fn acquire_executor(config: &Config) -> Result<Executor, CommandError> {
    create_data_folder(&config.data.folder)?;
    match DataFolderLock::acquire(&config.data.folder) {
        Ok(lock) => Ok(Executor::ThisProcess(Box::new(Offline::open_installation(config.clone(), lock).await?))),
        Err(DataFolderLockError::Held { .. }) => Ok(Executor::Daemon),
        Err(error @ DataFolderLockError::Io { .. }) => Err(error.into()),
    }
}

/// Executes the operation in the daemon that holds the data folder, or in this process if no daemon holds it.
///
/// # Errors
/// Fails when the installation cannot be opened, or when the operation is refused.
pub async fn execute_operation<O>(installation: &Installation, operation: O) -> Result<O::Output, CommandError>
where
    O: Operation<Context = Context>,
{
    let config = installation.load_config()?;
    match acquire_executor(&config).await? {
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
/// Fails when no daemon runs, or when it refuses the operation.
pub async fn execute_in_daemon<O: Operation>(folder: &Path, operation: &O) -> Result<O::Output, CommandError> {
    let arguments = serde_json::to_value(operation)
        .map_err(|e| CommandError::error_with_context(format!("the arguments of `{}`", O::NAME), e))?;
    let response = client::send_request(folder, &Request { operation: O::NAME.to_owned(), arguments }).await?;
    let output = response.map_err(CommandError::general_error)?;
    serde_json::from_value(output).map_err(|_| client::ClientError::Malformed.into())
}

/// Executes an operation that arrived as a request, and returns its output as the response.
pub async fn execute_request<O: Operation>(context: &O::Context, arguments: Value) -> Response {
    // The error's text may quote goods, so it is not shown.
    let operation: O = serde_json::from_value(arguments).map_err(|_| {
        format!(
            "the daemon does not understand the arguments of `{}`; use a `settled` of the daemon's version",
            O::NAME
        )
    })?;
    let output = operation.execute(context).await?;
    serde_json::to_value(output).map_err(|e| format!("the output of `{}` cannot be serialised: {e}", O::NAME))
}
