//! `settled dev pay`: a buyer who says what happens to the money.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use chain::Amount;
use serde::Deserialize;

use crate::commands::dev::demo::{self, DemoInvoice};
use crate::commands::dev::{FOLDER, config_of};
use crate::commands::exit::CommandError;
use crate::commands::operation::execute_in_daemon;
use crate::commands::out::print_line;

const POLL: Duration = Duration::from_millis(250);
/// Polls without any news after which the story is given up.
const SILENCE_MAX: u32 = 240;
const SPLIT_MAX: u64 = 20;

/// Without options it pays exactly what is due.
#[derive(clap::Args)]
pub struct Args {
    /// The order's number (`order_no`) or its id.
    order: String,
    /// Pay this much, in coins such as 0.25: too little, or too much.
    #[arg(long, value_name = "COINS", conflicts_with_all = ["late", "reorg", "split"])]
    amount: Option<String>,
    /// Let the window pass first: the demo's clock is moved ahead, for all orders.
    #[arg(long, conflicts_with_all = ["reorg", "split"])]
    late: bool,
    /// Let the payment get this many confirmations, then replace their blocks.
    #[arg(long, value_name = "BLOCKS", conflicts_with = "split", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    reorg: Option<u64>,
    /// Pay in this many parts, one after the other.
    #[arg(long, value_name = "PARTS", value_parser = clap::value_parser!(u64).range(2..=SPLIT_MAX))]
    split: Option<u64>,
    /// The data folder of the running demo.
    #[arg(long, value_name = "FOLDER", default_value = FOLDER)]
    data: PathBuf,
}

/// What the status endpoint says, as far as it makes news.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
struct Status {
    status: String,
    payment_status: String,
    fulfillment_status: String,
    #[serde(default)]
    payment: Progress,
}

#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
struct Progress {
    #[serde(default)]
    expected_amount: String,
    #[serde(default)]
    received_amount: String,
    #[serde(default)]
    confirmations: Option<u64>,
    #[serde(default)]
    required_confirmations: Option<u64>,
}

struct Story {
    folder: PathBuf,
    order: String,
    asked: DemoInvoice,
    due: Amount,
    status_url: String,
    client: reqwest::Client,
    last: Status,
}

pub async fn run(args: Args) -> Result<(), CommandError> {
    // Says what is wrong with the folder before it says that nobody answers.
    config_of(&args.data)?;
    let mut story = Story::begin(&args).await?;
    match (&args.amount, args.late, args.reorg, args.split) {
        (Some(amount), ..) => story.pay_amount(amount).await,
        (None, true, ..) => story.pay_late().await,
        (None, false, Some(blocks), _) => story.pay_and_reorganise(blocks).await,
        (None, false, None, Some(parts)) => story.pay_in_parts(parts).await,
        (None, false, None, None) => story.pay_exactly().await,
    }
}

impl Story {
    async fn begin(args: &Args) -> Result<Story, CommandError> {
        let find = demo::FindOrder { order: args.order.clone() };
        let demo::Order { order_no, state, status_url, invoice } = execute_in_daemon(&args.data, &find).await?;
        let asked = invoice.ok_or_else(|| {
            CommandError::failed(format!("order {order_no} is {state} and asks for nothing on a chain: it was not made with `\"paymentMethod\": \"crypto\"`"))
        })?;
        if state != "awaiting_payment" {
            print_line(format_args!(
                "Order {order_no} is {state} already; what is paid now is booked and kept for a person to look at."
            ));
        }
        let due = units(&asked.due)?;
        let where_ = if asked.simulated { "a simulated chain" } else { "the node of --evm" };
        print_line(format_args!(
            "Order {order_no} asks for {} {} on {} ({where_}), to {}, until {}.",
            due.to_decimal(asked.decimals),
            asked.symbol,
            asked.chain,
            asked.address,
            asked.expires_at
        ));
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build();
        let client = client.map_err(|e| CommandError::with_context("HTTP client", e))?;
        let (folder, order) = (args.data.clone(), order_no);
        let mut story = Story { folder, order, asked, due, status_url, client, last: Status::default() };
        story.watch(|_| true).await?;
        Ok(story)
    }

    async fn pay_exactly(&mut self) -> Result<(), CommandError> {
        self.pay(self.due).await?;
        self.watch(Story::is_over).await
    }

    async fn pay_amount(&mut self, amount: &str) -> Result<(), CommandError> {
        let amount =
            Amount::parse_decimal(amount, self.asked.decimals).map_err(|e| CommandError::usage(e.to_string()))?;
        let before = self.last.payment.received_amount.clone();
        self.pay(amount).await?;
        let arrived = move |status: &Status| status.payment.received_amount != before;
        self.watch(|status| Story::is_over(status) || (arrived(status) && status.is_short())).await?;
        if self.last.is_short() {
            let received = Amount::parse_decimal(&self.last.payment.received_amount, self.asked.decimals);
            let rest = self.due.saturating_sub(received.map_err(|e| CommandError::failed(e.to_string()))?);
            print_line(format_args!(
                "That is too little. Pay the rest with `--amount {}` before {}, or the order expires and what came is \
                 kept for a person to look at.",
                rest.to_decimal(self.asked.decimals),
                self.asked.expires_at
            ));
        }
        Ok(())
    }

    async fn pay_in_parts(&mut self, parts: u64) -> Result<(), CommandError> {
        let part = self.due.checked_mul_ratio(1, parts).unwrap_or_default();
        let mut rest = self.due;
        for number in 1..=parts {
            let amount = if number == parts { rest } else { part };
            rest = rest.saturating_sub(amount);
            if amount.is_zero() {
                continue;
            }
            let before = self.last.payment.received_amount.clone();
            self.pay(amount).await?;
            self.watch(move |status| Story::is_over(status) || status.payment.received_amount != before).await?;
        }
        self.watch(Story::is_over).await
    }

    async fn pay_late(&mut self) -> Result<(), CommandError> {
        self.need_simulation("--late")?;
        print_line(self.ask(demo::Command::PassWindow { order: self.order.clone() }).await?);
        self.watch(Story::is_over).await?;
        let before = self.reviews().await?;
        self.pay(self.due).await?;
        for _ in 0..SILENCE_MAX {
            let new: Vec<String> = self.reviews().await?.difference(&before).cloned().collect();
            if !new.is_empty() {
                print_line("The money is in the ledger, and because it came late a person decides about it:");
                new.iter().for_each(|review| print_line(format_args!("  review {review}")));
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(CommandError::failed("the late payment was not noticed"))
    }

    /// It mines by itself, so that the payment is exactly as deep as the story wants it.
    async fn pay_and_reorganise(&mut self, blocks: u64) -> Result<(), CommandError> {
        self.need_simulation("--reorg")?;
        if blocks >= self.asked.final_depth {
            let (depth, chain) = (self.asked.final_depth, &self.asked.chain);
            return Err(CommandError::usage(format!(
                "blocks of {chain} are final {depth} deep here, and what is final never goes back; use --reorg {} or less",
                depth.saturating_sub(1)
            )));
        }
        let before = self.reviews().await?;
        let chain = self.asked.chain.clone();
        self.ask(demo::Command::Pause { chain: chain.clone() }).await?;
        self.pay(self.due).await?;
        for depth in 1..=blocks {
            self.ask(demo::Command::Pause { chain: chain.clone() }).await?;
            self.ask(demo::Command::Mine { chain: chain.clone(), blocks: 1 }).await?;
            let required = u64::from(self.asked.confirmations);
            self.watch(move |status| status.payment.confirmations.is_some_and(|n| n >= depth.min(required))).await?;
        }
        if blocks >= u64::from(self.asked.confirmations) {
            self.watch(Story::is_over).await?;
        }
        let was_over = Story::is_over(&self.last);
        print_line(format_args!("Now {blocks} blocks of {chain} are replaced by others, without the payment in them."));
        self.ask(demo::Command::Pause { chain: chain.clone() }).await?;
        self.ask(demo::Command::Reorg { chain: chain.clone(), blocks }).await?;
        if was_over {
            self.await_review(&before).await?;
        } else {
            self.watch(|status| status.payment.confirmations.is_none_or(|n| n == 0)).await?;
        }
        print_line("The credit was taken back with the block. Now the payment is mined again.");
        self.ask(demo::Command::Release { chain }).await?;
        if was_over { self.await_no_review(&before).await } else { self.watch(Story::is_over).await }
    }

    async fn await_review(&self, before: &BTreeSet<String>) -> Result<(), CommandError> {
        for _ in 0..SILENCE_MAX {
            if let Some(review) = self.reviews().await?.difference(before).next() {
                print_line(format_args!("  review {review}"));
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(CommandError::failed("the reorganisation was not noticed"))
    }

    async fn await_no_review(&self, before: &BTreeSet<String>) -> Result<(), CommandError> {
        for _ in 0..SILENCE_MAX {
            if self.reviews().await?.difference(before).next().is_none() {
                print_line("The payment is confirmed again, and the review closed itself.");
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(CommandError::failed("the payment was not confirmed again"))
    }

    fn need_simulation(&self, option: &str) -> Result<(), CommandError> {
        match self.asked.simulated {
            true => Ok(()),
            false => Err(CommandError::usage(format!(
                "{option} needs a simulated chain, and {} is a real node",
                self.asked.chain
            ))),
        }
    }

    async fn pay(&self, amount: Amount) -> Result<(), CommandError> {
        let pay = demo::Command::Pay { order: self.order.clone(), amount: amount.to_string() };
        let txid = self.ask(pay).await?;
        print_line(format_args!(
            "Paid {} {} in transaction {txid}.",
            amount.to_decimal(self.asked.decimals),
            self.asked.symbol
        ));
        Ok(())
    }

    async fn reviews(&self) -> Result<BTreeSet<String>, CommandError> {
        Ok(self.ask(demo::Command::Reviews).await?.lines().map(String::from).collect())
    }

    async fn ask(&self, command: demo::Command) -> Result<String, CommandError> {
        execute_in_daemon(&self.folder, &command).await
    }

    /// Says what is new until `enough`.
    async fn watch(&mut self, enough: impl Fn(&Status) -> bool) -> Result<(), CommandError> {
        let mut silence = 0;
        loop {
            let status = self.status().await?;
            if status != self.last {
                silence = 0;
                self.tell(&status);
                self.last = status;
            }
            if enough(&self.last) {
                return Ok(());
            }
            silence += 1;
            if silence > SILENCE_MAX {
                return Err(CommandError::failed("nothing has happened for a minute; look at what the demo prints"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn status(&self) -> Result<Status, CommandError> {
        let failed = |e: reqwest::Error| CommandError::with_context("the status of the order", e.without_url());
        let answer = self.client.get(&self.status_url).send().await.and_then(|answer| answer.error_for_status());
        answer.map_err(failed)?.json().await.map_err(failed)
    }

    fn tell(&self, now: &Status) {
        let Progress { expected_amount, received_amount, confirmations, required_confirmations } = &now.payment;
        let depth = match (confirmations, required_confirmations) {
            (Some(confirmations), Some(required)) => format!(", {confirmations} of {required} confirmations"),
            _ => String::new(),
        };
        let Status { status, payment_status, fulfillment_status, .. } = now;
        print_line(format_args!(
            "  order {status}, payment {payment_status}, goods {fulfillment_status}: {received_amount} of {expected_amount} {}{depth}",
            self.asked.symbol
        ));
    }

    fn is_over(status: &Status) -> bool {
        ["completed", "expired", "cancelled", "failed", "refunded"].contains(&status.status.as_str())
    }
}

impl Status {
    /// Confirmed, and too little.
    fn is_short(&self) -> bool {
        let Progress { confirmations, required_confirmations, .. } = self.payment;
        self.payment_status == "underpaid" && confirmations.zip(required_confirmations).is_some_and(|(n, of)| n >= of)
    }
}

fn units(text: &str) -> Result<Amount, CommandError> {
    Amount::parse_decimal(text, 0).map_err(|e| CommandError::failed(e.to_string()))
}
