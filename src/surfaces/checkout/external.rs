//! External payments: links to the pages on which buyers pay by Alipay or WeChat Pay. The configuration contains a
//! template of each link; without a template the payment method is disabled.

use shop::orders::OrderReference;
use shop::orders::payment::{PaymentMethod, Provider};

/// The placeholder in a template that is replaced by the order number.
const ORDER_NO: &str = "{order_no}";

/// The templates of the links to external payment pages. An empty template disables the provider.
pub struct PayLinks {
    alipay: String,
    wechat: String,
}

impl PayLinks {
    /// Creates the links with the templates of the surface's options.
    pub fn new(options: &config::Checkout) -> PayLinks {
        PayLinks { alipay: options.alipay_url.clone(), wechat: options.wechat_url.clone() }
    }

    /// Returns true when buyers can pay through the provider.
    pub fn is_provider_enabled(&self, provider: Provider) -> bool {
        !self.link_template(provider).is_empty()
    }

    /// Returns the external payment method with the link for this order; `None` when the provider is disabled.
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
