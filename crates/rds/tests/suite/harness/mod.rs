//! What the tests stand on: servers, VMs, and a client that checks every reply against the served document.

mod api;
pub(crate) mod archives;
pub(crate) mod browser;
pub(crate) mod disk;
pub(crate) mod groups;
pub(crate) mod lab;
pub(crate) mod prerequisites;
pub(crate) mod processes;
mod schema;
mod server;
mod world;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub(crate) use api::{Api, Reply};
pub(crate) use prerequisites::Prerequisites;
pub(crate) use server::{ADMIN_EMAIL, ADMIN_PASSWORD, API_KEY, TestServer};
pub(crate) use world::{World, create};

/// A test that is under way.
pub(crate) type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A test; it fails by panicking.
#[derive(Clone)]
pub(crate) struct Case {
    /// Path of its module.
    pub(crate) module: &'static str,
    /// Name of its function.
    pub(crate) function: &'static str,
    /// A variable without which it is skipped, [`lab::NAMESPACES`], [`disk::MOUNTS`] or [`browser::BROWSER`].
    pub(crate) needs: Option<&'static str>,
    /// Runs it.
    pub(crate) run: fn(Arc<World>) -> Run,
}

impl Case {
    /// `module::function`, without the name of the crate.
    pub(crate) fn name(&self) -> String {
        let module = self.module.split_once("::").map_or(self.module, |(_, rest)| rest);
        format!("{module}::{}", self.function)
    }
}

/// Lists a module's tests as its `cases()`; `needs "VARIABLE"` behind a test's name skips it without that. One that is forgotten is an unused function, which the lints refuse.
macro_rules! cases {
    ($($function:ident $(needs $needs:literal)?),* $(,)?) => {
        pub(crate) fn cases() -> Vec<$crate::harness::Case> {
            vec![$($crate::harness::Case {
                module: module_path!(),
                function: stringify!($function),
                needs: None$(.or(Some($needs)))?,
                run: |world| Box::pin(async move { $function(&world).await }),
            }),*]
        }
    };
}
pub(crate) use cases;
