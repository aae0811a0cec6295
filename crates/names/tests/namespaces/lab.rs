//! A host with one guest's link and a way to the world, in network namespaces of its own. They are gone with the processes
//! that hold them.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rds_lab::{Namespace, ip};
use rds_names::{Config, Domains, Names, Notice, Policy, Report};

pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
pub(crate) const RESOLVER: &str = "172.16.0.1:53";
pub(crate) const GATE: u16 = 7443;
/// Where the world's resolver is.
pub(crate) const UPSTREAM: &str = "198.51.100.2:53";

/// Says why this cannot run here, or runs the test once more in a network namespace of its own. `true`: go on.
pub(crate) fn inside(test: &str) -> bool {
    if let Some(missing) = rds_lab::missing() {
        println!("skipped: {missing}");
        return false;
    }
    rds_lab::enter(&["--exact", test, "--nocapture"])
}

/// Keeps what is reported.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Vec<String>>);

impl Report for Told {
    fn report(&self, guest: &str, notice: &Notice) -> bool {
        self.0.lock().unwrap().push(format!("{guest}: {notice}"));
        true
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
        let (guest, world) = (Namespace::new(), rds_lab::world());
        ip(&format!("link add tap0 type veth peer name eth0 netns {}", guest.pid()));
        ip("addr add 172.16.0.1/32 dev tap0");
        ip("link set tap0 up");
        ip("route add 172.16.0.2/32 dev tap0");
        for line in ["link set eth0 up", "addr add 172.16.0.2/16 dev eth0", "route add default via 172.16.0.1"] {
            guest.ip(line);
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

/// What a firewall beside this crate does: leads connections to the gate, forwards nothing, and keeps guests' connections
/// apart. Of these only the original direction has a zone, or nobody could say where they were to go.
fn rules() {
    use std::io::Write;
    let text = format!(
        "table ip lab {{
            chain entrance {{
                type filter hook prerouting priority -500;
                iifname tap0 ct original zone set 3
            }}
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
