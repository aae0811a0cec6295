//! Secrets that are replaced while an agent does not take them, over agents that answer from memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rds_manager::secrets::SecretEnv;
use rds_manager::vms::state::VmState;
use rds_manager::{App, Error};
use rds_vmm::{Hypervisor, VmId};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::agents::{Agents, config, vm};

/// What all VMs have at first, see [`vm`].
const FIRST: &str = "a-secret-of-some-length";
const SECOND: &str = "the-second-secret";

struct Pair {
    provider: VmId,
    consumer: VmId,
}

async fn start(root: &Path, machines: &Arc<Agents>) -> Arc<App> {
    App::start_with(config(root).unwrap(), Arc::clone(machines) as Arc<dyn Hypervisor>).await.unwrap()
}

impl Pair {
    async fn create(app: &App) -> Self {
        let provider = app.vms.create(vm(&json!([])).unwrap()).await.unwrap().id;
        let links = json!([{"alias": "mail", "vmId": provider}]);
        let consumer = app.vms.create(vm(&links).unwrap()).await.unwrap().id;
        Self { provider: provider.parse().unwrap(), consumer: consumer.parse().unwrap() }
    }

    /// What the provider's agent says that `KEY` is, as the consumer gets it.
    async fn told(&self, app: &App) -> Value {
        let message = json!({"to": ["ann@example.com"], "subject": "Minutes", "body": ""});
        let call = json!({"alias": "mail", "modulePath": "/workspace/sdk.ts", "exportName": "send", "args": [message]});
        let called = app.vms.peers().call(self.consumer, call.to_string().into()).await.unwrap();
        serde_json::from_str::<Value>(called.result.get()).unwrap()["id"].clone()
    }
}

fn second() -> SecretEnv {
    SecretEnv::parse(vec![format!("KEY={SECOND}")]).unwrap()
}

#[tokio::test]
async fn an_agent_that_refuses_new_secrets_gets_them_again_before_anything_else() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let app = start(root.path(), &machines).await;
    let pair = Pair::create(&app).await;
    machines.known.tells.store(true, Relaxed);
    machines.known.refuses.store(true, Relaxed);
    app.vms.set_secrets(pair.provider, second()).await.unwrap_err();
    let told = pair.told(&app);
    tokio::pin!(told);
    let early = timeout(Duration::from_secs(2), &mut told).await;
    assert!(early.is_err(), "a call was made with the old secrets: {early:?}");
    machines.known.refuses.store(false, Relaxed);
    assert_eq!(told.await, "[redacted]");
    let provider = pair.provider.to_string();
    assert_eq!(machines.known.key(&provider), SECOND);
    // What still has the old ones in the guest may tell them.
    machines.known.take(&provider, [("KEY".to_owned(), FIRST.to_owned())].into());
    assert_eq!(pair.told(&app).await, "[redacted]");
    // The next ones are taken at once.
    app.vms.set_secrets(pair.provider, SecretEnv::default()).await.unwrap();
    assert_eq!(pair.told(&app).await, "");
}

#[tokio::test]
async fn what_is_asked_of_a_vm_whose_agent_is_being_reached_waits_no_longer_than_its_asker() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let app = start(root.path(), &machines).await;
    let id = app.vms.create(vm(&json!([])).unwrap()).await.unwrap().id;
    let vm: VmId = id.parse().unwrap();
    machines.known.refuses.store(true, Relaxed);
    app.vms.set_secrets(vm, second()).await.unwrap_err();
    let soon = Duration::from_millis(200);
    // A stop could be carried out before these.
    for refused in [timeout(soon, app.vms.start_vm(vm)).await, timeout(soon, app.vms.resume_vm(vm)).await] {
        assert!(matches!(refused, Ok(Err(Error::Conflict(_)))), "{refused:?}");
    }
    timeout(soon, app.vms.pause_vm(vm)).await.unwrap_err();
    machines.known.refuses.store(false, Relaxed);
    // This is next.
    app.vms.sync_peers(vm).await.unwrap();
    assert_eq!(machines.known.key(&id), SECOND);
    assert_eq!(app.vms.get(vm).unwrap().state, VmState::Running);
}

/// The life of a manager that replaces the secrets of a VM whose agent takes them or refuses. All that it was doing ends with
/// it, in the middle.
fn first_life(root: &Path, machines: &Arc<Agents>, refuses: bool) -> Pair {
    Runtime::new().unwrap().block_on(async {
        let app = start(root, machines).await;
        let pair = Pair::create(&app).await;
        machines.known.refuses.store(refuses, Relaxed);
        assert_eq!(app.vms.set_secrets(pair.provider, second()).await.is_err(), refuses);
        pair
    })
}

#[test]
fn the_next_manager_gives_secrets_that_the_one_before_could_not() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let pair = first_life(root.path(), &machines, true);
    let key = || machines.known.key(&pair.provider.to_string());
    assert_eq!(key(), FIRST);
    machines.known.tells.store(true, Relaxed);
    machines.known.refuses.store(false, Relaxed);
    Runtime::new().unwrap().block_on(async {
        let app = start(root.path(), &machines).await;
        assert_eq!(pair.told(&app).await, "[redacted]");
        assert_eq!(key(), SECOND);
        let row = app.store.vm(&pair.provider.to_string()).await.unwrap().unwrap();
        assert_eq!((row.secrets_version, row.secrets_due), (2, 0));
    });
}

#[test]
fn the_next_manager_gives_no_secrets_that_an_agent_has() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let pair = first_life(root.path(), &machines, false);
    machines.known.tells.store(true, Relaxed);
    // It would replace the workers, and what they remember. An agent that was asked would refuse, and the call wait.
    machines.known.refuses.store(true, Relaxed);
    Runtime::new().unwrap().block_on(async {
        let app = start(root.path(), &machines).await;
        assert_eq!(pair.told(&app).await, "[redacted]");
    });
}
