//! A client that fails the test when a reply is not as the server's own document says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::schema::Document;

/// A client of one server.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
    document: Arc<Document>,
    log: PathBuf,
}

/// A checked reply.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
    what: String,
    log: PathBuf,
}

impl Api {
    /// A client with or without a key of the server that writes this log.
    pub(crate) fn new(base: &str, key: Option<&str>, document: Arc<Document>, log: PathBuf) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(180))
            .build()
            .expect("a plain client");
        Self { http, base: base.to_owned(), key: key.map(str::to_owned), document, log }
    }

    /// The same server with another key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// Begins a request with the key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.header("x-api-key", key),
            None => request,
        }
    }

    /// Sends a request and checks the reply against the document.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Reply {
        let request = request.build().expect("a request that makes sense");
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let what = format!("{method} {path}");
        let reply = match self.http.execute(request).await {
            Ok(reply) => reply,
            Err(error) => panic!("{what}: no reply: {error:?}"),
        };
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        let body = reply.bytes().await.unwrap_or_else(|error| panic!("{what}: {status}, then {error:?}"));
        assert!(headers.contains_key("x-request-id"), "{what}: {status} without x-request-id");
        let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if let Err(fault) = self.document.check(method.as_str(), &path, status, kind, &body) {
            panic!("{what}: {status} is not as documented: {fault}\n{}", String::from_utf8_lossy(&body));
        }
        Reply { status, headers, body, what, log: self.log.clone() }
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// `POST` of JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `POST` with no body and no content type.
    pub(crate) async fn poke(&self, path: &str) -> Reply {
        self.send(self.request(Method::POST, path)).await
    }

    /// `POST` of bytes that call themselves JSON.
    pub(crate) async fn post_raw(&self, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        self.send(self.request(Method::POST, path).header("content-type", "application/json").body(body)).await
    }

    /// Runs a shell command in a VM; the reply is a 200.
    pub(crate) async fn exec(&self, vm: &str, cmd: &str) -> Value {
        self.exec_with(vm, json!({"cmd": cmd})).await
    }

    /// The same with other fields.
    pub(crate) async fn exec_with(&self, vm: &str, body: Value) -> Value {
        self.post(&format!("/v1/vms/{vm}/exec"), &body).await.ok().json()
    }

    /// Standard output of a shell command that ends well.
    pub(crate) async fn sh(&self, vm: &str, cmd: &str) -> String {
        let reply = self.exec(vm, cmd).await;
        assert_eq!(reply["exitCode"], 0, "{cmd}: {reply}");
        reply["stdout"].as_str().expect("text").trim_end().to_owned()
    }

    /// How a VM that was made without memory came up.
    pub(crate) async fn started_from(&self, vm: &str) -> Value {
        let vm = self.get(&format!("/v1/vms/{vm}")).await.ok().json();
        assert_eq!(vm["provisionMode"], "boot");
        vm["startedFrom"].clone()
    }

    /// Deletes VMs.
    pub(crate) async fn remove<S: AsRef<str>>(&self, vms: &[S]) {
        for vm in vms {
            self.delete(&format!("/v1/vms/{}", vm.as_ref())).await.status(204);
        }
    }

    /// Uploads an archive.
    pub(crate) async fn upload(&self, vm: &str, dest: &str, archive: Vec<u8>) -> Reply {
        let request = self.request(Method::POST, &format!("/v1/vms/{vm}/files/upload")).query(&[("dest", dest)]);
        self.send(request.header("content-type", "application/gzip").body(archive)).await
    }

    /// Sends bytes as they are and breaks the connection off.
    pub(crate) async fn send_and_leave(&self, request: &[u8]) {
        let address = self.base.strip_prefix("http://").expect("an http address");
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        stream.write_all(request).await.expect("the server reads");
        stream.flush().await.expect("the server reads");
    }

    /// Sends bytes as they are and gives the status and the whole reply; for what no client would send.
    pub(crate) async fn raw(&self, request: &[u8]) -> (u16, String) {
        let address = self.base.strip_prefix("http://").expect("an http address");
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        stream.write_all(request).await.expect("the server reads");
        let mut reply = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut reply)).await;
        assert!(read.is_ok(), "no end of the reply to {}", String::from_utf8_lossy(request));
        let text = String::from_utf8_lossy(&reply).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, text)
    }
}

impl Reply {
    /// Fails unless the status is this one.
    pub(crate) fn status(self, wanted: u16) -> Self {
        let (what, body) = (&self.what, String::from_utf8_lossy(&self.body));
        assert_eq!(self.status, wanted, "{what}: {body}\nlogged of it: {}", self.logged());
        self
    }

    /// What the server logged while it made the reply.
    fn logged(&self) -> String {
        let (id, log) = (self.header("x-request-id"), std::fs::read(&self.log).unwrap_or_default());
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains(id)).collect::<Vec<_>>().join("\n")
    }

    /// Fails unless the status is 200.
    pub(crate) fn ok(self) -> Self {
        self.status(200)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: no JSON: {error}", self.what))
    }

    /// The words of an error.
    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_else(|| panic!("{}: no message", self.what)).to_owned()
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("{}: no header {name}", self.what));
        value.to_str().expect("a header is text")
    }
}
