//! The text that the demo prints when it is ready: its addresses, and a walk-through for a second terminal.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::commands::dev::evm_node::DemoNode;
use crate::commands::dev::{FOLDER, shop};

/// The values that the walk-through contains.
pub struct Facts<'a> {
    /// The address on which the demo listens.
    pub address: SocketAddr,
    /// The data folder as given on the command line.
    pub folder: &'a Path,
    /// A token of the demo's user.
    pub token: &'a str,
    /// The node of `--evm`; `None` when all chains are simulated.
    pub node: Option<&'a DemoNode>,
}

/// Returns the text that the demo prints when it is ready.
pub fn format_walk_through(facts: &Facts<'_>) -> String {
    let base = format!("http://{}", replace_unspecified_by_localhost(facts.address));
    let settled = std::env::current_exe().map_or_else(|_| "settled".into(), |path| path.display().to_string());
    let data =
        if facts.folder == Path::new(FOLDER) { String::new() } else { format!(" --data {}", facts.folder.display()) };
    let (folder, token, product) = (facts.folder.display(), facts.token, shop::FIRST);
    let (user, coupon) = (shop::USER, shop::COUPON);
    let mut text = format!(
        r#"
The demo of settled is running, on simulated chains with worthless coins. Press Ctrl-C to stop it. Its data stays in {folder} for the next start.

  products    {base}/api/products
  reference   {base}/reference/checkout
  health      {base}/healthz  {base}/readyz
  user        {user} has 1000 CNY and 500 USD; token {token}
  coupon      {coupon} gives 10 % discount

Walk-through: copy one block at a time into a second terminal.

1. List the products: three, each with its stock and its price in CNY.

   curl -s {base}/api/products

2. Order two mailboxes, to be paid in USDT on TRON. The response has the order number, a new address and the exact amount.

   PRODUCT=$(curl -s {base}/api/products/{product} | sed 's/.*"id":"\([^"]*\)".*/\1/')
   ORDER=$(curl -s {base}/api/orders -H 'Content-Type: application/json' -d '{{"productId": "'$PRODUCT'", "quantity": 2, "contactEmail": "buyer@example.com", "paymentMethod": "crypto", "coin": "trc20_usdt"}}')
   echo "$ORDER"
   NO=$(echo "$ORDER" | sed 's/.*"order_no":"\([^"]*\)".*/\1/'); ID=$(echo "$ORDER" | sed 's/.*"order":{{"id":"\([^"]*\)".*/\1/')

3. Pay as a buyer would. After 6 confirmations the order is completed.

   {settled} dev pay $NO{data}

4. Look up the order. It has two credentials, which no other order gets. (After 3 requests per minute: status 429.)

   curl -s "{base}/api/orders/query?orderNo=$NO&email=buyer@example.com"

5. Pay from a balance with a coupon. The order is completed within a second.

   curl -s {base}/api/orders -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{{"productId": "'$PRODUCT'", "quantity": 1, "contactEmail": "buyer@example.com", "paymentMethod": "balance_cny", "couponCode": "{coupon}"}}'

Other payments, each for a new order of step 2: `dev pay $NO --amount 0.1` (too little), `--split 3`, `--late`, `--reorg 2`.
Coins for your own orders: trc20_usdt, erc20_usdt, bep20_usdt, btc, eth, trx, bnb. `{settled} audit --data {folder}` checks the ledger.
"#
    );
    if let Some(node) = facts.node {
        node.append_payment_instructions(&mut text).expect("writing to a string cannot fail");
    }
    writeln!(text, "\nThe demo's log follows.").expect("writing to a string cannot fail");
    text
}

/// Replaces an unspecified address, such as 0.0.0.0, with 127.0.0.1, because a client on this machine cannot connect to
/// an unspecified address.
fn replace_unspecified_by_localhost(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        false => address,
    }
}
