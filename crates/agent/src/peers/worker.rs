//! One worker: a long-lived program in the sandbox that has a provider's modules loaded and calls their exports.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rds_protocol::peer::{Call, OfferedModule, Outcome, Uncallable};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::command::Runtime;
use super::message::{self, Order, Report};
use crate::agent::Vm;
use crate::files::pipe;
use crate::sandbox::launch::{Child, Executable, Launch, Streams};

/// Orders that wait for a worker to read them. Further callers wait their turn.
const QUEUE: usize = 32;

/// How long a worker may be silent after a cancellation. One that is stuck takes no further calls; those it has go on, for
/// they may be what keeps it busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// A worker. It is killed when nobody has it any more, so one that was replaced finishes the calls it has.
pub(super) struct Worker {
    orders: mpsc::Sender<Bytes>,
    waiting: Rc<Waiting>,
    next: Cell<u64>,
    /// When it was last given a call.
    pub(super) used: Cell<Instant>,
    _child: Child,
}

/// Who waits for what a worker says.
#[derive(Default)]
struct Waiting {
    offer: Cell<Option<oneshot::Sender<Vec<Uncallable>>>>,
    calls: RefCell<HashMap<u64, oneshot::Sender<Outcome>>>,
    heard: Cell<u64>,
    trust: watch::Sender<Trust>,
}

/// Whether a worker is given further calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Trust {
    #[default]
    Full,
    /// It was told to cancel a call, and has said nothing since. Further calls wait.
    Doubted,
    /// It has ended, says nonsense or is stuck.
    Lost,
}

/// The worker has ended, or has to be taken for ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkerEnded;

impl Worker {
    /// Starts one. Modules are loaded by [`Worker::offer`].
    pub(super) async fn start(vm: &Vm, runtime: Runtime) -> Result<Self, String> {
        let pipes = || Ok::<_, io::Error>([pipe()?, pipe()?, pipe()?]);
        let [(stdin, orders_in), (reports, stdout), (noise, stderr)] = pipes().map_err(|error| error.to_string())?;
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
        let waiting = Rc::new(Waiting::default());
        let (orders, queue) = mpsc::channel(QUEUE);
        let ends = || Ok::<_, io::Error>((Sender::from_owned_fd(orders_in)?, Receiver::from_owned_fd(reports)?));
        let (orders_in, reports) = ends().map_err(|error| error.to_string())?;
        tokio::task::spawn_local(carry_orders(queue, orders_in));
        tokio::task::spawn_local(Rc::clone(&waiting).listen(reports));
        tokio::task::spawn_local(drain(Receiver::from_owned_fd(noise).map_err(|error| error.to_string())?));
        Ok(Self { orders, waiting, next: Cell::new(0), used: Cell::new(Instant::now()), _child: child })
    }

    /// Has modules loaded. Returns the exports that can't be called.
    pub(super) async fn offer(&self, modules: &[&OfferedModule]) -> Result<Vec<Uncallable>, WorkerEnded> {
        let (sender, answer) = oneshot::channel();
        self.waiting.offer.set(Some(sender));
        self.order(&Order::Offer { modules }).await?;
        answer.await.map_err(|_| WorkerEnded)
    }

    /// Calls an export. Dropping the future cancels the call.
    pub(super) async fn call(&self, call: &Call) -> Result<Outcome, WorkerEnded> {
        self.used.set(Instant::now());
        let id = self.next.replace(self.next.get() + 1);
        let (sender, outcome) = oneshot::channel();
        self.waiting.calls.borrow_mut().insert(id, sender);
        let mut cancellation = Cancellation { worker: self, id, needed: true };
        self.order(&Order::Call { id, module: &call.module, export: &call.export, args: &call.args }).await?;
        let outcome = outcome.await.map_err(|_| WorkerEnded);
        cancellation.needed = false;
        outcome
    }

    /// Whether it may be given further calls.
    pub(super) fn is_usable(&self) -> bool {
        *self.waiting.trust.borrow() != Trust::Lost
    }

    /// The same, once there is no doubt.
    pub(super) async fn proves_usable(&self) -> bool {
        let mut trust = self.waiting.trust.subscribe();
        let settled = trust.wait_for(|trust| *trust != Trust::Doubted).await;
        settled.is_ok_and(|trust| *trust == Trust::Full)
    }

    async fn order(&self, order: &Order<'_>) -> Result<(), WorkerEnded> {
        if !self.is_usable() {
            return Err(WorkerEnded);
        }
        self.orders.send(order.to_bytes()).await.map_err(|_| WorkerEnded)
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
            // Before it can answer.
            let suspicion = Rc::clone(waiting).suspect();
            // A full queue is one that the worker does not read.
            let _ = self.worker.orders.try_send(Order::Cancel { id: self.id }.to_bytes());
            tokio::task::spawn_local(suspicion);
        }
    }
}

impl Waiting {
    /// Hands on what a worker says, until it says no more or something that it shouldn't.
    async fn listen(self: Rc<Self>, reports: Receiver) {
        let mut reports = BufReader::with_capacity(16 * 1024, reports);
        while let Some(report) = message::read(&mut reports).await {
            self.heard.set(self.heard.get() + 1);
            self.change_trust(Trust::Doubted, Trust::Full);
            let (id, outcome) = match report {
                Report::Offered { uncallable } => {
                    if let Some(offer) = self.offer.take() {
                        let _ = offer.send(uncallable);
                    }
                    continue;
                }
                Report::Result { id, value } => (id, Outcome::Returned(value)),
                Report::Error { id, name, message } => (id, Outcome::Threw { name, message }),
                Report::Cancelled {} => continue,
            };
            if let Some(call) = self.calls.borrow_mut().remove(&id) {
                let _ = call.send(outcome);
            }
        }
        self.trust.send_replace(Trust::Lost);
        self.offer.take();
        self.calls.borrow_mut().clear();
    }

    fn change_trust(&self, from: Trust, to: Trust) {
        self.trust.send_if_modified(|trust| {
            let changes = *trust == from;
            if changes {
                *trust = to;
            }
            changes
        });
    }

    /// Gives the worker up if it is not heard from.
    fn suspect(self: Rc<Self>) -> impl Future<Output = ()> {
        let heard = self.heard.get();
        self.change_trust(Trust::Full, Trust::Doubted);
        async move {
            tokio::time::sleep(PATIENCE).await;
            if self.heard.get() == heard {
                self.trust.send_replace(Trust::Lost);
            }
        }
    }
}

async fn carry_orders(mut queue: mpsc::Receiver<Bytes>, mut stdin: Sender) {
    while let Some(order) = queue.recv().await {
        if stdin.write_all(&order).await.is_err() {
            return;
        }
    }
}

/// What the modules print is for nobody.
async fn drain(mut noise: Receiver) {
    let mut piece = [0; 4096];
    while noise.read(&mut piece).await.is_ok_and(|count| count > 0) {}
}
