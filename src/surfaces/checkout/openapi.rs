//! The OpenAPI 3.1 document of this surface, made from the endpoints themselves.

use url::Url;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
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

/// What any operation may answer beside what it says itself.
const EVERYWHERE: [(&str, &str); 5] = [
    ("408", "`validation_error`: the body did not come in time"),
    ("413", "`validation_error`: the body is too large"),
    ("429", "`rate_limited`; see `Retry-After`"),
    ("500", "`internal_error`: something went wrong on our side"),
    ("503", "`internal_error`: there was no answer in time"),
];

/// As this installation serves it: at its address, with its limits.
pub fn openapi_document(config: &Config) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    document.servers = Some(vec![Server::new(server(&config.server.public_url, &config.surfaces.checkout.mount))]);
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            for (status, description) in EVERYWHERE {
                let known = operation.responses.responses.entry(status.to_owned());
                known.or_insert_with(|| refusal(description).into());
            }
        }
    }
    document
}

/// A surface with a host of its own is found under that.
fn server(public_url: &Url, mount: &Mount) -> String {
    let mut url = public_url.clone();
    if !mount.host.is_empty() && url.set_host(Some(&mount.host)).is_err() {
        tracing::warn!("surfaces.checkout.host is no host name: {}", mount.host);
    }
    format!("{}{}", url.as_str().trim_end_matches('/'), mount.prefix)
}

fn refusal(description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
    ResponseBuilder::new().description(description).content("application/json", body).build()
}
