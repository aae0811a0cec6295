//! A real browser, driven as the WebDriver standard says (<https://www.w3.org/TR/webdriver2/>).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// What `needs` says of a test that opens pages.
pub(crate) const BROWSER: &str = "a browser";

/// How long a page may take to show something; VMs may have to start for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a browser may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Why no page can be opened on this machine.
pub(crate) fn missing() -> Option<String> {
    (!super::prerequisites::on_path("chromedriver"))
        .then(|| "there is no chromedriver (package chromium-driver)".into())
}

/// A browser with one empty page. Dropping it ends it, with all its processes.
pub(crate) struct Browser {
    port: u16,
    session: String,
    client: reqwest::Client,
    _profile: TempDir,
    _driver: Child,
}

impl Drop for Browser {
    /// Only the driver ends the browser, and only when it is told to.
    fn drop(&mut self) {
        let told = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut driver| {
            let path = &self.session;
            write!(driver, "DELETE {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
            // It answers when the browser has ended, and keeps the connection.
            driver.set_read_timeout(Some(END_LIMIT))?;
            driver.read(&mut [0; 1024])
        });
        if let Err(error) = told {
            eprintln!("the browser was not ended: {error}");
        }
    }
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut driver = command.spawn().expect("chromedriver runs");
        let mut lines = BufReader::new(driver.stdout.take().expect("its output")).lines();
        let port = loop {
            let line = lines.next_line().await.expect("text").expect("chromedriver says its port");
            if let Some((_, port)) = line.trim_end_matches('.').split_once("started successfully on port ") {
                break port.parse().expect("a port");
            }
        };
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        // Pages come from the test's own server, so root needs no sandbox around them.
        let profile_at = format!("--user-data-dir={}", profile.path().display());
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", &profile_at];
        let wish = json!({"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}});
        let url = format!("http://127.0.0.1:{port}/session");
        let made = value(client.post(url).json(&json!({"capabilities": {"alwaysMatch": wish}}))).await;
        let session = format!("/session/{}", made["sessionId"].as_str().expect("a session"));
        Self { port, session, client, _profile: profile, _driver: driver }
    }

    /// Opens an address, and waits until it is loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.command("url", &json!({"url": url})).await;
    }

    /// What the body of a function gives in the page.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({"script": script, "args": []})).await
    }

    /// Waits until an expression is true in the page.
    pub(crate) async fn until(&self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.run(&format!("return Boolean({expression})")).await != json!(true) {
            if Instant::now() > end {
                panic!("never: {expression}\n{}", self.run("return document.body.innerText").await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the browser complained of since the last time.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.command("se/log", &json!({"type": "browser"})).await;
        let entries = log.as_array().expect("a list").iter().filter(|entry| entry["level"] == "SEVERE");
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        value(self.client.post(format!("http://127.0.0.1:{}{}/{path}", self.port, self.session)).json(body)).await
    }
}

async fn value(request: reqwest::RequestBuilder) -> Value {
    let reply = request.send().await.expect("an answer of the browser");
    let status = reply.status();
    let mut body: Value = reply.json().await.expect("JSON");
    assert!(status.is_success(), "{body}");
    body["value"].take()
}
