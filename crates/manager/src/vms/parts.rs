//! What a machine is made of: its directory, its disk, its initramfs, its network interface.

use std::path::Path;

use rds_image::{ImageError, disk};
use rds_vmm::{MachineSpec, VmId};
use tokio::task::{JoinHandle, spawn_blocking};

use super::fault::Step;
use super::host::Host;
use super::record::VmRecord;
use crate::error::{Error, Result};
use crate::images::ImageFiles;
use crate::seeds::Size;
use crate::storage::make_private_dir;

/// A disk whose content is on its way. It comes though this is dropped.
#[derive(Debug)]
pub(super) struct Filling(JoinHandle<Result<(), ImageError>>);

impl Filling {
    /// Waits until it is there.
    pub(super) async fn done(self) -> Result<()> {
        let filled = self.0.await.map_err(|error| Error::internal("the task that makes a disk ended", error))?;
        filled.map_err(|error| Error::internal("cannot make a VM's disk", error))
    }
}

impl Host {
    /// Makes the VM's directory, disk and initramfs. The content of a new disk may come while the machine comes up: a guest
    /// opens its disk only when it is told who it is.
    #[tracing::instrument(level = "debug", name = "disk", skip_all)]
    pub(super) async fn prepare(&self, vm: &VmRecord, image: &ImageFiles) -> Result<(MachineSpec, Option<Filling>)> {
        let (dir, disk) = (self.dir(vm.id), self.disk(vm.id));
        self.faults.at(Step::Directory)?;
        make_private_dir(&dir).map_err(|error| Error::internal(format!("cannot make {}", dir.display()), error))?;

        self.faults.at(Step::Disk)?;
        let mut filling = None;
        if !disk.exists() {
            let reserved = disk::reserve(&disk, vm.spec.disk_bytes);
            reserved.map_err(|error| Error::internal("cannot make a VM's disk", error))?;
            filling = Some(self.fill_disk(vm, disk::fill_reserved));
        }
        let size = Size { vcpus: vm.spec.vcpus, mem_mib: vm.spec.mem_mib };
        Ok((self.machine_spec(vm.id, size, vm.spec.disk_bytes, vm.host_index, image).await?, filling))
    }

    /// Begins to clone the content that the VM's disk is to have to its place.
    pub(super) fn fill_disk(
        &self,
        vm: &VmRecord,
        clone: impl FnOnce(&Path, &Path, disk::CloneMode) -> Result<(), ImageError> + Send + 'static,
    ) -> Filling {
        let templates = self.storage.templates_dir();
        let snapshot = vm.base.as_ref().map(|base| self.snapshots.disk(&base.id));
        let (bytes, mode, to) = (vm.spec.disk_bytes, self.storage.clone_mode(), self.disk(vm.id));
        Filling(spawn_blocking(move || {
            let from = snapshot.map_or_else(|| disk::template(&templates, bytes), Ok)?;
            clone(&from, &to, mode)?;
            let grown = std::fs::File::options().write(true).open(&to).and_then(|disk| disk.set_len(bytes));
            grown.map_err(|source| ImageError::Io { what: "make room for a disk".into(), source })
        }))
    }

    /// The parts of a machine whose directory and disk are made: a VM's, or one's that may become a VM.
    pub(super) async fn machine_spec(
        &self,
        id: VmId,
        size: Size,
        disk_bytes: u64,
        host_index: u32,
        image: &ImageFiles,
    ) -> Result<MachineSpec> {
        let initramfs = self.seeds.initramfs().path(&self.storage, image).await?;
        self.faults.at(Step::Tap)?;
        let user = self.users.map(|users| users.vm(host_index));
        let nic = self.egress.attach(id, host_index, user).await?;
        Ok(MachineSpec {
            id,
            vcpus: size.vcpus,
            mem_mib: size.mem_mib,
            kernel: image.kernel.clone(),
            initramfs,
            rootfs: image.rootfs.clone(),
            disk: self.disk(id),
            disk_bytes,
            dir: self.dir(id),
            user,
            nic,
            rehearse: false,
            background: false,
        })
    }
}
