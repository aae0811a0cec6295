//! A server of its own for each test.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::{Args as _, Command, FromArgMatches as _};
use rds_manager::{App, Config};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::conformance;
use crate::no_hypervisor::NoHypervisor;

pub(crate) const KEY: &str = "the-configured-key";
pub(crate) const EMAIL: &str = "admin@example.com";
pub(crate) const PASSWORD: &str = "correct horse battery staple";

pub(crate) struct TestApp {
    pub(crate) app: Arc<App>,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    pub(crate) dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<std::io::Result<()>>,
}

/// A configuration with a storage root of its own and no limits, then with `flags`.
pub(crate) fn config(dir: &TempDir, flags: &[&str]) -> Config {
    let root = dir.path().to_str().unwrap();
    let mut args = vec!["test", "--storage-root", root, "--api-key", KEY, "--admin-email", EMAIL];
    // There is nothing that could make seeds.
    args.extend(["--enable-snapshots=false", "--network=off"]);
    args.extend(["--admin-password", PASSWORD, "--rate-limit-default", "0", "--rate-limit-login", "0"]);
    let command = Config::augment_args(Command::new("test").args_override_self(true));
    let matches = command.try_get_matches_from(args.into_iter().chain(flags.iter().copied())).unwrap();
    Config::from_arg_matches(&matches).unwrap().validated().unwrap()
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(flags: &[&str]) -> Self {
        Self::on(tempfile::tempdir().unwrap(), flags).await
    }

    /// The server after this one, with the same storage.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(&[]).await
    }

    /// The same with other flags.
    pub(crate) async fn restart_with(self, flags: &[&str]) -> Self {
        Self::on(self.stop().await, flags).await
    }

    /// A server with storage of an earlier one.
    pub(crate) async fn on(dir: TempDir, flags: &[&str]) -> Self {
        let app = App::start_with(config(&dir, flags), Arc::new(NoHypervisor::new())).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(rds_manager::serve(Arc::clone(&app), listener, async move {
            let _ = stopped.await;
        }));
        Self { app, address, client: Client::new(), dir, stop: Some(stop), server }
    }

    /// A request without a key.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// A request with the configured key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).header("x-api-key", KEY)
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    /// Signs in; gives the cookie as a browser sends it.
    pub(crate) async fn cookie(&self) -> String {
        let body = serde_json::json!({ "email": EMAIL, "password": PASSWORD });
        let reply = self.anonymous(Method::POST, "/auth/login").json(&body).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        let cookie = reply.headers()["set-cookie"].to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    /// Stops the server; panics if it does not end by itself.
    pub(crate) async fn stop(mut self) -> TempDir {
        let _ = self.stop.take().unwrap().send(());
        let limit = std::time::Duration::from_secs(5);
        tokio::time::timeout(limit, &mut self.server).await.expect("the server ends").unwrap().unwrap();
        self.dir
    }
}

/// Status and JSON of a reply that is as the OpenAPI document says; `null` if it has no body.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let reply = client.execute(request).await.unwrap();
    let status = reply.status();
    assert!(reply.headers().contains_key("x-request-id"), "every reply has a request id");
    let text = reply.text().await.unwrap();
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::String(text)) };
    if status.is_client_error() || status.is_server_error() {
        assert!(body["message"].is_string() && body["code"].is_string(), "{status}: {body}");
    }
    conformance::check(&method, &path, status, &body);
    (status, body)
}
