//! The Log Service: where the records go, and where they are searched.
//!
//! | module | what it holds |
//! |---|---|
//! | [`api`] | the API, as the product's clients speak it |
//! | [`catalogue`] | projects and logstores, in the service's state |
//! | [`query`] | search and SQL |
//! | [`types`] | logs and where they belong, as all of the service speaks of them |
//! | [`store`] | durable ingest, Parquet files, retention |
pub mod api;
pub mod catalogue;
pub mod query;
pub mod store;
pub mod types;
