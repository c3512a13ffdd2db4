//! What is read to find the newest logs, and the oldest.
use datafusion::object_store::ObjectStoreExt as _;

use super::fixture::{Fixture, batch, log};
use crate::log_service::query::QueryRequest;

const HOURS: u32 = 8;
/// Logs of an hour: more than are gathered before they are compared with the newest that are known.
const EACH: u32 = 10_000;
/// Files that may be read: one that has enough, and those that are opened while it is read.
const READ: usize = 3;

/// The time of an hour's log.
fn time(hour: u32, index: u32) -> u32 {
    hour * 3600 + index / 3
}

/// So many logs in each hour, in files of which all but the newest, or the oldest, are gone.
fn fixture(newest: bool) -> Fixture {
    let logs = |hour: u32| {
        let contents = [("eni-id", "eni-1"), ("dstport", "443")];
        let log = |index: u32| log(time(hour, index), &contents);
        batch((0..EACH).map(log).collect())
    };
    let batches: Vec<_> = (0..HOURS).map(logs).collect();
    let fixture = Fixture::hourly(&batches);
    let mut files = fixture.snapshot.files.clone();
    assert_eq!(files.len(), HOURS as usize);
    files.sort_by_key(|file| file.min_time);
    if newest {
        files.reverse();
    }
    for file in &files[READ..] {
        let gone = fixture.snapshot.objects.delete(&file.path);
        fixture.wait(gone).expect("it was there");
    }
    fixture
}

#[test]
fn a_page_of_the_newest_or_the_oldest_logs_reads_the_files_that_have_them_and_no_others() {
    for reverse in [true, false] {
        let fixture = fixture(reverse);
        let request = QueryRequest {
            to: u32::MAX,
            // A port is also looked for in what a log has besides its columns, which cannot be done while a file is read.
            query: "eni-id: eni-1 and dstport: 443".to_owned(),
            line: 100,
            reverse,
            ..QueryRequest::default()
        };
        let found = fixture.request(request).expect("the files are there");
        let times: Vec<u32> = found
            .rows()
            .expect("rows")
            .iter()
            .map(|row| {
                row["__time__"]
                    .as_str()
                    .expect("a text")
                    .parse()
                    .expect("a time")
            })
            .collect();
        let wanted: Vec<u32> = if reverse {
            let last = (EACH - 100..EACH).rev();
            last.map(|index| time(HOURS - 1, index)).collect()
        } else {
            (0..100).map(|index| time(0, index)).collect()
        };
        assert_eq!(times, wanted);
    }
}
