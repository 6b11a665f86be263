//! The operator's inbox: what no rule decides.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::{Act, Refused};
use crate::commands::context::Context;
use records::audit_log::{self, Action};
use records::reviews::{self, Kind, Review};

/// How `status` and others name the command.
pub const LIST: &str = "settled admin review list";

/// Shown at once, whatever is asked for: an answer has a length that it may not pass.
const LISTED_MAX: i64 = 1_000;
const NOTE_LENGTH_MAX: usize = 1_000;

#[derive(Subcommand)]
pub enum Verb {
    /// Show what waits for a person, oldest first.
    List(List),
    /// Close a review, because a person decided and did what there was to do.
    Close(Close),
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct List {
    /// How many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=LISTED_MAX))]
    pub limit: i64,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Close {
    /// Its kind, as the list shows it, such as payment.short.
    pub kind: String,
    /// Its subject, as the list shows it, such as invoice/7.
    pub subject: String,
    /// What was decided and done; it is kept.
    #[arg(long)]
    pub note: String,
}

impl Verb {
    pub fn act(self) -> Act {
        match self {
            Verb::List(list) => Act::ListReviews(list),
            Verb::Close(close) => Act::CloseReview(close),
        }
    }
}

pub async fn list(context: &Context, list: List) -> Result<String, String> {
    let limit = list.limit.clamp(1, LISTED_MAX);
    let (open, count) = context
        .db
        .read("list_reviews", move |tx| {
            Box::pin(
                async move { Ok::<_, Refused>((reviews::list_open(tx, limit).await?, reviews::count_open(tx).await?)) },
            )
        })
        .await?;
    if open.is_empty() {
        return Ok("Nothing waits for a person.".into());
    }
    let mut blocks: Vec<String> = open.iter().map(block).collect();
    let more = count.saturating_sub(u64::try_from(open.len()).unwrap_or(u64::MAX));
    blocks.extend((more > 0).then(|| format!("and {more} more; these are the oldest. Show more with --limit.")));
    Ok(blocks.join("\n\n"))
}

/// Its first line is what `close` is given.
fn block(review: &Review) -> String {
    let Review { kind, subject, detail, opened_at } = review;
    let detail = detail.replace('\n', "\n  ");
    format!("{kind} {subject}\n  since {opened_at}\n  {detail}")
}

pub async fn close(context: &Context, close: Close) -> Result<String, String> {
    let Close { kind, subject, note } = close;
    let note = note.trim().to_owned();
    if !(1..=NOTE_LENGTH_MAX).contains(&note.chars().count()) {
        return Err(format!("a note has 1 to {NOTE_LENGTH_MAX} characters"));
    }
    let (now, actor, said) =
        (context.clock.now(), context.actor.clone(), format!("Review {kind} {subject} is closed."));
    context
        .db
        .write("close_review", move |tx| {
            Box::pin(async move {
                let is_closed = match kind.parse::<Kind>() {
                    Ok(kind) => reviews::decide(tx, now, kind, &subject, &note).await?,
                    Err(_) => false,
                };
                if !is_closed {
                    let missing = format!("no review `{kind}` of `{subject}` is open; `{LIST}` shows those that are");
                    return Err(Refused::Rejected(missing));
                }
                let detail = format!("{kind}: {note}");
                Ok(audit_log::record(tx, now, &actor, Action::ReviewClose, &subject, &detail).await?)
            })
        })
        .await?;
    Ok(said)
}
