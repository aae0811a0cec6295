//! The agent in a guest: PID 1, started by the kernel from the initramfs.
//!
//! It makes the guest usable, waits for the manager, and runs what the manager asks for in a sandbox. It has one thread
//! by construction: its children are copies of it, and a copy of a process with threads could find locks held for ever.

mod agent;
mod boot;
mod cgroup;
mod channel;
mod clock;
mod configure;
mod error;
mod exec;
mod files;
mod freeze;
mod grow;
mod hold;
mod log;
mod network;
mod peers;
mod pipe;
mod random;
mod reaper;
mod reply;
mod runtime;
mod sandbox;
mod secrets;
mod server;
mod timer;

use std::rc::Rc;

use error::{SystemError, While};

fn main() {
    if std::process::id() != 1 {
        // The agent started itself again, in the sandbox. There it is never the first process.
        std::process::exit(files::jailed::main());
    }
    std::panic::set_hook(Box::new(|panic| log::failure(panic)));
    if let Err(error) = run() {
        log::failure(format_args!("fatal: {error}"));
    }
}

/// The phases of the agent's life. It ends with an error or never; the kernel then panics, which ends the machine.
fn run() -> Result<(), SystemError> {
    // 1. A usable kernel.
    boot::mount_kernel_filesystems()?;
    timer::check()?;
    boot::protect_self()?;
    boot::load_modules()?;
    boot::raise_loopback()?;
    boot::mount_image()?;
    // 2. A sandbox that nobody is in.
    let cgroups = cgroup::Cgroups::new()?;
    let prepared = sandbox::tree::Prepared::new()?;
    let anonymous = agent::Anonymous { waiting: sandbox::Waiting::start()?, prepared };
    // 3. The manager's orders.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().while_("start the runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let keepers = sandbox::Keepers { reaper: reaper::Reaper::default(), cgroups };
        let manager = Rc::new(peers::outbound::Outbound::default());
        let agent = Rc::new(agent::Agent::new(keepers, anonymous, Rc::clone(&manager)));
        if sandbox::rehearsal::is_asked_for()? {
            tokio::select! {
                // One that fails is in the log; VMs work without.
                _ = agent.rehearse() => {}
                ended = agent.keepers.reaper.run() => ended?,
            }
        }
        let (inward, outward) = channel::open()?;
        log::information("waiting for the manager");
        let serving = server::serve(Rc::clone(&agent), inward);
        tokio::try_join!(agent.keepers.reaper.run(), serving, manager.run(outward)).map(|_| ())
    })
}
