//! The SQL of a query: parsed, held to what is allowed, and turned from the product's manners into DataFusion's.
//!
//! | as it is written | what becomes of it |
//! |---|---|
//! | no FROM | FROM log |
//! | `"eni-id"` | `eni_id`, the name of the column; the result has the name as it was written |
//! | an expression without a name in the outermost SELECT | is called `_col0`, `_col1`, … by its place |
//! | `count_if(c)`, `if(c, a, b)` | CASE |
//! | `approx_percentile` | `approx_percentile_cont` |
//!
//! The order of arrival, `__seq__`, is a column of the table only where the SQL names it: `SELECT *` has the fields that logs have.
//!
//! Allowed is one statement, a SELECT, on the table `log` and on what the statement itself names.
pub(crate) mod explain;
mod weight;

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, Query, Select, SelectItem, SetExpr, Spanned as _, Statement as SqlStatement,
    TableFactor, TableWithJoins, Value, VisitMut as _, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::Span;
use flowlog_model::field::Field;

use super::error::{QueryError, Wrong};
use crate::log_service::store::schema::SEQUENCE;

/// The table that the search's records are in.
pub(crate) const TABLE: &str = "log";

/// Deepest nesting of expressions and of SELECTs.
const MAX_DEPTH: usize = 50;

/// A SELECT that may be run.
#[derive(Debug)]
pub(crate) struct Sql {
    /// The statement for DataFusion.
    pub(crate) statement: Statement,
    /// The names of the result's columns; none where they are those of the table.
    pub(crate) names: Option<Vec<String>>,
    /// Whether the order of arrival is named.
    pub(crate) sequence: bool,
}

/// Parses what follows the `|` at `start` octets of the query.
///
/// # Errors
/// [`QueryError::Wrong`], with the position.
pub(crate) fn parse(query: &str, start: usize) -> Result<Sql, QueryError> {
    let padded = pad(query, start);
    let dialect = GenericDialect {};
    let parsed = DFParserBuilder::new(padded.as_str())
        .with_dialect(&dialect)
        .with_recursion_limit(MAX_DEPTH)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| explain::explain(query, start, &error))?;
    let mut statements = parsed.into_iter();
    let (Some(statement), None) = (statements.next(), statements.next()) else {
        return Err(Wrong::expected(query, start, "one SELECT").into());
    };
    let Statement::Statement(mut statement) = statement else {
        return Err(Wrong::expected(query, start, "a SELECT: nothing else is allowed").into());
    };
    let SqlStatement::Query(select) = statement.as_mut() else {
        return Err(Wrong::expected(query, start, "a SELECT: nothing else is allowed").into());
    };
    let names = names(&select.body);
    if let Some(expected) = weight::too_deep(&statement) {
        return Err(Wrong::expected(query, start, &expected).into());
    }
    let mut manners = Manners {
        query,
        start,
        named: HashSet::new(),
        sequence: false,
    };
    if let ControlFlow::Break(wrong) = statement.visit(&mut manners) {
        return Err(wrong.into());
    }
    if let Some(expected) = weight::too_large(&statement) {
        return Err(Wrong::expected(query, start, &expected).into());
    }
    let sequence = manners.sequence;
    Ok(Sql {
        statement: Statement::Statement(statement),
        names,
        sequence,
    })
}

/// The query with spaces for all that is before its SQL, so that positions in it are positions in the query.
fn pad(query: &str, start: usize) -> String {
    let blank = |character| if character == '\n' { '\n' } else { ' ' };
    let (before, sql) = query.split_at_checked(start).unwrap_or((query, ""));
    before.chars().map(blank).chain(sql.chars()).collect()
}

/// What the columns of the result are called; none if there is a `*` among them.
fn names(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => select
            .projection
            .iter()
            .enumerate()
            .map(|(index, item)| name(index, item))
            .collect(),
        SetExpr::Query(query) => names(&query.body),
        SetExpr::SetOperation { left, .. } => names(left),
        _ => None,
    }
}

fn name(index: usize, item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            parts.last().map(|name| name.value.clone())
        }
        SelectItem::UnnamedExpr(_) => Some(format!("_col{index}")),
        _ => None,
    }
}

/// Holds a statement to what is allowed, and rewrites it.
struct Manners<'a> {
    query: &'a str,
    start: usize,
    /// Tables that the statement itself names, by WITH.
    named: HashSet<String>,
    /// Whether the order of arrival is named.
    sequence: bool,
}

impl Manners<'_> {
    fn refuse<T>(&self, span: Span, expected: &str) -> ControlFlow<Wrong, T> {
        let offset = explain::offset(self.query, span.start).unwrap_or(self.start);
        ControlFlow::Break(Wrong::expected(self.query, offset, expected))
    }
}

impl VisitorMut for Manners<'_> {
    type Break = Wrong;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Wrong> {
        if let Some(with) = &mut query.with {
            if with.recursive {
                return self.refuse(with.with_token.0.span, "a WITH that is not recursive");
            }
            for table in &mut with.cte_tables {
                self.named.insert(table.alias.name.value.to_lowercase());
                for column in &mut table.alias.columns {
                    underscored(&mut column.name);
                }
            }
        }
        if !query.pipe_operators.is_empty() {
            return self.refuse(query.body.span(), "a SELECT without |>");
        }
        self.body(&query.body)
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Wrong> {
        if let Some(into) = &select.into {
            return self.refuse(into.name.span(), "a SELECT without INTO");
        }
        if select.from.is_empty() {
            select.from.push(from_log());
        }
        for item in &mut select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                underscored(alias);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Wrong> {
        let allowed = match table {
            TableFactor::Table {
                args,
                version,
                sample,
                ..
            } => args.is_none() && version.is_none() && sample.is_none(),
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => true,
            _ => false,
        };
        if !allowed {
            return self.refuse(table.span(), "the table log, or a SELECT in parentheses");
        }
        if let TableFactor::Table {
            alias: Some(alias), ..
        }
        | TableFactor::Derived {
            alias: Some(alias), ..
        } = table
        {
            for column in &mut alias.columns {
                underscored(&mut column.name);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<Wrong> {
        if let [ObjectNamePart::Identifier(name)] = relation.0.as_slice()
            && (name.value.eq_ignore_ascii_case(TABLE)
                || self.named.contains(&name.value.to_lowercase()))
        {
            return ControlFlow::Continue(());
        }
        self.refuse(relation.span(), "the table log: there is no other")
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Wrong> {
        match expr {
            Expr::Identifier(name) => self.column(name),
            Expr::CompoundIdentifier(parts) => parts.iter_mut().for_each(|name| self.column(name)),
            Expr::Function(function) => {
                if let Some(rewritten) = rewritten(function) {
                    *expr = rewritten;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Manners<'_> {
    fn column(&mut self, name: &mut Ident) {
        underscored(name);
        self.sequence |= name.value.eq_ignore_ascii_case(SEQUENCE);
    }

    /// A SELECT, or several together; not VALUES, TABLE or anything that writes.
    fn body(&self, body: &SetExpr) -> ControlFlow<Wrong> {
        match body {
            SetExpr::Select(_) | SetExpr::Query(_) => ControlFlow::Continue(()),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left)?;
                self.body(right)
            }
            other => self.refuse(other.span(), "a SELECT: nothing else is allowed"),
        }
    }
}

fn from_log() -> TableWithJoins {
    let relation = TableFactor::Table {
        name: ObjectName::from(vec![Ident::new(TABLE)]),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    TableWithJoins {
        relation,
        joins: Vec::new(),
    }
}

/// The name of the column, if the identifier is a record's field with a hyphen.
fn underscored(name: &mut Ident) {
    if name.value.contains('-') && name.value.parse::<Field>().is_ok() {
        name.value = name.value.replace('-', "_");
    }
}

/// A function of Presto's that DataFusion does not have, by what it has; none for all others.
fn rewritten(function: &mut Function) -> Option<Expr> {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_mut_slice() else {
        return None;
    };
    match name.value.to_ascii_lowercase().as_str() {
        "approx_percentile" => {
            "approx_percentile_cont".clone_into(&mut name.value);
            None
        }
        "if" => {
            let mut arguments = arguments(function)?.into_iter();
            let (condition, result, otherwise) =
                (arguments.next()?, arguments.next()?, arguments.next());
            arguments
                .next()
                .is_none()
                .then(|| case(condition, result, otherwise))
        }
        "count_if" => {
            "count".clone_into(&mut name.value);
            let FunctionArguments::List(list) = &mut function.args else {
                return None;
            };
            let [FunctionArg::Unnamed(FunctionArgExpr::Expr(condition))] = list.args.as_mut_slice()
            else {
                return None;
            };
            // What is counted is not NULL only where the condition is true. The condition is there once: in a condition that counts
            // itself, each level would make it twice as long.
            let one = Expr::value(Value::Number("1".into(), false));
            *condition = case(condition.clone(), one, None);
            None
        }
        _ => None,
    }
}

fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let expression = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
        _ => None,
    };
    list.args.iter().map(expression).collect()
}

fn case(condition: Expr, result: Expr, otherwise: Option<Expr>) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: otherwise.map(Box::new),
    }
}
