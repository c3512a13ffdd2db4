//! What becomes of the logs when the disk fails.
use super::*;
use crate::log_service::store::failpoint::FAILING;

/// The manifest has its name already when its folder cannot be flushed: whichever of the two is there after a loss of power, the logs are.
#[tokio::test]
async fn a_manifest_that_may_not_be_on_the_disk_leaves_what_the_old_one_needs_and_what_the_new_one_has()
 {
    let folder = tempfile::tempdir().unwrap();
    let key = key("logstore");
    let store = open(folder.path()).await;
    let put = async |name: &str| {
        let logs = batch(vec![log(MIDNIGHT, "eni-1", name)]);
        store.put(&key, logs, None, at(MIDNIGHT)).await.unwrap();
    };
    put("a").await;
    store.flush(at(MIDNIGHT)).await.unwrap();
    put("b").await;
    let manifest = store.shared.manifests.path(&key);
    let before = std::fs::read(&manifest).unwrap();
    FAILING.lock().unwrap().push(manifest.clone());
    let error = store.flush(at(MIDNIGHT)).await.unwrap_err();
    assert!(matches!(error, StoreError::InDoubt { .. }), "{error}");
    FAILING.lock().unwrap().retain(|path| *path != manifest);
    assert_eq!(names(&store, &key).await, ["a", "b"]);
    put("c").await;
    store
        .maintain(at(MIDNIGHT + 3600 + 900), |_| None)
        .await
        .unwrap_err();
    assert_eq!(names(&store, &key).await, ["a", "b", "c"]);
    drop(store);
    for lost in [false, true] {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        if lost {
            let path = manifest.strip_prefix(folder.path()).unwrap();
            std::fs::write(copy.path().join(path), &before).unwrap();
        }
        let store = open(copy.path()).await;
        assert_eq!(names(&store, &key).await, ["a", "b", "c"], "lost: {lost}");
        store.maintain(at(MIDNIGHT + 7200), |_| None).await.unwrap();
        assert_eq!(names(&store, &key).await, ["a", "b", "c"], "lost: {lost}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
