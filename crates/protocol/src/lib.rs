//! The messages between the manager and the agent in a guest, and nothing else.
//!
//! Both ends speak HTTP/2 over one byte stream (vsock on Firecracker, a virtio-serial port on QEMU); [`link`] says how
//! such a stream is brought to a known state first. This crate owns names, shapes and limits. It must not know how a VM
//! is run, where data is stored or what a client of the manager sees.
//!
//! The manager treats everything that arrives through these types as hostile: sizes are capped by [`limits`] before a
//! body is parsed, and nothing in a reply identifies the VM. A VM is identified by the socket it is reached through.

pub mod archive_bounds;
pub mod exec;
pub mod files;
pub mod frame;
pub mod guest;
pub mod json;
pub mod limits;
pub mod link;
pub mod peer;
pub mod routes;

/// Generation of this protocol. The manager refuses an agent that answers another one.
///
/// Raise it with every change to a message that an older peer would misread. The agent comes from the manager's own
/// initramfs, so a difference can only be met in a VM that outlived an upgrade of the manager.
pub const GENERATION: u32 = 1;

/// Header of an agent's replies: how long it took to its answer, as `agent;dur=MILLISECONDS`. Requests may carry the
/// trace that they are part of, in the header `traceparent`.
pub const TIMING: &str = "server-timing";

/// Name of the virtio-serial port that carries the manager's calls into the guest.
pub const PORT_IN: &str = "rds.in";

/// Name of the virtio-serial port that carries the guest's calls out to the manager.
pub const PORT_OUT: &str = "rds.out";

/// Word on the kernel's command line of an emulated guest, with `=` and how often its timer counts in a second.
pub const TIMER_HZ: &str = "rds.timer_hz";

/// What the agent says on the console before it ends a machine whose kernel is wrong about [`TIMER_HZ`]. Nothing of the image
/// has run by then.
pub const MISTIMED: &str = "the kernel has measured its timer wrong";

/// Word on the kernel's command line of a guest that is to do first, before it listens, what every VM's first start does.
pub const REHEARSE: &str = "rds.rehearse";
