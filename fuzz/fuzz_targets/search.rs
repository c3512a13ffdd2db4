//! A query: no text makes the parsers of search and SQL panic, run out of stack or take for ever, and a search that is written anew and read
//! again is the same search.
#![no_main]

use flowlog::log_service::query::{MAX_QUERY_BYTES, MAX_VALUE_BYTES, check, written};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|query: &str| {
    let _ = check(query);
    if let Ok(search) = written(query) {
        // With quotes and escapes it may be too long to be read again.
        if search.len() <= MAX_QUERY_BYTES.min(MAX_VALUE_BYTES) {
            assert_eq!(written(&search).ok(), Some(search));
        }
    }
});
