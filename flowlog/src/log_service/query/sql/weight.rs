//! How much a SELECT becomes when it is planned.
//!
//! A plan is a tree: a table that WITH names is put in wherever it is named, a column of an inner SELECT wherever an outer one names it,
//! and `a BETWEEN b AND c`, `a IN (1, 2, 3)` and `coalesce(a, b)` have `a` more than once. So a few hundred characters can become more than
//! any memory holds, and neither the memory nor the time of planning is bounded by DataFusion. What they become is therefore reckoned
//! before, not less than it is.
use std::collections::HashMap;
use std::mem;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, ObjectName, ObjectNamePart, Query, Select, Statement, Visit, VisitMut, Visitor,
    VisitorMut,
};

/// How often the table log may be read.
const MAX_TABLES: u64 = 32;
/// Most SELECTs in the text of an SQL.
const MAX_SELECTS: usize = 64;
/// Most parts of an expression, when what it names is put in.
const MAX_PARTS: u64 = 100_000;
/// Deepest nesting of expressions. The parser's limit does not bound that of `1 + 1 + 1`, each sum of which is within the next.
const MAX_DEPTH: usize = 200;

/// Most expressions of a CUBE, which is a grouping for each of their subsets: DataFusion makes them all before it counts them.
const MAX_CUBE: usize = 8;

/// Functions whose argument is computed before a filter of their result is: nothing is put in their place.
const AGGREGATES: [&str; 12] = [
    "approx_distinct",
    "approx_percentile",
    "approx_percentile_cont",
    "avg",
    "count",
    "count_if",
    "max",
    "median",
    "min",
    "stddev",
    "sum",
    "var",
];

/// Why a statement is too deep for anything that calls itself to look at it, as what was expected instead. Visiting it is safe.
pub(super) fn too_deep(statement: &Statement) -> Option<String> {
    Visit::visit(statement, &mut Depth::default()).break_value()
}

/// Why a statement is not planned, as what was expected instead.
pub(super) fn too_large(statement: &Statement) -> Option<String> {
    VisitMut::visit(&mut statement.clone(), &mut Scale::default()).break_value()
}

/// How much there is of what may be within one another.
#[derive(Default)]
struct Depth {
    /// Expressions that are open.
    open: usize,
    /// SELECTs that were seen: of a UNION, each is within the next.
    selects: usize,
}

impl Visitor for Depth {
    type Break = String;

    fn pre_visit_select(&mut self, _select: &Select) -> ControlFlow<String> {
        if self.selects == MAX_SELECTS {
            return ControlFlow::Break(format!("an SQL with at most {MAX_SELECTS} SELECTs"));
        }
        self.selects += 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<String> {
        if self.open == MAX_DEPTH {
            return ControlFlow::Break(format!(
                "expressions that are at most {MAX_DEPTH} deep; instead of many ORs, write IN"
            ));
        }
        self.open += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<String> {
        self.open -= 1;
        ControlFlow::Continue(())
    }
}

/// What a query is.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    /// How often it reads the table log.
    tables: u64,
    /// Parts of its largest column.
    parts: u64,
}

impl Weight {
    fn add_table(&mut self, other: Self) -> ControlFlow<String> {
        self.tables = self.tables.saturating_add(other.tables);
        self.parts = self.parts.max(other.parts);
        if self.tables > MAX_TABLES {
            return ControlFlow::Break(format!(
                "an SQL that reads the table log at most {MAX_TABLES} times, what WITH names included"
            ));
        }
        ControlFlow::Continue(())
    }
}

/// Weighs what it visits. It takes out of a query what it weighs by itself, so that nothing is visited twice.
#[derive(Debug, Default)]
struct Scale {
    /// What WITH has named. Of two of a name, as they may be in different parts of the query, the greater of each.
    named: HashMap<String, Weight>,
    weight: Weight,
    /// Parts of what the name of a column may stand for.
    input: u64,
    /// Parts of the expressions that are open, without themselves.
    open: Vec<u64>,
    /// Parts of those that are closed and in no other.
    closed: u64,
}

impl Scale {
    /// For a part of what this one visits.
    fn inner(&self) -> Self {
        Self {
            named: self.named.clone(),
            input: self.input,
            ..Self::default()
        }
    }
}

impl VisitorMut for Scale {
    type Break = String;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        for mut table in query
            .with
            .take()
            .into_iter()
            .flat_map(|with| with.cte_tables)
        {
            let mut scale = self.inner();
            VisitMut::visit(&mut table.query, &mut scale)?;
            let named = self
                .named
                .entry(table.alias.name.value.to_lowercase())
                .or_default();
            named.tables = named.tables.max(scale.weight.tables);
            named.parts = named.parts.max(scale.weight.parts);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<String> {
        let mut below = self.inner();
        VisitMut::visit(&mut mem::take(&mut select.from), &mut below)?;
        let tables = below.weight.tables;
        self.weight.add_table(Weight { tables, parts: 0 })?;
        self.input = self.input.max(below.weight.parts).max(1);
        for mut item in mem::take(&mut select.projection) {
            let mut scale = self.inner();
            VisitMut::visit(&mut item, &mut scale)?;
            // A `*` stands for any of them.
            let parts = scale.closed.max(self.input);
            let tables = scale.weight.tables;
            self.weight.add_table(Weight { tables, parts })?;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<String> {
        let name = match relation.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => name.value.to_lowercase(),
            _ => String::new(),
        };
        let log = Weight {
            tables: 1,
            parts: 1,
        };
        let weight = self.named.get(&name).copied().unwrap_or(log);
        self.weight.add_table(weight)
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        if matches!(expr, Expr::Cube(sets) if sets.len() > MAX_CUBE) {
            return ControlFlow::Break(format!("a CUBE of at most {MAX_CUBE} expressions"));
        }
        self.open.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        let inner = self.open.pop().unwrap_or_default();
        let parts = match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                self.input.max(self.weight.parts).max(1)
            }
            Expr::Function(function) if is_computed_first(function) => 1,
            Expr::InList { .. } => inner.saturating_mul(3).saturating_add(1),
            Expr::Between { .. } | Expr::Function(_) | Expr::Case { .. } => {
                inner.saturating_mul(2).saturating_add(1)
            }
            _ => inner.saturating_add(1),
        };
        if parts > MAX_PARTS {
            return ControlFlow::Break(format!(
                "an SQL whose expressions have at most {MAX_PARTS} parts when the columns of inner SELECTs are put in"
            ));
        }
        let sum = self.open.last_mut().unwrap_or(&mut self.closed);
        *sum = sum.saturating_add(parts);
        ControlFlow::Continue(())
    }
}

/// Whether a function is an aggregate, or one over a window.
fn is_computed_first(function: &Function) -> bool {
    let name = match function.name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => name.value.to_ascii_lowercase(),
        _ => return false,
    };
    function.over.is_some() || AGGREGATES.contains(&name.as_str())
}
