//! The commands `settled admin review …`.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::{AdminError, AdminOperation};
use crate::commands::context::Context;
use crate::commands::hints::format_hint;
use records::reviews::{self, Kind, Review};

/// The command that lists the open reviews. Messages to the operator recommend it.
pub const LIST: &str = "admin review list";

/// The maximum number of reviews in one listing. It keeps the response below the size limit of the control socket.
const LISTED_MAX: i64 = 1_000;
/// The maximum length of an operator's note, in characters.
pub const NOTE_LENGTH_MAX: usize = 1_000;

/// The subcommands of `settled admin review`.
#[derive(Subcommand)]
pub enum Command {
    /// List the open reviews, oldest first.
    List(List),
    /// Close a review after you decided the case and did what was necessary.
    Close(Close),
}

/// Limits the number of listed reviews.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct List {
    /// Maximum number of reviews to list.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=LISTED_MAX))]
    pub limit: i64,
}

/// Selects the review to close and explains the decision.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Close {
    /// Kind of the review, as shown by `review list`, such as payment.short.
    pub kind: String,
    /// Subject of the review, as shown by `review list`, such as invoice/7.
    pub subject: String,
    /// Your decision and what you did; it is stored.
    #[arg(long)]
    pub note: String,
}

impl Command {
    /// Returns the operation that this subcommand requests, with its arguments.
    pub fn into_operation(self) -> AdminOperation {
        match self {
            Command::List(list) => AdminOperation::ListReviews(list),
            Command::Close(close) => AdminOperation::CloseReview(close),
        }
    }
}

/// Returns the open reviews as text, oldest first.
pub async fn list_oldest_open_reviews(context: &Context, list: List) -> Result<String, String> {
    let limit = list.limit.clamp(1, LISTED_MAX);
    let (open, count) = context
        .db
        .read("list_oldest_open_reviews", move |tx| {
            Box::pin(async move {
                Ok::<_, AdminError>((
                    reviews::list_oldest_open_reviews(tx, limit).await?,
                    reviews::count_open_reviews(tx).await?,
                ))
            })
        })
        .await?;
    if open.is_empty() {
        return Ok("Nothing waits for a person.".into());
    }
    let mut blocks: Vec<String> = open.iter().map(format_review).collect();
    let more = count.saturating_sub(u64::try_from(open.len()).unwrap_or(u64::MAX));
    blocks.extend((more > 0).then(|| format!("and {more} more; these are the oldest. Show more with --limit.")));
    Ok(blocks.join("\n\n"))
}

/// Formats a review as text. The first line contains the kind and the subject, which are the arguments of `review
/// close`.
fn format_review(review: &Review) -> String {
    let Review { kind, subject, detail, opened_at } = review;
    let detail = detail.replace('\n', "\n  ");
    format!("{kind} {subject}\n  since {opened_at}\n  {detail}")
}

/// Closes a review and stores the operator's note. Fails when no such review is open, and when the note is empty or
/// longer than 1,000 characters.
pub async fn close_review(context: &Context, close: Close) -> Result<String, String> {
    let Close { kind, subject, note } = close;
    let note = note.trim().to_owned();
    if !(1..=NOTE_LENGTH_MAX).contains(&note.chars().count()) {
        return Err(format!("a note has 1 to {NOTE_LENGTH_MAX} characters"));
    }
    let (now, actor, message) =
        (context.clock.now(), context.actor.clone(), format!("Review {kind} {subject} is closed."));
    let list_hint = format_hint(&context.config, LIST);
    context
        .db
        .write("close_review_by_operator", move |tx| {
            Box::pin(async move {
                let is_closed = match kind.parse::<Kind>() {
                    Ok(kind) => reviews::close_review_by_operator(tx, now, &actor, kind, &subject, &note).await?,
                    Err(_) => false,
                };
                if !is_closed {
                    let missing =
                        format!("no review `{kind}` of `{subject}` is open; {list_hint} shows those that are");
                    return Err(AdminError::Refused(missing));
                }
                Ok(())
            })
        })
        .await?;
    Ok(message)
}
