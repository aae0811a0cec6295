//! One file per group of commands.

pub(crate) mod api_key;
pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod cp;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod peers;
pub(crate) mod run;
mod secret_source;
pub(crate) mod secrets;
pub(crate) mod serve;
pub(crate) mod setup;
mod sign_in;
pub(crate) mod snapshot;
mod telemetry;
mod terminal;
pub(crate) mod up;
pub(crate) mod vm;
pub(crate) mod webhook;
