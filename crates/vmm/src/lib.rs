//! Running microVMs and talking to the agents in them.
//!
//! [`Hypervisor`] is the one door to a virtual machine monitor; [`guest`] is the one door to a guest. This crate must
//! not know the HTTP API, the store or what a VM is for.

pub mod accelerator;
pub mod choice;
pub mod doctor;
pub mod firecracker;
pub mod guest;
pub mod hypervisor;
mod log;
pub mod privileges;
mod process;
pub mod programs;
pub mod qemu;
mod seccomp;
mod sparse;
mod version;

pub use guest::{GuestClient, GuestError};
pub use hypervisor::{DiskLimits, Hypervisor, HypervisorError, MachineSpec, MemoryLimit, Nic, VmId};
pub use log::end as log_end;
pub use version::Version;
