//! How a machine's monitor comes up: its jail is furnished, the jailer builds it, and its API is opened.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use tokio::time::timeout;

use super::api::{Action, Api, Balloon, BootSource, Drive, Entropy, MachineConfig, NetworkInterface, Serial, Vsock};
use super::arguments::{self, Arguments};
use super::jail::{Jail, Mount, Root, inside};
use super::launch::{self, Role};
use super::{API_LIMIT, Firecracker, INTERFACE, MARKS, cgroup, confinement, files, metrics, remains, snapshot, vsock};
use crate::HypervisorError;
use crate::hypervisor::{Hypervisor as _, Log, MachineSpec, SnapshotDir};
use crate::process::{self, Process};

/// Time for the jailer to build a jail; it takes 20 ms.
const JAILER_LIMIT: Duration = Duration::from_secs(20);

impl Firecracker {
    /// Starts a monitor in a jail and opens its API. It knows nothing of its machine yet.
    pub(super) async fn start(
        &self,
        spec: &MachineSpec,
        snapshot: Option<&SnapshotDir>,
    ) -> Result<Api, HypervisorError> {
        let user =
            spec.user.ok_or_else(|| HypervisorError::refused("starting a machine", "it has no user of its own"))?;
        process::announce(&spec.dir, &MARKS).map_err(HypervisorError::io("the process file"))?;
        remains::remove(&spec.dir, &[]).await.map_err(HypervisorError::io("what is left of the machine before"))?;
        let jail = self.jail(&spec.dir);
        let group = self.cgroups.as_ref().map(|cgroups| cgroups.group(spec.id));
        remains::note(&spec.dir, jail.home(), group.as_deref()).map_err(HypervisorError::io("the jail"))?;
        let (root, mounts) = self.furnish(&jail, spec, user, snapshot).map_err(HypervisorError::io("the jail"))?;
        let threads = cgroup::threads(spec);
        let place = CString::new(jail.place().into_os_string().into_vec());
        let place = place.map_err(io::Error::other).map_err(HypervisorError::io("the jail"))?;
        let role = Role { root: &root, place, mounts, threads, background: spec.background };
        let arguments = Arguments {
            id: spec.id,
            program: &self.settings.program,
            user,
            jails: self.settings.jails.as_deref().unwrap_or(&spec.dir),
            largest_file: spec.largest_file(),
            log_level: &self.settings.log_level,
            cgroup: self.cgroups.as_ref().map(|cgroups| cgroups.options(spec)).unwrap_or_default(),
        };
        let jailer = launch::start(&self.settings.jailer, &arguments.render(), &spec.dir, &role)?;
        let ended = timeout(JAILER_LIMIT, jailer.reap()).await;
        let ended = ended
            .map_err(|_| HypervisorError::Timeout("building the jail"))?
            .map_err(HypervisorError::io("the jailer"))?;
        if ended.exit_status() != Some(0) {
            return Err(HypervisorError::exited(&self.last_words(&spec.dir)));
        }
        let process = Process::rooted(&root, root.recorded_pid(&self.settings.program).ok());
        let process =
            process.map_err(HypervisorError::io("the monitor's process"))?.ok_or(HypervisorError::NotRunning)?;
        process::record(&spec.dir, process.pid().unsigned_abs(), &MARKS)
            .map_err(HypervisorError::io("the process file"))?;
        let opened = tokio::select! {
            opened = timeout(API_LIMIT, root.await_socket(inside::API, &process)) => opened,
            () = self.wait(&spec.dir) => return Err(HypervisorError::NotRunning),
        };
        let stream =
            opened.map_err(|_| HypervisorError::Timeout("opening its API"))?.map_err(HypervisorError::io("its API"))?;
        Api::over(stream).await
    }

    /// Makes a machine's jail and says what is to be mounted in it.
    fn furnish(
        &self,
        jail: &Jail,
        spec: &MachineSpec,
        user: u32,
        snapshot: Option<&SnapshotDir>,
    ) -> io::Result<(Root, Vec<Mount>)> {
        jail.make()?;
        let root = Root::new(std::fs::metadata(&self.settings.program)?.len())?;
        let (log, state, memory) =
            (files::log(&spec.dir, Log::Stdout), files::new_state(&spec.dir), files::new_memory(&spec.dir));
        drop(launch::open_log(&log).map_err(io::Error::other)?);
        let counts = files::metrics(&spec.dir);
        metrics::make(&counts)?;
        for new in [&state, &memory] {
            File::options().write(true).create(true).truncate(true).mode(0o600).open(new)?;
        }
        for own in [&spec.disk, &log, &counts, &state, &memory] {
            std::os::unix::fs::chown(own, Some(user), Some(user))?;
        }
        let mut files = vec![
            (spec.rootfs.clone(), inside::ROOTFS, false),
            (spec.disk.clone(), inside::DISK, true),
            (log, inside::LOG, true),
            (counts, inside::METRICS, true),
            (state, inside::NEW_STATE, true),
            (memory, inside::NEW_MEMORY, true),
        ];
        files.extend(match snapshot {
            None => {
                snapshot::begin_empty(&spec.dir, u64::from(spec.mem_mib) << 20)?;
                [(spec.kernel.clone(), inside::KERNEL, false), (spec.initramfs.clone(), inside::INITRAMFS, false)]
            }
            Some(snapshot) => {
                let memory = snapshot::keep_base(snapshot::memory(snapshot), &spec.dir)?;
                [(memory, inside::MEMORY, false), (snapshot::state(snapshot), inside::STATE, false)]
            }
        });
        let mounts = files.iter().map(|(source, target, writable)| jail.mount(&root, source, target, *writable));
        let mounts = mounts.collect::<io::Result<_>>()?;
        Ok((root, mounts))
    }

    /// Waits for `work` with a process that is being started; ends it and removes its jail if either fails.
    pub(super) async fn bring_up(
        &self,
        spec: &MachineSpec,
        work: impl Future<Output = Result<(), HypervisorError>> + Send,
    ) -> Result<(), HypervisorError> {
        let done = match work.await {
            Ok(()) => process::running(&spec.dir, &MARKS).and_then(|process| confinement::check(&process, spec.user)),
            failed => failed,
        };
        let Err(error) = done else { return Ok(()) };
        let ended = !process::is_running(&spec.dir, &MARKS);
        self.kill(&spec.dir).await?;
        Err(match error {
            already @ HypervisorError::Exited(_) => already,
            _ if ended => HypervisorError::exited(&self.last_words(&spec.dir)),
            other => other,
        })
    }

    /// Tells a monitor what machine it has, and starts it.
    pub(super) async fn configure_and_start(&self, api: &mut Api, spec: &MachineSpec) -> Result<(), HypervisorError> {
        let boot_args = arguments::command_line(self.settings.agent_port, spec.rehearse);
        api.put("/machine-config", &MachineConfig { vcpu_count: spec.vcpus, mem_size_mib: spec.mem_mib }).await?;
        let (kernel_image_path, initrd_path) = (inside::KERNEL, inside::INITRAMFS);
        api.put("/boot-source", &BootSource { kernel_image_path, initrd_path, boot_args: &boot_args }).await?;
        // The order of the requests is that of the guest's devices.
        api.put("/drives/rootfs", &Drive::new("rootfs", inside::ROOTFS, true)).await?;
        api.put("/drives/disk", &Drive::new("disk", inside::DISK, false)).await?;
        api.put("/vsock", &Vsock { guest_cid: vsock::GUEST_CID, uds_path: inside::VSOCK }).await?;
        if let Some(nic) = &spec.nic {
            let (guest_mac, host_dev_name) = (nic.mac.to_string(), nic.tap.as_str());
            let interface = NetworkInterface { iface_id: INTERFACE, guest_mac, host_dev_name };
            api.put("/network-interfaces/eth0", &interface).await?;
        }
        api.put("/entropy", &Entropy {}).await?;
        api.put("/balloon", &Balloon::empty()).await?;
        api.put("/serial", &Serial::bounded()).await?;
        api.put("/actions", &Action::InstanceStart).await
    }
}
