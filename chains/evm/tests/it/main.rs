//! The driver against a real node, expected and behind proxies that edit.

mod test_chain;

mod balances;
mod logs;
mod false_answers;
mod honest_node;
mod broadcasting;
mod unreliable_nodes;
mod traces;
