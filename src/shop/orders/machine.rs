//! The states of an order. Pure: no database, no clock.

/// Forward only: see [`State::leads_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Created,
    AwaitingPayment,
    Paid,
    /// Goods are being handed out.
    Processing,
    PartiallyDelivered,
    Delivered,
    Completed,
    /// The window ended without full payment.
    Expired,
    Cancelled,
    /// Paid, and it cannot be delivered.
    Failed,
    Refunded,
}

db::text_enum!(State {
    Created => "created",
    AwaitingPayment => "awaiting_payment",
    Paid => "paid",
    Processing => "processing",
    PartiallyDelivered => "partially_delivered",
    Delivered => "delivered",
    Completed => "completed",
    Expired => "expired",
    Cancelled => "cancelled",
    Failed => "failed",
    Refunded => "refunded",
});

impl State {
    pub const ALL: [State; 11] = [
        State::Created,
        State::AwaitingPayment,
        State::Paid,
        State::Processing,
        State::PartiallyDelivered,
        State::Delivered,
        State::Completed,
        State::Expired,
        State::Cancelled,
        State::Failed,
        State::Refunded,
    ];

    /// Whether an order may go from here to `to` in one step. Nothing leads to itself.
    pub const fn leads_to(self, to: State) -> bool {
        match self {
            // A balance or a coupon pays at once.
            State::Created => {
                matches!(to, State::AwaitingPayment | State::Paid | State::Expired | State::Cancelled)
            }
            State::AwaitingPayment => matches!(to, State::Paid | State::Expired | State::Cancelled),
            // Cancelled after payment: only where a surface offers it, together with a refund.
            State::Paid => matches!(to, State::Processing | State::Failed | State::Cancelled | State::Refunded),
            // Goods without a way to the buyer are complete when they are delivered.
            State::Processing => matches!(
                to,
                State::PartiallyDelivered | State::Delivered | State::Completed | State::Failed | State::Refunded
            ),
            State::PartiallyDelivered => matches!(to, State::Delivered | State::Failed | State::Refunded),
            State::Delivered => matches!(to, State::Completed | State::Refunded),
            State::Completed | State::Failed => matches!(to, State::Refunded),
            State::Expired | State::Cancelled | State::Refunded => false,
        }
    }

    /// Whether it still waits for money.
    pub const fn is_unpaid(self) -> bool {
        match self {
            State::Created | State::AwaitingPayment => true,
            State::Paid
            | State::Processing
            | State::PartiallyDelivered
            | State::Delivered
            | State::Completed
            | State::Expired
            | State::Cancelled
            | State::Failed
            | State::Refunded => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::State::{self, *};

    #[test]
    fn every_pair() {
        // Rows: from; columns: to, in the order of `ALL`.
        let table = [
            (Created, ".xx....xx.."),
            (AwaitingPayment, "..x....xx.."),
            (Paid, "...x....xxx"),
            (Processing, "....xxx..xx"),
            (PartiallyDelivered, ".....x...xx"),
            (Delivered, "......x...x"),
            (Completed, "..........x"),
            (Expired, "..........."),
            (Cancelled, "..........."),
            (Failed, "..........x"),
            (Refunded, "..........."),
        ];
        assert_eq!(table.map(|(from, _)| from), State::ALL);
        for (from, row) in table {
            for (to, mark) in State::ALL.into_iter().zip(row.chars()) {
                assert_eq!(from.leads_to(to), mark == 'x', "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn no_way_leads_back() {
        for start in State::ALL {
            let (mut reached, mut open) = (Vec::new(), vec![start]);
            while let Some(state) = open.pop() {
                for next in State::ALL.into_iter().filter(|next| state.leads_to(*next)) {
                    assert_ne!(next, start, "a circle through {start:?}");
                    if !reached.contains(&next) {
                        reached.push(next);
                        open.push(next);
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_delivered_unpaid() {
        for from in State::ALL.into_iter().filter(|state| state.is_unpaid()) {
            for to in [Processing, PartiallyDelivered, Delivered, Completed, Failed, Refunded] {
                assert!(!from.leads_to(to), "{from:?} to {to:?}");
            }
        }
    }
}
