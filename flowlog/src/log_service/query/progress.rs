//! How far queries have come, for those who wait for them.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;

/// What a plan that reads files calls the number of those that it has done with, read or passed over.
const DONE: &str = "files_processed";

/// How far a query has come: the parts of its plan that read files.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Vec<Arc<dyn ExecutionPlan>>>);

impl Progress {
    /// The query begins with a plan; where that comes to nothing, with another one. Who asks has less of a stack than a plan may need, so
    /// that no more is kept than what has nothing below it.
    pub(super) fn begin(&self, plan: &Arc<dyn ExecutionPlan>) {
        let (mut parts, mut scans) = (vec![plan], Vec::new());
        while let Some(part) = parts.pop() {
            if scan(part).is_some() {
                scans.push(Arc::clone(part));
            }
            parts.extend(part.children());
        }
        *lock(&self.0) = scans;
    }

    /// With which share of its files it is done, from 0 to 1.
    fn share(&self) -> f64 {
        let (mut done, mut files) = (0, 0);
        for part in lock(&self.0).iter() {
            let groups = scan(part).map_or(&[][..], |scan| &scan.file_groups);
            files += groups.iter().map(FileGroup::len).sum::<usize>();
            let counted = part.metrics().and_then(|found| found.sum_by_name(DONE));
            done += counted.map_or(0, |done| done.as_usize());
        }
        if files == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let share = done as f64 / files as f64;
        share.min(1.0)
    }
}

/// What a part of a plan reads, if that is files.
fn scan(part: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    let source = part.downcast_ref::<DataSourceExec>()?;
    source.data_source().downcast_ref::<FileScanConfig>()
}

/// An account, and the id that it has given a query.
type Name = (String, String);

/// The queries that wait or run and have an id.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<Name, Arc<Progress>>>);

/// Knows of a query until it is dropped.
#[derive(Debug)]
pub(super) struct Known {
    running: Arc<Running>,
    name: Name,
}

impl Running {
    /// A query comes, to be known by the id if it has one.
    pub(super) fn add(
        self: &Arc<Self>,
        account: &str,
        id: Option<&str>,
    ) -> (Arc<Progress>, Option<Known>) {
        let progress = Arc::new(Progress::default());
        let known = id.map(|id| {
            let name = (account.to_owned(), id.to_owned());
            lock(&self.0).insert(name.clone(), Arc::clone(&progress));
            let running = Arc::clone(self);
            Known { running, name }
        });
        (progress, known)
    }

    /// The share of its files that a query has read; none if there is no such query.
    pub(super) fn share(&self, account: &str, id: &str) -> Option<f64> {
        let name = (account.to_owned(), id.to_owned());
        let progress = lock(&self.0).get(&name).cloned()?;
        Some(progress.share())
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        lock(&self.running.0).remove(&self.name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
