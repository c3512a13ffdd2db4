//! How far a query has come.
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use futures_util::stream::BoxStream;
use tokio::sync::Semaphore;

use super::fixture::{Fixture, batch, log};
use crate::log_service::query::QueryRequest;

const HOURS: u32 = 4;

/// A store that gives nothing of one file before it may.
#[derive(Debug)]
struct Gated {
    store: Arc<dyn ObjectStore>,
    file: Path,
    gate: Arc<Semaphore>,
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gated {}", self.store)
    }
}

#[async_trait]
impl ObjectStore for Gated {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if *location == self.file {
            let _open = self.gate.acquire().await;
        }
        self.store.get_opts(location, options).await
    }

    async fn put_opts(&self, at: &Path, what: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.store.put_opts(at, what, how).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(at, how).await
    }

    fn delete_stream(
        &self,
        which: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(which)
    }

    fn list(&self, under: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(under)
    }

    async fn list_with_delimiter(&self, under: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(under).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, how).await
    }
}

/// Logs in a file for each hour, of which the oldest is read last, and what lets it be read.
fn fixture() -> (Fixture, Arc<Semaphore>) {
    let of_hour = |hour: u32| batch(vec![log(hour * 3600, &[("eni-id", "eni-1")])]);
    let batches: Vec<_> = (0..HOURS).map(of_hour).collect();
    let mut fixture = Fixture::hourly(&batches);
    let files = fixture.snapshot.files.iter();
    let oldest = files.min_by_key(|file| file.min_time).expect("files");
    let gate = Arc::new(Semaphore::new(0));
    fixture.snapshot.objects = Arc::new(Gated {
        store: Arc::clone(&fixture.snapshot.objects),
        file: oldest.path.clone(),
        gate: Arc::clone(&gate),
    });
    (fixture, gate)
}

#[test]
fn a_query_tells_how_far_it_is_to_its_account_alone() {
    for query in [
        "eni-id: eni-1",
        "* | SELECT eni_id, count(1) GROUP BY eni_id",
    ] {
        let (fixture, gate) = fixture();
        let request = QueryRequest {
            to: u32::MAX,
            query: query.to_owned(),
            line: 100,
            reverse: true,
            id: Some("mine".to_owned()),
            ..QueryRequest::default()
        };
        let engine = &fixture.engine;
        assert_eq!(engine.progress("account", "mine"), None, "{query}");
        let found = engine.query("account", fixture.snapshot.clone(), request);
        let watch = async {
            let all_but_the_last = f64::from(HOURS - 1) / f64::from(HOURS);
            let mut least = 0.0;
            while least < all_but_the_last {
                if let Some(share) = engine.progress("account", "mine") {
                    assert!((least..=all_but_the_last).contains(&share), "{share}");
                    least = share;
                }
                tokio::task::yield_now().await;
            }
            assert_eq!(engine.progress("other", "mine"), None);
            assert_eq!(engine.progress("account", "other"), None);
            gate.add_permits(1);
        };
        let (found, ()) = fixture.wait(async { tokio::join!(found, watch) });
        assert!(!found.expect(query).rows().expect("rows").is_empty());
        assert_eq!(engine.progress("account", "mine"), None, "{query}");
    }
}
