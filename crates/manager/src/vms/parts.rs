//! What a machine is made of: its directory, its disk, its initramfs, its network interface.

use std::path::Path;

use rds_image::{ImageError, disk};
use rds_vmm::{MachineSpec, VmId};
use tokio::task::spawn_blocking;

use super::fault::Step;
use super::host::Host;
use super::record::VmRecord;
use crate::error::{Error, Result};
use crate::hypervisor::FIRST_UID;
use crate::images::ImageFiles;
use crate::seeds::Size;

impl Host {
    /// Makes the VM's directory, disk and initramfs.
    #[tracing::instrument(level = "debug", name = "disk", skip_all)]
    pub(super) async fn prepare(&self, vm: &VmRecord, image: &ImageFiles) -> Result<MachineSpec> {
        let (dir, disk) = (self.dir(vm.id), self.disk(vm.id));
        self.faults.at(Step::Directory)?;
        make_private_dir(&dir).map_err(|error| Error::internal(format!("cannot make {}", dir.display()), error))?;

        self.faults.at(Step::Disk)?;
        if !disk.exists() {
            self.make_disk(vm, disk::clone_sparse).await?;
        }
        self.machine_spec(vm.id, Size { vcpus: vm.spec.vcpus, mem_mib: vm.spec.mem_mib }, vm.host_index, image).await
    }

    /// Clones the disk that the VM is to have to its place, by `clone`.
    pub(super) async fn make_disk(
        &self,
        vm: &VmRecord,
        clone: impl FnOnce(&Path, &Path, disk::CloneMode) -> Result<u64, ImageError> + Send + 'static,
    ) -> Result<()> {
        let templates = self.storage.templates_dir();
        let snapshot = vm.snapshot.as_ref().map(|id| self.snapshots.disk(id));
        let (bytes, mode, to) = (vm.spec.disk_bytes, self.storage.clone_mode(), self.disk(vm.id));
        spawn_blocking(move || {
            let from = snapshot.map_or_else(|| disk::template(&templates, bytes), Ok)?;
            if clone(&from, &to, mode)? < bytes {
                let grown = std::fs::File::options().write(true).open(&to).and_then(|disk| disk.set_len(bytes));
                grown.map_err(|source| ImageError::Io { what: "make room for a disk".into(), source })?;
            }
            Ok(())
        })
        .await
        .map_err(|error| Error::internal("the task that makes a disk ended", error))?
        .map_err(|error: ImageError| Error::internal(format!("cannot make the disk of VM {}", vm.id), error))
    }

    /// The parts of a machine whose directory and disk are made: a VM's, or one's that may become a VM.
    pub(super) async fn machine_spec(
        &self,
        id: VmId,
        size: Size,
        host_index: u32,
        image: &ImageFiles,
    ) -> Result<MachineSpec> {
        let initramfs = self.seeds.initramfs().path(&self.storage, image).await?;
        self.faults.at(Step::Tap)?;
        let user = self.own_users.then_some(FIRST_UID + host_index);
        let nic = self.egress.attach(id, host_index, user).await?;
        Ok(MachineSpec {
            id,
            vcpus: size.vcpus,
            mem_mib: size.mem_mib,
            kernel: image.kernel.clone(),
            initramfs,
            rootfs: image.rootfs.clone(),
            disk: self.disk(id),
            dir: self.dir(id),
            user,
            nic,
            rehearse: false,
            background: false,
        })
    }
}

/// A directory that only the manager may enter: monitors get what they use as open descriptors.
pub(super) fn make_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
