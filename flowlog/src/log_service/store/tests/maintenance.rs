use proptest::prelude::*;

use super::*;

/// Puts a log for each time, named after its number, and writes them to a file each.
async fn put_and_flush(store: &Store, key: &LogstoreKey, times: &[u32], first: usize) {
    for (number, &time) in times.iter().enumerate() {
        let logs = batch(vec![log(time, "eni-1", &format!("{:04}", first + number))]);
        store.put(key, logs, None, at(time)).await.unwrap();
        store.flush(at(time)).await.unwrap();
    }
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("{number:04}")).collect()
}

#[tokio::test]
async fn an_hour_becomes_one_file_when_it_is_over_and_eight_files_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let store = open(folder.path()).await;
    put_and_flush(
        &store,
        &key,
        &[MIDNIGHT + 3599, MIDNIGHT + 5, MIDNIGHT + 3600],
        0,
    )
    .await;
    assert_eq!(store.status().files, 3);
    store
        .maintain(at(MIDNIGHT + 3600 + 899), |_| None)
        .await
        .unwrap();
    assert_eq!(store.status().files, 3);
    store
        .maintain(at(MIDNIGHT + 3600 + 900), |_| None)
        .await
        .unwrap();
    assert_eq!(store.status().files, 2);
    assert_eq!(pulled(&store, &key, 2).await, numbered(0..3));
    put_and_flush(&store, &key, &[MIDNIGHT + 3600; 7], 3).await;
    store.maintain(at(MIDNIGHT + 3601), |_| None).await.unwrap();
    assert_eq!(store.status().files, 2);
    assert_eq!(pulled(&store, &key, 2).await, numbered(0..10));
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(pulled(&store, &key, 2).await, numbered(0..10));
    // What came late joins its hour when it is quiet.
    put_and_flush(&store, &key, &[MIDNIGHT], 10).await;
    store
        .maintain(at(MIDNIGHT + 7200 + 900), |_| None)
        .await
        .unwrap();
    assert_eq!(store.status().files, 2);
    assert_eq!(names(&store, &key).await, numbered(0..11));
}

#[tokio::test]
async fn files_that_a_snapshot_has_stay_until_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let store = open(folder.path()).await;
    put_and_flush(&store, &key, &[MIDNIGHT; 8], 0).await;
    let before = store.snapshot(&key, 0, u32::MAX);
    store.maintain(at(MIDNIGHT), |_| Some(1)).await.unwrap();
    let after = store.snapshot(&key, 0, u32::MAX);
    assert_eq!((before.files.len(), after.files.len()), (8, 1));
    store
        .maintain(at(MIDNIGHT + 2 * 86_400), |_| Some(1))
        .await
        .unwrap();
    assert!(names(&store, &key).await.is_empty());
    assert_eq!(
        (
            rows(&before).await.num_rows(),
            rows(&after).await.num_rows()
        ),
        (8, 8)
    );
    drop((before, after));
    store
        .maintain(at(MIDNIGHT + 2 * 86_400), |_| Some(1))
        .await
        .unwrap();
    assert_eq!(
        std::fs::read_dir(folder.path().join("logs"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn retention_lets_go_of_whole_hours_and_of_nothing_younger() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let store = open(folder.path()).await;
    put_and_flush(
        &store,
        &key,
        &[MIDNIGHT, MIDNIGHT + 3600, MIDNIGHT + 7200],
        0,
    )
    .await;
    let day = 86_400;
    for (now, left) in [
        (3599, 0..3),
        (3600, 1..3),
        (7199, 1..3),
        (7200, 2..3),
        (10_800, 3..3),
    ] {
        store
            .maintain(at(MIDNIGHT + day + now), |_| Some(1))
            .await
            .unwrap();
        assert_eq!(names(&store, &key).await, numbered(left), "{now}");
    }
    put_and_flush(&store, &key, &[MIDNIGHT + 86_400], 3).await;
    store
        .maintain(at(MIDNIGHT + 100 * day), |_| None)
        .await
        .unwrap();
    assert_eq!(names(&store, &key).await, numbered(3..4));
}

/// What arrived late belongs to an hour that is long gone, and leaves a hole in the file around it.
#[tokio::test]
async fn a_pull_goes_over_what_retention_has_removed_in_the_middle_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let store = open(folder.path()).await;
    let day = 86_400;
    let put = async |time: u32, range: std::ops::Range<usize>| {
        let logs = range.map(|number| log(time, "eni-1", &format!("{number:04}")));
        store
            .put(&key, batch(logs.collect()), None, at(MIDNIGHT + day))
            .await
            .unwrap();
    };
    put(MIDNIGHT + day, 0..2).await;
    put(MIDNIGHT, 2..400).await;
    put(MIDNIGHT + day, 400..402).await;
    store.flush(at(MIDNIGHT + day)).await.unwrap();
    store
        .maintain(at(MIDNIGHT + day + 3600), |_| Some(1))
        .await
        .unwrap();
    assert_eq!(store.status().files, 1);
    let expected: Vec<String> = numbered(0..2)
        .into_iter()
        .chain(numbered(400..402))
        .collect();
    for count in [1, 3, 100] {
        assert_eq!(pulled(&store, &key, count).await, expected, "{count}");
    }
    let (batches, cursor) = store.pull(&key, Cursor(2), 10).await.unwrap();
    assert_eq!(
        (names_of(&batches), cursor),
        (numbered(400..402), Cursor(402))
    );
}

#[tokio::test]
async fn a_logstore_that_was_removed_is_empty_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (key, other) = (key("logstore"), key("another"));
    let logs = |name: &str| batch(vec![log(MIDNIGHT, "eni-1", name)]);
    let store = open(folder.path()).await;
    put_and_flush(&store, &key, &[MIDNIGHT], 0).await;
    store
        .put(&key, logs("old"), Some("one"), at(MIDNIGHT))
        .await
        .unwrap();
    store
        .put(&other, logs("other"), None, at(MIDNIGHT))
        .await
        .unwrap();
    store.drop_logstore(&key).await.unwrap();
    store
        .drop_logstore(&super::key("unheard-of"))
        .await
        .unwrap();
    assert!(names(&store, &key).await.is_empty());
    drop(store);
    let store = open(folder.path()).await;
    assert!(names(&store, &key).await.is_empty());
    store
        .put(&key, logs("new"), Some("one"), at(MIDNIGHT))
        .await
        .unwrap();
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(names(&store, &key).await, ["new"]);
    assert_eq!(names(&store, &other).await, ["other"]);
}

#[tokio::test]
async fn a_cursor_by_time_has_all_that_arrived_then_or_later_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let store = open(folder.path()).await;
    put_and_flush(&store, &key, &[MIDNIGHT, MIDNIGHT + 100, MIDNIGHT + 200], 0).await;
    store
        .put(
            &key,
            batch(vec![log(MIDNIGHT, "eni-1", "0003")]),
            None,
            at(MIDNIGHT + 300),
        )
        .await
        .unwrap();
    let cursor = |seconds: u32| store.cursor(&key, Position::Arrived(MIDNIGHT + seconds)).0;
    for (seconds, most) in [(0, 0), (100, 1), (101, 2), (200, 2), (300, 3), (301, 4)] {
        assert!(
            cursor(seconds) <= most && cursor(seconds) + 1 >= most,
            "{seconds}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn logs_are_there_once_and_in_order_whatever_is_done(steps in proptest::collection::vec((0..5_u8, 0..4 * 3600_u32, 1..40_usize), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key = key("logstore");
        let mut expected = Vec::new();
        let mut store = Some(runtime.block_on(open(folder.path())));
        for (now, (step, time, count)) in (MIDNIGHT..).step_by(1800).zip(steps) {
            let open_store = store.take().unwrap();
            store = Some(match step {
                0..=2 => {
                    let names: Vec<String> = (0..count).map(|number| format!("{:05}", expected.len() + number)).collect();
                    let logs = names.iter().enumerate().map(|(number, name)| log(MIDNIGHT + time + number as u32 * 700, &format!("eni-{}", number % 3), name));
                    runtime.block_on(open_store.put(&key, batch(logs.collect()), None, at(now))).unwrap();
                    expected.extend(names);
                    open_store
                }
                3 => {
                    runtime.block_on(open_store.maintain(at(now), |_| None)).unwrap();
                    open_store
                }
                _ => {
                    drop(open_store);
                    runtime.block_on(open(folder.path()))
                }
            });
            let names = runtime.block_on(pulled(store.as_ref().unwrap(), &key, count));
            prop_assert_eq!(&names, &expected);
        }
    }
}

#[tokio::test]
async fn a_flush_that_nobody_waits_for_is_finished_before_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let store = open(folder.path()).await;
    for number in 0..20_usize {
        let logs = batch(vec![log(MIDNIGHT, "eni-1", &format!("{number:04}"))]);
        store.put(&key, logs, None, at(MIDNIGHT)).await.unwrap();
        tokio::select! {
            biased;
            flushed = store.flush(at(MIDNIGHT)) => flushed.unwrap(),
            () = async { for _ in 0..number { tokio::task::yield_now().await } } => {}
        }
    }
    store.flush(at(MIDNIGHT)).await.unwrap();
    assert!(store.snapshot(&key, 0, u32::MAX).batches.is_empty());
    assert_eq!(pulled(&store, &key, 3).await, numbered(0..20));
    drop(store);
    assert_eq!(
        pulled(&open(folder.path()).await, &key, 3).await,
        numbered(0..20)
    );
}
