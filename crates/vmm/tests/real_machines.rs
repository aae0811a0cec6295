//! The driver with real machines.
//!
//! They need QEMU and, by path, `RDS_TEST_KERNEL`, `RDS_TEST_INITRAMFS` (with the guest agent and the kernel's modules) and
//! `RDS_TEST_ROOTFS`, so they are counted as ignored unless asked for:
//! `cargo test -p rds-vmm --test real_machines -- --ignored --nocapture --test-threads=1` also prints what it measures.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rds_protocol::link::{History, greet};
use rds_vmm::hypervisor::{ByteStream, Log, Port, SnapshotDir};
use rds_vmm::qemu::{Qemu, Settings};
use rds_vmm::{GuestClient, Hypervisor, HypervisorError, MachineSpec, VmId};
use tempfile::TempDir;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(60);

/// A machine that is ended with the test. Its directory is `<parent>/<id>`.
struct Bench {
    hypervisor: Qemu,
    parent: TempDir,
    spec: MachineSpec,
}

impl Drop for Bench {
    /// Leaves no process behind when a test fails. A tokio runtime cannot be entered here, hence the thread.
    fn drop(&mut self) {
        let (hypervisor, parent) = (&self.hypervisor, self.parent.path());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for id in hypervisor.find(parent).await {
                        let _ = hypervisor.kill(&parent.join(id.to_string())).await;
                    }
                });
            });
        });
    }
}

fn given(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")).into()
}

async fn bench() -> Bench {
    let parent = TempDir::new().unwrap();
    let hypervisor = Qemu::new(Settings::default()).await.unwrap();
    eprintln!("{:?}", hypervisor.description());
    let id = VmId::new();
    let dir = parent.path().join(id.to_string());
    let spec = MachineSpec {
        id,
        vcpus: 1,
        mem_mib: 256,
        kernel: given("RDS_TEST_KERNEL"),
        initramfs: given("RDS_TEST_INITRAMFS"),
        rootfs: given("RDS_TEST_ROOTFS"),
        disk: dir.join("disk"),
        disk_bytes: 512 << 20,
        dir,
        // The temporary directory is closed to it: it gets in through open descriptors alone.
        user: rustix::process::getuid().is_root().then_some(212_345),
        nic: None,
        rehearse: false,
        background: false,
    };
    make_room(&spec, 64 << 20);
    Bench { hypervisor, parent, spec }
}

fn make_room(spec: &MachineSpec, disk_bytes: u64) {
    std::fs::create_dir(&spec.dir).unwrap();
    std::fs::File::create(&spec.disk).unwrap().set_len(disk_bytes).unwrap();
}

impl Bench {
    async fn greet(&self, dir: &Path, history: History) -> Box<dyn ByteStream> {
        let mut stream = self.hypervisor.connect(dir, Port::In).await.unwrap();
        let greeted = greet(&mut stream, history, || Uuid::new_v4().into_bytes(), LIMIT).await;
        if let Err(error) = greeted {
            let serial = std::fs::read(self.hypervisor.log_file(dir, Log::Serial)).unwrap_or_default();
            panic!("{error}; the console says: {}", String::from_utf8_lossy(&serial));
        }
        stream
    }
}

#[tokio::test]
#[ignore = "needs a kernel, an initramfs and a root filesystem"]
async fn a_machine_boots_pauses_and_is_found_again() {
    let bench = bench().await;
    let (hypervisor, spec) = (&bench.hypervisor, &bench.spec);
    let begun = Instant::now();
    hypervisor.boot(spec).await.unwrap();
    let up = begun.elapsed();
    drop(bench.greet(&spec.dir, History::Fresh).await);
    eprintln!("measured: monitor {up:?}, first answer {:?}", begun.elapsed());

    drop(bench.greet(&spec.dir, History::Used).await);
    assert_eq!(hypervisor.find(bench.parent.path()).await, [spec.id]);
    assert!(hypervisor.find(Path::new("/")).await.is_empty());
    if let Some(user) = spec.user {
        let pid = std::fs::read_to_string(spec.dir.join("qemu.pid")).unwrap();
        let pid = pid.split(' ').next().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains(&format!("Uid:\t{user}\t{user}\t{user}\t{user}\n")), "{status}");
        assert!(status.contains(&format!("Gid:\t{user}\t{user}\t{user}\t{user}\n")), "{status}");
        assert!(status.contains("Groups:\t \n") && status.contains("NoNewPrivs:\t1\n"), "{status}");
    }

    hypervisor.pause(&spec.dir).await.unwrap();
    hypervisor.pause(&spec.dir).await.unwrap();
    let mut stream = hypervisor.connect(&spec.dir, Port::In).await.unwrap();
    let nonce = || Uuid::new_v4().into_bytes();
    assert!(greet(&mut stream, History::Used, nonce, Duration::from_millis(600)).await.is_err(), "it is paused");
    drop(stream);
    hypervisor.resume(&spec.dir).await.unwrap();
    hypervisor.resume(&spec.dir).await.unwrap();
    drop(bench.greet(&spec.dir, History::Used).await);

    // As after a manager that was killed before it filled the process file.
    std::fs::write(spec.dir.join("qemu.pid"), "").unwrap();
    assert!(hypervisor.is_running(&spec.dir).await);
    let ended = hypervisor.wait(&spec.dir);
    hypervisor.kill(&spec.dir).await.unwrap();
    ended.await;
    assert!(!hypervisor.is_running(&spec.dir).await);
    hypervisor.kill(&spec.dir).await.unwrap();
    assert!(hypervisor.find(bench.parent.path()).await.is_empty());
    assert!(matches!(hypervisor.pause(&spec.dir).await, Err(HypervisorError::NotRunning)));
    assert!(matches!(hypervisor.connect(&spec.dir, Port::In).await, Err(HypervisorError::NotRunning)));
}

#[tokio::test]
#[ignore = "needs a kernel, an initramfs and a root filesystem"]
async fn an_agent_answers_and_is_adopted() {
    let bench = bench().await;
    let (hypervisor, dir) = (&bench.hypervisor, &bench.spec.dir);
    hypervisor.boot(&bench.spec).await.unwrap();
    let client = GuestClient::connect(hypervisor, dir, History::Fresh, LIMIT).await.unwrap();
    let health = client.health(LIMIT).await.unwrap();
    assert_eq!((health.generation, health.configured), (rds_protocol::GENERATION, false));
    // As when a manager is killed: the connection ends, and another manager makes one.
    drop(client);
    let client = GuestClient::connect(hypervisor, dir, History::Used, LIMIT).await.unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        client.health(LIMIT).await.unwrap();
    }
    eprintln!("measured: call {:?}; agent {} KiB resident", begun.elapsed() / 20, health.resident_bytes / 1024);
    hypervisor.kill(dir).await.unwrap();
    client.closed().await;
}

#[tokio::test]
#[ignore = "needs a kernel, an initramfs and a root filesystem"]
async fn clones_start_from_a_snapshot_with_disks_of_other_sizes() {
    let bench = bench().await;
    let (hypervisor, spec) = (&bench.hypervisor, &bench.spec);
    hypervisor.boot(spec).await.unwrap();
    let begun = Instant::now();
    while !hypervisor.is_listening(&spec.dir).await.unwrap() {
        assert!(begun.elapsed() < LIMIT, "the agent does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let snapshot = SnapshotDir(bench.parent.path().join("snapshot"));
    std::fs::create_dir(&snapshot.0).unwrap();
    assert!(hypervisor.snapshot(&spec.dir, &snapshot).await.is_err(), "it runs");
    hypervisor.pause(&spec.dir).await.unwrap();
    let begun = Instant::now();
    hypervisor.snapshot(&spec.dir, &snapshot).await.unwrap();
    eprintln!("measured: snapshot {:?}", begun.elapsed());
    hypervisor.resume(&spec.dir).await.unwrap();
    drop(bench.greet(&spec.dir, History::Fresh).await);
    hypervisor.kill(&spec.dir).await.unwrap();

    for disk_mib in [64, 128, 512] {
        let id = VmId::new();
        let dir = bench.parent.path().join(id.to_string());
        let clone = MachineSpec { id, disk: dir.join("disk"), dir, ..spec.clone() };
        make_room(&clone, disk_mib << 20);
        let begun = Instant::now();
        hypervisor.restore(&clone, &snapshot).await.unwrap();
        let restored = begun.elapsed();
        drop(bench.greet(&clone.dir, History::Fresh).await);
        eprintln!("measured: restored {restored:?}, first answer {:?}", begun.elapsed());
    }
    assert_eq!(hypervisor.find(bench.parent.path()).await.len(), 3);

    // A clone is a machine like any other: others start from what it has become, and it goes on.
    let first = hypervisor.find(bench.parent.path()).await[0];
    let dir = bench.parent.path().join(first.to_string());
    let client = GuestClient::connect(hypervisor, &dir, History::Used, LIMIT).await.unwrap();
    let uptime = client.health(LIMIT).await.unwrap().uptime_ms;
    hypervisor.pause(&dir).await.unwrap();
    client.close().await;
    let second = SnapshotDir(bench.parent.path().join("second"));
    std::fs::create_dir(&second.0).unwrap();
    let begun = Instant::now();
    hypervisor.snapshot(&dir, &second).await.unwrap();
    eprintln!("measured: snapshot of a clone {:?}", begun.elapsed());
    hypervisor.resume(&dir).await.unwrap();
    let client = GuestClient::connect(hypervisor, &dir, History::Closed, LIMIT).await.unwrap();
    assert!(client.health(LIMIT).await.unwrap().uptime_ms > uptime);
    let size = std::fs::metadata(dir.join("disk")).unwrap().len();
    for _ in 0..2 {
        let id = VmId::new();
        let dir = bench.parent.path().join(id.to_string());
        let clone = MachineSpec { id, disk: dir.join("disk"), dir, ..spec.clone() };
        make_room(&clone, size);
        let begun = Instant::now();
        hypervisor.restore(&clone, &second).await.unwrap();
        let restored = begun.elapsed();
        let client = GuestClient::connect(hypervisor, &clone.dir, History::Closed, LIMIT).await.unwrap();
        assert!(client.health(LIMIT).await.unwrap().uptime_ms >= uptime);
        eprintln!("measured: clone of a clone restored {restored:?}, first answer {:?}", begun.elapsed());
    }

    let id = VmId::new();
    let dir = bench.parent.path().join(id.to_string());
    let clone = MachineSpec { id, disk: dir.join("disk"), dir, ..spec.clone() };
    make_room(&clone, 64 << 20);
    let state = snapshot.0.join("state");
    let mut bytes = std::fs::read(&state).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&state, bytes).unwrap();
    let error = hypervisor.restore(&clone, &snapshot).await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert!(!hypervisor.is_running(&clone.dir).await);
}

#[tokio::test]
#[ignore = "needs a kernel, an initramfs and a root filesystem"]
async fn a_machine_that_cannot_start_leaves_nothing_and_says_why() {
    let mut bench = bench().await;
    bench.spec.kernel = "/dev/null".into();
    let error = bench.hypervisor.boot(&bench.spec).await.unwrap_err();
    assert!(matches!(&error, HypervisorError::Exited(words) if words.contains("kernel")), "{error}");
    assert!(bench.hypervisor.find(bench.parent.path()).await.is_empty());
    assert!(!bench.spec.dir.join("qemu.pid").exists());
    bench.spec.kernel = "/nonexistent".into();
    assert!(matches!(bench.hypervisor.boot(&bench.spec).await, Err(HypervisorError::Io { .. })));
}
