//! Links to the pages on which buyers pay by Alipay or WeChat Pay. The configuration contains a template for each of
//! the two links. Without a template, the payment method is disabled.

use shop::orders::OrderReference;
use shop::orders::new_payment::{PaymentMethod, Provider};

/// The placeholder in a link template that is replaced by the order number.
const ORDER_NO: &str = "{order_no}";

/// The link templates of Alipay and WeChat Pay. When a template is empty, buyers cannot pay through its provider.
pub struct PayLinks {
    alipay: String,
    wechat: String,
}

impl PayLinks {
    /// Takes the templates of the links from the options of this surface.
    pub fn new(options: &config::Checkout) -> PayLinks {
        PayLinks { alipay: options.alipay_url.clone(), wechat: options.wechat_url.clone() }
    }

    /// Returns true when buyers can pay through this provider.
    pub fn is_provider_enabled(&self, provider: Provider) -> bool {
        !self.link_template(provider).is_empty()
    }

    /// Returns the external payment method with the pay link of an order; `None` when the provider is disabled.
    pub fn build_external_payment_method(
        &self,
        provider: Provider,
        reference: &OrderReference,
    ) -> Option<PaymentMethod> {
        let pay_url = self.link_template(provider).replace(ORDER_NO, &reference.order_no);
        self.is_provider_enabled(provider).then_some(PaymentMethod::External { provider, pay_url, provider_ref: None })
    }

    /// Returns the template of the link to the provider's page; empty when the provider is disabled.
    fn link_template(&self, provider: Provider) -> &str {
        match provider {
            Provider::Alipay => &self.alipay,
            Provider::Wechat => &self.wechat,
        }
    }
}
