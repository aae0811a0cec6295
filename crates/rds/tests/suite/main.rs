//! The integration suite: real servers, real VMs, and the public API as the only door. The files mirror the URLs.
//!
//! It needs QEMU, the guest agent and an image; without them every test is skipped, loudly, and none is passed.
//! `KERNEL_PATH`, `BASE_ROOTFS_PATH`, `MODULES_PATH` and `RDS_AGENT_PATH` name them, as for the server; without these,
//! they are looked for where `make image` and `make agent` put them.

mod admin;
mod api_keys;
mod auth;
mod balloon;
mod cli;
mod clients;
mod clocks;
mod copies;
mod egress;
mod exec;
mod exec_stream;
mod faults;
mod files;
mod full_disk;
mod harness;
mod hostile;
mod images;
mod lifecycle;
mod limits;
mod metrics;
mod openapi;
mod pause;
mod peers;
mod pool;
mod privileges;
mod pty;
mod rates;
mod recovery;
mod rekey;
mod run_js;
mod run_ts;
mod secrets;
mod seeds;
mod snapshots;
mod sweeps;
mod traces;
mod ui;
mod uploads;
mod vms;
mod warm_faults;

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness::{Case, Prerequisites, World};
use libtest_mimic::{Arguments, Trial};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What every test took.
type Times = Arc<Mutex<Vec<(Duration, String)>>>;

/// How many of the slowest tests are named at the end: the whole suite is to end within a quarter of an hour.
const SLOWEST: usize = 10;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests wait for a third of their time.
    arguments.test_threads.get_or_insert_with(|| std::thread::available_parallelism().map_or(2, NonZero::get) + 1);
    let cases: Vec<Case> = [
        admin::cases(),
        api_keys::cases(),
        auth::cases(),
        balloon::cases(),
        cli::cases(),
        clients::cases(),
        clocks::cases(),
        copies::cases(),
        egress::cases(),
        exec::cases(),
        exec_stream::cases(),
        faults::cases(),
        files::cases(),
        full_disk::cases(),
        hostile::cases(),
        images::cases(),
        lifecycle::cases(),
        limits::cases(),
        metrics::cases(),
        openapi::cases(),
        pause::cases(),
        peers::cases(),
        pool::cases(),
        privileges::cases(),
        pty::cases(),
        rates::cases(),
        recovery::cases(),
        rekey::cases(),
        run_js::cases(),
        run_ts::cases(),
        secrets::cases(),
        seeds::cases(),
        snapshots::cases(),
        sweeps::cases(),
        traces::cases(),
        ui::cases(),
        uploads::cases(),
        vms::cases(),
        warm_faults::cases(),
    ]
    .concat();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system can start threads");
    let world = match Prerequisites::find() {
        Ok(found) => Some(Arc::new(World::new(found))),
        Err(missing) => {
            eprintln!("\n*** EVERY INTEGRATION TEST IS SKIPPED: {missing} ***\n");
            None
        }
    };
    let (times, interrupted) = (Times::default(), CancellationToken::new());
    runtime.spawn(interrupt(interrupted.clone()));
    let trial =
        |case: Case| trial(&case, world.clone(), runtime.handle().clone(), Arc::clone(&times), interrupted.clone());
    let conclusion = libtest_mimic::run(&arguments, cases.into_iter().map(trial).collect());
    let mut times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
    times.sort_by(|one, other| other.cmp(one));
    for (took, name) in times.iter().take(SLOWEST) {
        eprintln!("{:7.1} s  {name}", took.as_secs_f64());
    }
    if let Some(world) = world.filter(|_| !interrupted.is_cancelled()) {
        runtime.block_on(world.close(conclusion.has_failed()));
    }
    conclusion.exit_code()
}

/// Ends all tests at the first SIGINT or SIGTERM. What they have started, VMs too, goes with them.
async fn interrupt(interrupted: CancellationToken) {
    let on = |kind| signal(kind).expect("the system takes a handler");
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt()), on(SignalKind::terminate()));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("\n*** Interrupted: what the tests have started is ended ***\n");
    interrupted.cancel();
}

fn trial(
    case: &Case,
    world: Option<Arc<World>>,
    runtime: tokio::runtime::Handle,
    times: Times,
    interrupted: CancellationToken,
) -> Trial {
    let missing = case.needs.and_then(|needs| match needs {
        harness::lab::NAMESPACES => rds_lab::missing().map(str::to_owned),
        harness::disk::MOUNTS => harness::disk::missing().map(str::to_owned),
        harness::browser::BROWSER => harness::browser::missing(),
        harness::groups::GROUPS => harness::groups::missing().map(str::to_owned),
        harness::prerequisites::FIRECRACKER => {
            (harness::prerequisites::monitor() != "firecracker").then(|| "VMs do not run in Firecracker".to_owned())
        }
        setting => std::env::var_os(setting).is_none().then(|| format!("{setting} is not set")),
    });
    if let Some(missing) = &missing {
        eprintln!("*** {} is skipped: {missing} ***", case.name());
    }
    let missing = missing.is_some();
    let (name, run, skipped) = (case.name(), case.run, missing || world.is_none());
    let timed = name.clone();
    let body = move || {
        // Only who asks for ignored tests gets here without what they need.
        let world = world.filter(|_| !missing).ok_or("what it needs is missing")?;
        let begun = Instant::now();
        runtime.block_on(interrupted.run_until_cancelled(run(world))).ok_or("it was interrupted")?;
        times.lock().unwrap_or_else(PoisonError::into_inner).push((begun.elapsed(), timed));
        Ok(())
    };
    Trial::test(name, body).with_ignored_flag(skipped)
}
