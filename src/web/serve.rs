//! The HTTP server: accepts a limited number of connections, limits the size of request headers, and lets running
//! requests end before the daemon stops.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use config::Server;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tasks::Tasks;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::client::Peer;
use crate::connection_limits::ConnectionLimits;

/// Maximum time, from the start of a connection or the end of the previous request, until the headers of the next
/// request have arrived. An idle connection is closed after this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum size of the request line and headers together, in bytes.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Pause before the next attempt when a connection cannot be accepted, for example because the process has no free file
/// descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time after the beginning of a stop until connections without a running request are closed. Headers that a client
/// sent before the stop arrive within this time.
const CLOSE_IDLE_AFTER: Duration = Duration::from_secs(1);

/// Binds the listener. At most `server.listen_backlog` connections wait in the kernel until they are accepted.
///
/// # Errors
/// Fails when the address is not available.
pub fn bind_listener(server: &Server) -> io::Result<TcpListener> {
    let socket = if server.listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Without this option, a restarted daemon could not bind the port while connections of the previous process are
    // being closed.
    socket.set_reuseaddr(true)?;
    socket.bind(server.listen)?;
    socket.listen(server.listen_backlog)
}

/// Accepts and serves connections until `stop` is true. Then waits at most `server.shutdown_timeout_ms` for running
/// requests.
pub async fn serve_http_until_stopped(
    listener: TcpListener,
    router: Router,
    server: Server,
    tasks: Tasks,
    mut stop: watch::Receiver<bool>,
) {
    let limits = ConnectionLimits::new(&server);
    loop {
        // While the limit of connections is reached, further connections wait in the kernel's queue.
        let free = tokio::select! {
            () = wait_until_stopped(&mut stop) => break,
            free = limits.wait_and_reserve_connection() => free,
        };
        let (stream, peer) = tokio::select! {
            () = wait_until_stopped(&mut stop) => break,
            accepted = accept_connection_despite_errors(&listener) => accepted,
        };
        let Some(permit) = limits.admit_connection_within_client_limit(free, peer.ip()) else {
            debug!("a connection of {} was closed, because it has too many", peer.ip());
            continue;
        };
        set_stall_timeout_and_no_delay(&stream, server.stall_timeout);
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

async fn accept_connection_despite_errors(listener: &TcpListener) -> (TcpStream, SocketAddr) {
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

/// Sets `TCP_USER_TIMEOUT`, so that the kernel closes the connection of a client that does not read its response, and
/// `TCP_NODELAY`. The daemon itself cannot distinguish a client that does not read from an endpoint that is slow.
fn set_stall_timeout_and_no_delay(stream: &TcpStream, stall_timeout: Duration) {
    let ms = u32::try_from(stall_timeout.as_millis()).unwrap_or(u32::MAX);
    let timeout_set = rustix::net::sockopt::set_tcp_user_timeout(stream, ms).map_err(io::Error::from);
    if let Err(e) = timeout_set.and_then(|()| stream.set_nodelay(true)) {
        debug!("a socket option cannot be set: {e}");
    }
}

/// Serves one connection until the client closes it. After the daemon began to stop, the connection is closed as soon
/// as no request runs on it.
async fn serve_connection(stream: TcpStream, peer: SocketAddr, router: Router, mut stop: watch::Receiver<bool>) {
    let running = RunningRequests::default();
    let service = {
        let running = running.clone();
        service_fn(move |request| {
            route_request_counted_until_written(router.clone(), peer, running.count_request(), request)
        })
    };
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_BYTES_MAX);
    // A client may close its sending side after the request and still receives the response.
    builder.half_close(true);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = wait_until_stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            None
        }
    };
    while ended.is_none() {
        tokio::select! {
            result = connection.as_mut() => ended = Some(result),
            () = tokio::time::sleep(CLOSE_IDLE_AFTER) => if running.is_zero() { ended = Some(Ok(())) },
        }
    }
    if let Some(Err(e)) = ended {
        debug!("a connection ended early: {e}");
    }
}

/// The number of requests of a connection whose responses are not written yet.
#[derive(Clone, Default)]
struct RunningRequests(Arc<AtomicUsize>);

/// A request of a connection, which counts as running until this value is dropped.
struct RunningRequest(RunningRequests);

impl RunningRequests {
    fn count_request(&self) -> RunningRequest {
        self.0.fetch_add(1, Ordering::SeqCst);
        RunningRequest(self.clone())
    }

    fn is_zero(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        (self.0).0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn wait_until_stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender of the stop signal was dropped, which also happens only when the daemon ends.
    let _dropped = stop.wait_for(|stop| *stop).await.is_err();
}

async fn route_request_counted_until_written(
    router: Router,
    peer: SocketAddr,
    running: RunningRequest,
    request: hyper::Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut request: Request = request.map(axum::body::Body::new);
    request.extensions_mut().insert(Peer(peer));
    let response = router.oneshot(request).await?;
    // hyper drops the body of the response after it has written it. The closure belongs to the body and holds
    // `running`, so the request counts as running until then.
    Ok(response.map(|body| {
        axum::body::Body::new(body.map_err(move |error| {
            let _until_written = &running;
            error
        }))
    }))
}
