//! The command `settled status`.

use serde::{Deserialize, Serialize};

use crate::commands::admin;
use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use crate::commands::hints::format_hint;
use crate::commands::installation::Installation;
use crate::commands::operation::{Operation, execute_in_daemon};
use crate::commands::output::print_line_or_exit;
use money::cursors;
use records::reviews;

/// Selects the installation whose daemon is described.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    installation: Installation,
}

/// The operation that describes the running daemon, with one line for each chain and each problem.
#[derive(Serialize, Deserialize)]
pub struct DescribeDaemon;

/// Prints the state of the running daemon. Fails with exit code 4 when no daemon runs.
pub async fn print_daemon_status(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load_config()?;
    print_line_or_exit(execute_in_daemon(&config.data.folder, &DescribeDaemon).await?);
    Ok(())
}

impl Operation for DescribeDaemon {
    const NAME: &'static str = "status";
    type Context = Context;
    type Output = String;

    async fn execute(self, context: &Context) -> Result<String, String> {
        let daemon = context.daemon.clone().ok_or("no daemon runs")?;
        let now = context.clock.now();
        let minutes = now.since(daemon.started_at) / 60_000;
        let version = env!("CARGO_PKG_VERSION");
        let mut lines = vec![format!(
            "settled {version} listens on {} since {} ({minutes} minutes)",
            daemon.address, daemon.started_at
        )];
        for chain in daemon.chains {
            let id = chain.clone();
            let cursor = context
                .db
                .read("find_cursor", move |tx| Box::pin(async move { cursors::find_cursor(tx, &id).await }))
                .await;
            let line = match cursor.map_err(|e: db::Error| e.to_string())? {
                None => format!("{chain}: no block has been read yet"),
                Some(cursor) => {
                    let height = cursor.recent.last().map_or(0, |block| block.height);
                    let age_seconds = now.unix_seconds().saturating_sub(cursor.time);
                    match cursor.halted {
                        Some(reason) => format!("{chain}: HALTED at block {height}: {reason}"),
                        None => {
                            format!("{chain}: block {height}, {age_seconds} s old, final up to {}", cursor.final_height)
                        }
                    }
                }
            };
            lines.push(line);
        }
        let open = context
            .db
            .read("count_open_reviews", |tx| Box::pin(async move { reviews::count_open_reviews(tx).await }))
            .await;
        lines.push(match open.map_err(|e: db::Error| e.to_string())? {
            0 => "no review waits for a person".into(),
            open => {
                let list = format_hint(&context.config, admin::reviews::LIST);
                format!("{open} reviews wait for a person: see {list}")
            }
        });
        let backlog = context
            .db
            .read("count_mails", |tx| Box::pin(async move { mail::count_backlog_and_find_error(tx).await }))
            .await;
        lines.extend(describe_mail_backlog(&backlog.map_err(|e: db::Error| e.to_string())?));
        let problems = daemon.health.problems();
        if problems.is_empty() {
            lines.push("the daemon is ready; there are no problems".into());
        }
        lines.extend(problems.into_iter().map(|(part, reason)| format!("PROBLEM {part}: {reason}")));
        Ok(lines.join("\n"))
    }
}

/// Returns a line about the mails that are queued or parked; `None` when there are none.
fn describe_mail_backlog(backlog: &mail::Backlog) -> Option<String> {
    let mail::Backlog { queued, failing, parked, last_error } = backlog;
    if *queued == 0 && *parked == 0 {
        return None;
    }
    let error = last_error.as_deref().map_or_else(String::new, |error| format!("; an error: {error}"));
    Some(format!("mail: {queued} wait, {failing} of them after a failure; {parked} are parked{error}"))
}
