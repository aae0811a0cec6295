//! What most tests share, to save time: one server, and one VM in it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{Api, Prerequisites, TestServer};

/// Memory of most VMs here, in MiB. An image gets a seed of the first size by itself.
const SIZES: [u32; 2] = [256, 128];

/// How long seeds may take to be made while other tests run.
const SEED_LIMIT: Duration = Duration::from_secs(240);

/// Shared by all tests of a run. Tests in the shared VM keep to names of their own under `/workspace`.
pub(crate) struct World {
    /// What servers are given.
    pub(crate) found: Prerequisites,
    server: OnceCell<TestServer>,
    kept: OnceCell<TempDir>,
    vm: OnceCell<String>,
}

impl World {
    /// Nothing is started yet.
    pub(crate) fn new(found: Prerequisites) -> Self {
        Self { found, server: OnceCell::new(), kept: OnceCell::new(), vm: OnceCell::new() }
    }

    /// The shared server.
    pub(crate) async fn server(&self) -> &TestServer {
        self.server.get_or_init(|| TestServer::start(&self.found, &[])).await
    }

    /// A client of the shared server.
    pub(crate) async fn api(&self) -> Api {
        self.server().await.api()
    }

    /// A client and the shared VM, which runs.
    pub(crate) async fn vm(&self) -> (Api, &str) {
        let api = self.api().await;
        let vm = self.vm.get_or_init(|| create(&api, json!({"memMb": 512}))).await;
        (api, vm)
    }

    /// A client and a VM of the test's own, which removes it.
    pub(crate) async fn own_vm(&self, wish: Value) -> (Api, String) {
        let api = self.api().await;
        let vm = create(&api, wish).await;
        (api, vm)
    }

    /// What the shared server keeps once it has seeds of the sizes that most VMs here have: to make them takes longer than most
    /// tests do.
    async fn kept(&self) -> &Path {
        let make = async || {
            let server = self.server().await;
            let api = server.api();
            let vm = create(&api, json!({"memMb": SIZES[1]})).await;
            api.remove(&[vm]).await;
            let begun = Instant::now();
            let made = async |mem_mb| {
                let all = api.get("/v1/snapshots?scope=internal").await.ok().json();
                let mut all = all.as_array().expect("a list").iter();
                all.any(|seed| seed["status"] == "ready" && seed["cpu"] == 1 && seed["memMb"] == mem_mb)
            };
            for mem_mb in SIZES {
                while !made(mem_mb).await {
                    assert!(begun.elapsed() < SEED_LIMIT, "there is no seed of {mem_mb} MiB");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            server.keep()
        };
        self.kept.get_or_init(make).await.path()
    }

    /// A server of the test's own. It has seeds for VMs with one processor and 128 or 256 MiB, to whose files nobody may write.
    pub(crate) async fn own_server(&self, settings: &[(&str, &str)]) -> TestServer {
        TestServer::start_with(&self.found, settings, self.kept().await).await
    }

    /// A server of the test's own that has no seed yet and makes one.
    pub(crate) async fn bare_server(&self, settings: &[(&str, &str)]) -> TestServer {
        TestServer::start(&self.found, settings).await
    }

    /// The same of a server that runs as `user`, with no more than the capabilities that it needs.
    pub(crate) async fn own_server_of(&self, user: u32, settings: &[(&str, &str)]) -> TestServer {
        TestServer::start_as(&self.found, user, settings).await
    }

    /// Ends what is shared; after a failure the server's log is shown.
    pub(crate) async fn close(&self, failed: bool) {
        let Some(server) = self.server.get() else { return };
        if failed {
            eprintln!("--- end of the shared server's log ---\n{}\n---", server.log_tail());
        }
        if let Some(vm) = self.vm.get() {
            server.api().delete(&format!("/v1/vms/{vm}")).await;
        }
    }
}

/// Makes a VM with one processor and 256 MiB, or as wished, and gives its id.
pub(crate) async fn create(api: &Api, wish: Value) -> String {
    let mut body = json!({"cpu": 1, "memMb": 256, "allowIps": []});
    let fields = wish.as_object().expect("a wish is an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    let vm = api.post("/v1/vms", &body).await.status(201).json();
    vm["id"].as_str().expect("a VM has an id").to_owned()
}
