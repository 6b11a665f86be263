//! The OpenAPI 3.1 document of this surface, made from the endpoints themselves.

use url::Url;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::server::Server;
use utoipa::{Modify, OpenApi};

use crate::surfaces::checkout::{orders, payment_config, products};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Checkout API",
        version = "1.0.0",
        description = "List products, place an order without an account, pay on a chain, from a balance or through an \
            external checkout, and look the order up.",
        license(name = "MIT")
    ),
    paths(
        products::list::list,
        products::show::show,
        orders::create::create,
        orders::query::by_url,
        orders::query::by_body,
        orders::status::status,
        payment_config::show::show,
    ),
    modifiers(&UserToken)
)]
struct Document;

struct UserToken;

impl Modify for UserToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of a logged-in user; only payments from a balance need it."))
            .build();
        document.components.get_or_insert_default().add_security_scheme("user_token", SecurityScheme::Http(scheme));
    }
}

/// `public_url` and `prefix` make the server under which clients reach it.
pub fn document(public_url: &Url, prefix: &str) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let server = format!("{}{prefix}", public_url.as_str().trim_end_matches('/'));
    document.servers = Some(vec![Server::new(server)]);
    document
}
