//! The command `settled dev pay`: pays an order of the demo as a buyer would, and prints the progress of the order.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use chain::Amount;
use serde::Deserialize;

use crate::commands::command_error::CommandError;
use crate::commands::dev::FOLDER;
use crate::commands::dev::demo_config::load_existing_demo_config;
use crate::commands::dev::operations::{self, DemoInvoice};
use crate::commands::operation::execute_in_daemon;
use crate::commands::output::print_line_or_exit;

/// The pause between two requests for the status of the order.
const POLL: Duration = Duration::from_millis(250);
/// The number of requests in a row without a change of the order's status after which the command fails: 240 requests
/// take a minute.
const SILENCE_MAX: u32 = 240;
/// The maximum number of parts into which a payment can be split.
const SPLIT_MAX: u64 = 20;

/// The order to pay, and options for unusual payments. Without options the command pays the exact amount.
#[derive(clap::Args)]
pub struct Args {
    /// Number (`order_no`) or id of the order.
    order: String,
    /// Pay this amount, such as 0.25, instead of the amount due.
    #[arg(long, value_name = "COINS", conflicts_with_all = ["late", "reorg", "split"])]
    amount: Option<String>,
    /// Pay after the payment window. The demo's clock is advanced, which affects all orders.
    #[arg(long, conflicts_with_all = ["reorg", "split"])]
    late: bool,
    /// Wait for this number of confirmations, then replace these blocks.
    #[arg(long, value_name = "BLOCKS", conflicts_with = "split", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    reorg: Option<u64>,
    /// Pay in this number of parts, one after another.
    #[arg(long, value_name = "PARTS", value_parser = clap::value_parser!(u64).range(2..=SPLIT_MAX))]
    split: Option<u64>,
    /// The data folder of the running demo.
    #[arg(long, value_name = "FOLDER", default_value = FOLDER)]
    data: PathBuf,
}

/// Those fields of the status endpoint's response whose changes are printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
struct StatusResponse {
    status: String,
    payment_status: String,
    fulfillment_status: String,
    #[serde(default)]
    payment: PaymentProgress,
}

#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
struct PaymentProgress {
    #[serde(default)]
    expected_amount: String,
    #[serde(default)]
    received_amount: String,
    #[serde(default)]
    confirmations: Option<u64>,
    #[serde(default)]
    required_confirmations: Option<u64>,
}

/// The state of one run of `settled dev pay`.
struct PaymentRun {
    folder: PathBuf,
    order: String,
    invoice: DemoInvoice,
    due: Amount,
    status_url: String,
    client: reqwest::Client,
    last_status: StatusResponse,
}

/// Pays an order and prints each change of its status until the order is finished.
pub async fn pay_order_and_print_progress(args: Args) -> Result<(), CommandError> {
    // Refuse a folder without a demo first. The next step would only report that no daemon runs there.
    load_existing_demo_config(&args.data)?;
    let mut run = PaymentRun::find_and_print_order(&args).await?;
    match (&args.amount, args.late, args.reorg, args.split) {
        (Some(amount), ..) => run.pay_given_amount(amount).await,
        (None, true, ..) => run.advance_clock_and_pay_late().await,
        (None, false, Some(blocks), _) => run.pay_and_reorganise(blocks).await,
        (None, false, None, Some(parts)) => run.pay_in_parts(parts).await,
        (None, false, None, None) => run.pay_exact_amount().await,
    }
}

impl PaymentRun {
    async fn find_and_print_order(args: &Args) -> Result<PaymentRun, CommandError> {
        let find = operations::FindOrder { order: args.order.clone() };
        let operations::DemoOrder { order_no, state, status_url, invoice } =
            execute_in_daemon(&args.data, &find).await?;
        let invoice = invoice.ok_or_else(|| {
            CommandError::general_error(format!("order {order_no} is {state} and is not paid on a chain: it was not created with `\"paymentMethod\": \"crypto\"`"))
        })?;
        if state != "awaiting_payment" {
            print_line_or_exit(format_args!(
                "Order {order_no} is already {state}. A payment is booked now, and a review is opened."
            ));
        }
        let due = parse_base_units(&invoice.due)?;
        let location = if invoice.simulated { "a simulated chain" } else { "the node of --evm" };
        print_line_or_exit(format_args!(
            "Order {order_no} is due: {} {} on {} ({location}), to {}, until {}.",
            due.to_decimal(invoice.decimals),
            invoice.symbol,
            invoice.chain,
            invoice.address,
            invoice.expires_at
        ));
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build();
        let client = client.map_err(|e| CommandError::error_with_context("HTTP client", e))?;
        let (folder, order) = (args.data.clone(), order_no);
        let mut run =
            PaymentRun { folder, order, invoice, due, status_url, client, last_status: StatusResponse::default() };
        run.print_status_changes_until(|_| true).await?;
        Ok(run)
    }

    async fn pay_exact_amount(&mut self) -> Result<(), CommandError> {
        self.send_and_print_payment(self.due).await?;
        self.print_status_changes_until(PaymentRun::is_order_finished).await
    }

    async fn pay_given_amount(&mut self, amount: &str) -> Result<(), CommandError> {
        let amount = Amount::parse_decimal(amount, self.invoice.decimals)
            .map_err(|e| CommandError::usage_error(e.to_string()))?;
        let before = self.last_status.payment.received_amount.clone();
        self.send_and_print_payment(amount).await?;
        let arrived = move |status: &StatusResponse| status.payment.received_amount != before;
        self.print_status_changes_until(|status| {
            PaymentRun::is_order_finished(status) || (arrived(status) && status.is_confirmed_and_short())
        })
        .await?;
        if self.last_status.is_confirmed_and_short() {
            let received = Amount::parse_decimal(&self.last_status.payment.received_amount, self.invoice.decimals);
            let rest = self.due.saturating_sub(received.map_err(|e| CommandError::general_error(e.to_string()))?);
            print_line_or_exit(format_args!(
                "The payment is too small. Pay the rest with `--amount {}` before {}. Otherwise the order expires, and the \
                 received amount is kept for a review.",
                rest.to_decimal(self.invoice.decimals),
                self.invoice.expires_at
            ));
        }
        Ok(())
    }

    async fn pay_in_parts(&mut self, parts: u64) -> Result<(), CommandError> {
        let part = self.due.mul_ratio_rounded_down(1, parts).unwrap_or_default();
        let mut rest = self.due;
        for number in 1..=parts {
            let amount = if number == parts { rest } else { part };
            rest = rest.saturating_sub(amount);
            if amount.is_zero() {
                continue;
            }
            let before = self.last_status.payment.received_amount.clone();
            self.send_and_print_payment(amount).await?;
            self.print_status_changes_until(move |status| {
                PaymentRun::is_order_finished(status) || status.payment.received_amount != before
            })
            .await?;
        }
        self.print_status_changes_until(PaymentRun::is_order_finished).await
    }

    async fn advance_clock_and_pay_late(&mut self) -> Result<(), CommandError> {
        self.require_simulated_chain("--late")?;
        print_line_or_exit(
            self.send_demo_command(operations::DemoCommand::PassWindow { order: self.order.clone() }).await?,
        );
        self.print_status_changes_until(PaymentRun::is_order_finished).await?;
        let before = self.fetch_open_reviews().await?;
        self.send_and_print_payment(self.due).await?;
        for _ in 0..SILENCE_MAX {
            let new: Vec<String> = self.fetch_open_reviews().await?.difference(&before).cloned().collect();
            if !new.is_empty() {
                print_line_or_exit("The late payment is booked in the ledger, and a review is opened:");
                new.iter().for_each(|review| print_line_or_exit(format_args!("  review {review}")));
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(CommandError::general_error("the late payment was not noticed"))
    }

    /// Pays, mines `blocks` blocks, replaces them by blocks without the payment, and then lets the payment be mined
    /// again. The miner of the demo is paused meanwhile, so that the payment has exactly `blocks` confirmations before
    /// its block is replaced.
    async fn pay_and_reorganise(&mut self, blocks: u64) -> Result<(), CommandError> {
        self.require_simulated_chain("--reorg")?;
        if blocks >= self.invoice.final_depth {
            let (depth, chain) = (self.invoice.final_depth, &self.invoice.chain);
            return Err(CommandError::usage_error(format!(
                "blocks of {chain} are final at depth {depth} in the demo, and final blocks are never replaced; use --reorg {} or less",
                depth.saturating_sub(1)
            )));
        }
        let before = self.fetch_open_reviews().await?;
        let chain = self.invoice.chain.clone();
        self.send_demo_command(operations::DemoCommand::Pause { chain: chain.clone() }).await?;
        self.send_and_print_payment(self.due).await?;
        for depth in 1..=blocks {
            self.send_demo_command(operations::DemoCommand::Pause { chain: chain.clone() }).await?;
            self.send_demo_command(operations::DemoCommand::Mine { chain: chain.clone(), blocks: 1 }).await?;
            let required = u64::from(self.invoice.confirmations);
            self.print_status_changes_until(move |status| {
                status.payment.confirmations.is_some_and(|n| n >= depth.min(required))
            })
            .await?;
        }
        if blocks >= u64::from(self.invoice.confirmations) {
            self.print_status_changes_until(PaymentRun::is_order_finished).await?;
        }
        let was_finished = PaymentRun::is_order_finished(&self.last_status);
        print_line_or_exit(format_args!("Now {blocks} blocks of {chain} are replaced by blocks without the payment."));
        self.send_demo_command(operations::DemoCommand::Pause { chain: chain.clone() }).await?;
        self.send_demo_command(operations::DemoCommand::Reorg { chain: chain.clone(), blocks }).await?;
        if was_finished {
            self.print_new_review_when_opened(&before).await?;
        } else {
            self.print_status_changes_until(|status| status.payment.confirmations.is_none_or(|n| n == 0)).await?;
        }
        print_line_or_exit(
            "The credit was taken back, because its block was replaced. Now the payment is mined again.",
        );
        self.send_demo_command(operations::DemoCommand::Release { chain }).await?;
        if was_finished {
            self.wait_until_new_reviews_are_closed(&before).await
        } else {
            self.print_status_changes_until(PaymentRun::is_order_finished).await
        }
    }

    async fn print_new_review_when_opened(&self, before: &BTreeSet<String>) -> Result<(), CommandError> {
        for _ in 0..SILENCE_MAX {
            if let Some(review) = self.fetch_open_reviews().await?.difference(before).next() {
                print_line_or_exit(format_args!("  review {review}"));
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(CommandError::general_error("the daemon did not report the reorg"))
    }

    async fn wait_until_new_reviews_are_closed(&self, before: &BTreeSet<String>) -> Result<(), CommandError> {
        for _ in 0..SILENCE_MAX {
            if self.fetch_open_reviews().await?.difference(before).next().is_none() {
                print_line_or_exit("The payment is confirmed again, and the review closed itself.");
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(CommandError::general_error("the payment was not confirmed again"))
    }

    fn require_simulated_chain(&self, option: &str) -> Result<(), CommandError> {
        match self.invoice.simulated {
            true => Ok(()),
            false => Err(CommandError::usage_error(format!(
                "{option} needs a simulated chain, but {} is followed on a real node",
                self.invoice.chain
            ))),
        }
    }

    async fn send_and_print_payment(&self, amount: Amount) -> Result<(), CommandError> {
        let pay = operations::DemoCommand::Pay { order: self.order.clone(), amount: amount.to_string() };
        let txid = self.send_demo_command(pay).await?;
        print_line_or_exit(format_args!(
            "Paid {} {} in transaction {txid}.",
            amount.to_decimal(self.invoice.decimals),
            self.invoice.symbol
        ));
        Ok(())
    }

    async fn fetch_open_reviews(&self) -> Result<BTreeSet<String>, CommandError> {
        Ok(self.send_demo_command(operations::DemoCommand::ListReviews).await?.lines().map(String::from).collect())
    }

    async fn send_demo_command(&self, command: operations::DemoCommand) -> Result<String, CommandError> {
        execute_in_daemon(&self.folder, &command).await
    }

    /// Prints each change of the order's status until `is_done` returns true for the status.
    async fn print_status_changes_until(
        &mut self,
        is_done: impl Fn(&StatusResponse) -> bool,
    ) -> Result<(), CommandError> {
        let mut silence = 0;
        loop {
            let status = self.fetch_order_status().await?;
            if status != self.last_status {
                silence = 0;
                self.print_order_status(&status);
                self.last_status = status;
            }
            if is_done(&self.last_status) {
                return Ok(());
            }
            silence += 1;
            if silence > SILENCE_MAX {
                return Err(CommandError::general_error(
                    "the status has not changed for a minute; look at the log of the demo",
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn fetch_order_status(&self) -> Result<StatusResponse, CommandError> {
        let failed = |e: reqwest::Error| CommandError::error_with_context("the status of the order", e.without_url());
        let answer = self.client.get(&self.status_url).send().await.and_then(|answer| answer.error_for_status());
        answer.map_err(failed)?.json().await.map_err(failed)
    }

    fn print_order_status(&self, now: &StatusResponse) {
        let PaymentProgress { expected_amount, received_amount, confirmations, required_confirmations } = &now.payment;
        let depth = match (confirmations, required_confirmations) {
            (Some(confirmations), Some(required)) => format!(", {confirmations} of {required} confirmations"),
            _ => String::new(),
        };
        let StatusResponse { status, payment_status, fulfillment_status, .. } = now;
        print_line_or_exit(format_args!(
            "  order {status}, payment {payment_status}, goods {fulfillment_status}: {received_amount} of {expected_amount} {}{depth}",
            self.invoice.symbol
        ));
    }

    fn is_order_finished(status: &StatusResponse) -> bool {
        ["completed", "expired", "cancelled", "failed", "refunded"].contains(&status.status.as_str())
    }
}

impl StatusResponse {
    /// Returns true when all payments are confirmed but their sum is too small.
    fn is_confirmed_and_short(&self) -> bool {
        let PaymentProgress { confirmations, required_confirmations, .. } = self.payment;
        self.payment_status == "underpaid" && confirmations.zip(required_confirmations).is_some_and(|(n, of)| n >= of)
    }
}

/// Parses an amount in base units, a whole number.
fn parse_base_units(text: &str) -> Result<Amount, CommandError> {
    Amount::parse_decimal(text, 0).map_err(|e| CommandError::general_error(e.to_string()))
}
