//! Work that would hold up every other request on a thread that serves.

/// Bodies up to this size are decoded where they are: moving them elsewhere costs more.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Does work on a body of so many bytes, on a thread for that if they are many; none if it panics there.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if bytes <= INLINE_BYTES_MAX {
        return Some(work());
    }
    tokio::task::spawn_blocking(work).await.ok()
}
