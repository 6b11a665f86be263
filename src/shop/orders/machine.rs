//! The states of an order and the allowed steps between them. The functions of this file use no database and no clock.

/// The state of an order. [`State::can_advance_to`] lists the possible steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The order is stored, and no payment has been requested from the buyer yet.
    Created,
    /// A payment has been requested from the buyer.
    AwaitingPayment,
    /// The order is paid in full, and its delivery is scheduled.
    Paid,
    /// The items of the order are now being delivered.
    Processing,
    /// Some of the order lines have been delivered.
    PartiallyDelivered,
    /// All order lines have been delivered; the order is not closed yet.
    Delivered,
    /// The order is delivered and closed.
    Completed,
    /// The payment window ended without full payment.
    Expired,
    /// The buyer or an operator cancelled the order before its delivery.
    Cancelled,
    /// The order was paid, but its items cannot be delivered, or a reorg removed the payment.
    Failed,
    /// The payment was returned to the buyer.
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
    /// All states of an order, in the order in which the variants are declared.
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

    /// Returns true when an order may go from this state to `to` in one step. A step from a state to the same state is
    /// never allowed.
    pub const fn can_advance_to(self, to: State) -> bool {
        match self {
            // An order that costs nothing or is paid from a balance becomes paid in the transaction that creates it.
            State::Created => {
                matches!(to, State::AwaitingPayment | State::Paid | State::Expired | State::Cancelled)
            }
            State::AwaitingPayment => matches!(to, State::Paid | State::Expired | State::Cancelled),
            // Only a caller that refunds the payment in the same transaction may cancel a paid order.
            State::Paid => matches!(to, State::Processing | State::Failed | State::Cancelled | State::Refunded),
            // Digital items need no shipping, so the delivery also completes the order.
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

    /// Returns true while the order waits for its payment.
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
    fn only_the_listed_steps_are_possible() {
        // Each row is the state before the step, each column the state after it. Both follow the order of `State::ALL`.
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
                assert_eq!(from.can_advance_to(to), mark == 'x', "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn no_sequence_of_steps_returns_to_a_state() {
        for start in State::ALL {
            let (mut reached, mut pending) = (Vec::new(), vec![start]);
            while let Some(state) = pending.pop() {
                for next in State::ALL.into_iter().filter(|next| state.can_advance_to(*next)) {
                    assert_ne!(next, start, "the steps form a cycle through {start:?}");
                    if !reached.contains(&next) {
                        reached.push(next);
                        pending.push(next);
                    }
                }
            }
        }
    }

    #[test]
    fn an_unpaid_order_cannot_be_delivered() {
        for from in State::ALL.into_iter().filter(|state| state.is_unpaid()) {
            for to in [Processing, PartiallyDelivered, Delivered, Completed, Failed, Refunded] {
                assert!(!from.can_advance_to(to), "{from:?} to {to:?}");
            }
        }
    }
}
