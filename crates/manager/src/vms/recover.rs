//! What a manager does first: take up the VMs of the one before it, and remove what belongs to none.

use std::collections::HashSet;
use std::sync::PoisonError;

use rds_vmm::VmId;

use super::Vms;
use super::actor::Begin;
use super::record::{Settings, VmRecord};
use super::row::{DELETED, HALF_MADE};
use super::state::VmState;
use crate::egress::Running;
use crate::error::{Chain, Error, Result};
use crate::hypervisor::machines_under;
use crate::pool::record;
use crate::snapshots::forget_copy;
use crate::store::vms::VmRow;

/// Sorts every VM that is written down, and every directory and process that is there, into kept and removed. One VM that
/// cannot be brought in order keeps none of the others from being served.
pub(super) async fn recover(vms: &Vms) -> Result<()> {
    let host = &vms.0.host;
    let mut kept = HashSet::new();
    let mut running_vms = Vec::new();
    // Their processes may have their taps still open.
    let mut broken = Vec::new();
    for row in host.store.vms().await? {
        let (vm, settings) = match VmRecord::from_row(&row) {
            Ok(read) => read,
            Err(error) => {
                kept.extend(set_aside(vms, &row, &error).await);
                continue;
            }
        };
        // An earlier manager may have been making one.
        forget_copy(&host.dir(vm.id));
        let ended = if row.state == HALF_MADE || row.state == DELETED {
            tracing::info!(vm = %vm.id, state = row.state, "removing what an earlier manager left half done");
            match remove(vms, vm.id, &row.state).await {
                Ok(()) => continue,
                failed => failed,
            }
        } else {
            let running = host.hypervisor.is_running(&host.dir(vm.id)).await;
            let adopted = match row.state.as_str() {
                state if running && state == VmState::Running.as_str() => Some((VmState::Running, Begin::Adopt)),
                state if running && state == VmState::Paused.as_str() => Some((VmState::Paused, Begin::Paused)),
                _ => None,
            };
            if let Some((state, begin)) = adopted {
                kept.insert(vm.id);
                running_vms.push((vm, settings, state, begin));
                continue;
            }
            // It may have been started again by a manager that could not write that down.
            host.end_machine(vm.id).await
        };
        kept.insert(vm.id);
        match ended {
            Ok(()) => rest(vms, vm, settings, &row.state).await?,
            Err(error) => {
                broken.push((vm.id, vm.host_index));
                vms.spawn(vm, settings, VmState::Stopped, Begin::Broken(error));
            }
        }
    }
    let indices: HashSet<u32> = running_vms.iter().map(|(vm, ..)| vm.host_index).collect();
    remove_unclaimed(vms, &kept, &indices).await?;
    // No tap is in use any more but those of machines that run on.
    let networks = running_vms.iter().map(|(vm, settings, ..)| Running {
        vm: vm.id,
        index: vm.host_index,
        policy: settings.network.clone(),
        bytes_per_second: vm.spec.limits.network_bytes_per_second,
    });
    let mut idle = broken;
    idle.extend(
        vms.0.found.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(id, _, host_index)| (*id, *host_index)),
    );
    host.egress.restore(networks.collect(), idle).await?;
    for (vm, settings, state, begin) in running_vms {
        vms.spawn(vm, settings, state, begin);
    }
    Ok(())
}

/// Removes a VM that nobody is to see again. Of one that was half made nobody was told, nor is now.
async fn remove(vms: &Vms, id: VmId, state: &str) -> Result<()> {
    let (host, text) = (&vms.0.host, id.to_string());
    host.teardown(id).await?;
    if state == HALF_MADE {
        return host.store.delete_vm(&text).await.map(drop);
    }
    host.activity.record_deleted_vm(&text).await
}

/// Leaves alone what is on the host of a VM whose row cannot be read, but for its machine. Gives its id.
async fn set_aside(vms: &Vms, row: &VmRow, why: &Error) -> Option<VmId> {
    tracing::error!(vm = row.id, error = %Chain(why), "a VM is not served; its files are kept");
    // Nobody else is to get what a machine of its may still have.
    if let Ok(host_index) = u32::try_from(row.host_index) {
        vms.0.pool.announce(host_index);
    }
    let id = row.id.parse().ok()?;
    if let Err(error) = vms.0.host.end_machine(id).await {
        tracing::error!(vm = %id, error = %Chain(&error), "a machine runs on that nobody looks after");
    }
    Some(id)
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
    let failed = |error| Error::internal(format!("cannot read {}", parent.display()), error);
    let unclaimed = machines_under(&*host.hypervisor, &parent).await.map_err(failed)?;
    for id in unclaimed.difference(kept) {
        if found_in_pool(vms, *id, indices).await {
            continue;
        }
        tracing::info!(vm = %id, "removing a machine or directory that belongs to no VM");
        // Nobody knows as which user one runs on: another machine could become that user, too.
        host.kill_machine(*id).await?;
        if let Err(error) = host.teardown(*id).await {
            tracing::error!(vm = %id, error = %Chain(&error), "cannot remove what belongs to no VM");
        }
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
