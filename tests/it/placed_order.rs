//! An order that a story placed, on any chain, and what the checkout surface and the ledger report about it. Every
//! story that places an order on a chain uses this.

use std::time::Duration;

use chain::{Amount, Asset, TxId};
use money::ledger::{Account, Suspense};
use records::reviews::{self, Review};
use serde_json::Value;

use crate::world::{Answer, World};

/// The maximum time to wait for the workers. An endpoint that failed once or twice is used again before this time ends.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A created order, with the data of the checkout surface's answer.
pub struct PlacedOrder {
    pub id: String,
    pub order_no: String,
    pub coin: &'static str,
    pub address: String,
    /// The amount to pay.
    pub due: Amount,
}

impl PlacedOrder {
    /// Parses the answer to Create Order. `asset` is the asset that `coin` stands for.
    pub fn parse(answer: &Value, coin: &'static str, asset: &Asset) -> PlacedOrder {
        let text = |pointer: &str| {
            let found = answer.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_else(|| panic!("no text at {pointer} in {answer}")).to_owned()
        };
        PlacedOrder {
            id: text("/order/id"),
            order_no: text("/order/order_no"),
            coin,
            address: text("/payment/address"),
            due: Amount::parse_decimal(&text("/payment/expected_amount"), asset.decimals).expect("an amount"),
        }
    }
}

impl World {
    /// Orders two pieces of the world's product.
    pub async fn place_order(&self, coin: &'static str) -> PlacedOrder {
        self.place_order_of(2, coin).await
    }

    pub async fn place_order_of(&self, quantity: u32, coin: &'static str) -> PlacedOrder {
        PlacedOrder::parse(&self.order(quantity, coin).await.body, coin, &self.asset(coin))
    }

    /// Sends `amount` to the order's address on its model chain. The payment stays in the mempool until a block is
    /// mined.
    pub fn pay_order(&self, order: &PlacedOrder, amount: Amount) -> TxId {
        let asset = self.asset(order.coin);
        self.simnet.pay(&asset.chain, &asset.id, &order.address, amount).expect("the buyer can pay")
    }

    pub async fn assert_status(&self, order: &PlacedOrder, status: &str, payment_status: &str) -> Answer {
        let answer = self.status(&order.id).await;
        let states = (answer.text_at("status"), answer.text_at("payment_status"));
        assert_eq!(states, (status.to_owned(), payment_status.to_owned()), "{}", answer.text);
        answer
    }

    pub async fn assert_received(&self, order: &PlacedOrder, amount: Amount) {
        let answer = self.status(&order.id).await;
        assert_eq!(answer.text_at("payment.received_amount"), self.decimal(order.coin, amount), "{}", answer.text);
    }

    /// Returns the number of confirmations that the order's payment needs.
    pub async fn required_confirmations(&self, order: &PlacedOrder) -> u64 {
        let answer = self.status(&order.id).await;
        let required = answer.body["payment"]["required_confirmations"].as_u64();
        required.unwrap_or_else(|| panic!("no required_confirmations in {}", answer.text))
    }

    /// Runs the workers until the order is completed. It waits in real time, because endpoints that failed rest by the
    /// machine's clock, and advances the world's clock by one second each time, because checks by second sources are
    /// repeated by that clock.
    pub async fn run_until_completed(&self, order: &PlacedOrder) {
        let completed = async {
            let mut interval = tokio::time::interval(Duration::from_millis(100));
            loop {
                self.run_until_idle().await;
                if self.status(&order.id).await.text_at("status") == "completed" {
                    return;
                }
                interval.tick().await;
                self.advance_seconds(1);
            }
        };
        if tokio::time::timeout(TIMEOUT, completed).await.is_err() {
            panic!("the order was not completed: {}", self.status(&order.id).await.text);
        }
    }

    /// Asserts that there is no deposit, no unconfirmed transfer, no journal entry and no review.
    pub async fn assert_nothing_booked(&self) {
        let counts = "select (select count(*) from deposits) + (select count(*) from unconfirmed)
            + (select count(*) from postings) + (select count(*) from reviews) as n";
        let counted = self.db.read("count_booked", |tx| Box::pin(tx.rows(counts, Vec::new()))).await;
        let counted: i64 = counted.expect("a count")[0].get("n").expect("a number");
        assert_eq!(counted, 0, "something was booked or reviewed");
    }

    /// Returns the open reviews, oldest first.
    pub async fn open_reviews(&self) -> Vec<Review> {
        let open = self
            .db
            .read("list_reviews", |tx| Box::pin(async move { reviews::list_oldest_open_reviews(tx, 100).await }))
            .await;
        open.expect("reviews can be listed")
    }

    pub async fn has_open_review(&self, kind: &str) -> bool {
        self.open_reviews().await.iter().any(|review| review.kind.as_str() == kind)
    }

    /// Parses a decimal amount of a coin, such as `0.5`, into base units.
    pub fn amount(&self, coin: &str, decimal: &str) -> Amount {
        Amount::parse_decimal(decimal, self.asset(coin).decimals).expect("a decimal amount")
    }

    /// Writes an amount as a decimal number of whole coins.
    pub fn decimal(&self, coin: &str, amount: Amount) -> String {
        amount.to_decimal(self.asset(coin).decimals)
    }

    /// Returns the balance of a suspense account.
    pub async fn suspense(&self, coin: &str, kind: Suspense) -> Amount {
        self.available(coin, Account::Suspense(self.shop.merchant, kind)).await
    }

    /// Returns the merchant's available balance: final money that may be spent.
    pub async fn merchant_available(&self, coin: &str) -> Amount {
        self.available(coin, Account::MerchantAvailable(self.shop.merchant)).await
    }

    /// Returns the merchant's pending balance: money of paid invoices that is confirmed but not final.
    pub async fn merchant_pending(&self, coin: &str) -> Amount {
        self.available(coin, Account::MerchantPending(self.shop.merchant)).await
    }

    /// Returns the merchant's incoming balance: money that arrived for invoices that are not paid yet.
    pub async fn merchant_incoming(&self, coin: &str) -> Amount {
        self.available(coin, Account::MerchantIncoming(self.shop.merchant)).await
    }

    async fn available(&self, coin: &str, account: Account) -> Amount {
        self.account(self.shop.mode, account, self.asset(coin).id).await.available_amount()
    }
}

/// Returns `numerator / denominator` of the amount, rounded down, and the rest.
pub fn split(amount: Amount, numerator: u64, denominator: u64) -> (Amount, Amount) {
    let part = amount.mul_ratio_rounded_down(numerator, denominator).expect("a ratio below one");
    (part, amount.checked_sub(part).expect("a part is smaller"))
}
