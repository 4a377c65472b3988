//! What several subjects need.

pub mod broker;
