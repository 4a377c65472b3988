//! The integration tests: one binary, a file a subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may stop at once"
)]
mod amqp;
mod auth;
mod cli;
mod clients;
mod config;
mod contract;
mod delivery;
mod demo;
mod deploy;
mod dispatch;
mod hubspot;
mod journal;
mod page;
mod readme;
mod request;
mod sandbox;
mod sqlite;
mod support;
mod whole;
