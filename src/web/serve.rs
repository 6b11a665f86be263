//! The HTTP server: accepts a limited number of connections, limits the size of headers, and completes running requests
//! at a shutdown.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use config::Server;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::client::Peer;
use crate::connection_limits::ConnectionLimits;

/// Maximum time for the request line and headers to arrive. An idle connection is closed after the same time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum size of the request line and headers together, in bytes.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Pause after a connection could not be accepted, such as when the process has no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop` is true, then waits at most `server.shutdown_timeout_ms` for running requests.
pub async fn serve_http(
    listener: TcpListener,
    router: Router,
    server: Server,
    tasks: Tasks,
    mut stop: watch::Receiver<bool>,
) {
    let limits = ConnectionLimits::new(&server);
    loop {
        // While the limit of connections is reached, further connections wait in the kernel's queue.
        let free = limits.wait_for_free_connection().await;
        let (stream, peer) = tokio::select! {
            () = wait_until_stopped(&mut stop) => break,
            accepted = accept_connection(&listener) => accepted,
        };
        let Some(permit) = limits.admit_connection(free, peer.ip()) else {
            debug!("a connection of {} was closed, because it has too many", peer.ip());
            continue;
        };
        set_socket_options(&stream, server.stall_timeout);
        let (router, stop) = (router.clone(), stop.clone());
        tasks.spawn("connection", async move {
            serve_connection(stream, peer, router, stop).await;
            drop(permit);
        });
    }
    drop(listener);
    match tokio::time::timeout(server.shutdown_timeout, limits.wait_until_all_closed()).await {
        Ok(()) => info!("all connections have ended"),
        Err(_elapsed) => warn!("connections that were still open after server.shutdown_timeout_ms were closed"),
    }
}

async fn accept_connection(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(e) if is_closed_by_client(&e) => debug!("a client closed its connection before it was accepted: {e}"),
            Err(e) => {
                warn!("cannot accept connections: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_closed_by_client(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&e.kind())
}

/// Sets `TCP_USER_TIMEOUT`, so that the kernel closes the connection of a client that does not read its response. The
/// daemon itself cannot distinguish such a client from a slow endpoint.
fn set_socket_options(stream: &TcpStream, stall_timeout: Duration) {
    let ms = u32::try_from(stall_timeout.as_millis()).unwrap_or(u32::MAX);
    let timeout_set = rustix::net::sockopt::set_tcp_user_timeout(stream, ms).map_err(io::Error::from);
    if let Err(e) = timeout_set.and_then(|()| stream.set_nodelay(true)) {
        debug!("a socket option cannot be set: {e}");
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, router: Router, mut stop: watch::Receiver<bool>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| route_request(router.clone(), peer, request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_BYTES_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = wait_until_stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        debug!("a connection ended early: {e}");
    }
}

async fn wait_until_stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender of the stop signal was dropped, which also happens only when the daemon ends.
    let _dropped = stop.wait_for(|stop| *stop).await.is_err();
}

async fn route_request(
    router: Router,
    peer: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut request: Request = request.map(axum::body::Body::new);
    request.extensions_mut().insert(Peer(peer));
    router.oneshot(request).await
}
