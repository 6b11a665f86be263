//! An order that a story has placed, on whatever chain, and what the surface and the ledger say of it.

use std::time::Duration;

use chain::Amount;
use money::ledger::{Account, Suspense};

use crate::world::{Answer, World};

/// Longer than any endpoint rests after a failure or two.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the surface said when the order was placed.
pub struct Placed {
    pub id: String,
    pub order_no: String,
    pub coin: &'static str,
    pub address: String,
    pub due: Amount,
}

impl World {
    pub async fn place(&self, coin: &'static str) -> Placed {
        self.place_many(2, coin).await
    }

    pub async fn place_many(&self, quantity: u32, coin: &'static str) -> Placed {
        let answer = self.order(quantity, coin).await;
        let due = answer.text_at("payment.expected_amount");
        Placed {
            id: answer.text_at("order.id"),
            order_no: answer.text_at("order.order_no"),
            coin,
            address: answer.text_at("payment.address"),
            due: Amount::parse_decimal(&due, self.asset(coin).decimals).expect("an amount"),
        }
    }

    pub async fn expect(&self, placed: &Placed, status: &str, payment_status: &str) -> Answer {
        let answer = self.status(&placed.id).await;
        let states = (answer.text_at("status"), answer.text_at("payment_status"));
        assert_eq!(states, (status.to_owned(), payment_status.to_owned()), "{}", answer.text);
        answer
    }

    pub async fn expect_received(&self, placed: &Placed, amount: Amount) {
        let answer = self.status(&placed.id).await;
        let decimals = self.asset(placed.coin).decimals;
        assert_eq!(answer.text_at("payment.received_amount"), amount.to_decimal(decimals), "{}", answer.text);
    }

    /// Lets the daemon work until the order is complete: endpoints that failed rest by the machine's clock, which no test
    /// moves.
    pub async fn until_completed(&self, placed: &Placed) {
        let driven = async {
            let mut beat = tokio::time::interval(Duration::from_millis(100));
            loop {
                self.run_until_idle().await;
                if self.status(&placed.id).await.text_at("status") == "completed" {
                    return;
                }
                beat.tick().await;
            }
        };
        if tokio::time::timeout(PATIENCE, driven).await.is_err() {
            panic!("never completed: {}", self.status(&placed.id).await.text);
        }
    }

    /// Whether a review of this kind is open.
    pub async fn is_reviewed(&self, kind: &str) -> bool {
        let open =
            self.db.read("reviews", |tx| Box::pin(async move { records::reviews::list_open(tx, 100).await })).await;
        open.expect("reviews").iter().any(|review| review.kind == kind)
    }

    pub async fn held_apart(&self, coin: &str, kind: Suspense) -> Amount {
        self.holds(coin, Account::Suspense(self.shop.merchant, kind)).await
    }

    /// What the merchant may dispose of.
    pub async fn earned(&self, coin: &str) -> Amount {
        self.holds(coin, Account::MerchantAvailable(self.shop.merchant)).await
    }

    /// What is the merchant's as soon as it is final.
    pub async fn pending(&self, coin: &str) -> Amount {
        self.holds(coin, Account::MerchantPending(self.shop.merchant)).await
    }

    /// What is booked and not confirmed.
    pub async fn incoming(&self, coin: &str) -> Amount {
        self.holds(coin, Account::MerchantIncoming(self.shop.merchant)).await
    }

    async fn holds(&self, coin: &str, account: Account) -> Amount {
        self.account(self.shop.mode, account, self.asset(coin).id).await.available()
    }
}

/// The part of an amount that is `numerator` / `denominator`, and the rest.
pub fn split(amount: Amount, numerator: u64, denominator: u64) -> (Amount, Amount) {
    let part = amount.checked_mul_ratio(numerator, denominator).expect("a ratio below one");
    (part, amount.checked_sub(part).expect("a part is smaller"))
}
