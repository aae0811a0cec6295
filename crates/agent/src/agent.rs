//! The agent's state: an anonymous guest, or one VM.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use rds_protocol::guest::{Clock, Configure, Health};
use rustix::time::ClockId;

use crate::clock;
use crate::configure;
use crate::freeze::Frozen;
use crate::peers::bridge::Bridge;
use crate::peers::outbound::Outbound;
use crate::peers::workers::Workers;
use crate::reply::Refusal;
use crate::sandbox::tree::Prepared;
use crate::sandbox::{Keepers, Sandbox, Waiting, rehearsal};
use crate::secrets::Secrets;

/// Everything the agent has. It is used by one thread only.
pub(crate) struct Agent {
    pub(crate) keepers: Rc<Keepers>,
    /// Where code in the sandbox calls its peers.
    pub(crate) bridge: Rc<Bridge>,
    anonymous: Cell<Option<Anonymous>>,
    vm: OnceCell<Rc<Vm>>,
}

/// What a guest has that is not yet one VM.
pub(crate) struct Anonymous {
    /// The sandbox that nobody is in.
    pub(crate) waiting: Waiting,
    /// What its filesystem is going to be made of.
    pub(crate) prepared: Prepared,
}

/// What makes the guest one VM.
pub(crate) struct Vm {
    /// Where programs run.
    pub(crate) sandbox: Sandbox,
    /// Who waits for them and limits them.
    pub(crate) keepers: Rc<Keepers>,
    /// Environment of the VM's secrets, for the programs that are run from now on.
    pub(crate) secrets: RefCell<Secrets>,
    /// What makes the calls of its peers, if it is a provider.
    pub(crate) workers: Workers,
    /// Where its code calls its peers, if it is a consumer.
    pub(crate) bridge: Rc<Bridge>,
    /// Held by whoever changes the trees that are put into the user's files.
    pub(crate) trees: tokio::sync::Mutex<()>,
    /// What holds its disk still.
    pub(crate) frozen: RefCell<Option<Frozen>>,
    /// How many processes hold it still, or are about to.
    pub(crate) freezing: Cell<u32>,
    /// Names of inline scripts that are free.
    pub(crate) script_names: RefCell<Vec<String>>,
}

impl Agent {
    /// An anonymous guest.
    pub(crate) fn new(keepers: Keepers, anonymous: Anonymous, manager: Rc<Outbound>) -> Self {
        Self {
            keepers: Rc::new(keepers),
            bridge: Rc::new(Bridge::new(manager)),
            anonymous: Cell::new(Some(anonymous)),
            vm: OnceCell::new(),
        }
    }

    /// How the agent is.
    pub(crate) fn health(&self) -> Health {
        let uptime = rustix::time::clock_gettime(ClockId::Boottime);
        let millis = uptime.tv_sec.cast_unsigned() * 1000 + uptime.tv_nsec.cast_unsigned() / 1_000_000;
        Health {
            generation: rds_protocol::GENERATION,
            configured: self.vm.get().is_some(),
            uptime_ms: millis,
            resident_bytes: resident_bytes(),
        }
    }

    /// Makes the guest one VM. A second time is refused; so is every time after one that failed half-way.
    pub(crate) fn configure(&self, order: Configure) -> Result<Clock, Refusal> {
        configure::check(&order)?;
        let refused = || Refusal::new(http::StatusCode::CONFLICT, "the guest was configured before");
        let anonymous = self.anonymous.take().ok_or_else(refused)?;
        let vm = configure::carry_out(order, anonymous, &self.keepers, &self.bridge).map_err(Refusal::internal)?;
        let _ = self.vm.set(Rc::new(vm));
        Ok(clock::read())
    }

    /// Does once, for nobody, what makes a guest a VM. It must not be one, nor become one meanwhile.
    pub(crate) async fn rehearse(&self) -> Result<(), Refusal> {
        let refused = || Refusal::new(http::StatusCode::CONFLICT, "the guest was configured before");
        let anonymous = self.anonymous.take().ok_or_else(refused)?;
        let done = rehearsal::rehearse(&anonymous.prepared, &self.keepers).await.map_err(Refusal::internal);
        self.anonymous.set(Some(anonymous));
        done
    }

    /// Makes a copy of a VM a VM of its own.
    pub(crate) fn rename(&self, order: Configure) -> Result<Clock, Refusal> {
        configure::check(&order)?;
        configure::rename(order, &*self.vm()?).map_err(Refusal::internal)?;
        Ok(clock::read())
    }

    /// The VM that the guest was made.
    pub(crate) fn vm(&self) -> Result<Rc<Vm>, Refusal> {
        let refused = || Refusal::new(http::StatusCode::CONFLICT, "the guest is not configured");
        self.vm.get().cloned().ok_or_else(refused)
    }
}

/// Second number of /proc/self/statm, proc(5): pages that are in memory.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
