//! What is asked, as DataFusion's plans.
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::functions_aggregate::count::count;
use datafusion::logical_expr::{Expr, LogicalPlan, ScalarUDF, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{SendableRecordBatchStream, execute_stream};
use datafusion::prelude::{DataFrame, SQLOptions, SessionContext, ident};
use datafusion::sql::parser::Statement;
use futures_util::StreamExt as _;

use super::functions::client;
use super::grouping::{Bounds, GroupByNumbers};
use super::progress::Progress;
use super::search::{Search, field, translate};
use super::table::Logs;
use super::{Bucket, IndexedField, IndexedKind, sql};
use crate::log_service::store::schema;
use crate::log_service::store::schema::{OTHER, SEQUENCE};

/// Those of the logs that have the topic, and that the search finds.
pub(super) fn found(
    session: &SessionContext,
    logs: Logs,
    topic: Option<&str>,
    search: &Search,
) -> Result<DataFrame, DataFusionError> {
    let mut logs = session.read_table(Arc::new(logs))?;
    if let Some(topic) = topic.filter(|topic| !topic.is_empty()) {
        logs = logs.filter(ident(field::TOPIC).eq(lit(topic)))?;
    }
    if *search != Search::Everything {
        logs = logs.filter(translate::filter(search))?;
    }
    Ok(logs)
}

/// A page of the logs, sorted by time, and by arrival where that is the same.
pub(super) fn page(
    found: DataFrame,
    offset: usize,
    line: usize,
    reverse: bool,
) -> Result<DataFrame, DataFusionError> {
    let by = [field::TIME, SEQUENCE].map(|column| ident(column).sort(!reverse, false));
    found.sort(by.to_vec())?.limit(offset, Some(line))
}

/// The logs with a column for each field that SQL may name. The order of arrival is among them only if the SQL names it.
pub(super) fn analysed(
    found: DataFrame,
    fields: &[IndexedField],
    sequence: bool,
) -> Result<DataFrame, DataFusionError> {
    let schema = schema();
    let shown = |name: &&str| *name != OTHER && (sequence || *name != SEQUENCE);
    let mut columns: Vec<Expr> = schema
        .fields()
        .iter()
        .map(|column| column.name().as_str())
        .filter(shown)
        .map(ident)
        .collect();
    let mut named: Vec<&str> = Vec::new();
    for indexed in fields {
        let name = indexed.name.as_str();
        if field::of(name).is_none() && schema.index_of(name).is_err() && !named.contains(&name) {
            named.push(name);
            columns.push(value_of(indexed).call(vec![ident(OTHER)]).alias(name));
        }
    }
    found.select(columns)
}

fn value_of(indexed: &IndexedField) -> ScalarUDF {
    match indexed.kind {
        IndexedKind::Text => ScalarUDF::new_from_impl(client::TextOf::new(&indexed.name)),
        IndexedKind::Long => ScalarUDF::new_from_impl(client::IntegerOf::new(&indexed.name)),
        IndexedKind::Double => ScalarUDF::new_from_impl(client::NumberOf::new(&indexed.name)),
    }
}

/// The plan of a statement about the table.
pub(super) async fn select(
    session: &SessionContext,
    table: DataFrame,
    statement: Statement,
) -> Result<LogicalPlan, DataFusionError> {
    session.register_table(sql::TABLE, table.into_view())?;
    let plan = session.state().statement_to_plan(statement).await?;
    // The statement was held to that already; the plan is, too.
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&plan)?;
    Ok(plan)
}

/// Runs a plan whose groups are found by numbers; or, if there are too many texts for that, by their texts.
pub(super) async fn answer(
    session: &SessionContext,
    plan: LogicalPlan,
    room: Room,
    progress: &Progress,
) -> Result<Answer, DataFusionError> {
    let bounds = Arc::new(Bounds::new(Arc::clone(&session.runtime_env().memory_pool)));
    let rule = Arc::new(GroupByNumbers::new(Arc::clone(&bounds)));
    let numbered = SessionStateBuilder::new_from_existing(session.state())
        .with_optimizer_rule(rule)
        .build();
    let numbered = SessionContext::new_with_state(numbered);
    match collected(&numbered, plan.clone(), room, progress).await {
        Err(_) if bounds.are_exceeded() => collected(session, plan, room, progress).await,
        outcome => outcome,
    }
}

/// What a plan found.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) schema: SchemaRef,
    pub(super) batches: Vec<RecordBatch>,
    /// Whether this is all.
    pub(super) complete: bool,
}

async fn collected(
    session: &SessionContext,
    plan: LogicalPlan,
    room: Room,
    progress: &Progress,
) -> Result<Answer, DataFusionError> {
    found_by(session.execute_logical_plan(plan).await?, room, progress).await
}

/// What a plan finds, as far as there is room.
pub(super) async fn found_by(
    plan: DataFrame,
    room: Room,
    progress: &Progress,
) -> Result<Answer, DataFusionError> {
    let stream = run(plan, progress).await?;
    let schema = stream.schema();
    let (batches, complete) = collect(stream, room).await?;
    Ok(Answer {
        schema,
        batches,
        complete,
    })
}

/// Runs a plan. Texts are Utf8, as in the store, whatever they were on the way.
async fn run(
    plan: DataFrame,
    progress: &Progress,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let context = Arc::new(plan.task_ctx());
    let plan = plan.create_physical_plan().await?;
    progress.begin(&plan);
    let stream = execute_stream(plan, context)?;
    let found = stream.schema();
    let column = |column: &Arc<Field>| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => Arc::clone(column),
    };
    let columns: Vec<Arc<Field>> = found.fields().iter().map(column).collect();
    let schema = Arc::new(Schema::new(columns));
    let of = Arc::clone(&schema);
    let plain = stream.map(move |batch| {
        let batch = batch?;
        let columns = batch.columns().iter().zip(of.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&of),
            columns,
            &options,
        )?)
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, plain)))
}

/// How much a result may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) rows: usize,
    /// In octets of memory.
    pub(super) octets: usize,
}

/// What there is room for, and whether this is all.
async fn collect(
    mut stream: SendableRecordBatchStream,
    mut room: Room,
) -> Result<(Vec<RecordBatch>, bool), DataFusionError> {
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        if batch.num_rows() > room.rows {
            batches.push(batch.slice(0, room.rows));
            return Ok((batches, false));
        }
        room.rows -= batch.num_rows();
        let Some(octets) = room.octets.checked_sub(octets_of(&batch)?) else {
            return Ok((batches, false));
        };
        room.octets = octets;
        if batch.num_rows() > 0 {
            batches.push(batch);
        }
    }
    Ok((batches, true))
}

/// Octets of the batch's own rows: it may be a part of a larger one.
fn octets_of(batch: &RecordBatch) -> Result<usize, DataFusionError> {
    let octets = batch
        .columns()
        .iter()
        .map(|column| column.to_data().get_slice_memory_size());
    Ok(octets.sum::<Result<usize, _>>()?)
}

/// Counts the logs of each bucket, all of which but the last are so many seconds wide.
pub(super) async fn count_into(
    found: DataFrame,
    width: i64,
    buckets: &mut [Bucket],
) -> Result<(), DataFusionError> {
    let Some(first) = buckets.first() else {
        return Ok(());
    };
    let index = (ident(field::TIME) - lit(i64::from(first.from))) / lit(width);
    let counted = found.aggregate(
        vec![index.alias("bucket")],
        vec![count(lit(1_i64)).alias("count")],
    )?;
    for batch in counted.collect().await? {
        let of = |index: usize| {
            batch
                .column(index)
                .as_primitive::<Int64Type>()
                .values()
                .iter()
        };
        for (index, count) in of(0).zip(of(1)) {
            let bucket = usize::try_from(*index)
                .ok()
                .and_then(|index| buckets.get_mut(index));
            if let (Some(bucket), Ok(count)) = (bucket, u64::try_from(*count)) {
                bucket.count = count;
            }
        }
    }
    Ok(())
}
