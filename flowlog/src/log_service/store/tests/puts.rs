use super::*;

#[tokio::test]
async fn a_log_is_there_when_its_put_is_answered_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let store = open(folder.path()).await;
    for name in ["b", "a", "c"] {
        store
            .put(
                &key,
                batch(vec![log(MIDNIGHT, "eni-1", name)]),
                None,
                at(MIDNIGHT),
            )
            .await
            .unwrap();
    }
    assert_eq!(pulled(&store, &key, 2).await, ["b", "a", "c"]);
    assert!(names(&store, &super::key("another")).await.is_empty());
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(pulled(&store, &key, 2).await, ["b", "a", "c"]);
    store.flush(at(MIDNIGHT)).await.unwrap();
    assert_eq!(
        std::fs::read_dir(folder.path().join("wal"))
            .unwrap()
            .count(),
        1
    );
    assert_eq!(pulled(&store, &key, 2).await, ["b", "a", "c"]);
    drop(store);
    assert_eq!(
        pulled(&open(folder.path()).await, &key, 2).await,
        ["b", "a", "c"]
    );
}

#[tokio::test]
async fn what_has_an_identity_is_stored_once_also_after_a_flush_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let logs = || batch(vec![log(MIDNIGHT, "eni-1", "log")]);
    let store = open(folder.path()).await;
    let (first, second) = tokio::join!(
        store.put(&key, logs(), Some("one"), at(MIDNIGHT)),
        store.put(&key, logs(), Some("one"), at(MIDNIGHT)),
    );
    first.and(second).unwrap();
    assert_eq!(names(&store, &key).await, ["log"]);
    drop(store);
    let store = open(folder.path()).await;
    store
        .put(&key, logs(), Some("one"), at(MIDNIGHT))
        .await
        .unwrap();
    store.flush(at(MIDNIGHT)).await.unwrap();
    store
        .put(&key, logs(), Some("one"), at(MIDNIGHT))
        .await
        .unwrap();
    drop(store);
    let store = open(folder.path()).await;
    store
        .put(&key, logs(), Some("one"), at(MIDNIGHT))
        .await
        .unwrap();
    assert_eq!(names(&store, &key).await, ["log"]);
    // The identity is one of this logstore alone; and what has none is always new.
    store
        .put(&super::key("another"), logs(), Some("one"), at(MIDNIGHT))
        .await
        .unwrap();
    store.put(&key, logs(), None, at(MIDNIGHT)).await.unwrap();
    assert_eq!(names(&store, &key).await.len(), 2);
    assert_eq!(names(&store, &super::key("another")).await.len(), 1);
}

#[test]
fn identities_are_forgotten_by_number_and_by_age() {
    let identity =
        |number: u32| identities::Identity::new(&key("logstore"), 0, &number.to_string());
    let mut known = Identities::new(3, 100);
    for number in 0..5 {
        assert!(known.insert(identity(number), number));
        assert!(!known.insert(identity(number), number));
    }
    assert_eq!(
        [0, 1, 2, 3, 4].map(|number| known.contains(identity(number))),
        [false, false, true, true, true]
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("identities");
    Identities::save(&file, &known.to_octets()).unwrap();
    let mut loaded = Identities::new(3, 100);
    loaded.load(&file).unwrap();
    assert_eq!(loaded.to_octets(), known.to_octets());
    loaded.insert(identity(5), 103 + 1);
    assert_eq!(
        [3, 4, 5].map(|number| loaded.contains(identity(number))),
        [false, true, true]
    );
    let whole = std::fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(&file, flipped).unwrap();
        assert!(Identities::new(3, 100).load(&file).is_err());
    }
}

#[tokio::test]
async fn more_than_the_limits_allow_is_refused_and_the_rest_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let logs = |count: usize| batch(vec![log(MIDNIGHT, "eni-1", "log"); count]);
    let limits = StoreConfig {
        put_octets: 4096,
        queue_kib: 2,
        memory_octets: 100_000,
        generation_octets: 50_000,
        ..config(folder.path())
    };
    let store = Store::open(limits).await.unwrap();
    assert!(matches!(
        store.put(&key, logs(1000), None, at(MIDNIGHT)).await,
        Err(PutError::Invalid(_))
    ));
    let mut bad = log(MIDNIGHT, "eni-1", "log");
    bad.time_ns = Some(1_000_000_000);
    assert!(matches!(
        store.put(&key, batch(vec![bad]), None, at(MIDNIGHT)).await,
        Err(PutError::Invalid(_))
    ));
    // A queue without room for it.
    let shared = &store.shared;
    let held = shared
        .room
        .try_acquire_many(shared.config.queue_kib)
        .unwrap();
    assert_eq!(
        store.put(&key, logs(10), None, at(MIDNIGHT)).await,
        Err(PutError::Overloaded)
    );
    drop(held);
    let mut stored = 0;
    // Memory that nobody flushes.
    while store.put(&key, logs(10), None, at(MIDNIGHT)).await.is_ok() {
        stored += 1;
        assert!(stored < 10_000);
    }
    store.flush_wanted().await;
    assert_eq!(names(&store, &key).await.len(), stored * 10);
    store.maintain(at(MIDNIGHT), |_| None).await.unwrap();
    store.put(&key, logs(10), None, at(MIDNIGHT)).await.unwrap();
    assert_eq!(names(&store, &key).await.len(), stored * 10 + 10);
}

#[tokio::test]
async fn a_store_that_is_in_use_is_not_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let error = Store::open(config(folder.path())).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(store);
    open(folder.path()).await;
}

#[tokio::test]
async fn small_puts_are_joined_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let store = open(folder.path()).await;
    for number in 0..200 {
        store
            .put(
                &key,
                batch(vec![log(MIDNIGHT, "eni-1", &format!("{number:03}"))]),
                None,
                at(MIDNIGHT),
            )
            .await
            .unwrap();
    }
    assert!(store.snapshot(&key, 0, u32::MAX).batches.len() < 20);
    assert_eq!(
        pulled(&store, &key, 7).await,
        (0..200)
            .map(|number| format!("{number:03}"))
            .collect::<Vec<_>>()
    );
}
