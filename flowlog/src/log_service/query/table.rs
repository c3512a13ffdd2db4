//! A snapshot of a logstore as a table of DataFusion.
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Expr;
use datafusion::object_store::ObjectMeta;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;

use crate::log_service::store::{DataFile, Snapshot, schema};

/// What the store's objects are called within DataFusion.
const STORE: &str = "flowlog://store";

/// All logs of a snapshot.
#[derive(Debug)]
pub(crate) struct Logs {
    snapshot: Snapshot,
    schema: SchemaRef,
}

impl Logs {
    /// The logs of a snapshot that may be within `[from, to)`, in Unix seconds.
    pub(crate) fn new(mut snapshot: Snapshot, from: u32, to: u32) -> Self {
        snapshot
            .files
            .retain(|file| file.max_time >= from && file.min_time < to);
        Self {
            snapshot,
            schema: schema(),
        }
    }

    /// What the store's objects are called.
    pub(crate) fn url() -> Result<ObjectStoreUrl> {
        ObjectStoreUrl::parse(STORE)
    }

    fn files(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let footers = state.runtime_env().cache_manager.get_file_metadata_cache();
        let reader =
            CachedParquetFileReaderFactory::new(Arc::clone(&self.snapshot.objects), footers);
        let source = ParquetSource::new(Arc::clone(&self.schema))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(reader));
        let groups = grouped(&self.snapshot.files, state.config().target_partitions());
        let config = FileScanConfigBuilder::new(Self::url()?, Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// The files in as many groups, of much the same size, each to be read by one task.
fn grouped(files: &[Arc<DataFile>], groups: usize) -> Vec<FileGroup> {
    let mut sorted: Vec<&Arc<DataFile>> = files.iter().collect();
    sorted.sort_by_key(|file| std::cmp::Reverse(file.octets));
    let mut grouped: Vec<(u64, Vec<PartitionedFile>)> =
        vec![(0, Vec::new()); groups.clamp(1, files.len().max(1))];
    for file in sorted {
        if let Some((octets, group)) = grouped.iter_mut().min_by_key(|(octets, _)| *octets) {
            *octets += file.octets;
            group.push(PartitionedFile::new_from_meta(ObjectMeta {
                location: file.path.clone(),
                // A file is never written twice.
                last_modified: Default::default(),
                size: file.octets,
                e_tag: None,
                version: None,
            }));
        }
    }
    grouped
        .into_iter()
        .map(|(_, files)| FileGroup::new(files))
        .collect()
}

#[async_trait]
impl TableProvider for Logs {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        // The optimizer gives them to the source of the files, also those that come while it runs.
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut parts: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(2);
        if !self.snapshot.files.is_empty() {
            parts.push(self.files(state, projection, limit)?);
        }
        if !self.snapshot.batches.is_empty() || parts.is_empty() {
            let batches = [self.snapshot.batches.clone()];
            parts.push(MemorySourceConfig::try_new_exec(
                &batches,
                self.schema(),
                projection.cloned(),
            )?);
        }
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }
}
