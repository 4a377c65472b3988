//! What several subjects need.

pub mod broker;
pub mod producer;
pub mod proxy;
pub mod raw;
