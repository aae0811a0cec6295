//! Making an anonymous guest into one VM.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rds_protocol::guest::Configure;
use tokio::sync::Mutex;

use crate::agent::{Anonymous, Vm};
use crate::clock;
use crate::error::{SystemError, While};
use crate::grow;
use crate::network;
use crate::peers::bridge::Bridge;
use crate::peers::workers::Workers;
use crate::reply::Refusal;
use crate::sandbox::disk::{self, Leftovers};
use crate::sandbox::{Keepers, fork};

/// Bytes of entropy that are taken in at once.
const ENTROPY_BYTES: usize = 256;

/// `RNDADDENTROPY` and `RNDRESEEDCRNG`, linux/random.h.
const ADD_ENTROPY: libc::Ioctl = 0x4008_5203;
const RESEED: libc::Ioctl = 0x5207;

/// `struct rand_pool_info`, linux/random.h.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    size: libc::c_int,
    bytes: [u8; ENTROPY_BYTES],
}

/// Refuses an order whose parts would not be what they are called.
pub(crate) fn check(order: &Configure) -> Result<(), Refusal> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if order.machine_id.len() != 32 || !order.machine_id.bytes().all(hex) {
        return Err(Refusal::bad("the machine id is not 32 lower-case hex digits"));
    }
    let name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if !(1..=64).contains(&order.hostname.len()) || !order.hostname.bytes().all(name) {
        return Err(Refusal::bad("the host name is not one"));
    }
    Ok(())
}

/// Carries out an order that was checked.
pub(crate) fn carry_out(
    order: Configure,
    Anonymous { waiting, prepared }: Anonymous,
    keepers: &Rc<Keepers>,
    bridge: &Rc<Bridge>,
) -> Result<Vm, SystemError> {
    clock::set(order.clock_us)?;
    add_entropy(&order.entropy)?;
    rustix::system::sethostname(order.hostname.as_bytes()).while_("set the host name")?;
    prepared.identity.write(&order)?;
    // The machine id is new for every start.
    let (tree, leftovers) = prepared.build(&order.machine_id)?;
    if let Some(bytes) = order.grow_disk_to {
        grow::grow(&tree.disk, bytes)?;
    }
    if let Some(network) = &order.network {
        network::set_up(network)?;
    }
    let sandbox = waiting.enclose(tree)?;
    if leftovers == Leftovers::Trash {
        // Old temporary files may be many; nobody waits for them to be gone. What stays is the next start's.
        let _ = empty_trash(keepers);
    }
    Ok(Vm {
        sandbox,
        keepers: Rc::clone(keepers),
        secrets: RefCell::new(order.secret_env.into()),
        script_names: RefCell::default(),
        frozen: RefCell::default(),
        freezing: Cell::default(),
        trees: Mutex::default(),
        workers: Workers::default(),
        bridge: Rc::clone(bridge),
    })
}

/// Removes what programs have left, as one of them: they have made it, and it may take memory as they please.
fn empty_trash(keepers: &Rc<Keepers>) -> Result<(), SystemError> {
    let cgroup = keepers.cgroups.take()?;
    let copy = fork(Some(cgroup.directory().as_fd()), &[], disk::empty_trash);
    let ended = copy.map(|copy| keepers.reaper.watch(copy));
    let keepers = Rc::clone(keepers);
    tokio::task::spawn_local(async move {
        if let Ok(ended) = ended {
            let _ = ended.await;
        }
        keepers.cgroups.give_back(cgroup);
    });
    Ok(())
}

/// Makes a copy of a VM a VM of its own. Nothing of the other's secrets and peers is left in the agent. Programs, which were
/// held when the copy was made, go on when all of it is done.
pub(crate) fn rename(order: Configure, vm: &Vm) -> Result<(), SystemError> {
    clock::set(order.clock_us)?;
    add_entropy(&order.entropy)?;
    rustix::system::sethostname(order.hostname.as_bytes()).while_("set the host name")?;
    vm.sandbox.tree.identity.write(&order)?;
    if let Some(network) = &order.network {
        network::set_up(network)?;
    }
    vm.secrets.replace(order.secret_env.into());
    vm.workers.replace_all();
    vm.bridge.close();
    vm.frozen.take();
    vm.let_go()
}

/// Gives the kernel's random source what no other VM has, and has it used at once.
fn add_entropy(text: &str) -> Result<(), SystemError> {
    let bytes = STANDARD.decode(text).map_err(io::Error::other).while_("read the entropy")?;
    let size = bytes.len().min(ENTROPY_BYTES);
    let mut pool = PoolInfo { entropy_bits: 0, size: 0, bytes: [0; ENTROPY_BYTES] };
    pool.bytes.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
    pool.size = libc::c_int::try_from(size).expect("a few hundred fit");
    pool.entropy_bits = pool.size * 8;
    let random = std::fs::File::open("/dev/urandom").while_("open /dev/urandom")?;
    // SAFETY: the kernel reads `size` bytes of a structure that outlives the calls.
    let outcome = unsafe {
        libc::ioctl(random.as_raw_fd(), ADD_ENTROPY, &raw const pool) | libc::ioctl(random.as_raw_fd(), RESEED)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()).while_("add entropy") }
}
