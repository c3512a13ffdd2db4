//! Rows are grouped by numbers in place of texts.
//!
//! `GROUP BY vpc_id` becomes `GROUP BY number_of(vpc_id)`, and above it `text_of` gives each group its text again. Groups are then found, sent
//! from task to task and compared by 4 octets in place of a text's.
//!
//! It is done where it was measured to pay: for the ids of resources (of VPCs and ENIs it was measured), of which many rows in a row have the same one, so that most are not looked
//! up at all; and for addresses that are only a part of what is grouped by, for then there are many times as many groups as addresses. It
//! does not pay for an address alone, nor for texts of up to 12 octets (`ACCEPT`), which are compared as numbers anyway.
//!
//! Of more texts than [`Bounds`] allow, it would take memory that nobody gives back: the query is run anew then, with texts.
mod texts;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray as _};
use datafusion::arrow::datatypes::{DataType, UInt32Type};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, ExprSchema as _, Result, exec_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    Aggregate, Expr, LogicalPlan, Projection, ScalarUDF, Volatility, create_udf,
};
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use flowlog_model::field::Field;

pub(super) use texts::Bounds;
use texts::Texts;

/// Has rows be grouped by numbers, of one query.
#[derive(Debug)]
pub(super) struct GroupByNumbers {
    bounds: Arc<Bounds>,
}

impl GroupByNumbers {
    /// Texts take memory of the pool. Whether there were too many, `bounds` says.
    pub(super) fn new(bounds: Arc<Bounds>) -> Self {
        Self { bounds }
    }

    /// The expression that groups by numbers in place of texts, if that can be done, and that which gives the texts.
    fn numbered(&self, aggregate: &Aggregate, by: &Expr) -> Option<(Expr, ScalarUDF)> {
        let Expr::Column(column) = by.clone().unalias() else {
            return None;
        };
        let field = column.name.replace('_', "-").parse().ok()?;
        let pays = match field {
            Field::VSwitchId
            | Field::VmId
            | Field::VpcId
            | Field::AccountId
            | Field::EniId
            | Field::SecurityGroupRuleId => true,
            Field::SrcAddr | Field::DstAddr => aggregate.group_expr.len() > 1,
            _ => false,
        };
        let input = aggregate.input.schema();
        let is_text = input
            .data_type(&column)
            .is_ok_and(|data_type| *data_type == DataType::Utf8View);
        (pays && is_text).then(|| {
            let texts = Arc::new(Texts::new(Arc::clone(&self.bounds)));
            let (number_of, text_of) = functions(texts);
            (number_of.call(vec![Expr::Column(column)]), text_of)
        })
    }

    fn rewritten(&self, aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
        // A set of groupings is one expression, in which columns may also be left out.
        if matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]) {
            return Ok(None);
        }
        let by = aggregate.group_expr.iter();
        let by: Vec<_> = by.map(|by| self.numbered(aggregate, by)).collect();
        if by.iter().all(Option::is_none) {
            return Ok(None);
        }
        let groups = aggregate.group_expr.iter().zip(&by);
        let groups = groups.map(|(group, numbered)| match numbered {
            Some((number, _)) => number.clone(),
            None => group.clone(),
        });
        let counted = Aggregate::try_new(
            Arc::clone(&aggregate.input),
            groups.collect(),
            aggregate.aggr_expr.clone(),
        )?;
        // The groups come first, then the aggregates; each has to be called what it was.
        let of_groups = by.into_iter().map(|numbered| Some(numbered?.1));
        let wanted = of_groups.chain(std::iter::repeat(None));
        let columns = aggregate.schema.iter().zip(counted.schema.iter());
        let columns = columns
            .zip(wanted)
            .map(|(((relation, was), now), text_of)| {
                let now = Expr::Column(Column::from(now));
                match text_of {
                    Some(text_of) => text_of
                        .call(vec![now])
                        .alias_qualified(relation.cloned(), was.name()),
                    None => now,
                }
            });
        let columns = columns.collect();
        let counted = Arc::new(LogicalPlan::Aggregate(counted));
        let named = Projection::try_new(columns, counted)?;
        Ok(Some(LogicalPlan::Projection(named)))
    }
}

/// From a text to its number, and back.
fn functions(texts: Arc<Texts>) -> (ScalarUDF, ScalarUDF) {
    let of = Arc::clone(&texts);
    let number_of = move |arguments: &[ArrayRef]| -> Result<ArrayRef> {
        let [argument] = arguments else {
            return exec_err!("number_of takes one argument");
        };
        Ok(Arc::new(of.numbers(argument.as_string_view())?))
    };
    let text_of = move |arguments: &[ArrayRef]| -> Result<ArrayRef> {
        let [argument] = arguments else {
            return exec_err!("text_of takes one argument");
        };
        texts.texts(argument.as_primitive::<UInt32Type>())
    };
    let (text, number) = (DataType::Utf8View, DataType::UInt32);
    (
        create_udf(
            "number_of",
            vec![text.clone()],
            number.clone(),
            Volatility::Immutable,
            Arc::new(make_scalar_function(number_of, Vec::new())),
        ),
        create_udf(
            "text_of",
            vec![number],
            text,
            Volatility::Immutable,
            Arc::new(make_scalar_function(text_of, Vec::new())),
        ),
    )
}

impl OptimizerRule for GroupByNumbers {
    fn name(&self) -> &'static str {
        "group_by_numbers"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let rewritten = match &plan {
            LogicalPlan::Aggregate(aggregate) => self.rewritten(aggregate)?,
            _ => None,
        };
        Ok(rewritten.map_or_else(|| Transformed::no(plan), Transformed::yes))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::SessionContext;

    use super::*;

    fn session(with_rule: bool) -> SessionContext {
        let plain = SessionContext::new();
        let pool = Arc::clone(&plain.runtime_env().memory_pool);
        let rule = Arc::new(GroupByNumbers::new(Arc::new(Bounds::new(pool))));
        let state = SessionStateBuilder::new_from_existing(plain.state());
        let state = if with_rule {
            state.with_optimizer_rule(rule)
        } else {
            state
        };
        let session = SessionContext::new_with_state(state.build());
        let texts = |of: [Option<&str>; 4]| -> ArrayRef {
            Arc::new(of.into_iter().collect::<StringViewArray>())
        };
        let long = Some("2001:db8::1:2:3");
        let actions = ["ACCEPT", "REJECT", "ACCEPT", "REJECT"];
        let rows = RecordBatch::try_from_iter([
            ("eni_id", texts([long, None, Some("eni-1"), long])),
            (
                "srcaddr",
                texts([Some("10.0.0.1"), long, Some("10.0.0.1"), None]),
            ),
            ("action", texts(actions.map(Some))),
            ("dstport", Arc::new(Int64Array::from(vec![1, 2, 1, 2]))),
        ])
        .unwrap();
        session.register_batch("log", rows).unwrap();
        session
    }

    /// The plan, and what it finds.
    fn run(session: &SessionContext, sql: &str) -> (String, String) {
        let threads = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        threads.block_on(async {
            let found = session.sql(sql).await.unwrap();
            let plan = found.clone().into_optimized_plan().unwrap();
            let rows = found.collect().await.unwrap();
            let rows = pretty_format_batches(&rows).unwrap();
            (plan.display_indent().to_string(), rows.to_string())
        })
    }

    #[test]
    fn groups_by_numbers_are_those_by_texts() {
        for (sql, numbered) in [
            (
                "SELECT eni_id, count(1) FROM log GROUP BY eni_id ORDER BY 1",
                1,
            ),
            (
                "SELECT eni_id AS a, action, dstport, sum(dstport) FROM log GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
                1,
            ),
            (
                "SELECT srcaddr, eni_id, count(1) FROM log GROUP BY 1, 2 ORDER BY 1, 2",
                2,
            ),
            (
                "SELECT l.eni_id FROM log l GROUP BY l.eni_id HAVING l.eni_id > 'b' ORDER BY l.eni_id DESC",
                1,
            ),
            (
                "SELECT max(a), eni_id FROM (SELECT eni_id, action AS a FROM log) GROUP BY eni_id ORDER BY eni_id",
                1,
            ),
            ("SELECT DISTINCT eni_id, srcaddr FROM log ORDER BY 1, 2", 2),
            (
                "SELECT dstport, count(DISTINCT eni_id) FROM log GROUP BY dstport ORDER BY 1",
                1,
            ),
            (
                "SELECT a.eni_id, count(1) FROM log a JOIN log b ON a.srcaddr = b.srcaddr GROUP BY a.eni_id ORDER BY 1",
                1,
            ),
            (
                "SELECT srcaddr, count(1) FROM log GROUP BY srcaddr ORDER BY 1",
                0,
            ),
            (
                "SELECT action, count(1) FROM log GROUP BY action ORDER BY 1",
                0,
            ),
            (
                "SELECT eni_id, srcaddr, count(1) FROM log GROUP BY ROLLUP (eni_id, srcaddr) ORDER BY 1, 2, 3",
                0,
            ),
            (
                "SELECT upper(eni_id), count(1) FROM log GROUP BY upper(eni_id) ORDER BY 1",
                0,
            ),
            (
                "SELECT dstport AS vpc_id, count(1) FROM (SELECT dstport FROM log) GROUP BY vpc_id ORDER BY 1",
                0,
            ),
            ("SELECT count(1) FROM log", 0),
        ] {
            let (plan, rows) = run(&session(true), sql);
            let aggregates = plan.lines().filter(|line| line.contains("Aggregate:"));
            let numbers = aggregates.map(|line| line.matches("number_of(").count());
            assert_eq!(numbers.max(), Some(numbered), "{sql}: {plan}");
            assert_eq!(rows, run(&session(false), sql).1, "{sql}");
        }
    }

    #[test]
    fn who_wants_a_few_groups_has_no_more_of_them_looked_for() {
        for with_rule in [false, true] {
            let threads = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let plan = threads.block_on(async {
                let session = session(with_rule);
                let found = session.sql("SELECT DISTINCT eni_id FROM log LIMIT 2");
                let found = found.await.unwrap();
                found.create_physical_plan().await.unwrap()
            });
            let plan = displayable(plan.as_ref()).indent(false).to_string();
            assert_eq!(plan.contains("number_of"), with_rule, "{plan}");
            assert!(plan.contains("lim=[2]"), "{plan}");
        }
    }
}
