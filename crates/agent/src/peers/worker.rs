//! One worker: a long-lived program in the sandbox that has a provider's modules loaded and calls their exports.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rds_protocol::peer::{Call, OfferedModule, Outcome, Uncallable};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::command::Runtime;
use super::message::{self, Order, Report};
use super::slot::Used;
use super::standing::{Loss, Standing, Trust};
use crate::agent::Vm;
use crate::pipe;
use crate::sandbox::launch::{Child, Executable, Launch, Streams};

/// Orders that wait for a worker to read them. Further callers wait their turn.
const QUEUE: usize = 32;

/// How long a worker may be silent after a cancellation. One that is stuck takes no further calls; those it has go on, for
/// they may be what keeps it busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long loading the modules may take. A worker that takes longer goes on with those that it has loaded, until one that
/// it has not is asked for.
const LOADING: Duration = Duration::from_secs(60);

/// A worker. It is killed when nobody has it any more, so one that was replaced finishes the calls it has.
pub(super) struct Worker {
    orders: mpsc::Sender<Queued>,
    waiting: Rc<Waiting>,
    next: Cell<u64>,
    started: Instant,
    /// When it was last given a call.
    used: Cell<Instant>,
    /// What reads and writes its pipes. Others may have these, too, and live longer.
    _tasks: JoinSet<()>,
    _child: Child,
}

/// An order on its way.
struct Queued {
    /// The call that it makes; none if it makes none.
    call: Option<u64>,
    bytes: Bytes,
}

/// Who waits for what a worker says.
struct Waiting {
    calls: RefCell<HashMap<u64, oneshot::Sender<Outcome<Box<RawValue>>>>>,
    heard: Cell<u64>,
    standing: watch::Sender<Standing>,
}

impl Worker {
    /// Starts one, which begins to load modules.
    pub(super) async fn start(vm: &Vm, runtime: Runtime, modules: &[&OfferedModule]) -> Result<Self, String> {
        let pipes = || io::Result::Ok((pipe::input()?, pipe::output()?, pipe::output()?));
        let ((stdin, orders_in), (stdout, reports), (stderr, noise)) = pipes().map_err(|error| error.to_string())?;
        let (arguments, environment) = {
            let secrets = vm.secrets.borrow();
            runtime.render(vm.sandbox.tree.has_bash, secrets.variables())?
        };
        let launch = Launch {
            executable: Executable::Named(runtime.program()),
            arguments,
            environment,
            directory: c"/workspace".into(),
            streams: Streams::Three([stdin, stdout, stderr]),
            script: None,
        };
        let launched = vm.sandbox.launch(&vm.keepers, launch).await;
        let child = launched.map_err(|failed| format!("cannot start {}: {}", runtime.program(), failed.error))?;
        let standing = watch::Sender::new(Standing::new(modules));
        let waiting = Rc::new(Waiting { calls: RefCell::default(), heard: Cell::default(), standing });
        let (orders, queue) = mpsc::channel(QUEUE);
        orders
            .try_send(Queued { call: None, bytes: Order::Offer { modules }.to_bytes() })
            .map_err(|error| error.to_string())?;
        let mut tasks = JoinSet::new();
        tasks.spawn_local(Rc::clone(&waiting).carry_orders(queue, orders_in));
        tasks.spawn_local(Rc::clone(&waiting).listen(reports));
        tasks.spawn_local(drain(noise));
        let started = Instant::now();
        let used = Cell::new(started);
        Ok(Self { orders, waiting, next: Cell::new(0), started, used, _tasks: tasks, _child: child })
    }

    /// Waits until every module was loaded or could not be. Returns the exports that can't be called.
    pub(super) async fn loaded(&self) -> Result<Vec<Uncallable>, Loss> {
        self.loads(Standing::is_loaded).await.inspect_err(|loss| self.waiting.lose(*loss))?;
        Ok(self.waiting.standing.borrow().uncallable())
    }

    /// Waits until it loads no more, for whatever reason.
    pub(super) async fn loading_is_over(&self) {
        let _ = self.loads(Standing::is_loaded).await;
    }

    /// Waits until a module was loaded or could not be, and there is no doubt. Says whether its exports may be called, and
    /// if not, whether another worker may be better: one that was lost while it loaded is an error.
    pub(super) async fn takes_calls_of(&self, module: &str) -> Result<bool, Loss> {
        self.loads(|standing| !standing.is_loading(module)).await.inspect_err(|loss| self.waiting.lose(*loss))?;
        let mut standing = self.waiting.standing.subscribe();
        let settled = standing.wait_for(|standing| standing.trust != Trust::Doubted).await;
        match settled.map_or(Trust::Lost(Loss::Ended), |standing| standing.trust) {
            Trust::Lost(loss) if !self.waiting.standing.borrow().is_loaded() => Err(loss),
            trust => Ok(trust == Trust::Full),
        }
    }

    /// Calls an export. Dropping the future cancels the call.
    pub(super) async fn call(&self, call: Call) -> Result<Outcome<Box<RawValue>>, Loss> {
        self.used.set(Instant::now());
        let id = self.next.replace(self.next.get() + 1);
        let (sender, outcome) = oneshot::channel();
        self.waiting.calls.borrow_mut().insert(id, sender);
        let mut cancellation = Cancellation { worker: self, id, needed: true };
        let order = Order::Call { id, module: &call.module, export: &call.export, args: &call.args }.to_bytes();
        // The arguments may be long, and the call too.
        drop(call);
        self.order(Queued { call: Some(id), bytes: order }).await?;
        let outcome = outcome.await.map_err(|_| Loss::Ended);
        cancellation.needed = false;
        outcome
    }

    /// Whether it may be given further calls.
    pub(super) fn is_usable(&self) -> bool {
        !matches!(self.waiting.standing.borrow().trust, Trust::Lost(_))
    }

    /// Waits until as much is loaded as `enough` says. An error if it was lost before, or if it takes too long.
    async fn loads(&self, enough: impl Fn(&Standing) -> bool) -> Result<(), Loss> {
        let mut standing = self.waiting.standing.subscribe();
        let settled = standing.wait_for(|standing| enough(standing) || matches!(standing.trust, Trust::Lost(_)));
        let settled = timeout_at(self.started + LOADING, settled).await.map_err(|_| Loss::Late)?;
        let settled = settled.map_err(|_| Loss::Ended)?;
        match settled.trust {
            Trust::Lost(loss) if !enough(&settled) => Err(loss),
            _ => Ok(()),
        }
    }

    async fn order(&self, order: Queued) -> Result<(), Loss> {
        if !self.is_usable() {
            return Err(Loss::Ended);
        }
        self.orders.send(order).await.map_err(|_| Loss::Ended)
    }
}

impl Used for Worker {
    fn used(&self) -> Instant {
        self.used.get()
    }
}

/// Tells a worker that nobody waits for a call, unless it is over.
struct Cancellation<'a> {
    worker: &'a Worker,
    id: u64,
    needed: bool,
}

impl Drop for Cancellation<'_> {
    fn drop(&mut self) {
        let waiting = &self.worker.waiting;
        waiting.calls.borrow_mut().remove(&self.id);
        if self.needed {
            // Before it can answer. One that still loads modules has its time for that, and may be busy with it.
            if waiting.standing.borrow().is_loaded() {
                tokio::task::spawn_local(Rc::clone(waiting).suspect());
            }
            // A full queue is one that the worker does not read.
            let _ = self.worker.orders.try_send(Queued { call: None, bytes: Order::Cancel { id: self.id }.to_bytes() });
        }
    }
}

impl Waiting {
    /// Hands on what a worker says, until it says no more or something that it shouldn't.
    async fn listen(self: Rc<Self>, reports: Receiver) {
        let mut reports = BufReader::with_capacity(16 * 1024, reports);
        while let Some(report) = message::read(&mut reports).await {
            self.heard.set(self.heard.get() + 1);
            self.standing.send_if_modified(|standing| standing.change(Trust::Doubted, Trust::Full));
            let (id, outcome) = match report {
                Report::Loaded { path, uncallable } => {
                    self.standing.send_if_modified(|standing| standing.take(&path, uncallable));
                    continue;
                }
                Report::Result { id, value } => (id, Outcome::Returned(value)),
                Report::Error { id, name, message } => (id, Outcome::Threw { name, message }),
                Report::Cancelled => continue,
            };
            if let Some(call) = self.calls.borrow_mut().remove(&id) {
                let _ = call.send(outcome);
            }
        }
        self.lose(Loss::Ended);
        self.calls.borrow_mut().clear();
    }

    /// Hands on what a worker is to do, but for calls that nobody waits for any more.
    async fn carry_orders(self: Rc<Self>, mut queue: mpsc::Receiver<Queued>, mut stdin: Sender) {
        while let Some(Queued { call, bytes }) = queue.recv().await {
            let given_up = call.is_some_and(|id| !self.calls.borrow().contains_key(&id));
            if !given_up && stdin.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }

    fn lose(&self, loss: Loss) {
        self.standing.send_modify(|standing| standing.trust = Trust::Lost(loss));
    }

    /// Gives the worker up if it is not heard from.
    fn suspect(self: Rc<Self>) -> impl Future<Output = ()> {
        let heard = self.heard.get();
        self.standing.send_if_modified(|standing| standing.change(Trust::Full, Trust::Doubted));
        async move {
            tokio::time::sleep(PATIENCE).await;
            if self.heard.get() == heard {
                self.lose(Loss::Ended);
            }
        }
    }
}

/// What the modules print is for nobody.
async fn drain(mut noise: Receiver) {
    let mut piece = [0; 4096];
    while noise.read(&mut piece).await.is_ok_and(|count| count > 0) {}
}
