//! Tests of the EVM driver with a real node, both directly and behind proxies that falsify its answers.

mod test_chain;

mod balances;
mod logs;
mod false_answers;
mod second_source;
mod honest_node;
mod broadcasting;
mod unreliable_nodes;
mod traces;
