//! The HTTP listener: health, API documents, limits, hosts, clients behind proxies, graceful shutdown.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use provision::node;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{found, on_chain, query, refused};
use crate::world::{Answer, World};

const DOCUMENTED: [(&str, &str); 7] = [
    ("get", "/api/products"),
    ("get", "/api/products/{idOrSlug}"),
    ("post", "/api/orders"),
    ("get", "/api/orders/query"),
    ("post", "/api/orders/query"),
    ("get", "/api/orders/{id}/status"),
    ("get", "/api/payment-config"),
];

/// Sends raw bytes and reads until the server closes the connection.
async fn send_raw_bytes_and_read(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.address()).await.expect("a connection");
    stream.write_all(bytes).await.expect("the request is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer in UTF-8");
    text
}

/// Opens a connection, receives one response and keeps the connection open.
async fn open_idle_connection(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.address()).await.expect("a connection");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("a request");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    stream
}

/// Returns the status of a response on a new connection; `None` if the server closes the connection without a response.
async fn request_on_new_connection(world: &World) -> Option<String> {
    let mut stream = TcpStream::connect(world.address()).await.expect("a connection");
    // A closed connection may refuse the request or lose the response.
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.split(' ').nth(1).map(str::to_owned)
}

async fn wait_until_answered(world: &World) {
    let answered = async {
        while request_on_new_connection(world).await.as_deref() != Some("200") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("a place becomes free");
}

fn collect_schema_references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect_schema_references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_schema_references(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns the server URL in the OpenAPI document.
async fn fetch_documented_url(world: &World) -> String {
    world.get("/openapi/checkout.json").await.body["servers"][0]["url"].as_str().expect("a URL").to_owned()
}

async fn get_from_host(world: &World, host: &str, path: &str) -> Answer {
    world.send(world.request("GET", path).header("host", host)).await
}

both! {
    async fn readiness_names_the_failing_parts(world: World) {
        assert_eq!(world.get("/healthz").await.body, json!({"status": "ok"}));
        assert_eq!(world.get("/readyz").await.body, json!({"status": "ready"}));
        let health = world.daemon.as_ref().expect("the daemon runs").health.clone();
        health.set_problem("ethereum", "no endpoint answers");
        let answer = world.get("/readyz").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body, json!({"status": "not ready", "problems": ["ethereum"]}));
        assert_eq!(world.get("/healthz").await.status, 200);
        health.clear_problem("ethereum");
        assert_eq!(world.get("/readyz").await.status, 200);
    }

    async fn the_openapi_document_matches_the_served_api(world: World) {
        let answer = world.get("/openapi/checkout.json").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["openapi"], json!("3.1.0"));
        assert_eq!(answer.body["servers"][0]["url"], json!(world.config.server.public_url.as_str().trim_end_matches('/')));
        let paths = answer.body["paths"].as_object().expect("paths");
        let listed: BTreeSet<(&str, &str)> = paths.iter()
            .flat_map(|(path, item)| item.as_object().expect("operations").keys().map(move |method| (method.as_str(), path.as_str())))
            .collect();
        assert_eq!(listed, BTreeSet::from(DOCUMENTED));
        let mut used = BTreeSet::new();
        collect_schema_references(&answer.body, &mut used);
        assert!(used.iter().any(|reference| reference.ends_with("/CreatedOrder")), "{used:?}");
        for reference in used {
            assert!(answer.body.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        // A real response has exactly the documented required fields.
        let order = world.post("/api/orders", &on_chain(&world.product, 1, "eth")).await;
        for (schema, part) in [("CreatedOrder", &order.body), ("Order", &order.body["order"]), ("CoinPayment", &order.body["payment"])] {
            let fields = answer.body["components"]["schemas"][schema]["properties"].as_object().expect("properties");
            let documented: BTreeSet<&String> = fields.keys().collect();
            assert_eq!(documented, part.as_object().expect("an object").keys().collect(), "{schema}");
        }
    }

    async fn validators_and_linters_have_no_word_to_say_about_the_openapi_document(world: World) {
        let answer = world.get("/openapi/checkout.json").await;
        let findings = node::run_linter("openapi", answer.body.clone()).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(findings, json!([]));
        // The linters do say something about a document with a fault of each kind.
        let mut wrong = answer.body;
        wrong["paths"]["/api/payment-config"]["get"]["operationId"] = json!("list_products");
        wrong["info"]["version"] = Value::Null;
        let findings = node::run_linter("openapi", wrong).await.unwrap_or_else(|e| panic!("{e}")).to_string();
        for judge in ["specification:", "redocly operation-operationId-unique", "spectral operation-operationId-unique"] {
            assert!(findings.contains(judge), "{judge} is missing in {findings}");
        }
    }

    async fn a_text_that_the_document_calls_too_short_is_refused(world: World) {
        let document = world.get("/openapi/checkout.json").await.body;
        let order = &document["components"]["schemas"]["NewOrder"]["properties"]["contactEmail"];
        assert_eq!((&order["minLength"], &order["maxLength"]), (&json!(5), &json!(254)));
        let lookup = &document["components"]["schemas"]["OrderQuery"]["properties"];
        assert_eq!((&lookup["orderNo"]["minLength"], &lookup["email"]["minLength"]), (&json!(1), &json!(1)));
        let mut wanted = on_chain(&world.product, 1, "eth");
        wanted["contactEmail"] = json!("a@b.c");
        assert_eq!(world.post("/api/orders", &wanted).await.status, 201, "the shortest address");
        refused(&world.post("/api/orders/query", &json!({"orderNo": "", "email": "a@b.cc"})).await, 400, "validation_error");
        refused(&world.post("/api/orders/query", &json!({"orderNo": "x", "email": ""})).await, 400, "validation_error");
    }

    async fn the_reference_is_a_page_without_scripts(world: World) {
        let answer = world.get("/reference/checkout").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        for (_, path) in DOCUMENTED {
            assert!(answer.text.contains(path), "{path}");
        }
        for forbidden in ["<script", "onclick", "http-equiv", "<link", "src="] {
            assert!(!answer.text.contains(forbidden), "{forbidden}");
        }
        let (_, rest) = answer.text.split_once("<style>").expect("a style");
        let (style, _) = rest.split_once("</style>").expect("its end");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains(&format!("'sha256-{}'", STANDARD.encode(Sha256::digest(style)))), "{policy}");
        assert!(policy.contains("default-src 'none'"));
    }

    async fn requests_are_limited_per_client(world: World = |config| {
        config.server.requests_per_minute = 6;
    }) {
        for n in 0..6 {
            let path = ["/api/products", "/api/payment-config", "/openapi/checkout.json"][n % 3];
            assert_eq!(world.get_from("10.0.0.1", path).await.status, 200);
        }
        let answer = world.get_from("10.0.0.1", "/api/products").await;
        refused(&answer, 429, "rate_limited");
        assert_eq!(answer.header("retry-after"), Some("10"));
        let plain = world.get_from("10.0.0.1", "/reference/checkout").await;
        assert_eq!((plain.status, plain.header("retry-after")), (429, Some("10")));
        assert_eq!(world.get_from("10.0.0.1", "/healthz").await.status, 200, "health is not limited");
        found(&world.get_from("10.0.0.2", "/api/products").await);
        world.advance_seconds(10);
        found(&world.get_from("10.0.0.1", "/api/products").await);
    }

    async fn a_forwarded_header_from_an_untrusted_peer_is_ignored(world: World = |config| {
        config.server.trusted_proxies.clear();
    }) {
        for n in 0..3 {
            refused(&query(&world, &format!("10.0.0.{n}"), &format!("CO{n}"), "a@example.org").await, 404, "order_not_found");
        }
        let id = uuid::Uuid::new_v4().to_string();
        let logs = world.logs();
        let warnings = logs.lines().filter(|line| line.contains(" WARN ") && line.contains("is not in server.trusted_proxies"));
        assert!(warnings.count() >= 1, "it is told in the log");
        found(&world.send(world.request("GET", "/api/products").header("x-forwarded-for", "10.0.0.8").header("x-request-id", &id)).await);
        let told_again = world.logs().lines().filter(|line| line.contains(" WARN ") && line.contains(&id)).count();
        assert_eq!(told_again, 0, "it is told once");
        refused(&query(&world, "10.0.0.9", "CO9", "a@example.org").await, 429, "rate_limited");
    }

    async fn bodies_are_bounded_in_size_and_time(world: World = |config| {
        config.server.body_bytes_max = 1000;
        config.server.request_timeout = Duration::from_millis(300);
    }) {
        let head = "POST /api/orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n";
        let announced = send_raw_bytes_and_read(&world, format!("{head}Content-Length: 1001\r\n\r\n").as_bytes()).await;
        assert!(announced.starts_with("HTTP/1.1 413 ") && announced.contains("\"validation_error\""), "{announced}");
        let chunk = format!("3E9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
        let chunked = send_raw_bytes_and_read(&world, format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}").as_bytes()).await;
        assert!(chunked.starts_with("HTTP/1.1 413 "), "{chunked}");
        let unfinished = send_raw_bytes_and_read(&world, format!("{head}Content-Length: 10\r\n\r\n{{").as_bytes()).await;
        assert!(unfinished.starts_with("HTTP/1.1 408 ") && unfinished.contains("\"success\":false"), "{unfinished}");
        let malformed = send_raw_bytes_and_read(&world, format!("{head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n").as_bytes()).await;
        assert!(malformed.starts_with("HTTP/1.1 400 ") && malformed.contains("\"validation_error\""), "{malformed}");
        let garbage = send_raw_bytes_and_read(&world, b"\x16\x03\x01 not HTTP\r\n\r\n").await;
        assert!(garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
        let lines = "X-Filler: abcdefghijklmnopqrstuvwxyz\r\n".repeat(101);
        let many = send_raw_bytes_and_read(&world, format!("GET /api/products HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes()).await;
        assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
        found(&world.get("/api/products").await);
    }

    async fn a_request_needs_one_valid_host(world: World) {
        for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: me@a\r\n"] {
            let answer = send_raw_bytes_and_read(&world, format!("GET /api/products HTTP/1.1\r\nConnection: close\r\n{hosts}\r\n").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"validation_error\""), "{hosts:?}: {answer}");
        }
        let health = send_raw_bytes_and_read(&world, b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        assert!(health.starts_with("HTTP/1.1 400 "), "{health}");
        for head in ["1.0\r\n", "1.0\r\nHost: a\r\n", "1.1\r\nConnection: close\r\nHost: [::1]:80\r\n", "1.1\r\nConnection: close\r\nHost:\r\n"] {
            let answer = send_raw_bytes_and_read(&world, format!("GET /api/products HTTP/{head}\r\n").as_bytes()).await;
            assert!(answer.contains(" 200 OK\r\n"), "{head:?}: {answer}");
        }
    }

    async fn a_client_that_sends_no_more_still_gets_its_response(world: World) {
        let order = on_chain(&world.product, 1, "eth").to_string();
        let head = "POST /api/orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
        for (request, status) in [
            (format!("{head}Content-Length: {}\r\n\r\n{order}", order.len()), "201"),
            (format!("{head}Content-Length: {}\r\n\r\n{order}", order.len() + 1), "400"),
        ] {
            let mut stream = TcpStream::connect(world.address()).await.expect("a connection");
            stream.write_all(request.as_bytes()).await.expect("a request");
            stream.shutdown().await.expect("the sending side is closed");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    }

    async fn a_burst_of_connections_waits_until_it_is_accepted(world: World = |config| {
        config.server.connections_max = 1;
    }) {
        let first = open_idle_connection(&world).await;
        let address = world.address();
        let burst = (0..1_500).map(|_| tokio::time::timeout(Duration::from_millis(900), TcpStream::connect(address)));
        let burst = futures_util::future::join_all(burst).await;
        let connected = burst.iter().filter(|outcome| matches!(outcome, Ok(Ok(_)))).count();
        assert_eq!(connected, 1_500);
        drop((first, burst));
        wait_until_answered(&world).await;
    }

    async fn an_outage_of_the_database_is_temporary_and_one_error_in_the_log(world: World) {
        world.db.close().await;
        let id = uuid::Uuid::new_v4();
        for n in 0..5 {
            for request in [
                world.request("GET", "/api/products"),
                world.request("POST", "/api/orders").json(&on_chain(&world.product, 1, "eth")),
                world.request("GET", &format!("/api/orders/{id}/status")),
                world.request("GET", &format!("/api/orders/query?orderNo=CO{n}&email=a@example.org")).header("x-forwarded-for", format!("10.0.0.{n}")),
            ] {
                let answer = world.send(request.header("x-request-id", format!("{id}-{n}"))).await;
                refused(&answer, 503, "internal_error");
                assert_eq!(answer.header("retry-after"), Some("10"));
            }
        }
        let logs = world.logs();
        let of_requests: Vec<&str> = logs.lines().filter(|line| line.contains(&id.to_string())).collect();
        let errors: Vec<&&str> = of_requests.iter().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("the database is closed"), "{errors:?}");
        let requests = of_requests.iter().filter(|line| line.contains(" INFO ") && line.contains("status 503")).count();
        assert_eq!(requests, 20, "each request is logged with its id");
        world.crash_and_boot().await;
        found(&world.get("/api/products").await);
    }

    async fn unfinished_requests_do_not_delay_a_stop(world: World) {
        let head = "POST /api/orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
        let mut open = Vec::new();
        for sent in ["", "GET /healthz HT", &format!("{head}Content-Length: 10\r\n\r\n{{"), &format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\n{{"), ] {
            let mut stream = TcpStream::connect(world.address()).await.expect("a connection");
            stream.write_all(sent.as_bytes()).await.expect("a part of a request");
            open.push(stream);
        }
        let mut reused = open_idle_connection(&world).await;
        reused.write_all(b"GET /api/pro").await.expect("a part of a second request");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = std::time::Instant::now();
        world.daemon.take().expect("the daemon runs").shut_down().await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        let mut answer = String::new();
        open[2].read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"success\":false"), "{answer}");
        world.crash_and_boot().await;
    }

    async fn connections_are_limited_per_client(world: World = |config| {
        config.server.trusted_proxies.clear();
        config.server.connections_per_client = 2;
    }) {
        let (first, _second) = (open_idle_connection(&world).await, open_idle_connection(&world).await);
        assert_eq!(request_on_new_connection(&world).await, None, "a third connection is closed");
        drop(first);
        wait_until_answered(&world).await;
    }

    async fn a_client_that_does_not_read_its_response_is_disconnected(world: World = |config| {
        config.server.trusted_proxies.clear();
        config.server.connections_per_client = 1;
        config.server.stall_timeout = Duration::from_millis(300);
    }) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a small buffer");
        let mut stalled = socket.connect(world.address()).await.expect("a connection");
        // The client requests more response bytes than the buffers of both sides can hold, and reads none of them.
        let requests = b"GET /reference/checkout HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500);
        let sent = tokio::time::timeout(Duration::from_secs(1), stalled.write_all(&requests)).await;
        assert!(sent.is_err() || sent.is_ok_and(|sent| sent.is_ok()), "the server still reads or waits");
        wait_until_answered(&world).await;
        drop(stalled);
    }

    async fn a_surface_is_served_under_its_prefix(world: World = |config| {
        config.surfaces.checkout.mount.prefix = "/shop".into();
    }) {
        found(&world.get("/shop/api/products").await);
        refused(&world.get("/shop/api/nothing").await, 404, "not_found");
        let outside = world.get("/api/products").await;
        assert_eq!((outside.status, outside.body), (404, json!({"error": "there is nothing at this path"})));
        assert!(fetch_documented_url(&world).await.ends_with("/shop"));
    }

    async fn a_surface_is_served_on_its_host(world: World = |config| {
        config.surfaces.checkout.mount.host = "Pay.example".into();
    }) {
        for host in ["pay.example", "PAY.EXAMPLE", "pay.example:8443"] {
            found(&get_from_host(&world, host, "/api/products").await);
            refused(&get_from_host(&world, host, "/api/nothing").await, 404, "not_found");
            assert_eq!(get_from_host(&world, host, "/healthz").await.status, 200);
        }
        for host in ["other.example", "pay.example.org", "127.0.0.1"] {
            assert_eq!(get_from_host(&world, host, "/api/products").await.body, json!({"error": "there is nothing at this path"}));
            assert_eq!(get_from_host(&world, host, "/healthz").await.status, 200);
        }
        assert!(fetch_documented_url(&world).await.starts_with("http://pay.example"));
    }

    async fn pages_of_configured_origins_may_call_the_surface(world: World = |config| {
        config.surfaces.checkout.cors_origins = vec!["https://shop.example".into()];
        config.server.requests_per_minute = 6;
    }) {
        let preflight = |origin| world.request("OPTIONS", "/api/orders").header("origin", origin)
            .header("access-control-request-method", "POST").header("access-control-request-headers", "content-type,idempotency-key");
        let allowed = world.send(preflight("https://shop.example")).await;
        assert_eq!(allowed.status, 204);
        assert_eq!(allowed.header("access-control-allow-origin"), Some("https://shop.example"));
        assert!(allowed.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
        assert!(allowed.header("access-control-allow-headers").is_some_and(|headers| headers.contains("idempotency-key")));
        assert_eq!(allowed.header("vary"), Some("origin"));
        for origin in ["https://other.example", "http://shop.example", "https://shop.example.evil.example", "null"] {
            let refused = world.send(preflight(origin)).await;
            assert_eq!((refused.status, refused.header("access-control-allow-origin")), (405, None), "{origin}");
        }
        // Refusals of the server itself can be read by the page as well.
        for status in [200, 200, 429] {
            let answer = world.send(world.request("GET", "/api/products").header("origin", "https://shop.example")).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
            assert!(answer.header("access-control-expose-headers").is_some_and(|headers| headers.contains("retry-after")));
        }
    }

    async fn every_response_has_a_request_id_and_security_headers(world: World) {
        let given = world.send(world.request("GET", "/api/products").header("x-request-id", "trace-1.a_B")).await;
        assert_eq!(given.header("x-request-id"), Some("trace-1.a_B"));
        let long = "a".repeat(65);
        for odd in ["", "with blank", "\"quoted\"", &long] {
            let answer = world.send(world.request("GET", "/nothing").header("x-request-id", odd)).await;
            let id = answer.header("x-request-id").expect("an id");
            assert!(id.parse::<uuid::Uuid>().is_ok(), "{id}");
        }
        for path in ["/api/products", "/api/nothing", "/nothing", "/healthz"] {
            let answer = world.get(path).await;
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
            assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
            assert!(answer.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
        }
    }

    async fn a_stop_closes_idle_connections_and_the_port(world: World) {
        let address = world.address();
        let mut idle = TcpStream::connect(address).await.expect("a connection");
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("a request");
        let mut answer = [0; 12];
        idle.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let daemon = world.daemon.take().expect("the daemon runs");
        daemon.shut_down().await;
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.expect("the server closes");
        assert!(TcpStream::connect(address).await.is_err());
        world.crash_and_boot().await;
        found(&world.get("/api/products").await);
    }
}
