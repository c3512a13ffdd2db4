//! Figures, as a table and as JSON.
use std::fmt;

use serde_json::json;

/// One figure beside its floor and its budget.
#[derive(Clone, Debug)]
struct Row {
    what: String,
    unit: &'static str,
    measured: f64,
    floor: Option<f64>,
    ratio: Option<f64>,
    budget: Option<Budget>,
}

/// What a figure (its ratio, where it has one) should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Budget {
    AtMost(f64),
    AtLeast(f64),
}

/// The figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// A figure for itself.
    pub(crate) fn figure(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        measured: f64,
        budget: Option<Budget>,
    ) {
        self.rows.push(Row {
            what: what.into(),
            unit,
            measured,
            floor: None,
            ratio: None,
            budget,
        });
    }

    /// A figure beside a floor; `ratio` is what the budget is about.
    pub(crate) fn beside(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        measured: f64,
        floor: f64,
        ratio: f64,
        budget: Option<Budget>,
    ) {
        self.rows.push(Row {
            what: what.into(),
            unit,
            measured,
            floor: Some(floor),
            ratio: Some(ratio),
            budget,
        });
    }

    /// All figures.
    pub(crate) fn json(&self) -> String {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "what": row.what, "unit": row.unit, "measured": row.measured, "floor": row.floor, "ratio": row.ratio,
                    "budget": row.budget.map(|budget| budget.to_string()), "met": row.met(),
                })
            })
            .collect();
        format!("{:#}\n", json!({ "figures": rows }))
    }
}

impl Row {
    fn met(&self) -> Option<bool> {
        let value = self.ratio.unwrap_or(self.measured);
        self.budget.map(|budget| match budget {
            Budget::AtMost(limit) => value <= limit,
            Budget::AtLeast(limit) => value >= limit,
        })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit}"),
            Self::AtLeast(limit) => write!(f, "≥ {limit}"),
        }
    }
}

/// A Markdown table, fit for the README.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| what | measured | floor | ratio | budget | met |\n|---|---:|---:|---:|---:|---|"
        )?;
        let number =
            |number: Option<f64>| number.map_or_else(String::new, |number| format!("{number:.2}"));
        for row in &self.rows {
            let measured = match row.measured {
                large if large >= 1000.0 => format!("{large:.0} {}", row.unit),
                small => format!("{small:.1} {}", row.unit),
            };
            let floor = row
                .floor
                .map_or_else(String::new, |floor| format!("{floor:.1} {}", row.unit));
            let budget = row
                .budget
                .map_or_else(String::new, |budget| budget.to_string());
            let met = match row.met() {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            writeln!(
                f,
                "| {} | {measured} | {floor} | {} | {budget} | {met} |",
                row.what,
                number(row.ratio)
            )?;
        }
        Ok(())
    }
}

/// The middle of some figures; 0 of none.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match (
        figures.len() % 2,
        figures.get(middle),
        figures.get(middle.wrapping_sub(1)),
    ) {
        (1, Some(figure), _) => *figure,
        (0, Some(high), Some(low)) => f64::midpoint(*high, *low),
        _ => 0.0,
    }
}
