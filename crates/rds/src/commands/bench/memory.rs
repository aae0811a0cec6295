//! What one more idle VM weighs: the growth of the proportional set size (`Pss`, proc_pid_smaps(5)) of all monitors.

use std::time::Duration;

use rds_vmm::firecracker;

use super::by_hand;
use super::figure::{Figure, Limit};
use super::server::BenchServer;
use super::warm::seeded;
use crate::error::CliError;

/// What a Firecracker may weigh besides its guest: 5 MiB.
const MONITOR_MB: f64 = 5.242_88;

/// Left to a VM after its create, so that it is idle.
const SETTLE: Duration = Duration::from_secs(3);

/// VMs that are there before the one that is weighed.
const BEFORE: usize = 2;

/// Measures seeds and boots, each with a server of its own.
pub(super) async fn measure() -> Result<Vec<Figure>, CliError> {
    // QEMU's has what it has translated of its guest; nobody has set a limit for that.
    let is_firecracker = by_hand::driver().await?.description().name == firecracker::PROGRAM;
    let monitor_limit = if is_firecracker { Limit::AtMost(MONITOR_MB) } else { Limit::Any };
    let seeded = one_more(true).await?;
    let booted = one_more(false).await?;
    Ok(vec![
        Figure::beside(
            "one more idle VM from a seed, memory on the host",
            seeded.all,
            booted.all,
            "one more with a guest that was booted",
            Limit::Times(0.4),
        )
        .in_unit("MB"),
        Figure::alone("one more idle VM from a seed, its guest's pages", "MB", seeded.guest, Limit::AtMost(12.0)),
        Figure::alone(
            "one more idle VM from a seed, its monitor itself",
            "MB",
            seeded.all - seeded.guest,
            monitor_limit,
        ),
    ])
}

/// In megabytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    /// All of the processes.
    pub(super) all: f64,
    /// The guests' memory in them.
    pub(super) guest: f64,
}

async fn one_more(seeds: bool) -> Result<Weight, CliError> {
    let server = BenchServer::start(seeds).await?;
    let measured = weigh_one_more(&server, seeds).await;
    server.end().await;
    measured
}

async fn weigh_one_more(server: &BenchServer, seeds: bool) -> Result<Weight, CliError> {
    let client = server.client()?;
    if seeds {
        seeded(server, &client).await?;
    }
    let mut vms = Vec::new();
    for _ in 0..BEFORE {
        vms.push(client.create_vm(&super::vm(256)).await?.id);
    }
    tokio::time::sleep(SETTLE).await;
    let before = weight(server, &vms);
    vms.push(client.create_vm(&super::vm(256)).await?.id);
    tokio::time::sleep(SETTLE).await;
    let after = weight(server, &vms);
    Ok(Weight { all: after.all - before.all, guest: after.guest - before.guest })
}

/// What these VMs' monitors weigh together.
pub(super) fn weight(server: &BenchServer, vms: &[String]) -> Weight {
    vms.iter()
        .filter_map(|vm| server.monitor_of(vm))
        .map(of_process)
        .fold(Weight::default(), |sum, one| Weight { all: sum.all + one.all, guest: sum.guest + one.guest })
}

fn of_process(pid: u32) -> Weight {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default())
}

fn parse(smaps: &str) -> Weight {
    let (mut weight, mut is_guest) = (Weight::default(), false);
    for line in smaps.lines() {
        if let Some(kib) = line.strip_prefix("Pss:") {
            let megabytes = kib.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0 / 1e6;
            weight.all += megabytes;
            if is_guest {
                weight.guest += megabytes;
            }
        } else if line.split(' ').next().is_some_and(|word| word.contains('-')) {
            // The file of a seed or its sealed copy, or what QEMU calls the memory of a machine that was booted.
            is_guest = ["/memory", "/memfd:rds-template (deleted)", "/memfd:memory-backend-memfd (deleted)"]
                .iter()
                .any(|name| line.ends_with(name));
        }
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_told_from_monitors() {
        let smaps = "7f00-7f80 rw-p 00000000 fe:00 12 /var/lib/x/seeds/ab/memory\nSize: 8 kB\nPss:   2000 kB\n\
                     Pss_Dirty: 7 kB\nVmFlags: rd wr\n5500-5600 r-xp 00000000 fe:00 13 /usr/bin/qemu\nPss: 1000 kB\n";
        let weight = parse(smaps);
        assert!((weight.all - 3.072).abs() < 1e-9 && (weight.guest - 2.048).abs() < 1e-9, "{weight:?}");
    }
}
