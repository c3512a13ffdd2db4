//! The body of a put: no bytes make it panic, and what is read is written and read back the same.
#![no_main]

use flowlog_model::log_group::LogGroup;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(group) = LogGroup::read(bytes) {
        let again = LogGroup::read(&group.encode_to_vec());
        assert_eq!(again.ok(), Some(group));
    }
});
