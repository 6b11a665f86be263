//! `settled status`.

use crate::commands::admin;
use crate::commands::control::{self, Command, Context};
use crate::commands::exit::CommandError;
use crate::commands::installation::Installation;
use crate::commands::out::print_line;
use money::deposits;
use records::reviews;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    installation: Installation,
}

/// Exit code 4 when no daemon runs.
pub async fn run(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load()?;
    print_line(control::ask_daemon(&config.data.folder, &Command::Status).await?);
    Ok(())
}

/// What the daemon says of itself.
pub async fn describe(context: &Context) -> Result<String, String> {
    let running = context.daemon.clone().ok_or("no daemon runs")?;
    let now = context.clock.now();
    let minutes = now.since(running.started_at) / 60_000;
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = vec![format!(
        "settled {version} listens on {} since {} ({minutes} minutes)",
        running.address, running.started_at
    )];
    for chain in running.chains {
        let id = chain.clone();
        let cursor =
            context.db.read("find_cursor", move |tx| Box::pin(async move { deposits::cursor(tx, &id).await })).await;
        let line = match cursor.map_err(|e: db::Error| e.to_string())? {
            None => format!("{chain}: not begun yet"),
            Some(cursor) => {
                let height = cursor.recent.last().map_or(0, |block| block.height);
                let behind = now.unix_seconds().saturating_sub(cursor.time);
                match cursor.halted {
                    Some(why) => format!("{chain}: HALTED at block {height}: {why}"),
                    None => format!("{chain}: block {height}, {behind} s old, final up to {}", cursor.final_height),
                }
            }
        };
        lines.push(line);
    }
    let open = context.db.read("count_reviews", |tx| Box::pin(async move { reviews::count_open(tx).await })).await;
    lines.push(match open.map_err(|e: db::Error| e.to_string())? {
        0 => "no review waits for a person".into(),
        open => format!("{open} reviews wait for a person: see `{}`", admin::reviews::LIST),
    });
    let problems = running.health.problems();
    if problems.is_empty() {
        lines.push("nothing keeps it from its work".into());
    }
    lines.extend(problems.into_iter().map(|(part, why)| format!("PROBLEM {part}: {why}")));
    Ok(lines.join("\n"))
}
