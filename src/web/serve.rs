//! The listener: bounded connections, bounded headers, and an end that lets running requests finish.

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

/// Whoever needs longer to send the head of a request is cut off; this is also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// Request line and headers together.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// When the process has no more descriptors, accepting pauses so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` says so, then lets running requests finish within the configured time.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    server: Server,
    tasks: Tasks,
    mut stop: watch::Receiver<bool>,
) {
    let slots = ConnectionLimits::new(&server);
    loop {
        // More connections than there are places wait in the kernel's queue.
        let place = slots.place().await;
        let (stream, peer) = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = accept(&listener) => accepted,
        };
        let Some(slot) = slots.admit(place, peer.ip()) else {
            debug!("{} has too many connections", peer.ip());
            continue;
        };
        prepare(&stream, server.stall_timeout);
        let (router, stop) = (router.clone(), stop.clone());
        tasks.spawn("connection", async move {
            connection(stream, peer, router, stop).await;
            drop(slot);
        });
    }
    drop(listener);
    match tokio::time::timeout(server.shutdown_timeout, slots.all()).await {
        Ok(()) => info!("every connection has ended"),
        Err(_elapsed) => warn!("connections were cut off at the end of the shutdown time"),
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(e) if is_of_one_client(&e) => debug!("a client went away before it was accepted: {e}"),
            Err(e) => {
                warn!("no connection can be accepted: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_client(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&e.kind())
}

/// A client that takes nothing of its answer is cut off by the kernel, which alone knows: no time-out above it sees a
/// full buffer from a slow answer.
fn prepare(stream: &TcpStream, stall: Duration) {
    let ms = u32::try_from(stall.as_millis()).unwrap_or(u32::MAX);
    let limited = rustix::net::sockopt::set_tcp_user_timeout(stream, ms).map_err(io::Error::from);
    if let Err(e) = limited.and_then(|()| stream.set_nodelay(true)) {
        debug!("a socket refused an option: {e}");
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, mut stop: watch::Receiver<bool>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| answer(router.clone(), peer, request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_BYTES_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        debug!("a connection ended early: {e}");
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone has stopped everything.
    let _gone = stop.wait_for(|stop| *stop).await.is_err();
}

async fn answer(router: Router, peer: SocketAddr, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
    let mut request: Request = request.map(axum::body::Body::new);
    request.extensions_mut().insert(Peer(peer));
    router.oneshot(request).await
}
