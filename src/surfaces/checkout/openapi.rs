//! The OpenAPI 3.1 document of this surface, which is generated from the endpoints.

use url::Url;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::Server;
use utoipa::openapi::{ContentBuilder, Ref};
use utoipa::{Modify, OpenApi};

use crate::{orders, payment_config, products};
use config::{Config, Mount};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Checkout API",
        version = "1.0.0",
        description = "List products, place an order without an account, pay on a chain, from a balance or through an \
            external checkout, and look the order up.",
        contact(name = "settled"),
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "Products", description = "The products that are for sale."),
        (name = "Orders", description = "Create an order, follow its payment, and look it up."),
        (name = "Payment methods", description = "The ways to pay that are available now."),
    ),
    paths(
        products::list::list_products,
        products::get::get_product,
        orders::create::create_order,
        orders::query::query_order_by_url,
        orders::query::query_order_by_body,
        orders::status::get_order_status,
        payment_config::get_payment_config,
    ),
    modifiers(&UserToken)
)]
struct Document;

/// The modifier that adds the user token to the security schemes of the OpenAPI document.
struct UserToken;

impl Modify for UserToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of a logged-in user. Only payments from a balance need it."))
            .build();
        document.components.get_or_insert_default().add_security_scheme("user_token", SecurityScheme::Http(scheme));
    }
}

/// The responses that every operation may return, in addition to those that its own documentation lists. Each is the
/// HTTP status and a description.
const COMMON_RESPONSES: [(&str, &str); 5] = [
    ("408", "`validation_error`: the body did not arrive in time"),
    ("413", "`validation_error`: the body is too large"),
    ("429", "`rate_limited`; see `Retry-After`"),
    ("500", "`internal_error`: an internal error occurred"),
    (
        "503",
        "`internal_error`: the service is not available at the moment (see `Retry-After`), or the request took too long \
         and may still be completed",
    ),
];

/// Returns the OpenAPI document of this surface. The server in the document is the base URL of this installation.
pub fn build_openapi_document(config: &Config) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    document.servers =
        Some(vec![Server::new(build_base_url(&config.server.public_url, &config.surfaces.checkout.mount))]);
    // Operations need no credential unless they say so.
    document.security = Some(vec![SecurityRequirement::default()]);
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            for (status, description) in COMMON_RESPONSES {
                let documented = operation.responses.responses.entry(status.to_owned());
                documented.or_insert_with(|| describe_error_response(description).into());
            }
        }
    }
    document
}

/// Returns the base URL of this surface: the public URL with the path prefix of the surface. When the surface has a
/// host of its own, this host replaces that of the public URL; an invalid host is logged and not used.
fn build_base_url(public_url: &Url, mount: &Mount) -> String {
    let mut url = public_url.clone();
    if !mount.host.is_empty() && url.set_host(Some(&mount.host)).is_err() {
        tracing::warn!(
            "surfaces.checkout.host is not a host name: {}; the OpenAPI document names the public URL instead",
            mount.host
        );
    }
    format!("{}{}", url.as_str().trim_end_matches('/'), mount.prefix)
}

/// Returns the documentation of an error response: the description, and the schema `Error` of the body.
fn describe_error_response(description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
    ResponseBuilder::new().description(description).content("application/json", body).build()
}
