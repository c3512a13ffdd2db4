//! What a panic ends: the process, for what it leaves half done is not known. But for one in a query: a query owns nothing that it writes,
//! and the engine that it runs in is large, somebody else's, and fed with what clients send. That query fails, and nothing else.
use std::panic;
use std::thread;

use crate::log_service::query;

/// Has every panic end the process from now on, but those in queries.
pub(super) fn end_the_process() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        tell(what);
        if is_fatal(thread::current().name()) {
            std::process::abort();
        }
    }));
}

/// Whether a panic in a thread of this name ends the process.
fn is_fatal(thread: Option<&str>) -> bool {
    thread != Some(query::THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_threads_of_queries_may_panic() {
        assert!(is_fatal(None) && is_fatal(Some("main")) && is_fatal(Some("store-writer")));
        assert!(!is_fatal(Some(query::THREADS)));
    }
}
