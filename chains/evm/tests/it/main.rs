//! The driver against a real node, honest and behind proxies that lie.

mod test_chain;

mod balances;
mod logs;
mod false_answers;
mod honest_node;
mod broadcasting;
mod unreliable_nodes;
mod traces;
