//! Runs queries: within bounds of memory, disk, time and number, on threads of their own.
use std::collections::HashMap;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::{
    CatalogProvider as _, CatalogProviderList as _, MemoryCatalogProvider,
    MemoryCatalogProviderList, MemorySchemaProvider,
};
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::DefaultObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder, SessionStateDefaults};
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::QueryError;
use super::functions;
use super::gate::Gate;
use super::plan::Room;
use super::progress::Running;
use super::result::{QueryResult, product_names};
use super::search::{self, Parsed};
use super::sql::{self, Sql, explain::explain};
use super::table::{Logs, Order};
use super::{Bucket, HistogramRequest, QueryRequest, plan};
use crate::log_service::store::Snapshot;

/// The bounds of all queries together, where no other is said.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Octets of memory of all queries together.
    pub memory: usize,
    /// Folder for what does not fit into memory; made if there is none, and emptied.
    pub spill_folder: PathBuf,
    /// Octets in that folder.
    pub spill: u64,
    /// How long a query may take, its waiting included.
    pub time_limit: Duration,
    /// How many queries run at once.
    pub running: usize,
    /// How many queries wait.
    pub waiting: usize,
    /// How many threads run queries.
    pub threads: usize,
    /// How many rows a result has.
    pub rows: usize,
    /// How many octets of memory a result has.
    pub octets: usize,
}

impl EngineConfig {
    /// The defaults, with a folder for what does not fit into memory.
    #[must_use]
    pub fn new(spill_folder: impl Into<PathBuf>) -> Self {
        Self {
            memory: 512 * 1024 * 1024,
            spill_folder: spill_folder.into(),
            spill: 4 * 1024 * 1024 * 1024,
            time_limit: Duration::from_secs(60),
            running: 4,
            waiting: 100,
            threads: std::thread::available_parallelism().map_or(2, NonZero::get),
            rows: 100_000,
            octets: 64 * 1024 * 1024,
        }
    }
}

/// Most octets that a sort keeps for the merge of what it has spilled.
const MERGE_OCTETS: usize = 10 * 1024 * 1024;

/// Stack of a thread that runs queries, in octets, of which only what is used is memory: plans are trees, and what walks them calls itself.
const STACK_OCTETS: usize = 16 * 1024 * 1024;

/// What the threads that run queries are called. A panic in one of them ends its query, and nothing else.
pub const THREADS: &str = "query";

/// Runs queries.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    gate: Arc<Gate>,
    named: Arc<Running>,
    base: SessionState,
    /// None only while it is dropped.
    threads: Option<Runtime>,
}

impl Engine {
    /// Makes the engine.
    ///
    /// # Errors
    /// [`QueryError::Internal`] if the folder cannot be used, or there are no threads to be had.
    pub fn new(config: EngineConfig) -> Result<Self, QueryError> {
        let internal = |error: &dyn std::fmt::Display| QueryError::Internal(error.to_string());
        empty(&config.spill_folder)
            .map_err(|error| internal(&format!("{}: {error}", config.spill_folder.display())))?;
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![
                config.spill_folder.clone(),
            ]))
            .with_max_temp_directory_size(config.spill);
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(config.memory)))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|error| internal(&error))?;
        let base = SessionStateBuilder::new_with_default_features()
            .with_config(session_config(&config))
            .with_runtime_env(environment)
            // Nothing is read or written but the store.
            .with_table_factories(HashMap::new())
            .with_file_formats(Vec::new())
            .with_table_functions(HashMap::new())
            .with_scalar_functions(functions::all(
                SessionStateDefaults::default_scalar_functions(),
            ))
            .build();
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name(THREADS)
            .thread_stack_size(STACK_OCTETS)
            .enable_all()
            .build()
            .map_err(|error| internal(&error))?;
        let gate = Gate::new(config.running, config.waiting);
        Ok(Self {
            config,
            gate,
            named: Arc::default(),
            base,
            threads: Some(threads),
        })
    }

    /// Runs a query over a snapshot for an account. When the future is dropped, the query ends.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query(
        &self,
        account: &str,
        snapshot: Snapshot,
        request: QueryRequest,
    ) -> Result<QueryResult, QueryError> {
        self.query_and(account, snapshot, request, Ok).await
    }

    /// Runs a query, and then what makes something else of its result: on the same threads and as a part of the query, for that may take as long,
    /// and several times the memory.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query_and<T: Send + 'static>(
        &self,
        account: &str,
        snapshot: Snapshot,
        request: QueryRequest,
        then: impl FnOnce(QueryResult) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let (parsed, sql) = self.parse(request.query.clone()).await?;
        let start = parsed.sql.unwrap_or(request.query.len());
        let room = Room {
            rows: self.config.rows,
            octets: self.config.octets,
        };
        let session = self.session(&snapshot)?;
        let (progress, _known) = self.named.add(account, request.id.as_deref());
        self.run(account, snapshot.clone(), async move {
            let told = |error: DataFusionError| explain(&request.query, start, &error);
            let order = match &sql {
                None if !request.reverse => Order::OldestFirst,
                // Of SQL, it is not known; who asks for some logs most often asks for the newest.
                _ => Order::NewestFirst,
            };
            let logs = Logs::new(snapshot, request.from, request.to, order);
            let found = plan::found(&session, logs, request.topic.as_deref(), &parsed.search)
                .map_err(told)?;
            let found = match sql {
                None => {
                    let line = request.line.min(room.rows);
                    let page =
                        plan::page(found, request.offset, line, request.reverse).map_err(told)?;
                    let answer = plan::found_by(page, room, &progress).await.map_err(told)?;
                    QueryResult {
                        has_sql: false,
                        sql: None,
                        complete: answer.complete,
                        batches: answer.batches,
                        names: product_names(&answer.schema),
                        schema: answer.schema,
                    }
                }
                Some(sql) => {
                    let table =
                        plan::analysed(found, &request.fields, sql.sequence).map_err(told)?;
                    let plan = plan::select(&session, table, sql.statement)
                        .await
                        .map_err(told)?;
                    let answer = plan::answer(&session, plan, room, &progress)
                        .await
                        .map_err(told)?;
                    let names = sql
                        .names
                        .filter(|names| names.len() == answer.schema.fields().len())
                        .unwrap_or_else(|| product_names(&answer.schema));
                    QueryResult {
                        has_sql: true,
                        sql: parsed.sql,
                        complete: answer.complete,
                        batches: answer.batches,
                        schema: answer.schema,
                        names,
                    }
                }
            };
            then(found)
        })
        .await
    }

    /// The share of its files that a query of the account has read, from 0 to 1; none if none of this id waits or runs.
    #[must_use]
    pub fn progress(&self, account: &str, id: &str) -> Option<f64> {
        self.named.share(account, id)
    }

    /// How many logs a search finds, by time.
    ///
    /// # Errors
    /// [`QueryError`]; the query's SQL, if it has one, is not looked at.
    pub async fn histogram(
        &self,
        account: &str,
        snapshot: Snapshot,
        request: HistogramRequest,
    ) -> Result<Vec<Bucket>, QueryError> {
        let parsed = search::parse(&request.query)?;
        let mut buckets = Bucket::of(request.from, request.to);
        let Some(width) = buckets
            .first()
            .map(|first| i64::from(first.to - first.from))
        else {
            return Ok(buckets);
        };
        let session = self.session(&snapshot)?;
        self.run(account, snapshot.clone(), async move {
            let told =
                |error: DataFusionError| explain(&request.query, request.query.len(), &error);
            let logs = Logs::new(snapshot, request.from, request.to, Order::NewestFirst);
            let found = plan::found(&session, logs, request.topic.as_deref(), &parsed.search)
                .map_err(told)?;
            plan::count_into(found, width, &mut buckets)
                .await
                .map_err(told)?;
            Ok(buckets)
        })
        .await
    }

    /// Parses a query, also its SQL, on the threads for queries, whose stack is large.
    async fn parse(&self, query: String) -> Result<(Parsed, Option<Sql>), QueryError> {
        let parse = move || {
            let parsed = search::parse(&query)?;
            let sql = parsed.sql.map(|start| sql::parse(&query, start));
            Ok((parsed, sql.transpose()?))
        };
        let parsed = self.handle()?.spawn(async move { parse() }).await;
        parsed.unwrap_or_else(|error| Err(QueryError::Internal(error.to_string())))
    }

    fn handle(&self) -> Result<Handle, QueryError> {
        let ended = || QueryError::Internal("the engine has ended".to_owned());
        Ok(self.threads.as_ref().ok_or_else(ended)?.handle().clone())
    }

    /// Runs the work when it is its turn, on the threads for queries, within the time limit.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        account: &str,
        held: Snapshot,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        let limit = self.config.time_limit;
        let threads = self.handle()?;
        let in_turn = async {
            let turn = self.gate.enter(account).await?;
            // A set aborts what it holds when it is dropped.
            let mut task = JoinSet::new();
            task.spawn_on(
                async move {
                    let result = work.await;
                    // The files are there as long as the snapshot is; a plan that runs does not hold it.
                    drop(held);
                    drop(turn);
                    result
                },
                &threads,
            );
            match task.join_next().await {
                Some(Ok(result)) => result,
                Some(Err(error)) => Err(QueryError::Internal(error.to_string())),
                None => Err(QueryError::Internal("the query has gone".to_owned())),
            }
        };
        timeout(limit, in_turn)
            .await
            .unwrap_or(Err(QueryError::TimeLimit { limit }))
    }

    /// A session for one query: it shares memory, disk and caches with the others, and sees no table of theirs.
    fn session(&self, snapshot: &Snapshot) -> Result<SessionContext, QueryError> {
        let internal = |error: DataFusionError| QueryError::Internal(error.to_string());
        let logs = Logs::url().map_err(internal)?;
        let environment = RuntimeEnv {
            object_store_registry: Arc::new(DefaultObjectStoreRegistry::new()),
            ..self.base.runtime_env().as_ref().clone()
        };
        environment.register_object_store(logs.as_ref(), Arc::clone(&snapshot.objects));
        let names = &self.base.config_options().catalog;
        let catalog = MemoryCatalogProvider::new();
        catalog
            .register_schema(&names.default_schema, Arc::new(MemorySchemaProvider::new()))
            .map_err(internal)?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(names.default_catalog.clone(), Arc::new(catalog));
        let state = SessionStateBuilder::new_from_existing(self.base.clone())
            .with_catalog_list(Arc::new(catalogs))
            .with_runtime_env(Arc::new(environment))
            .build();
        Ok(SessionContext::new_with_state(state))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            // It may be dropped where blocking is not allowed.
            threads.shutdown_background();
        }
    }
}

/// Makes the folder, and removes what queries have left in it that a crash has ended.
fn empty(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn session_config(config: &EngineConfig) -> SessionConfig {
    // What a sort keeps for the merge of what it has spilled; of little memory, little.
    let merge = (config.memory / 64).min(MERGE_OCTETS);
    SessionConfig::new()
        .with_target_partitions(config.threads.max(1))
        .with_sort_spill_reservation_bytes(merge)
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(true)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true)
        .set_bool("datafusion.execution.parquet.reorder_filters", true)
        .set_bool("datafusion.execution.enable_recursive_ctes", false)
        .set_bool("datafusion.sql_parser.collect_spans", true)
}
