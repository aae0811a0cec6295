//! The manager: services, their store and the HTTP API over them.
//!
//! [`App`] holds everything that lives as long as the server; [`serve`] runs the API on a listener. The direction is
//! `api → services → store`: a service must not know HTTP, and the store must not know a service.

pub mod activity;
pub mod api;
pub mod app;
pub mod audit;
pub mod auth;
pub mod clock;
pub mod config;
pub mod egress;
pub mod error;
mod file_lock;
mod hold;
pub mod hypervisor;
pub mod images;
mod initramfs;
mod installation;
mod metrics;
pub mod overview;
pub mod peers;
mod pool;
pub mod rate_limit;
pub mod secrets;
pub mod seeds;
pub mod snapshots;
pub mod storage;
pub mod store;
mod trace;
pub mod vms;
pub mod webhooks;

pub use api::serve;
pub use app::App;
pub use config::Config;
pub use error::{Error, Result};
