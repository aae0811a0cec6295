//! What a manager does first: take up the VMs of the one before it, and remove what belongs to none.

use std::collections::HashSet;
use std::sync::PoisonError;

use rds_vmm::VmId;

use super::Vms;
use super::actor::Begin;
use super::record::{Settings, VmRecord};
use super::row::{DELETED, HALF_MADE};
use super::state::VmState;
use crate::error::{Error, Result};
use crate::pool::record;

/// Sorts every VM that is written down, and every directory and process that is there, into kept and removed.
pub(super) async fn recover(vms: &Vms) -> Result<()> {
    let host = &vms.0.host;
    let mut kept = HashSet::new();
    let mut running_vms = Vec::new();
    for row in host.store.vms().await? {
        let (vm, settings) = VmRecord::from_row(&row)?;
        if row.state == HALF_MADE || row.state == DELETED {
            tracing::info!(vm = %vm.id, state = row.state, "removing what an earlier manager left half done");
            host.teardown(vm.id).await?;
            host.store.delete_vm(&row.id).await?;
            continue;
        }
        kept.insert(vm.id);
        let running = host.hypervisor.is_running(&host.dir(vm.id)).await;
        if row.state == VmState::Running.as_str() && running {
            running_vms.push((vm, settings, VmState::Running, Begin::Adopt));
        } else if row.state == VmState::Paused.as_str() && running {
            running_vms.push((vm, settings, VmState::Paused, Begin::Paused));
        } else {
            // It may have been started again by a manager that could not write that down.
            host.end_machine(vm.id).await?;
            rest(vms, vm, settings, &row.state).await?;
        }
    }
    let indices: HashSet<u32> = running_vms.iter().map(|(vm, ..)| vm.host_index).collect();
    remove_unclaimed(vms, &kept, &indices).await?;
    // No tap is in use any more but those of machines that run on.
    let networks = running_vms.iter().map(|(vm, settings, ..)| (vm.id, vm.host_index, settings.network.clone()));
    let pooled: Vec<_> = {
        let found = vms.0.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().map(|(id, _, host_index)| (*id, *host_index)).collect()
    };
    host.egress.restore(networks.collect(), pooled).await?;
    for (vm, settings, state, begin) in running_vms {
        vms.spawn(vm, settings, state, begin);
    }
    Ok(())
}

/// Takes up a VM without a machine.
async fn rest(vms: &Vms, vm: VmRecord, settings: Settings, state: &str) -> Result<()> {
    let host = &vms.0.host;
    if !host.has_disk(vm.id) {
        vms.spawn(
            vm,
            settings,
            VmState::Stopped,
            Begin::Broken(Error::internal("its disk is missing", "no such file")),
        );
        return Ok(());
    }
    if state != VmState::Stopped.as_str() {
        let id = vm.id.to_string();
        host.store.set_vm_state(&id, VmState::Stopped.as_str(), None).await?;
        host.activity.record("vm.stopped", &id, "VM was not running when the server started", None).await;
    }
    vms.spawn(vm, settings, VmState::Stopped, Begin::Stopped);
    Ok(())
}

/// Ends processes and removes directories whose VM is written down nowhere.
async fn remove_unclaimed(vms: &Vms, kept: &HashSet<VmId>, indices: &HashSet<u32>) -> Result<()> {
    let host = &vms.0.host;
    let parent = host.storage.vms_dir();
    let mut unclaimed: HashSet<VmId> = host.hypervisor.find(&parent).await.into_iter().collect();
    let failed = |error| Error::internal(format!("cannot read {}", parent.display()), error);
    let mut entries = tokio::fs::read_dir(&parent).await.map_err(failed)?;
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        // A name that is no VM id was put there by somebody else.
        unclaimed.extend(entry.file_name().to_str().and_then(|name| name.parse::<VmId>().ok()));
    }
    for id in unclaimed.difference(kept) {
        if found_in_pool(vms, *id, indices).await {
            continue;
        }
        tracing::info!(vm = %id, "removing a machine or directory that belongs to no VM");
        host.teardown(*id).await?;
    }
    Ok(())
}

/// Notes a machine of an earlier server's pool.
async fn found_in_pool(vms: &Vms, id: VmId, indices: &HashSet<u32>) -> bool {
    let (host, pool) = (&vms.0.host, &vms.0.pool);
    let dir = host.dir(id);
    let Some((kind, host_index)) = record::read(&dir).filter(|_| pool.is_enabled()) else { return false };
    let taken = vms.0.directory.lock().values().any(|handle| handle.vm.host_index == host_index);
    if taken || indices.contains(&host_index) || !host.hypervisor.is_running(&dir).await {
        return false;
    }
    pool.announce(host_index);
    vms.0.found.lock().unwrap_or_else(PoisonError::into_inner).push((id, kind, host_index));
    true
}
