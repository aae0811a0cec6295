//! How much of this machine is in use.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// Processor use is measured over this time.
const SAMPLE: Duration = Duration::from_millis(100);

/// This machine's resources.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resources {
    /// Processors.
    pub cores: u32,
    /// Share of them in use, 0 to 1.
    pub cpu_usage: f64,
    /// Memory in use, in bytes.
    pub memory_used: u64,
    /// All memory, in bytes.
    pub memory: u64,
    /// What is used of the file system of the storage root, in bytes.
    pub storage_used: u64,
    /// Its size, in bytes.
    pub storage: u64,
}

/// Measures; takes a tenth of a second.
pub async fn measure(storage_root: &Path) -> Result<Resources> {
    let before = CpuTimes::now()?;
    tokio::time::sleep(SAMPLE).await;
    let after = CpuTimes::now()?;
    let (memory_used, memory) = memory(&read("/proc/meminfo")?)?;
    let disk = rustix::fs::statvfs(storage_root)
        .map_err(|error| Error::internal("cannot measure the storage root", std::io::Error::from(error)))?;
    Ok(Resources {
        cores: std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        cpu_usage: after.usage_since(before),
        memory_used,
        memory,
        storage_used: disk.f_frsize * (disk.f_blocks - disk.f_bfree),
        storage: disk.f_frsize * disk.f_blocks,
    })
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Error::internal(format!("cannot read {path}"), error))
}

/// Time of all processors together, since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CpuTimes {
    busy: u64,
    total: u64,
}

impl CpuTimes {
    fn now() -> Result<Self> {
        let text = read("/proc/stat")?;
        Self::parse(&text).ok_or_else(|| Error::internal("cannot read /proc/stat", "unexpected format"))
    }

    /// `cpu user nice system idle iowait irq softirq steal …` (proc_stat(5)); what comes after is part of `user`.
    fn parse(stat: &str) -> Option<Self> {
        let numbers = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let numbers: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
        let (idle, iowait) = (numbers.get(3)?, numbers.get(4)?);
        let total = numbers.iter().sum();
        Some(Self { busy: total - idle - iowait, total })
    }

    fn usage_since(self, before: Self) -> f64 {
        let total = self.total.saturating_sub(before.total);
        let busy = self.busy.saturating_sub(before.busy);
        if total == 0 { 0.0 } else { (busy as f64 / total as f64).clamp(0.0, 1.0) }
    }
}

/// Used and total bytes.
fn memory(meminfo: &str) -> Result<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    match (field("MemTotal"), field("MemAvailable")) {
        (Some(total), Some(available)) => Ok((total.saturating_sub(available), total)),
        _ => Err(Error::internal("cannot read /proc/meminfo", "unexpected format")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_understood() {
        let before = CpuTimes::parse("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1\n").unwrap();
        let after = CpuTimes::parse("cpu  35 0 10 120 35 0 0 0 0 0\n").unwrap();
        assert_eq!(after.usage_since(before), 0.25);
        assert_eq!(memory("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 40 kB\n").unwrap(), (61_440, 102_400));
    }

    #[tokio::test]
    async fn this_machine_can_be_measured() {
        let resources = measure(Path::new("/")).await.unwrap();
        assert!(resources.cores > 0 && resources.memory >= resources.memory_used && resources.storage > 0);
    }
}
