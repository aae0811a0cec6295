//! A provider's workers: at most one of each runtime takes calls. It is replaced when the code changes, the offer or the
//! secrets are replaced, or it misbehaves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rds_protocol::peer::{Call, Offer, Offered, OfferedModule, Outcome, Uncallable};
use serde_json::value::RawValue;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::changes::Changes;
use super::command::Runtime;
use super::slot::Slot;
use super::standing::Loss;
use super::worker::Worker;
use crate::agent::Vm;
use crate::reply::Refusal;

/// How long a worker that loads its modules keeps another from being started. One that hangs and is replaced must not keep
/// the next one waiting for all the time that it has.
const TURN: Duration = Duration::from_secs(15);

/// A provider's workers.
#[derive(Default)]
pub(crate) struct Workers {
    offered: RefCell<Rc<[OfferedModule]>>,
    /// Counts the reasons to replace all workers.
    generation: Cell<u64>,
    slots: [Slot<Worker>; 2],
    changes: RefCell<Option<Changes>>,
}

impl Workers {
    /// Takes an offer in place of the last one, and has its modules loaded. Workers that have loaded the same go on.
    pub(crate) async fn offer(&self, vm: &Rc<Vm>, offer: Offer) -> Result<Offered, Refusal> {
        if **self.offered.borrow() != *offer.modules {
            self.offered.replace(offer.modules.into());
            self.replace_all();
        }
        let offered = Rc::clone(&self.offered.borrow());
        // Beside each other: the manager does not wait for one after the other.
        let loading = Runtime::ALL.map(|runtime| self.load(vm, runtime, &offered));
        let mut uncallable = futures_util::future::try_join_all(loading).await?.concat();
        // The manager tells of one, and reads no reply of any length.
        uncallable.truncate(1);
        Ok(Offered { uncallable })
    }

    /// Has a runtime's modules loaded, and gives the exports that can't be called.
    async fn load(&self, vm: &Rc<Vm>, runtime: Runtime, offered: &[OfferedModule]) -> Result<Vec<Uncallable>, Refusal> {
        let Some(worker) = self.worker(vm, runtime).await? else { return Ok(Vec::new()) };
        let refused = worker.loaded().await;
        Ok(refused.unwrap_or_else(|loss| all_uncallable(&modules_of(runtime, offered), loss)))
    }

    /// Makes a call that the manager has checked.
    pub(crate) async fn call(&self, vm: &Rc<Vm>, call: Call) -> Result<Outcome<Box<RawValue>>, Refusal> {
        let limit = Duration::from_millis(call.timeout_ms);
        let offered = Rc::clone(&self.offered.borrow());
        let module = offered.iter().find(|module| module.path == call.module);
        if !module.is_some_and(|module| module.exports.contains(&call.export)) {
            return Err(Refusal::new(StatusCode::CONFLICT, "the module or the export was not offered"));
        }
        let made = async {
            loop {
                let worker = self.worker(vm, Runtime::of(&call.module)).await?;
                let worker = worker.ok_or_else(|| refusal(Loss::Ended))?;
                // One that is stuck is replaced, not waited for.
                if worker.takes_calls_of(&call.module).await.map_err(refusal)? {
                    return worker.call(call).await.map_err(refusal);
                }
            }
        };
        let late = |_| Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the call took too long");
        timeout(limit, made).await.map_err(late)?
    }

    /// Has calls from now on made by new workers. The old ones finish what they have.
    pub(crate) fn replace_all(&self) {
        self.generation.set(self.generation.get() + 1);
        for slot in &self.slots {
            slot.current.take();
        }
    }

    /// The worker that takes calls, or else a new one; none if no module needs one. It may still load its modules.
    async fn worker(&self, vm: &Rc<Vm>, runtime: Runtime) -> Result<Option<Rc<Worker>>, Refusal> {
        if let Some(worker) = self.current(runtime) {
            return Ok(Some(worker));
        }
        let turn = Arc::clone(&self.slots[runtime as usize].starting).lock_owned().await;
        if let Some(worker) = self.current(runtime) {
            return Ok(Some(worker));
        }
        let vm = Rc::clone(vm);
        // It goes on when its caller's time is over: calls that may take little time would else never have one.
        let start = async move { vm.workers.start(&vm, runtime, turn).await };
        tokio::task::spawn_local(start).await.map_err(Refusal::internal)?
    }

    /// The worker that takes calls, if there is one that need not be replaced.
    fn current(&self, runtime: Runtime) -> Option<Rc<Worker>> {
        self.drop_stale();
        self.slots[runtime as usize].current.borrow().clone()
    }

    /// Starts a worker, which loads the offered modules.
    async fn start(
        &self,
        vm: &Rc<Vm>,
        runtime: Runtime,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Option<Rc<Worker>>, Refusal> {
        let (generation, offered) = (self.generation.get(), Rc::clone(&self.offered.borrow()));
        let modules = modules_of(runtime, &offered);
        if modules.is_empty() {
            return Ok(None);
        }
        // Before the modules are read, so that no change is missed.
        self.watch()?;
        // A program can stop the process that is to become the worker.
        let started = timeout(TURN, Worker::start(vm, runtime, &modules)).await;
        let worker = started.map_err(|_| refusal(Loss::Late))?.map_err(Refusal::internal)?;
        let worker = Rc::new(worker);
        // The offer or the secrets may have been replaced meanwhile: this one would be stale from the start.
        if generation == self.generation.get() {
            self.slots[runtime as usize].current.replace(Some(Rc::clone(&worker)));
            tokio::task::spawn_local(retire(Rc::clone(vm), runtime));
        }
        let loading = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            let _ = timeout(TURN, loading.loading_is_over()).await;
            drop(turn);
        });
        Ok(Some(worker))
    }

    fn watch(&self) -> Result<(), Refusal> {
        let mut changes = self.changes.borrow_mut();
        if changes.is_none() {
            *changes = Some(Changes::watch().map_err(Refusal::internal)?);
        }
        Ok(())
    }

    fn drop_stale(&self) {
        if self.changes.borrow().as_ref().is_some_and(Changes::seen) {
            self.replace_all();
        }
        for slot in &self.slots {
            slot.current.borrow_mut().take_if(|worker| !worker.is_usable());
        }
    }
}

/// The modules that a runtime runs.
fn modules_of(runtime: Runtime, offered: &[OfferedModule]) -> Vec<&OfferedModule> {
    offered.iter().filter(|module| Runtime::of(&module.path) == runtime).collect()
}

fn refusal(loss: Loss) -> Refusal {
    match loss {
        Loss::Ended => Refusal::new(StatusCode::BAD_GATEWAY, "the provider's worker ended"),
        Loss::Late => Refusal::new(StatusCode::GATEWAY_TIMEOUT, "loading the modules took too long"),
    }
}

/// What is said of modules whose loading has ended the worker or has no end.
fn all_uncallable(modules: &[&OfferedModule], loss: Loss) -> Vec<Uncallable> {
    let exports = modules.iter().flat_map(|module| module.exports.iter().map(|export| (&module.path, export)));
    let reason = match loss {
        Loss::Ended => "the program ended while its modules were loaded",
        Loss::Late => "loading the modules took too long",
    };
    let uncallable = |(path, export): (&String, &String)| Uncallable {
        path: path.clone(),
        export: export.clone(),
        reason: reason.to_owned(),
    };
    exports.map(uncallable).collect()
}

/// Ends a worker that has had no call for a while.
async fn retire(vm: Rc<Vm>, runtime: Runtime) {
    let workers = &vm.workers;
    if workers.slots[runtime as usize].retire().await && workers.slots.iter().all(Slot::is_unused) {
        // Nobody reads what it queues.
        workers.changes.take();
    }
}
