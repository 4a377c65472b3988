//! The model queue: simulation and tests.
