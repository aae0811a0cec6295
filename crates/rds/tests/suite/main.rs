//! The integration suite: real servers, real VMs, and the public API as the only door. The files mirror the URLs.
//!
//! It needs QEMU, the guest agent and an image; without them every test is skipped, loudly, and none is passed.
//! `RDS_TEST_IMAGE_DIR` names a directory with `kernel`, `rootfs` and `modules` (as `rds image build debian --output`
//! makes it), `RDS_TEST_AGENT` the static agent. Both have their default places under `target`.

mod admin;
mod api_keys;
mod auth;
mod cli;
mod exec;
mod exec_stream;
mod faults;
mod files;
mod harness;
mod hostile;
mod images;
mod lifecycle;
mod limits;
mod openapi;
mod pty;
mod recovery;
mod run_js;
mod run_ts;
mod uploads;
mod vms;

use std::process::ExitCode;
use std::sync::Arc;

use harness::{Case, Prerequisites, World};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let cases: Vec<Case> = [
        admin::cases(),
        api_keys::cases(),
        auth::cases(),
        cli::cases(),
        exec::cases(),
        exec_stream::cases(),
        faults::cases(),
        files::cases(),
        hostile::cases(),
        images::cases(),
        lifecycle::cases(),
        limits::cases(),
        openapi::cases(),
        pty::cases(),
        recovery::cases(),
        run_js::cases(),
        run_ts::cases(),
        uploads::cases(),
        vms::cases(),
    ]
    .concat();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system can start threads");
    let world = match Prerequisites::find() {
        Ok(found) => Some(Arc::new(World::new(found))),
        Err(missing) => {
            eprintln!("\n*** EVERY INTEGRATION TEST IS SKIPPED: {missing} ***\n");
            None
        }
    };
    let trials = cases.into_iter().map(|case| trial(&case, world.clone(), runtime.handle().clone())).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(world) = world {
        runtime.block_on(world.close());
    }
    conclusion.exit_code()
}

fn trial(case: &Case, world: Option<Arc<World>>, runtime: tokio::runtime::Handle) -> Trial {
    let (name, run, skipped) = (case.name(), case.run, world.is_none());
    let body = move || {
        if let Some(world) = world {
            runtime.block_on(run(world));
        }
        Ok(())
    };
    Trial::test(name, body).with_ignored_flag(skipped)
}
