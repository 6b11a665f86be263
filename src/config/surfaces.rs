//! `[surfaces]`: the host, the prefix and the merchant of each HTTP surface.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use chain::ChainId;
use serde::{Deserialize, Deserializer, de::Error};

use crate::text;
use ids::Mode;

/// The options of all surfaces.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surfaces {
    /// The checkout surface, for buyers without an account.
    pub checkout: Checkout,
    /// The storefront surface, for a shop's web frontend.
    pub storefront: Mount,
    /// The agent surface, for programs that buy.
    pub agent: Mount,
    /// The merchant surface, for sellers and their programs.
    pub merchant: Mount,
    /// The reseller surface, for businesses that buy codes in bulk.
    pub reseller: Mount,
}

/// The host, the path prefix and the shop of a surface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// True when the surface is served.
    pub enabled: bool,
    /// Host name; empty for every host.
    pub host: String,
    /// Path before the surface's native paths, such as `/agent`; empty for none.
    pub prefix: String,
    /// Slug of the merchant whose shop is served to requests without a merchant's key.
    pub merchant: String,
    /// Live or test.
    pub mode: Mode,
}

/// The options of the checkout surface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "RawCheckout")]
pub struct Checkout {
    /// Host, prefix and shop.
    pub mount: Mount,
    /// Maximum number of look-ups of one client within `query_window`.
    pub query_per_ip: u32,
    /// Maximum number of look-ups of one pair of order number and e-mail address within `query_window`.
    pub query_per_pair: u32,
    /// Length of the window for look-ups.
    pub query_window: Duration,
    /// Maximum number of orders of one client within any minute.
    pub orders_per_ip_per_minute: u32,
    /// Largest quantity of one order.
    pub max_quantity: u32,
    /// Time in which an order must be paid.
    pub order_window: Duration,
    /// Page of the external checkout of Alipay, with `{order_no}` for the order's number; empty when the method is off.
    pub alipay_url: String,
    /// Page of the external checkout of WeChat Pay, in the same format as `alipay_url`.
    pub wechat_url: String,
    /// The assets that buyers can pay in, by the surface's codes, such as `erc20_usdt`.
    pub assets: BTreeMap<String, AssetRef>,
}

/// An asset of a configured chain, written `ethereum/usdt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetRef {
    /// The name of the chain, as in `[chains.NAME]`.
    pub chain: ChainId,
    /// The asset's code on that chain.
    pub code: String,
}

impl Surfaces {
    /// Returns the mount of every surface, with the surface's name.
    pub fn list_mounts(&self) -> [(&'static str, &Mount); 5] {
        [
            ("checkout", &self.checkout.mount),
            ("storefront", &self.storefront),
            ("agent", &self.agent),
            ("merchant", &self.merchant),
            ("reseller", &self.reseller),
        ]
    }
}

impl FromStr for AssetRef {
    type Err = String;

    fn from_str(text: &str) -> Result<AssetRef, String> {
        let refused = || format!("\"{text}\" is not an asset of a chain such as \"ethereum/usdt\"");
        let (chain, code) = text.split_once('/').filter(|(_, code)| !code.is_empty()).ok_or_else(refused)?;
        Ok(AssetRef { chain: ChainId::new(chain).map_err(|_| refused())?, code: code.to_owned() })
    }
}

impl fmt::Display for AssetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.chain, self.code)
    }
}

fn deserialize_asset_refs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, AssetRef>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let present = texts.into_iter().filter(|(_, asset)| !asset.is_empty());
    present.map(|(code, asset)| Ok((code, asset.parse().map_err(D::Error::custom)?))).collect()
}

/// The table `[surfaces.checkout]`. It has the options of the mount and those of the surface.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCheckout {
    enabled: bool,
    host: String,
    prefix: String,
    merchant: String,
    mode: Mode,
    query_per_ip: u32,
    query_per_pair: u32,
    #[serde(rename = "query_window_seconds", deserialize_with = "text::deserialize_seconds")]
    query_window: Duration,
    orders_per_ip_per_minute: u32,
    max_quantity: u32,
    #[serde(rename = "order_window_minutes", deserialize_with = "text::deserialize_minutes")]
    order_window: Duration,
    alipay_url: String,
    wechat_url: String,
    #[serde(deserialize_with = "deserialize_asset_refs")]
    assets: BTreeMap<String, AssetRef>,
}

impl From<RawCheckout> for Checkout {
    fn from(raw: RawCheckout) -> Checkout {
        let RawCheckout { enabled, host, prefix, merchant, mode, .. } = raw;
        Checkout {
            mount: Mount { enabled, host, prefix, merchant, mode },
            query_per_ip: raw.query_per_ip,
            query_per_pair: raw.query_per_pair,
            query_window: raw.query_window,
            orders_per_ip_per_minute: raw.orders_per_ip_per_minute,
            max_quantity: raw.max_quantity,
            order_window: raw.order_window,
            alipay_url: raw.alipay_url,
            wechat_url: raw.wechat_url,
            assets: raw.assets,
        }
    }
}
