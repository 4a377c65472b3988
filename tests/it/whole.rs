//! The whole system, in real processes: the program as it is built, a RabbitMQ node of its own,
//! the sandbox, producers that others wrote, and whatever may happen to each of them.
//!
//! Every test ends with the same account: what was published stands against what the sandbox
//! mailed and what lies among the dead letters, and nothing may stand anywhere else.

mod adaptive;
mod admin;
mod alarms;
mod disks;
mod ends;
mod environments;
mod fleet;
mod freezes;
mod kills;
mod limits;
mod others;
mod poison;
mod priorities;
mod producers;
mod proxied;
mod replay;
mod restarts;
mod rotation;
mod secrets;
mod starts;
mod storm;
mod tls;
mod trace;
mod wires;
mod worker;
pub mod world;
