//! What the demo prints when it is ready: where everything is, and a walk-through for a shell.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::commands::dev::node::Node;
use crate::commands::dev::{FOLDER, shop};

pub struct Facts<'a> {
    pub address: SocketAddr,
    /// As it was given.
    pub folder: &'a Path,
    pub token: &'a str,
    pub node: Option<&'a Node>,
}

pub fn text(facts: &Facts<'_>) -> String {
    let base = format!("http://{}", reachable(facts.address));
    let settled = std::env::current_exe().map_or_else(|_| "settled".into(), |path| path.display().to_string());
    let data =
        if facts.folder == Path::new(FOLDER) { String::new() } else { format!(" --data {}", facts.folder.display()) };
    let (folder, token, product) = (facts.folder.display(), facts.token, shop::FIRST);
    let (user, coupon) = (shop::USER, shop::COUPON);
    let mut text = format!(
        r#"
settled runs as a demo: simulated chains, worthless coins. Ctrl-C ends it; the next start goes on from {folder}.

  products    {base}/api/products
  reference   {base}/reference/checkout
  health      {base}/healthz  {base}/readyz
  user        {user} has 1000 CNY and 500 USD; token {token}
  coupon      {coupon} takes 10 % off

A walk-through for a second terminal; copy one block at a time.

1. See what is sold: three products with stock and a price in CNY.

   curl -s {base}/api/products

2. Order two of them and pay in USDT on TRON: the answer has an order number, an address of its own and the exact amount.

   PRODUCT=$(curl -s {base}/api/products/{product} | sed 's/.*"id":"\([^"]*\)".*/\1/')
   ORDER=$(curl -s {base}/api/orders -H 'Content-Type: application/json' -d '{{"productId": "'$PRODUCT'", "quantity": 2, "contactEmail": "buyer@example.com", "paymentMethod": "crypto", "coin": "trc20_usdt"}}')
   echo "$ORDER"
   NO=$(echo "$ORDER" | sed 's/.*"order_no":"\([^"]*\)".*/\1/'); ID=$(echo "$ORDER" | sed 's/.*"order":{{"id":"\([^"]*\)".*/\1/')

3. Pay as a buyer would: confirmations rise to 6, then the order is completed.

   {settled} dev pay $NO{data}

4. Look the order up: two credentials, each delivered to nobody else. (Three look-ups a minute, then 429.)

   curl -s "{base}/api/orders/query?orderNo=$NO&email=buyer@example.com"

5. Pay from a balance, with a coupon: completed within a second.

   curl -s {base}/api/orders -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{{"productId": "'$PRODUCT'", "quantity": 1, "contactEmail": "buyer@example.com", "paymentMethod": "balance_cny", "couponCode": "{coupon}"}}'

More stories, each for a new order of step 2: `dev pay $NO --amount 0.1` (too little), `--split 3`, `--late`, `--reorg 2`.
Orders of your own: coins trc20_usdt, erc20_usdt, bep20_usdt, btc, eth, trx, bnb. `{settled} audit --data {folder}` checks the ledger.
"#
    );
    if let Some(node) = facts.node {
        node.explain(&mut text).expect("a string takes every text");
    }
    writeln!(text, "\nThe demo's log follows.").expect("a string takes every text");
    text
}

/// What a client on this machine writes for an address that means every one.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        false => address,
    }
}
