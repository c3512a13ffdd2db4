//! Questions, put to Flowlog and to DuckDB in turns.
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use flowlog::log_service::query::{Engine, QueryRequest};
use serde::Deserialize;
use serde_json::json;

use super::{
    questions::{QUESTIONS, Question},
    stored::{DAY, MIDNIGHT, Stored},
};
use crate::report::{Budget, Report, median};

type Rows = Vec<Vec<Option<String>>>;

/// Longest that a search within an hour at an ENI may take, in milliseconds.
const SEARCH_MS: f64 = 100.0;
/// How many times as long as DuckDB.
const RATIO: f64 = 1.5;

/// Asks all questions so many times, and searches.
pub(crate) async fn measure(
    engine: &Engine,
    stored: &Stored,
    mut duckdb: Option<DuckDb>,
    (eni, rounds): (&str, usize),
    report: &mut Report,
) -> Result<()> {
    for (name, hours) in [("an hour", 1), ("a day", 24)] {
        let mut spent = Vec::new();
        for _ in 0..rounds {
            let request = QueryRequest {
                from: u32::try_from(MIDNIGHT + 12 * 3600)?,
                to: u32::try_from(MIDNIGHT + 13 * 3600)?,
                query: format!("eni-id: {eni} and dstport: 443"),
                line: 100,
                reverse: true,
                ..QueryRequest::default()
            };
            let request = match hours {
                1 => request,
                _ => QueryRequest {
                    from: u32::try_from(MIDNIGHT)?,
                    to: u32::try_from(MIDNIGHT + DAY)?,
                    ..request
                },
            };
            let (seconds, rows) = ours(engine, stored, request).await?;
            ensure!(rows.len() == 100, "{} logs were found", rows.len());
            spent.push(seconds * 1000.0);
        }
        report.figure(
            format!("Log Service, 20 M records: search at an ENI in {name}"),
            "ms",
            median(spent),
            Some(Budget::AtMost(SEARCH_MS)),
        );
    }
    for question in QUESTIONS {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let request = QueryRequest {
                from: u32::try_from(MIDNIGHT)?,
                to: u32::try_from(MIDNIGHT + DAY)?,
                query: question.ours.to_owned(),
                ..QueryRequest::default()
            };
            let (seconds, rows) = ours(engine, stored, request).await?;
            own.push(seconds * 1000.0);
            if let Some(duckdb) = &mut duckdb {
                let answer = duckdb.answer(question)?;
                ensure!(
                    answer.rows == rows,
                    "{}: {rows:?} is not {:?}",
                    question.ours,
                    answer.rows
                );
                other.push(answer.seconds * 1000.0);
            }
        }
        let what = format!(
            "Log Service, 20 M records, DuckDB as the floor: {}",
            question.name
        );
        let (own, other) = (median(own), median(other));
        if duckdb.is_some() {
            let ratio = own / other;
            report.beside(what, "ms", own, other, ratio, Some(Budget::AtMost(RATIO)));
        } else {
            report.figure(what, "ms", own, None);
        }
    }
    Ok(())
}

/// Flowlog's answer, and how long it took.
async fn ours(engine: &Engine, stored: &Stored, request: QueryRequest) -> Result<(f64, Rows)> {
    let begun = Instant::now();
    let result = engine
        .query("bench", stored.snapshot.clone(), request)
        .await?;
    let (columns, rows) = (result.columns(), result.rows()?);
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(result.complete, "the result is not all");
    let texts = rows.iter().map(|row| {
        let value = |column: &String| row.get(column)?.as_str().map(str::to_owned);
        columns.iter().map(value).collect()
    });
    Ok((seconds, texts.collect()))
}

/// DuckDB, of the registry's package.
pub(crate) struct DuckDb {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    seconds: f64,
    rows: Rows,
}

impl DuckDb {
    /// On the files in the folder, with so many threads; none where it is not installed.
    pub(crate) fn start(folder: &Path, threads: usize) -> Result<Option<Self>> {
        let Some(python) = python() else {
            return Ok(None);
        };
        let mut child = Command::new(python)
            .arg("-c")
            .arg(include_str!("duckdb.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut questions = child.stdin.take().context("it is piped")?;
        let answers = BufReader::new(child.stdout.take().context("it is piped")?);
        let setting = json!({"files": folder.join("**/*.parquet"), "threads": threads});
        writeln!(questions, "{setting}")?;
        Ok(Some(Self {
            child,
            questions,
            answers,
        }))
    }

    fn answer(&mut self, question: &Question) -> Result<Answer> {
        writeln!(self.questions, "{}", question.theirs)?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("DuckDB does not answer {}", question.theirs);
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for DuckDb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The interpreter of `target/python`, if it has DuckDB.
fn python() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let targets = program
        .ancestors()
        .map(|folder| folder.join("python/bin/python"));
    let python = targets.take(5).find(|python| python.exists())?;
    let import = Command::new(&python)
        .args(["-c", "import duckdb"])
        .stderr(Stdio::null())
        .status()
        .ok()?;
    import.success().then_some(python)
}
