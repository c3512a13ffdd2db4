//! What the service reads of a request before it knows who asks: the parameters of query and form, and the `Authorization` header.
//!
//! `cargo fuzz run request`, in the root of the sources. What is found becomes a test in `flowlog-model/src/signature`, whose property
//! tests hold the same invariants with fewer tries.
#![no_main]

use flowlog_model::signature::acs3::Authorization;
use flowlog_model::signature::{encoding, v1};
use libfuzzer_sys::fuzz_target;

/// As the service's.
const MAX_PARAMETERS: usize = 1000;

fuzz_target!(|text: &str| {
    if let Ok(parameters) = encoding::parameters(text, MAX_PARAMETERS) {
        assert!(parameters.len() <= MAX_PARAMETERS);
        // What is signed says the same as what was sent, in one order.
        let mut sorted = parameters.clone();
        sorted.sort();
        let canonical = encoding::canonical(&parameters);
        assert_eq!(encoding::canonical(&sorted), canonical);
        assert_eq!(encoding::parameters(&canonical, MAX_PARAMETERS), Ok(sorted));
        assert!(v1::string_to_sign("POST", &parameters).is_ascii());
    }
    if let Some(authorization) = Authorization::parse(text) {
        assert_eq!(
            Authorization::parse(&authorization.to_string()),
            Some(authorization)
        );
    }
});
