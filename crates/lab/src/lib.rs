//! A lab for tests of networks: network namespaces that are gone with the processes that hold them, and a world with
//! servers in one of them. For tests alone; nothing that is shipped uses it.
//!
//! A test runs itself again inside a fresh namespace ([`enter`]), which is the host then. So nothing that it does can
//! touch the network of the machine that it runs on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub mod ears;
mod namespace;
pub mod servers;

use std::process::{Command, Stdio};

use rds_netif::Mac;

pub use namespace::{Namespace, ip, run};

/// Set in a process that runs in a namespace of its own.
const INSIDE: &str = "RDS_LAB";

/// The host's address on the way to the world.
pub const HOST: &str = "198.51.100.1";

/// The world's resolver. It is a server for all else, too.
pub const RESOLVER: &str = "198.51.100.2";

/// Other addresses of the world's servers: two of the internet, one where port 443 is left to the test, and one of a
/// private network.
pub const ADDRESSES: [&str; 4] = ["203.0.113.10", "203.0.113.11", FREE, "10.9.9.9"];

/// The address whose port 443 is left to the test. `tls.example` leads there.
pub const FREE: &str = "203.0.113.20";

/// The world's hardware address.
const WORLD_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// Why there can be no lab on this machine.
pub fn missing() -> Option<&'static str> {
    let works = |program: &str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let needed = ["nft", "ip", "unshare", "nsenter"];
    if !rustix::process::geteuid().is_root() {
        return Some("root is needed for network namespaces");
    }
    (!needed.iter().all(|program| works(program))).then_some("nft, ip, unshare and nsenter are needed")
}

/// Whether this process is inside: the test can go on. Otherwise the test program runs once more with these arguments, in
/// a namespace of its own, and the caller has nothing left to do.
///
/// # Panics
/// The test failed there.
pub fn enter(arguments: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let test = std::env::current_exe().unwrap();
    let mut inside = Command::new("unshare");
    // Whatever the test leaves ends with it.
    inside.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]).arg(test).args(arguments);
    let output = inside.env(INSIDE, "1").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?} failed in its namespace\n{out}\n{err}");
    false
}

/// Makes the world beside this process's namespace: a link, the world's addresses, and the ways between.
///
/// # Panics
/// The system refuses.
pub fn world() -> Namespace {
    let world = Namespace::new();
    ip("link set lo up");
    ip(&format!("link add up0 type veth peer name eth0 address {WORLD_MAC} netns {}", world.pid()));
    ip(&format!("addr add {HOST}/24 dev up0"));
    ip("link set up0 up");
    for line in ["link set lo up", "link set eth0 up"] {
        world.ip(line);
    }
    world.ip(&format!("addr add {RESOLVER}/24 dev eth0"));
    world.ip(&format!("route add default via {HOST}"));
    for address in ADDRESSES {
        world.ip(&format!("addr add {address}/32 dev eth0"));
        ip(&format!("route add {address}/32 via {RESOLVER}"));
    }
    world
}
