//! External checkouts: the pages on which buyers pay by Alipay or WeChat Pay. The link to a page is made from a
//! template in the configuration; without a template the method is off.

use shop::orders::OrderReference;
use shop::orders::payment::{PaymentMethod, Provider};

/// The placeholder of the order's number in a template.
const ORDER_NO: &str = "{order_no}";

/// The templates of the links to external checkouts; an empty template means that the provider is off.
pub struct PayLinks {
    alipay: String,
    wechat: String,
}

impl PayLinks {
    /// Takes the templates from the surface's options.
    pub fn new(options: &config::Checkout) -> PayLinks {
        PayLinks { alipay: options.alipay_url.clone(), wechat: options.wechat_url.clone() }
    }

    /// Returns true when buyers can pay through the provider.
    pub fn is_provider_enabled(&self, provider: Provider) -> bool {
        !self.link_template(provider).is_empty()
    }

    /// Returns the payment method that sends the buyer to the provider's page for this order; `None` when the provider
    /// is off.
    pub fn build_payment_method(&self, provider: Provider, reference: &OrderReference) -> Option<PaymentMethod> {
        let pay_url = self.link_template(provider).replace(ORDER_NO, &reference.order_no);
        self.is_provider_enabled(provider).then_some(PaymentMethod::External { provider, pay_url, provider_ref: None })
    }

    fn link_template(&self, provider: Provider) -> &str {
        match provider {
            Provider::Alipay => &self.alipay,
            Provider::Wechat => &self.wechat,
        }
    }
}
