//! The options `[surfaces]`: the host, the prefix and the merchant of each HTTP surface.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use chain::ChainId;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, de::Error};

use crate::deserializers;
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

/// The options that every surface has: its host, its path prefix and its shop.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// True when the surface is served.
    pub enabled: bool,
    /// The host name under which the surface is served; empty when it is served under every host name.
    pub host: String,
    /// Prefix of all paths of the surface, such as `/agent`; empty for no prefix.
    pub prefix: String,
    /// The slug (name) of the merchant whose shop the surface serves. A request with an API key of another merchant
    /// uses the shop of that merchant instead.
    pub merchant: String,
    /// The mode of the shop: live, or test with worthless coins.
    pub mode: Mode,
}

/// The options of the checkout surface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "RawCheckout")]
pub struct Checkout {
    /// The host, the path prefix and the shop of the surface.
    pub mount: Mount,
    /// The origins whose pages may call the surface from a browser, such as `https://shop.example`.
    pub cors_origins: Vec<String>,
    /// The maximum number of order look-ups of one client within `query_window`.
    pub query_per_ip: u32,
    /// The maximum number of look-ups with the same pair of order number and e-mail address within `query_window`.
    pub query_per_pair: u32,
    /// The length of the time window in which look-ups are counted.
    pub query_window: Duration,
    /// Maximum number of orders of one client within any minute.
    pub orders_per_ip_per_minute: u32,
    /// The maximum quantity of one order on this surface.
    pub max_quantity: u32,
    /// Length of the payment window of an order.
    pub order_window: Duration,
    /// The URL of the page on which buyers pay by Alipay, with the placeholder `{order_no}`; empty when the payment
    /// method is disabled.
    pub alipay_url: String,
    /// The URL of the page on which buyers pay by WeChat Pay, in the same format as `alipay_url`.
    pub wechat_url: String,
    /// The assets with which buyers can pay, by their codes on this surface, such as `erc20_usdt`.
    pub assets: BTreeMap<String, AssetRef>,
    /// The smallest amount due for each asset, in whole coins, by the code of the asset on this surface. Without an
    /// entry, the minimum is the smallest amount that Bitcoin nodes relay, or zero on other chains.
    pub min_amounts: BTreeMap<String, Decimal>,
}

/// An asset of a configured chain, written `ethereum/usdt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetRef {
    /// The name of the chain, as in `[chains.NAME]`.
    pub chain: ChainId,
    /// The code of the asset in the options of that chain.
    pub code: String,
}

impl Surfaces {
    /// Returns the common options of every surface, with the surface's name.
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
        let invalid = || format!("\"{text}\" is not an asset of a chain such as \"ethereum/usdt\"");
        let (chain, code) = text.split_once('/').filter(|(_, code)| !code.is_empty()).ok_or_else(invalid)?;
        Ok(AssetRef { chain: ChainId::parse(chain).map_err(|_| invalid())?, code: code.to_owned() })
    }
}

impl fmt::Display for AssetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.chain, self.code)
    }
}

/// Deserialises the assets of the surface by their codes. A code whose asset is an empty string is left out, so that a
/// configuration file can remove a default.
fn deserialize_asset_refs_dropping_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, AssetRef>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let present = texts.into_iter().filter(|(_, asset)| !asset.is_empty());
    present.map(|(code, asset)| Ok((code, asset.parse().map_err(D::Error::custom)?))).collect()
}

/// Deserialises the smallest amount due for each asset. A code whose amount is an empty string is left out; then the
/// smallest amount that nodes relay is the minimum.
fn deserialize_min_amounts_dropping_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Decimal>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let present = texts.into_iter().filter(|(_, amount)| !amount.is_empty());
    let parse = |(code, amount): (String, String)| match deserializers::parse_decimal(&amount) {
        Ok(amount) => Ok((code, amount)),
        Err(e) => Err(D::Error::custom(format!("{code}: {e}"))),
    };
    present.map(parse).collect()
}

/// The table `[surfaces.checkout]` as it is written: it has the common options of all surfaces beside those of the
/// checkout surface.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCheckout {
    enabled: bool,
    host: String,
    prefix: String,
    merchant: String,
    mode: Mode,
    cors_origins: Vec<String>,
    query_per_ip: u32,
    query_per_pair: u32,
    #[serde(rename = "query_window_seconds", deserialize_with = "deserializers::deserialize_seconds")]
    query_window: Duration,
    orders_per_ip_per_minute: u32,
    max_quantity: u32,
    #[serde(rename = "order_window_minutes", deserialize_with = "deserializers::deserialize_minutes")]
    order_window: Duration,
    alipay_url: String,
    wechat_url: String,
    #[serde(deserialize_with = "deserialize_asset_refs_dropping_empty")]
    assets: BTreeMap<String, AssetRef>,
    #[serde(deserialize_with = "deserialize_min_amounts_dropping_empty")]
    min_amounts: BTreeMap<String, Decimal>,
}

impl From<RawCheckout> for Checkout {
    fn from(raw: RawCheckout) -> Checkout {
        let RawCheckout { enabled, host, prefix, merchant, mode, .. } = raw;
        Checkout {
            mount: Mount { enabled, host, prefix, merchant, mode },
            cors_origins: raw.cors_origins,
            query_per_ip: raw.query_per_ip,
            query_per_pair: raw.query_per_pair,
            query_window: raw.query_window,
            orders_per_ip_per_minute: raw.orders_per_ip_per_minute,
            max_quantity: raw.max_quantity,
            order_window: raw.order_window,
            alipay_url: raw.alipay_url,
            wechat_url: raw.wechat_url,
            assets: raw.assets,
            min_amounts: raw.min_amounts,
        }
    }
}
