//! What several subjects need.

pub mod broker;
pub mod proxy;
