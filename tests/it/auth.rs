//! OAuth: real logins at the sandbox, what is kept of them, and who refreshes it.

mod app;
mod desk;
mod keeper;
mod login;
mod logout;
mod migrate;
mod secrets;
mod status;
mod worker;
