//! Requests to a manager. Knows the API's paths and errors, nothing about terminals or flags.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{CreateVm, ErrorBody, Image, Stat, Vm};
use crate::error::CliError;

/// Before a request is sent again whose connection broke.
const PAUSE: Duration = Duration::from_secs(1);

/// A manager to talk to. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<String>,
}

impl Client {
    /// Prepares requests to `base` with an API key. Nothing is sent yet.
    pub(crate) fn new(base: &str, key: Option<String>) -> Result<Self, CliError> {
        let base = Url::parse(base).map_err(|error| CliError::Usage(format!("`{base}` is no URL: {error}")))?;
        if base.scheme() != "http" {
            return Err(CliError::Usage(format!(
                "`{base}`: only http is spoken here; for a server behind TLS, forward a port to it \
                 (`ssh -L 3000:127.0.0.1:3000 HOST`) and use http://127.0.0.1:3000"
            )));
        }
        // The manager is on this machine or one hop away; an outbound proxy from the environment knows neither. It sends
        // nobody elsewhere, and the key would go along.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .build()
            .map_err(|error| CliError::Failed(format!("cannot prepare requests: {error}")))?;
        Ok(Self { http, base, key })
    }

    /// The address of the server.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// The API key that requests carry.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The address of a path, each segment encoded.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(segments);
        url
    }

    /// Begins a request.
    pub(crate) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let request = self.http.request(method, self.url(segments));
        match &self.key {
            Some(key) => request.header("x-api-key", key),
            None => request,
        }
    }

    /// Sends a request; a reply of 400 or more is an error with the server's words.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let reply = request.send().await.map_err(|error| self.transport(&error))?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let request_id = reply.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let body: ErrorBody = reply.json().await.unwrap_or_default();
        let message = body.message.unwrap_or_else(|| format!("the server answered {status}"));
        Err(CliError::Refused { status: status.as_u16(), message, request_id: body.request_id.or(request_id) })
    }

    /// Sends a request and reads the JSON of the reply.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        let bytes = self.send(request).await?.bytes().await.map_err(|error| self.transport(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| CliError::Answer(error.to_string()))
    }

    /// Sends a request that makes something, and reads the JSON of the reply. If the connection breaks, it asks once more
    /// under the same key, with which the server makes nothing twice. `list` is the command that shows what was made.
    pub(crate) async fn make<T: DeserializeOwned>(&self, request: RequestBuilder, list: &str) -> Result<T, CliError> {
        let request = request.header("idempotency-key", format!("{:032x}", rand::random::<u128>()));
        let again = request.try_clone();
        match (self.json(request).await, again) {
            (Err(broken @ CliError::Broken { .. }), Some(again)) => {
                tokio::time::sleep(PAUSE).await;
                self.json(again).await.map_err(|_| broken.of_a_making(list))
            }
            (made, _) => made,
        }
    }

    /// Says why no reply came.
    pub(crate) fn transport(&self, error: &reqwest::Error) -> CliError {
        let mut reason: &dyn std::error::Error = error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        let (url, reason) = (self.base.to_string(), reason.to_string());
        if error.is_connect() { CliError::Unreachable { url, reason } } else { CliError::Broken { url, reason } }
    }

    /// All VMs.
    pub(crate) async fn vms(&self) -> Result<Vec<Vm>, CliError> {
        self.json(self.request(Method::GET, &["v1", "vms"])).await
    }

    /// One VM by its id.
    pub(crate) async fn vm(&self, id: &str) -> Result<Vm, CliError> {
        self.json(self.request(Method::GET, &["v1", "vms", id])).await
    }

    /// Makes a VM and waits until it answers.
    pub(crate) async fn create_vm(&self, wish: &CreateVm) -> Result<Vm, CliError> {
        self.make(self.request(Method::POST, &["v1", "vms"]).json(wish), "rds vm ls").await
    }

    /// Removes a VM; one that is gone already is no error.
    pub(crate) async fn delete_vm(&self, id: &str) -> Result<(), CliError> {
        match self.send(self.request(Method::DELETE, &["v1", "vms", id])).await {
            Err(CliError::Refused { status: 404, .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Posts JSON to a VM and reads JSON back.
    pub(crate) async fn post_vm<T: DeserializeOwned>(&self, id: &str, call: &str, body: &Value) -> Result<T, CliError> {
        self.json(self.request(Method::POST, &["v1", "vms", id, call]).json(body)).await
    }

    /// Looks at a file of a VM; `None` if there is none.
    pub(crate) async fn stat(&self, id: &str, path: &str) -> Result<Option<Stat>, CliError> {
        let request = self.request(Method::GET, &["v1", "vms", id, "files", "stat"]).query(&[("path", path)]);
        match self.json(request).await {
            Ok(stat) => Ok(Some(stat)),
            Err(CliError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Unpacks a tar.gz into a directory of a VM.
    pub(crate) async fn upload(&self, id: &str, dest: &str, archive: Vec<u8>) -> Result<(), CliError> {
        let request = self.request(Method::POST, &["v1", "vms", id, "files", "upload"]).query(&[("dest", dest)]);
        self.send(request.header("content-type", "application/gzip").body(archive)).await.map(drop)
    }

    /// All images.
    pub(crate) async fn images(&self) -> Result<Vec<Image>, CliError> {
        self.json(self.request(Method::GET, &["v1", "images"])).await
    }

    /// The id of the VM that a person means: its id, the beginning of it, or its name.
    pub(crate) async fn find_vm(&self, wanted: &str) -> Result<String, CliError> {
        let vms = self.vms().await?;
        let names: Vec<(&str, Option<&str>)> = vms.iter().map(|vm| (vm.id.as_str(), vm.name.as_deref())).collect();
        pick("VM", "rds vm ls", wanted, &names)
    }

    /// The id of the image that a person means: its id, the beginning of it, or its name.
    pub(crate) async fn find_image(&self, wanted: &str) -> Result<String, CliError> {
        let images = self.images().await?;
        let names: Vec<_> = images.iter().map(|image| (image.id.as_str(), Some(image.name.as_str()))).collect();
        pick("image", "rds image ls", wanted, &names)
    }
}

/// Finds the one entry that `wanted` means: an exact id, else an exact name, else the beginning of an id.
fn pick(kind: &str, list: &str, wanted: &str, entries: &[(&str, Option<&str>)]) -> Result<String, CliError> {
    let matches = |test: &dyn Fn(&str, Option<&str>) -> bool| -> Vec<&str> {
        entries.iter().filter(|(id, name)| test(id, *name)).map(|(id, _)| *id).collect()
    };
    let by_id = matches(&|id, _| id == wanted);
    let by_name = matches(&|_, name| name == Some(wanted));
    let by_prefix = matches(&|id, _| !wanted.is_empty() && id.starts_with(wanted));
    let found = [by_id, by_name, by_prefix].into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [id] => Ok((*id).to_owned()),
        [] => Err(CliError::NotFound(format!("there is no {kind} `{wanted}`; `{list}` shows what there is"))),
        several => {
            Err(CliError::NotFound(format!("`{wanted}` may mean {}; give more of the id", several.join(" or "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    const ENTRIES: &[(&str, Option<&str>)] = &[("aa11", Some("web")), ("aa22", None), ("bb33", Some("aa"))];

    #[test]
    fn an_entry_is_named_by_id_name_or_the_beginning_of_its_id() {
        let pick = |wanted| pick("VM", "rds vm ls", wanted, ENTRIES).map_err(|error| error.exit_code());
        assert_eq!(pick("aa22"), Ok("aa22".into()));
        assert_eq!(pick("web"), Ok("aa11".into()));
        assert_eq!(pick("aa"), Ok("bb33".into()), "a name goes before the beginning of an id");
        assert_eq!(pick("bb"), Ok("bb33".into()));
        assert_eq!(pick("a"), Err(5));
        assert_eq!(pick(""), Err(5));
        assert_eq!(pick("zz"), Err(5));
    }

    #[test]
    fn segments_cannot_leave_their_place_in_the_path() {
        let client = Client::new("http://127.0.0.1:3000/", None).unwrap();
        assert_eq!(client.url(&["v1", "vms", "a/b?c"]).path(), "/v1/vms/a%2Fb%3Fc");
        assert!(Client::new("https://example.org", None).is_err());
    }
    /// A server that gives each connection the next reply, and none to the last ones; what was asked of it.
    fn server(replies: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = std::thread::spawn(move || {
            let answer = |reply: &&str| {
                let (mut socket, _) = listener.accept().unwrap();
                let mut request = vec![0; 4096];
                let count = socket.read(&mut request).unwrap();
                socket.write_all(reply.as_bytes()).unwrap();
                request.truncate(count);
                String::from_utf8(request).unwrap().to_lowercase()
            };
            replies.iter().map(answer).collect()
        });
        (url, asked)
    }

    fn header<'a>(request: &'a str, name: &str) -> &'a str {
        request.lines().find_map(|line| line.strip_prefix(name)).unwrap()
    }

    #[tokio::test]
    async fn what_broke_off_is_asked_for_once_more_under_the_same_key() {
        let (url, asked) = server(&["", "HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\n{\"id\":\"a\"}"]);
        let client = Client::new(&url, None).unwrap();
        let made: Value = client.make(client.request(Method::POST, &["v1"]), "rds vm ls").await.unwrap();
        assert_eq!(made["id"], "a");
        let asked = asked.join().unwrap();
        let keys: Vec<&str> = asked.iter().map(|request| header(request, "idempotency-key: ")).collect();
        assert!(keys[0].len() == 32 && keys[0] == keys[1], "{keys:?}");

        let (url, asked) = server(&["", ""]);
        let client = Client::new(&url, None).unwrap();
        let error = client.make::<Value>(client.request(Method::POST, &["v1"]), "rds vm ls").await.unwrap_err();
        assert!(error.to_string().contains("may have been made: `rds vm ls` shows"), "{error}");
        assert_eq!(asked.join().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn no_redirection_is_followed() {
        let (url, asked) = server(&["HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"]);
        let client = Client::new(&url, Some("k".into())).unwrap();
        let error = client.send(client.request(Method::GET, &["v1"])).await.unwrap_err();
        assert!(matches!(error, CliError::Refused { status: 307, .. }), "{error}");
        assert_eq!(header(&asked.join().unwrap()[0], "x-api-key: "), "k");
    }
}
