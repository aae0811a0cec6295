//! A host with one guest's link and a way to the world, in network namespaces of its own. They are gone with the processes
//! that hold them.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rds_names::{Config, Domains, Names, Notice, Policy, Report};

pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
pub(crate) const RESOLVER: &str = "172.16.0.1:53";
pub(crate) const GATE: u16 = 7443;
/// Where the world's resolver is.
pub(crate) const UPSTREAM: &str = "198.51.100.2:53";

/// Says why this cannot run here, or runs the test once more in a network namespace of its own. `true`: go on.
pub(crate) fn inside(test: &str) -> bool {
    if std::env::var_os("RDS_NAMES_LAB").is_some() {
        return true;
    }
    let works = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !rustix::process::geteuid().is_root() || !["nft", "unshare"].iter().all(|program| works(program)) {
        println!("skipped: {test} needs root, nft and unshare");
        return false;
    }
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("RDS_NAMES_LAB", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace");
    false
}

/// A namespace, as long as its process lives.
pub(crate) struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let namespace = Self(child);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        // The process has its namespace a moment after its start.
        while std::fs::read_link(namespace.path()).is_ok_and(|its| its == own) {
            std::thread::sleep(Duration::from_millis(2));
        }
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn ip(&self, arguments: &str) {
        let pid = self.0.id().to_string();
        let words = arguments.split(' ');
        run(Command::new("nsenter").args(["--net", "--target", &pid, "ip"]).args(words));
    }

    /// Runs something in the namespace, on a thread and a runtime of its own.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let file = File::open(self.path()).unwrap();
        std::thread::spawn(move || {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
        })
    }

    /// Runs something in the namespace to its end.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        let thread = self.spawn(work);
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

/// Keeps what is reported.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Vec<String>>);

impl Report for Told {
    fn report(&self, guest: &str, notice: &Notice) {
        self.0.lock().unwrap().push(format!("{guest}: {notice}"));
    }
}

/// The whole: this process is the host.
pub(crate) struct Lab {
    pub(crate) guest: Namespace,
    pub(crate) world: Namespace,
    pub(crate) names: Names,
    told: Arc<Told>,
}

impl Lab {
    /// A lab whose guest may reach `domains`.
    pub(crate) fn new(domains: &[&str]) -> Self {
        let (guest, world) = (Namespace::new(), Namespace::new());
        ip("link set lo up");
        ip(&format!("link add tap0 type veth peer name eth0 netns {}", guest.0.id()));
        ip("addr add 172.16.0.1/32 dev tap0");
        ip("link set tap0 up");
        ip("route add 172.16.0.2/32 dev tap0");
        for line in ["link set eth0 up", "addr add 172.16.0.2/16 dev eth0", "route add default via 172.16.0.1"] {
            guest.ip(line);
        }
        ip(&format!("link add up0 type veth peer name eth0 netns {}", world.0.id()));
        ip("addr add 198.51.100.1/24 dev up0");
        ip("link set up0 up");
        for line in [
            "link set lo up",
            "link set eth0 up",
            "addr add 198.51.100.2/24 dev eth0",
            "route add default via 198.51.100.1",
        ] {
            world.ip(line);
        }
        for address in ["203.0.113.10/32", "203.0.113.11/32", "10.9.9.9/32"] {
            world.ip(&format!("addr add {address} dev eth0"));
            ip(&format!("route add {address} via 198.51.100.2"));
        }
        rules();

        let told = Arc::new(Told::default());
        let config = Config {
            gateway: GATEWAY,
            range: "172.16.0.0/16".parse().unwrap(),
            private: ["10.0.0.0/8", "169.254.0.0/16"].map(|range| range.parse().unwrap()).into(),
            resolver_port: 53,
            gate_port: GATE,
            upstream: vec![UPSTREAM.parse().unwrap()],
        };
        let names = Names::start(&config, told.clone()).unwrap();
        names.set(GUEST, "vm", policy(domains));
        Self { guest, world, names, told }
    }

    /// Whether one report has all these words.
    pub(crate) fn was_told(&self, words: &[&str]) -> bool {
        self.told.0.lock().unwrap().iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    pub(crate) fn all_told(&self) -> Vec<String> {
        self.told.0.lock().unwrap().clone()
    }
}

pub(crate) fn policy(domains: &[&str]) -> Policy {
    Policy { domains: Domains::parse(domains).unwrap(), trusted: Vec::new() }
}

/// What a firewall beside this crate does: leads connections to the gate, forwards nothing.
fn rules() {
    use std::io::Write;
    let text = format!(
        "table ip lab {{
            chain led {{
                type nat hook prerouting priority dstnat;
                iifname tap0 tcp dport {{ 80, 443 }} dnat to {GATEWAY}:{GATE}
            }}
            chain through {{ type filter hook forward priority filter; policy drop; }}
        }}"
    );
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

pub(crate) fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}
