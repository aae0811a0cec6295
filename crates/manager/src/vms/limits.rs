//! How fast a VM may use its disk and its network, and how much of its memory it is to keep to.

use std::ops::RangeInclusive;

use rds_vmm::{DiskLimits, MemoryLimit};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::request::{MIN_MEM_MIB, integer};
use crate::error::Result;

/// With less, a guest cannot get its own work done in the time that it has for a start or a snapshot.
const DISK_BYTES: RangeInclusive<u64> = 1 << 20..=rds_egress::MAX_RATE;
const DISK_OPS: RangeInclusive<u64> = 100..=1_000_000;
const NETWORK_BYTES: RangeInclusive<u64> = 16 << 10..=rds_egress::MAX_RATE;

/// How fast a VM shall be allowed to use its disk and its network, and how much of its memory it shall keep to; what is absent has
/// no limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitVm {
    /// Bytes a second that it reads from its writable disk and writes to it, an integer from 1048576 to 8000000000.
    #[schema(example = 50_000_000)]
    pub disk_bytes_per_second: Option<f64>,
    /// Reads and writes of that disk a second, an integer from 100 to 1000000.
    #[schema(example = 2_000)]
    pub disk_ops_per_second: Option<f64>,
    /// Bytes a second that it sends, and as many that it receives, an integer from 16384 to 8000000000.
    #[schema(example = 10_000_000)]
    pub network_bytes_per_second: Option<f64>,
    /// MiB of its memory that it is to keep to, an integer from 128 to its `memMb`. It leaves the rest alone until a program
    /// needs it.
    #[schema(example = 192)]
    pub memory_mb: Option<f64>,
}

/// How fast a VM may use its disk and its network, and how much of its memory it is to keep to; what is absent has no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VmLimits)]
pub struct Limits {
    /// Bytes a second that it reads from its writable disk and writes to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes_per_second: Option<u64>,
    /// Reads and writes of that disk a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_ops_per_second: Option<u64>,
    /// Bytes a second that it sends, and as many that it receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_bytes_per_second: Option<u64>,
    /// MiB of its memory that it is to keep to. It leaves the rest alone until a program needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
}

impl LimitVm {
    /// Checks every limit for a VM of so much memory; the first fault is the error.
    pub(super) fn checked(&self, mem_mib: u64) -> Result<Limits> {
        let memory = u64::from(MIN_MEM_MIB)..=mem_mib;
        let checked = |field: &str, value: Option<f64>, range: RangeInclusive<u64>| {
            value.map(|value| integer(field, value, *range.start(), *range.end())).transpose()
        };
        Ok(Limits {
            disk_bytes_per_second: checked("limits.diskBytesPerSecond", self.disk_bytes_per_second, DISK_BYTES)?,
            disk_ops_per_second: checked("limits.diskOpsPerSecond", self.disk_ops_per_second, DISK_OPS)?,
            network_bytes_per_second: checked(
                "limits.networkBytesPerSecond",
                self.network_bytes_per_second,
                NETWORK_BYTES,
            )?,
            memory_mb: checked("limits.memoryMb", self.memory_mb, memory)?
                .map(|mib| u32::try_from(mib).unwrap_or(u32::MAX)),
        })
    }
}

impl Limits {
    /// Those of the disk.
    pub(super) fn disk(self) -> DiskLimits {
        DiskLimits { bytes_per_second: self.disk_bytes_per_second, ops_per_second: self.disk_ops_per_second }
    }

    /// That of the memory of a VM that has so much, if there is one.
    pub(super) fn memory(self, of_mib: u32) -> Option<MemoryLimit> {
        self.memory_mb.map(|kept_mib| MemoryLimit { of_mib, kept_mib })
    }

    /// For clients, who are not told of a VM without any.
    pub(super) fn view(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_whole_numbers_of_a_sensible_size() {
        let checked = |limits| serde_json::from_value::<LimitVm>(limits).unwrap().checked(512);
        assert_eq!(checked(json!({"diskOpsPerSecond": null, "unknown": 1})).unwrap(), Limits::default());
        let all = json!({"diskBytesPerSecond": 2_000_000, "diskOpsPerSecond": 100, "networkBytesPerSecond": 16_384.0});
        let all = checked(all).unwrap();
        assert_eq!(
            serde_json::to_value(all).unwrap(),
            json!({"diskBytesPerSecond": 2_000_000, "diskOpsPerSecond": 100, "networkBytesPerSecond": 16_384}),
        );
        for field in ["diskBytesPerSecond", "diskOpsPerSecond", "networkBytesPerSecond"] {
            for bad in [json!(0), json!(-1), json!(99), json!(1_048_576.5), json!(8_000_000_001_u64), json!(1e300)] {
                let refused = checked(json!({field: bad})).unwrap_err().to_string();
                assert!(refused.starts_with(&format!("limits.{field} must be an integer from ")), "{refused}");
            }
        }
    }

    #[test]
    fn what_a_vm_keeps_is_no_more_than_it_has() {
        let checked = |mib: f64, of| LimitVm { memory_mb: Some(mib), ..LimitVm::default() }.checked(of);
        let kept = checked(192.0, 512).unwrap();
        assert_eq!(serde_json::to_value(kept.view()).unwrap(), json!({"memoryMb": 192}));
        assert_eq!(kept.memory(512), Some(MemoryLimit { of_mib: 512, kept_mib: 192 }));
        assert!(checked(512.0, 512).is_ok() && checked(128.0, 128).is_ok());
        for bad in [0.0, 127.0, 128.5, 513.0] {
            let refused = checked(bad, 512).unwrap_err().to_string();
            assert_eq!(refused, "limits.memoryMb must be an integer from 128 to 512");
        }
    }
}
