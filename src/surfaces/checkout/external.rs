//! External checkouts: where a buyer is sent who pays by Alipay or WeChat Pay. A template in the configuration makes the
//! link; without one the method is off.

use shop::orders::OrderReference;
use shop::orders::payment::{PaymentMethod, Provider};

/// Stands for the order's number in a template.
const ORDER_NO: &str = "{order_no}";

pub struct PayLinks {
    alipay: String,
    wechat: String,
}

impl PayLinks {
    pub fn new(options: &config::Checkout) -> PayLinks {
        PayLinks { alipay: options.alipay_url.clone(), wechat: options.wechat_url.clone() }
    }

    pub fn is_on(&self, provider: Provider) -> bool {
        !self.template(provider).is_empty()
    }

    /// The way to pay on the provider's page, or `None` when the provider is off.
    pub fn open(&self, provider: Provider, labels: &OrderReference) -> Option<PaymentMethod> {
        let pay_url = self.template(provider).replace(ORDER_NO, &labels.order_no);
        self.is_on(provider).then_some(PaymentMethod::External { provider, pay_url, provider_ref: None })
    }

    fn template(&self, provider: Provider) -> &str {
        match provider {
            Provider::Alipay => &self.alipay,
            Provider::Wechat => &self.wechat,
        }
    }
}
