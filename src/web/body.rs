//! Reads the body of a request into one buffer of bounded size.
//!
//! hyper delivers a body in frames, and every frame keeps the whole read buffer of its connection in memory. A client
//! that sends its body byte by byte causes one frame per byte. So each frame is copied and dropped before the next one
//! is read.

use axum::body::{Body, HttpBody};
use http_body_util::BodyExt;

use crate::http_error::HttpError;

/// Reads a complete body of at most `bytes_max` bytes. A larger `Content-Length` is refused before anything is read.
///
/// # Errors
/// [`HttpError::BodyTooLarge`] for a larger body, [`HttpError::BodyMalformed`] when the body breaks off or its chunks are
/// malformed.
pub async fn read_bounded_body(mut body: Body, bytes_max: usize) -> Result<Vec<u8>, HttpError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(HttpError::BodyTooLarge);
    }
    // The buffer grows with the bytes that arrive, so that a `Content-Length` alone takes no memory.
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| HttpError::BodyMalformed)?;
        // Trailers are ignored.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > bytes_max - buffer.len() {
            return Err(HttpError::BodyTooLarge);
        }
        buffer.extend_from_slice(&data);
    }
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::Bytes;
    use futures_util::stream;

    use super::*;

    /// The read buffer of a connection. Counts how many of them are in memory.
    struct ReadBuffer(Arc<AtomicUsize>);

    impl ReadBuffer {
        fn new(alive: &Arc<AtomicUsize>) -> ReadBuffer {
            alive.fetch_add(1, Ordering::SeqCst);
            ReadBuffer(alive.clone())
        }
    }

    impl AsRef<[u8]> for ReadBuffer {
        fn as_ref(&self) -> &[u8] {
            b"x"
        }
    }

    impl Drop for ReadBuffer {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn no_frame_stays_in_memory_after_it_was_read() {
        let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let frames = (0..1_000).map({
            let (alive, most) = (alive.clone(), most.clone());
            move |_| {
                let frame = Bytes::from_owner(ReadBuffer::new(&alive));
                most.fetch_max(alive.load(Ordering::SeqCst), Ordering::SeqCst);
                Ok::<_, std::convert::Infallible>(frame)
            }
        });
        let body = read_bounded_body(Body::from_stream(stream::iter(frames)), 1_000).await.unwrap();
        assert_eq!((body.len(), body.capacity() <= 2_000), (1_000, true));
        assert!(most.load(Ordering::SeqCst) <= 2, "{most:?} read buffers were in memory at the same time");
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}
