//! Tests of queries over logs, in memory and in Parquet files.
mod bounds;
mod fixture;
mod language;
mod manners;
mod order;
mod progress;
mod random;
