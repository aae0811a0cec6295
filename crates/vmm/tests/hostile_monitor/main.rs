//! The Firecracker driver with a hostile program in Firecracker's place: what it reaches from inside its jail, and what the
//! manager makes of what it leaves and answers.
//!
//! They need root, `/dev/kvm`, Firecracker's jailer by `JAILER_BIN` and `rustc`, so they are counted as ignored unless asked
//! for: `JAILER_BIN=... cargo test -p rds-vmm --test hostile_monitor -- --ignored`. Without a jailer they fail and say so. Those
//! with `control_group` in their names need control groups of version 2, too.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::fs::{self, File};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rds_vmm::firecracker::{Firecracker, Settings};
use rds_vmm::hypervisor::{Counts, Log, Port, SnapshotDir};
use rds_vmm::{Hypervisor, HypervisorError, MachineSpec, VmId};
use rustix::thread::{CapabilitySets, capabilities, set_capabilities};
use tempfile::TempDir;

/// Bytes of a machine's disk.
const DISK: u64 = 4 << 20;

/// Bytes of the largest file that a monitor may write: its guest's memory.
const LARGEST: u64 = 128 << 20;

/// Users that no other test has.
static USER: AtomicU32 = AtomicU32::new(260_000);

/// A machine whose monitor plays a role. Its directory is `<parent>/<id>`.
struct Machine {
    driver: Firecracker,
    parent: TempDir,
    spec: MachineSpec,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let user = self.spec.user.unwrap();
        for pid in processes_of(user) {
            eprintln!("process {pid} of user {user} is left");
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// The program: that which `HOSTILE_MONITOR` names, or compiled once.
fn monitor() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(program) = std::env::var_os("HOSTILE_MONITOR") {
            return program.into();
        }
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let program = dir.join("firecracker");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile_monitor/monitor.rs");
        let target = "x86_64-unknown-linux-gnu";
        let mut command = Command::new(rustc);
        command.args([
            "--edition",
            "2024",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
            "--target",
            target,
        ]);
        assert!(command.arg("-o").arg(&program).arg(source).status().unwrap().success());
        program
    })
}

async fn machine(role: &str) -> Machine {
    machine_in(role, None).await
}

/// The same with its jail below another directory than its own.
async fn machine_in(role: &str, jails: Option<&Path>) -> Machine {
    // A server that is not root holds its capabilities by inheritance.
    let sets = capabilities(None).unwrap();
    set_capabilities(None, CapabilitySets { inheritable: sets.permitted, ..sets }).unwrap();
    let parent = TempDir::new().unwrap();
    let driver = driver(jails).await;
    let id = VmId::new();
    let dir = parent.path().join(id.to_string());
    fs::create_dir(&dir).unwrap();
    let file = |name: &str, content: &str, bytes: u64| {
        let path = parent.path().join(name);
        fs::write(&path, content).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    };
    let spec = MachineSpec {
        id,
        vcpus: 1,
        mem_mib: 128,
        kernel: file("kernel", "", 4096),
        initramfs: file("initramfs", "", 4096),
        rootfs: file("rootfs", "", 4096),
        disk: file("disk", role, DISK),
        disk_bytes: DISK,
        dir,
        user: Some(USER.fetch_add(1, Ordering::Relaxed)),
        nic: None,
        rehearse: false,
        background: false,
    };
    Machine { driver, parent, spec }
}

async fn driver(jails: Option<&Path>) -> Firecracker {
    let jailer = std::env::var_os("JAILER_BIN").expect("JAILER_BIN names Firecracker's jailer");
    let settings = Settings {
        program: monitor().to_owned(),
        jailer: jailer.into(),
        jails: jails.map(Path::to_owned),
        agent_port: 8080,
        log_level: "Error".into(),
        reason: "a test".into(),
    };
    Firecracker::new(settings).await.unwrap()
}

/// A machine whose monitor plays a role and has been started.
async fn started(role: &str) -> Machine {
    let machine = machine(role).await;
    machine.driver.boot(&machine.spec).await.unwrap();
    machine
}

/// All processes of a user that have not ended.
fn processes_of(user: u32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let alive = entries.filter(|entry| {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        status.contains(&format!("Uid:\t{user}\t")) && !status.contains("State:\tZ")
    });
    alive.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

impl Machine {
    fn dir(&self) -> &Path {
        &self.spec.dir
    }

    /// What the monitor found out.
    fn said(&self) -> String {
        fs::read_to_string(self.driver.log_file(self.dir(), Log::Stdout)).unwrap()
    }

    /// The numbers that it said after a word.
    fn numbers(&self, word: &str) -> Vec<u64> {
        let said = self.said();
        let line = said.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("{said}"));
        line.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    /// Ends the machine and looks whether anything is left of it.
    async fn end(self) {
        self.driver.kill(self.dir()).await.unwrap();
        self.is_gone().await;
    }

    async fn is_gone(&self) {
        assert_eq!(processes_of(self.spec.user.unwrap()), [] as [i32; 0]);
        assert!(!self.driver.is_running(self.dir()).await);
        assert!(self.driver.find(self.parent.path()).await.is_empty());
        assert!(!self.jail().exists());
        for left in ["firecracker.jail", "firecracker.group", "firecracker.base"] {
            assert!(fs::symlink_metadata(self.dir().join(left)).is_err(), "{left} is left");
        }
        assert!(!self.group().exists());
    }

    /// Its control group.
    fn group(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup/rds-vms").join(self.spec.id.to_string())
    }

    /// What a file of that says.
    fn limit(&self, file: &str) -> String {
        fs::read_to_string(self.group().join(file)).unwrap().trim().to_owned()
    }

    fn jail(&self) -> PathBuf {
        self.dir().join("firecracker").join(self.spec.id.to_string())
    }

    /// Takes a snapshot, and gives what was left in its directory.
    async fn snapshot(&self) -> (Result<(), HypervisorError>, PathBuf) {
        let to = self.parent.path().join("snapshot");
        fs::create_dir(&to).unwrap();
        (self.driver.snapshot(self.dir(), &SnapshotDir(to.clone())).await, to)
    }
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn nothing_outside_the_jail_is_reached() {
    let other = started("").await;
    let outside = TempDir::new().unwrap();
    let socket = outside.path().join("manager.sock");
    let _unix = UnixListener::bind(&socket).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("rds-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let targets = [
        format!("file {}", other.spec.disk.display()),
        format!("file {}", other.dir().display()),
        "file /etc/passwd".into(),
        "file /proc".into(),
        "file /sys".into(),
        "file /dev/mem".into(),
        format!("unix {}", socket.display()),
        format!("unix /proc/1/root{}", socket.display()),
        format!("abstract {name}"),
        format!("tcp {}", tcp.local_addr().unwrap()),
        format!("process {}", std::process::id()),
        format!("process {}", processes_of(other.spec.user.unwrap())[0]),
    ];
    let machine = started(&format!("reach\n{}\n", targets.join("\n"))).await;
    let said = machine.said();
    assert!(!said.contains("REACHED"), "{said}");
    assert_eq!(said.matches("refused ").count(), 72, "{said}");
    let sees =
        "sees dev disk firecracker firecracker.pid initramfs kernel log metrics new-memory new-state rootfs run\n";
    assert!(said.contains(sees), "{said}");
    machine.end().await;
    other.end().await;
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn the_hosts_disk_cannot_be_filled() {
    let machine = started("fill").await;
    let [bytes, files] = machine.numbers("filled ")[..] else { panic!("two numbers") };
    let program = fs::metadata(monitor()).unwrap().len();
    assert!(bytes <= program + (64 << 10) && files < 48, "{bytes} bytes in {files} files");
    let said = machine.said();
    assert!(!said.contains("REACHED"), "{said}");
    assert_eq!(said.matches("refused a file of 1 TiB").count(), 4);
    assert_eq!(said.matches("refused blocks behind the end").count(), 28);
    assert_eq!(fs::read_dir(machine.jail().join("root")).unwrap().count(), 0, "on the host there is nothing of it");
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn what_is_written_for_no_snapshot_does_not_stay() {
    let machine = started("drafts").await;
    assert!(machine.said().contains("full"));
    let taken = || {
        let files = ["firecracker.memory", "firecracker.state"].map(|name| machine.dir().join(name));
        files.map(|file| fs::metadata(file).unwrap().blocks() * 512)
    };
    assert!(taken().into_iter().all(|bytes| bytes >= LARGEST), "it did write: {:?}", taken());
    let lengths =
        ["firecracker.memory", "firecracker.state"].map(|name| machine.dir().join(name).metadata().unwrap().len());
    assert!(lengths.into_iter().all(|length| length <= LARGEST), "it wrote more than it may: {lengths:?}");
    machine.driver.tidy(machine.dir());
    assert_eq!(taken(), [0, 0]);
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn a_jail_is_gone_whoever_ends_its_machine() {
    let base = TempDir::new().unwrap();
    let jails = base.path().join("jails");
    for own in [true, false] {
        let machine = machine_in("bombs", Some(&jails)).await;
        assert_eq!(jails.exists(), !own, "a driver changes nothing before it starts a machine");
        machine.driver.boot(&machine.spec).await.unwrap();
        let all = jails.join("firecracker");
        assert_eq!(fs::read_dir(&all).unwrap().count(), 1);
        assert!(machine.dir().join("firecracker.base").exists());
        let other = driver(None).await;
        let ending = if own { &machine.driver } else { &other };
        ending.kill(machine.dir()).await.unwrap();
        assert_eq!(fs::read_dir(&all).unwrap().count(), 0);
        machine.is_gone().await;
    }
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm, JAILER_BIN and control groups of version 2"]
async fn a_machine_has_the_limits_of_its_control_group() {
    let machine = started("").await;
    let limits = ["memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight"].map(|file| machine.limit(file));
    // A kernel without swap, or a group whose parent has none, says what it likes of the second.
    assert_eq!(limits, ["268435456", &limits[1], "33", "200000 100000", "100"]);
    assert_eq!(fs::read_to_string("/sys/fs/cgroup/rds-vms/memory.swap.max").unwrap(), "0\n");
    if machine.group().join("io.weight").exists() {
        assert_eq!(machine.limit("io.weight"), "default 100");
    }
    let pid = processes_of(machine.spec.user.unwrap())[0];
    assert_eq!(machine.limit("cgroup.procs"), pid.to_string());
    // Whoever is in the group ends with the machine.
    let mut stray = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(machine.group().join("cgroup.procs"), stray.id().to_string()).unwrap();
    machine.end().await;
    assert!(!stray.wait().unwrap().success());
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm, JAILER_BIN and control groups of version 2"]
async fn no_more_memory_is_had_than_a_control_group_has() {
    let machine = started("memory").await;
    tokio::time::timeout(Duration::from_secs(60), machine.driver.wait(machine.dir())).await.unwrap();
    assert!(!machine.said().contains("REACHED"), "{}", machine.said());
    assert!(machine.limit("memory.events").contains("oom_kill 1"), "{}", machine.limit("memory.events"));
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn processes_are_few_and_end_with_the_first() {
    let machine = started("bombs").await;
    let children = machine.numbers("children ")[0];
    assert!(children > 0 && children <= 33, "{children}");
    assert!(processes_of(machine.spec.user.unwrap()).len() > 1);
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn a_monitor_that_hides_is_found_and_ended() {
    let machine = started("disguise").await;
    assert!(machine.driver.is_running(machine.dir()).await);
    machine.driver.pause(machine.dir()).await.unwrap();
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn what_is_no_monitor_is_not_started() {
    for (role, why) in [
        ("planted", "its API: "),
        ("deaf", "the virtual machine monitor ended: "),
        ("unfiltered", "its monitor runs without seccomp filters"),
        ("mute", "in time (opening its API)"),
    ] {
        let machine = machine(role).await;
        let error = machine.driver.boot(&machine.spec).await.unwrap_err().to_string();
        assert!(error.contains(why), "{role}: {error}");
        machine.is_gone().await;
    }
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn no_answer_is_trusted() {
    let begun = Instant::now();
    let roles = [
        "endless body",
        "endless head",
        "endless line",
        "endless continuation",
        "nonsense",
        "silence",
        "closed",
        "huge fault",
    ];
    let attempts = roles.map(async |role| {
        let machine = machine(role).await;
        let error = machine.driver.boot(&machine.spec).await.unwrap_err().to_string();
        assert!(error.len() < 300, "{role}: {} bytes", error.len());
        machine.is_gone().await;
    });
    futures_util::future::join_all(attempts).await;
    assert!(begun.elapsed() < Duration::from_secs(50));

    for role in ["wrong types", "deep", "forged fault"] {
        let machine = started(role).await;
        let error = machine.driver.pause(machine.dir()).await.unwrap_err().to_string();
        assert!(error.len() < 400 && !error.contains(char::is_control), "{role}: {error}");
        machine.end().await;
    }
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn another_process_behind_the_vsock_is_not_talked_to() {
    let machine = started("listener").await;
    let refused = machine.driver.connect(machine.dir(), Port::In).await.err().unwrap().to_string();
    assert!(refused.contains("another process listens there"), "{refused}");
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn a_snapshot_that_is_none_is_not_taken() {
    for role in ["huge state", "odd memory", "linked memory", "huge memory", "no snapshot"] {
        let machine = started(role).await;
        let (taken, to) = machine.snapshot().await;
        assert!(taken.is_err(), "{role}");
        assert!(!to.join("memory").exists(), "{role}");
        assert!(!machine.said().contains("REACHED"), "{role}: {}", machine.said());
        for file in ["firecracker.memory", "firecracker.state"] {
            assert_eq!(fs::metadata(machine.dir().join(file)).unwrap().len(), 0, "{role}: {file} is left");
        }
        machine.end().await;
    }
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn a_snapshot_does_not_change_any_more() {
    let machine = started("late memory").await;
    let (taken, to) = machine.snapshot().await;
    taken.unwrap();
    while !machine.said().contains("late") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let memory = fs::read(to.join("memory")).unwrap();
    assert!(memory[..1 << 20].iter().all(|byte| *byte == b'a') && memory[1 << 20..].iter().all(|byte| *byte == 0));
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn what_others_start_from_does_not_change() {
    for (role, fits) in [("late memory", true), ("odd memory", false), ("huge memory", false), ("no snapshot", false)] {
        let machine = machine(role).await;
        let seed = machine.parent.path().join("seed");
        fs::create_dir(&seed).unwrap();
        fs::write(seed.join("memory"), vec![b's'; 2 << 20]).unwrap();
        File::options().write(true).open(seed.join("memory")).unwrap().set_len(LARGEST).unwrap();
        fs::write(seed.join("state"), "").unwrap();
        machine.driver.restore(&machine.spec, &SnapshotDir(seed.clone())).await.unwrap();
        let (taken, to) = machine.snapshot().await;
        assert_eq!(taken.is_ok(), fits, "{role}: {taken:?}");
        let begins = |dir: &Path| {
            let memory = fs::read(dir.join("memory")).unwrap();
            let [first, second] = [&memory[..1 << 20], &memory[1 << 20..2 << 20]];
            assert!(second.iter().all(|byte| *byte == b's'), "{role}");
            first.iter().all(|byte| *byte == first[0]).then_some(first[0])
        };
        if fits {
            while !machine.said().contains("late") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(begins(&to), Some(b'a'));
        }
        assert_eq!(begins(&seed), Some(b's'), "{role}");
        assert_eq!(machine.dir().join("firecracker.base").exists(), fits, "{role}");
        machine.driver.kill(machine.dir()).await.unwrap();
        assert!(!machine.dir().join("firecracker.base").exists(), "{role}");
        machine.is_gone().await;
    }
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn what_a_monitor_counts_is_bounded_and_need_not_make_sense() {
    let machine = started("count").await;
    let begun = Instant::now();
    let mut all = Counts::default();
    while all.disk_read < u64::MAX {
        assert!(begun.elapsed() < Duration::from_secs(20), "{all:?}");
        let asked = Instant::now();
        all = all.plus(machine.driver.take_counts(machine.dir()));
        assert!(asked.elapsed() < Duration::from_secs(2), "it is not waited for");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs root, /dev/kvm and JAILER_BIN"]
async fn floods_of_logs_are_bounded() {
    let machine = started("flood").await;
    let logs = [Log::Stdout, Log::Stderr, Log::Serial].map(|log| machine.driver.log_file(machine.dir(), log));
    let length = |log: &PathBuf| fs::metadata(log).unwrap().len();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(logs.iter().all(|log| length(log) <= LARGEST));
        machine.driver.trim_logs(machine.dir());
    }
    machine.driver.kill(machine.dir()).await.unwrap();
    assert!(logs.iter().map(length).sum::<u64>() > 1 << 20, "it did write");
    machine.driver.trim_logs(machine.dir());
    assert!(logs.iter().all(|log| length(log) <= 1 << 20));
    machine.end().await;
}
