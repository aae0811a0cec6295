//! A provider's workers: at most one of each runtime takes calls. It is replaced when the code changes, the offer or the
//! secrets are replaced, or it misbehaves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rds_protocol::peer::{Call, Offer, Offered, OfferedModule, Outcome, Uncallable};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::changes::Changes;
use super::command::Runtime;
use super::worker::{Worker, WorkerEnded};
use crate::agent::Vm;
use crate::reply::Refusal;

/// How long loading the offered modules may take.
const LOADING: Duration = Duration::from_secs(60);

/// How long a worker without calls is kept.
const IDLE: Duration = Duration::from_secs(300);

/// A provider's workers.
#[derive(Default)]
pub(crate) struct Workers {
    offered: RefCell<Rc<[OfferedModule]>>,
    /// Counts the reasons to replace all workers.
    generation: Cell<u64>,
    slots: [Slot; 2],
    changes: RefCell<Option<Changes>>,
}

/// Where a runtime's worker is. Whoever starts one holds the lock, so that it is started once.
#[derive(Default)]
struct Slot {
    starting: Arc<Mutex<()>>,
    loaded: RefCell<Option<Loaded>>,
}

/// The worker of a runtime, with the offered modules loaded, and the exports that can't be called. There is no worker if
/// none is needed, or if loading the modules ends it.
type Ready = (Option<Rc<Worker>>, Rc<[Uncallable]>);

/// A worker, and what it could not load of what is offered.
#[derive(Clone)]
struct Loaded {
    worker: Rc<Worker>,
    uncallable: Rc<[Uncallable]>,
}

impl Workers {
    /// Takes an offer in place of the last one, and has its modules loaded. Workers that have loaded the same go on.
    pub(crate) async fn offer(&self, vm: &Rc<Vm>, offer: Offer) -> Result<Offered, Refusal> {
        if **self.offered.borrow() != *offer.modules {
            self.offered.replace(offer.modules.into());
            self.replace_all();
        }
        let mut uncallable = Vec::new();
        for runtime in Runtime::ALL {
            let (_, refused) = self.ready(vm, runtime).await?;
            uncallable.extend_from_slice(&refused);
        }
        Ok(Offered { uncallable })
    }

    /// Makes a call that the manager has checked.
    pub(crate) async fn call(&self, vm: &Rc<Vm>, call: &Call) -> Result<Outcome, Refusal> {
        let offered = Rc::clone(&self.offered.borrow());
        let module = offered.iter().find(|module| module.path == call.module);
        if !module.is_some_and(|module| module.exports.contains(&call.export)) {
            return Err(Refusal::new(StatusCode::CONFLICT, "the module or the export was not offered"));
        }
        let ended = |WorkerEnded| Refusal::new(StatusCode::BAD_GATEWAY, "the provider's worker ended");
        let made = async {
            loop {
                let (worker, _) = self.ready(vm, Runtime::of(&call.module)).await?;
                let worker = worker.ok_or(WorkerEnded).map_err(ended)?;
                // One that is stuck is replaced, not waited for.
                if worker.proves_usable().await {
                    return worker.call(call).await.map_err(ended);
                }
            }
        };
        let late = |_| Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the call took too long");
        timeout(Duration::from_millis(call.timeout_ms), made).await.map_err(late)?
    }

    /// Has calls from now on made by new workers. The old ones finish what they have.
    pub(crate) fn replace_all(&self) {
        self.generation.set(self.generation.get() + 1);
        for slot in &self.slots {
            slot.loaded.take();
        }
    }

    /// The worker that is loaded, or else a new one. It goes on being loaded when its caller's time is over: modules that
    /// load for longer than a call may take would else never be loaded.
    async fn ready(&self, vm: &Rc<Vm>, runtime: Runtime) -> Result<Ready, Refusal> {
        let slot = &self.slots[runtime as usize];
        let turn = Arc::clone(&slot.starting).lock_owned().await;
        self.drop_stale();
        if let Some(Loaded { worker, uncallable }) = slot.loaded.borrow().clone() {
            return Ok((Some(worker), uncallable));
        }
        let vm = Rc::clone(vm);
        let load = async move {
            let ready = vm.workers.load(&vm, runtime).await;
            drop(turn);
            ready
        };
        tokio::task::spawn_local(load).await.map_err(Refusal::internal)?
    }

    /// Starts a worker and has it load the offered modules. The caller has the slot's turn.
    async fn load(&self, vm: &Rc<Vm>, runtime: Runtime) -> Result<Ready, Refusal> {
        let (generation, offered) = (self.generation.get(), Rc::clone(&self.offered.borrow()));
        let modules: Vec<_> = offered.iter().filter(|module| Runtime::of(&module.path) == runtime).collect();
        if modules.is_empty() {
            return Ok((None, Rc::default()));
        }
        // Before the modules are read, so that no change is missed.
        self.watch()?;
        let worker = Rc::new(Worker::start(vm, runtime).await.map_err(Refusal::internal)?);
        let late = |_| Refusal::new(StatusCode::GATEWAY_TIMEOUT, "loading the modules took too long");
        let uncallable: Rc<[Uncallable]> = match timeout(LOADING, worker.offer(&modules)).await.map_err(late)? {
            Ok(uncallable) => uncallable.into(),
            Err(WorkerEnded) => return Ok((None, all_uncallable(&modules))),
        };
        // The offer or the secrets may have been replaced meanwhile: this one would be stale from the start.
        if generation == self.generation.get() {
            let loaded = Loaded { worker: Rc::clone(&worker), uncallable: Rc::clone(&uncallable) };
            self.slots[runtime as usize].loaded.replace(Some(loaded));
            tokio::task::spawn_local(retire(Rc::clone(vm), runtime));
        }
        Ok((Some(worker), uncallable))
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
            slot.loaded.borrow_mut().take_if(|loaded| !loaded.worker.is_usable());
        }
    }
}

/// What is said of modules whose loading has ended the worker.
fn all_uncallable(modules: &[&OfferedModule]) -> Rc<[Uncallable]> {
    let exports = modules.iter().flat_map(|module| module.exports.iter().map(|export| (&module.path, export)));
    let reason = || "the program ended while its modules were loaded".to_owned();
    exports.map(|(path, export)| Uncallable { path: path.clone(), export: export.clone(), reason: reason() }).collect()
}

/// Ends a worker that has had no call for a while.
async fn retire(vm: Rc<Vm>, runtime: Runtime) {
    let slot = &vm.workers.slots[runtime as usize];
    let Some(started) = slot.loaded.borrow().as_ref().map(|loaded| Rc::downgrade(&loaded.worker)) else { return };
    loop {
        let Some(last) = started.upgrade().map(|worker| worker.used.get()) else { return };
        if last + IDLE <= Instant::now() {
            slot.loaded.borrow_mut().take_if(|loaded| Rc::downgrade(&loaded.worker).ptr_eq(&started));
            // One that is being started is loading code that may change meanwhile.
            let is_unused = |slot: &Slot| slot.loaded.borrow().is_none() && slot.starting.try_lock().is_ok();
            if vm.workers.slots.iter().all(is_unused) {
                // Nobody reads what it queues.
                vm.workers.changes.take();
            }
            return;
        }
        tokio::time::sleep_until(last + IDLE).await;
    }
}
