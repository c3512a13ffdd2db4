//! A snapshot of a logstore as a table of DataFusion.
use std::cmp::Reverse;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::object_store::ObjectMeta;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, cast, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;

use crate::log_service::store::schema::TIME;
use crate::log_service::store::{DataFile, Snapshot, schema};

/// What the store's objects are called within DataFusion.
const STORE: &str = "flowlog://store";

/// The logs of a snapshot that are within a time range.
#[derive(Debug)]
pub(crate) struct Logs {
    snapshot: Snapshot,
    from: u32,
    to: u32,
}

/// Which logs are read first. A query that wants only so many of the newest or the oldest then passes over the files that cannot have any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    NewestFirst,
    OldestFirst,
}

/// The columns of the store, texts as views: a page's value is not copied for each row that has it.
fn columns() -> SchemaRef {
    static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
        let stored = schema();
        let column = |column: &Arc<Field>| match column.data_type() {
            DataType::Utf8 => Arc::new(column.as_ref().clone().with_data_type(DataType::Utf8View)),
            _ => Arc::clone(column),
        };
        Arc::new(Schema::new(
            stored.fields().iter().map(column).collect::<Vec<_>>(),
        ))
    });
    Arc::clone(&COLUMNS)
}

impl Logs {
    /// The logs of a snapshot within `[from, to)`, in Unix seconds.
    pub(crate) fn new(mut snapshot: Snapshot, from: u32, to: u32, order: Order) -> Self {
        let files = &mut snapshot.files;
        files.retain(|file| file.max_time >= from && file.min_time < to);
        match order {
            Order::NewestFirst => files.sort_by_key(|file| Reverse(file.max_time)),
            Order::OldestFirst => files.sort_by_key(|file| file.min_time),
        }
        Self { snapshot, from, to }
    }

    /// What the store's objects are called.
    pub(crate) fn url() -> Result<ObjectStoreUrl> {
        ObjectStoreUrl::parse(STORE)
    }

    /// Whether a row is within the time range; `time` is where its time is.
    fn is_within(&self, time: usize) -> Arc<dyn PhysicalExpr> {
        let time = || Arc::new(Column::new(TIME, time));
        let compare = |operator, second: u32| {
            Arc::new(BinaryExpr::new(time(), operator, lit(i64::from(second))))
        };
        Arc::new(BinaryExpr::new(
            compare(Operator::GtEq, self.from),
            Operator::And,
            compare(Operator::Lt, self.to),
        ))
    }

    /// The rows of files: of all of which, or within the time range only.
    fn files(
        &self,
        state: &dyn Session,
        files: &[&Arc<DataFile>],
        within: Option<Arc<dyn PhysicalExpr>>,
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
        let mut source = ParquetSource::new(columns())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(reader));
        if let Some(within) = within {
            source = source.with_predicate(within);
        }
        let rows = files.iter().map(|file| file.rows).sum();
        let config = FileScanConfigBuilder::new(Self::url()?, Arc::new(source))
            .with_file_groups(grouped(files, state.config().target_partitions())?)
            .with_statistics(statistics(rows, None)?)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// The rows in memory that are within the time range.
    fn memory(&self, projection: Option<&Vec<usize>>) -> Result<Arc<dyn ExecutionPlan>> {
        let stored = schema();
        let batches = [self.snapshot.batches.clone()];
        let all = MemorySourceConfig::try_new_exec(&batches, Arc::clone(&stored), None)?;
        let within = FilterExec::try_new(self.is_within(stored.index_of(TIME)?), all)?;
        let every: Vec<usize> = (0..stored.fields().len()).collect();
        let shown = columns();
        let column = |&index: &usize| {
            let name = stored.field(index).name();
            let value = cast(
                Arc::new(Column::new(name, index)),
                &stored,
                shown.field(index).data_type().clone(),
            )?;
            Ok((value, name.clone()))
        };
        let columns = projection.unwrap_or(&every).iter().map(column);
        let columns: Vec<(Arc<dyn PhysicalExpr>, String)> = columns.collect::<Result<_>>()?;
        Ok(Arc::new(ProjectionExec::try_new(
            columns,
            Arc::new(within),
        )?))
    }
}

/// What is known of so many rows, whose times are from the first to the last of these, in Unix seconds.
fn statistics(rows: u64, times: Option<(u32, u32)>) -> Result<Statistics> {
    let columns = columns();
    let mut statistics = Statistics::new_unknown(&columns);
    statistics.num_rows = usize::try_from(rows).map_or(Precision::Absent, Precision::Exact);
    let time = statistics
        .column_statistics
        .get_mut(columns.index_of(TIME)?);
    if let (Some((first, last)), Some(time)) = (times, time) {
        let second = |second: u32| Precision::Exact(ScalarValue::from(i64::from(second)));
        time.null_count = Precision::Exact(0);
        time.min_value = second(first);
        time.max_value = second(last);
    }
    Ok(statistics)
}

/// The files, in their order, in at most as many groups. One task begins with each; those that are done take over files of the others, in the order of
/// all.
fn grouped(files: &[&Arc<DataFile>], groups: usize) -> Result<Vec<FileGroup>> {
    let files = files.iter().map(|file| {
        let found = PartitionedFile::new_from_meta(ObjectMeta {
            location: file.path.clone(),
            // A file is never written twice.
            last_modified: Default::default(),
            size: file.octets,
            e_tag: None,
            version: None,
        });
        let known = statistics(file.rows, Some((file.min_time, file.max_time)))?;
        Ok(found.with_statistics(Arc::new(known)))
    });
    let files: Vec<PartitionedFile> = files.collect::<Result<_>>()?;
    let each = files.len().div_ceil(groups.max(1)).max(1);
    Ok(files
        .chunks(each)
        .map(|group| FileGroup::new(group.to_vec()))
        .collect())
}

#[async_trait]
impl TableProvider for Logs {
    fn schema(&self) -> SchemaRef {
        columns()
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
        // Of most files of a long range, every row is within it: nobody has to look at their times.
        let is_inside =
            |file: &&Arc<DataFile>| file.min_time >= self.from && file.max_time < self.to;
        let (inside, across): (Vec<_>, Vec<_>) = self.snapshot.files.iter().partition(is_inside);
        let mut parts: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(3);
        if !inside.is_empty() {
            parts.push(self.files(state, &inside, None, projection, limit)?);
        }
        if !across.is_empty() {
            let within = self.is_within(columns().index_of(TIME)?);
            parts.push(self.files(state, &across, Some(within), projection, None)?);
        }
        if !self.snapshot.batches.is_empty() || parts.is_empty() {
            parts.push(self.memory(projection)?);
        }
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }
}
