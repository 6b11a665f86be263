//! The HTTP surfaces: where each is mounted and for which merchant.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use chain::ChainId;
use serde::{Deserialize, Deserializer, de::Error};

use crate::text;
use ids::Mode;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surfaces {
    pub checkout: Checkout,
    pub storefront: Mount,
    pub agent: Mount,
    pub merchant: Mount,
    pub reseller: Mount,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    pub enabled: bool,
    /// Empty: any.
    pub host: String,
    /// Empty, or a path such as `/agent` that stands before the native paths.
    pub prefix: String,
    /// Slug of the merchant to whom calls without a merchant's key belong.
    pub merchant: String,
    pub mode: Mode,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "RawCheckout")]
pub struct Checkout {
    pub mount: Mount,
    pub query_per_ip: u32,
    pub query_per_pair: u32,
    pub query_window: Duration,
    pub orders_per_ip_per_minute: u32,
    pub max_quantity: u32,
    pub order_window: Duration,
    /// The external checkouts' pages, with `{order_no}` for the order's number. Empty: the method is off.
    pub alipay_url: String,
    pub wechat_url: String,
    /// The surface's names of coins; one without an asset is not there.
    pub assets: BTreeMap<String, AssetRef>,
}

/// An asset by its place in the configuration: `ethereum/usdt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetRef {
    pub chain: ChainId,
    pub code: String,
}

impl Surfaces {
    /// Every surface with its name in the configuration.
    pub fn mounts(&self) -> [(&'static str, &Mount); 5] {
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

fn assets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, AssetRef>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let offered = texts.into_iter().filter(|(_, asset)| !asset.is_empty());
    offered.map(|(coin, asset)| Ok((coin, asset.parse().map_err(D::Error::custom)?))).collect()
}

/// The surface as one table of the configuration.
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
    #[serde(rename = "query_window_seconds", deserialize_with = "text::seconds")]
    query_window: Duration,
    orders_per_ip_per_minute: u32,
    max_quantity: u32,
    #[serde(rename = "order_window_minutes", deserialize_with = "text::minutes")]
    order_window: Duration,
    alipay_url: String,
    wechat_url: String,
    #[serde(deserialize_with = "assets")]
    assets: BTreeMap<String, AssetRef>,
}

impl From<RawCheckout> for Checkout {
    fn from(written: RawCheckout) -> Checkout {
        let RawCheckout { enabled, host, prefix, merchant, mode, .. } = written;
        Checkout {
            mount: Mount { enabled, host, prefix, merchant, mode },
            query_per_ip: written.query_per_ip,
            query_per_pair: written.query_per_pair,
            query_window: written.query_window,
            orders_per_ip_per_minute: written.orders_per_ip_per_minute,
            max_quantity: written.max_quantity,
            order_window: written.order_window,
            alipay_url: written.alipay_url,
            wechat_url: written.wechat_url,
            assets: written.assets,
        }
    }
}
