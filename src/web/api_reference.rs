//! The API reference of a surface: its OpenAPI document, and an HTML page that is made from the document. The page is
//! rendered once at the start, has no scripts and loads no other files.

use std::fmt::Write;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::openapi::OpenApi;

use crate::response;

const STYLE: &str = include_str!("api_reference.css");
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Maximum depth of nested objects whose fields the page shows.
const DEPTH_MAX: usize = 4;

/// Returns the routes `/openapi/NAME.json` (the document) and `/reference/NAME` (the HTML page). Clients may cache both
/// for five minutes.
pub fn build_reference_routes(name: &str, document: OpenApi) -> Router {
    let json = document.to_json().expect("an OpenAPI document can be serialised");
    let page = render_reference_page(&serde_json::from_str(&json).expect("a serialised document is valid JSON"), name);
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        STANDARD.encode(Sha256::digest(STYLE))
    );
    let cached = (CACHE_CONTROL, "max-age=300".to_owned());
    let headers =
        [(CONTENT_TYPE, "text/html; charset=utf-8".to_owned()), (CONTENT_SECURITY_POLICY, policy), cached.clone()];
    let serve_json = get(async move || ([cached], response::response_from_json_text(StatusCode::OK, json)));
    let serve_page = get(async move || (headers, page).into_response());
    Router::new().route(&format!("/openapi/{name}.json"), serve_json).route(&format!("/reference/{name}"), serve_page)
}

fn render_reference_page(document: &Value, name: &str) -> String {
    let title = escape_html(text_or_empty(&document["info"]["title"]));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><header><h1>{title}</h1><p>{}</p>",
        escape_html(text_or_empty(&document["info"]["description"]))
    );
    for server in list_array_items(&document["servers"]) {
        append_formatted(
            &mut html,
            format_args!("<p>Base URL <code>{}</code></p>", escape_html(text_or_empty(&server["url"]))),
        );
    }
    append_formatted(
        &mut html,
        format_args!("<p><a href=\"/openapi/{name}.json\">OpenAPI 3.1 document</a></p></header>\n<nav><ul>"),
    );
    for (method, path, operation) in list_operations(document) {
        append_formatted(
            &mut html,
            format_args!(
                "<li><a href=\"#{}\"><b class=\"{method}\">{method}</b> {}</a> {}</li>",
                build_operation_anchor(method, path),
                escape_html(path),
                escape_html(text_or_empty(&operation["summary"]))
            ),
        );
    }
    html.push_str("</ul></nav>\n<main>");
    for (method, path, operation) in list_operations(document) {
        render_operation(&mut html, document, method, path, operation);
    }
    html.push_str("</main></body></html>\n");
    html
}

fn render_operation(html: &mut String, document: &Value, method: &str, path: &str, operation: &Value) {
    append_formatted(
        html,
        format_args!(
            "<section id=\"{}\"><h2><b class=\"{method}\">{method}</b> <code>{}</code></h2><h3>{}</h3><p>{}</p>",
            build_operation_anchor(method, path),
            escape_html(path),
            escape_html(text_or_empty(&operation["summary"])),
            escape_html_and_convert_backticks(text_or_empty(&operation["description"]))
        ),
    );
    if !list_array_items(&operation["parameters"]).is_empty() {
        html.push_str("<h4>Parameters</h4><table>");
        for parameter in list_array_items(&operation["parameters"]) {
            let required = if parameter["required"] == true { "required" } else { "optional" };
            append_formatted(
                html,
                format_args!(
                    "<tr><td><code>{}</code></td><td>{}, {required}</td><td>{}</td></tr>",
                    escape_html(text_or_empty(&parameter["name"])),
                    escape_html(text_or_empty(&parameter["in"])),
                    escape_html_and_convert_backticks(text_or_empty(&parameter["description"]))
                ),
            );
        }
        html.push_str("</table>");
    }
    if let Some(schema) = operation["requestBody"].pointer("/content/application~1json/schema") {
        html.push_str("<h4>Request body</h4>");
        render_schema_fields(html, document, schema, 0);
    }
    html.push_str("<h4>Responses</h4>");
    for (status, response) in list_object_entries(&operation["responses"]) {
        let description = escape_html_and_convert_backticks(text_or_empty(&response["description"]));
        append_formatted(
            html,
            format_args!("<details><summary><b>{}</b> {description}</summary>", escape_html(status)),
        );
        if let Some(schema) = response.pointer("/content/application~1json/schema") {
            render_schema_fields(html, document, schema, 0);
        }
        html.push_str("</details>");
    }
    html.push_str("</section>\n");
}

/// Appends a table with the fields of an object to `html`. The fields of nested objects become tables inside this
/// table, down to [`DEPTH_MAX`]. Appends nothing for a type without fields.
fn render_schema_fields(html: &mut String, document: &Value, schema: &Value, depth: usize) {
    let schema = resolve_schema_reference(document, schema);
    for choice in list_array_items(&schema["oneOf"]) {
        render_schema_fields(html, document, choice, depth);
    }
    if list_object_entries(&schema["properties"]).is_empty() || depth > DEPTH_MAX {
        return;
    }
    html.push_str("<table>");
    for (name, field) in list_object_entries(&schema["properties"]) {
        let optional = if list_array_items(&schema["required"]).iter().any(|required| required == name) {
            ""
        } else {
            ", optional"
        };
        let inner = resolve_schema_reference(document, field);
        let descriptions = [&field["description"], &inner["description"]].into_iter().map(text_or_empty);
        let description = descriptions.into_iter().find(|description| !description.is_empty());
        append_formatted(
            html,
            format_args!(
                "<tr><td><code>{}</code></td><td>{}{optional}</td><td>{}",
                escape_html(name),
                escape_html(&describe_schema_type(document, field)),
                escape_html_and_convert_backticks(description.unwrap_or(""))
            ),
        );
        let nested = if inner["type"] == "array" { &inner["items"] } else { field };
        render_schema_fields(html, document, nested, depth + 1);
        html.push_str("</td></tr>");
    }
    html.push_str("</table>");
}

/// Returns the type of a field as text, such as `string`, `array of object` or `one of a, b`.
fn describe_schema_type(document: &Value, schema: &Value) -> String {
    let schema = resolve_schema_reference(document, schema);
    let choices: Vec<&str> = list_array_items(&schema["enum"]).iter().map(text_or_empty).collect();
    if !choices.is_empty() {
        return format!("one of {}", choices.join(", "));
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => {
            format!("array of {}", describe_schema_type(document, &schema["items"]))
        }
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().map(text_or_empty).collect::<Vec<_>>().join(" or "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => "object".to_owned(),
    }
}

/// Returns the schema to which `$ref` points; the given schema when it has no `$ref`, or one that points nowhere.
fn resolve_schema_reference<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let Some(reference) = schema["$ref"].as_str() else { return schema };
    document.pointer(reference.trim_start_matches('#')).unwrap_or(schema)
}

fn list_operations(document: &Value) -> impl Iterator<Item = (&'static str, &str, &Value)> {
    list_object_entries(&document["paths"])
        .into_iter()
        .flat_map(|(path, item)| METHODS.into_iter().filter_map(move |method| Some((method, path, item.get(method)?))))
}

fn list_object_entries(value: &Value) -> Vec<(&str, &Value)> {
    value
        .as_object()
        .map(|object| object.iter().map(|(name, value)| (name.as_str(), value)).collect())
        .unwrap_or_default()
}

fn list_array_items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text_or_empty(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn build_operation_anchor(method: &str, path: &str) -> String {
    let as_id = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("{method}{}", path.chars().map(as_id).collect::<String>())
}

/// Escapes a text for HTML, and converts text between backticks to `<code>` elements.
fn escape_html_and_convert_backticks(text: &str) -> String {
    let parts = text.split('`').map(escape_html).enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { format!("<code>{part}</code>") } else { part }).collect()
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn append_formatted(html: &mut String, arguments: std::fmt::Arguments<'_>) {
    html.write_fmt(arguments).expect("writing to a String does not fail");
}
