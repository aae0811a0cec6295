//! What most tests share, to save time: one server, and one VM in it.

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{Api, Prerequisites, TestServer};

/// Shared by all tests of a run. Tests in the shared VM keep to names of their own under `/workspace`.
pub(crate) struct World {
    /// What servers are given.
    pub(crate) found: Prerequisites,
    server: OnceCell<TestServer>,
    vm: OnceCell<String>,
}

impl World {
    /// Nothing is started yet.
    pub(crate) fn new(found: Prerequisites) -> Self {
        Self { found, server: OnceCell::new(), vm: OnceCell::new() }
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

    /// A server of the test's own.
    pub(crate) async fn own_server(&self, settings: &[(&str, &str)]) -> TestServer {
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
