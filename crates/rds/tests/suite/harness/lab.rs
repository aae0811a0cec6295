//! A server and its VMs in a network namespace of their own, beside a world with servers.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rds_lab::ears::Ears;
pub(crate) use rds_lab::ears::WORLD;
use rds_lab::servers::{self, Seen};
use rds_lab::{FREE, Namespace, RESOLVER};
use tempfile::TempDir;

use super::{TestServer, World};

/// What `needs` says of a test that runs in here.
pub(crate) const NAMESPACES: &str = "network namespaces";

/// The whole of it.
pub(crate) struct Lab {
    /// The server.
    pub(crate) server: TestServer,
    /// What the world's servers saw.
    pub(crate) seen: Seen,
    /// What was heard in the world and of this host.
    pub(crate) ears: Ears,
    world: Namespace,
}

/// Runs the test of this name once more in a namespace, where it gets a lab; outside there is nothing left to do.
pub(crate) async fn enter(world: &World, test: &'static str, settings: &[(&str, &str)]) -> Option<Lab> {
    enter_as(world, test, None, settings).await
}

/// The same with a server that runs as `user`.
pub(crate) async fn enter_as(
    world: &World,
    test: &'static str,
    user: Option<u32>,
    settings: &[(&str, &str)],
) -> Option<Lab> {
    let arguments = ["--exact", test, "--test-threads", "1"];
    let inside = tokio::task::spawn_blocking(move || rds_lab::enter(&arguments));
    if !inside.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
        return None;
    }
    let outside = rds_lab::world();
    let (seen, ears) = (servers::start(&outside).await, Ears::of(&outside).await);
    // A seed that is made beside the test costs more time than it saves.
    let all = [&[("NETWORK", "on"), ("DNS_SERVER_IP", RESOLVER), ("ENABLE_SNAPSHOTS", "false")], settings].concat();
    let server = match user {
        Some(user) => world.own_server_of(user, &all).await,
        None => world.bare_server(&all).await,
    };
    Some(Lab { server, seen, ears, world: outside })
}

impl Lab {
    /// The VMs' taps.
    pub(crate) fn taps(&self) -> Vec<String> {
        about_taps("ip", "-o link show")
    }

    /// Fails if there is a tap, or one is named by the firewall's table, a route or an address.
    pub(crate) fn assert_nothing_left(&self) {
        let asked = [("nft", "list table inet rds"), ("ip", "-o addr show"), ("ip", "route show table all")];
        let left = asked.iter().flat_map(|(program, arguments)| about_taps(program, arguments));
        assert_eq!(left.chain(self.taps()).collect::<Vec<_>>(), Vec::<String>::new());
    }

    /// Starts a true TLS server for `tls.example`, which answers requests with a page.
    pub(crate) async fn tls(&self) -> Tls {
        let files = tempfile::tempdir().expect("a directory");
        let path = |name: &str| files.path().join(name).display().to_string();
        let (key, certificate) = (path("key"), path("certificate"));
        let mut make = Command::new("openssl");
        make.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tls.example"]);
        rds_lab::run(make.args(["-addext", "subjectAltName=DNS:tls.example", "-keyout", &key, "-out", &certificate]));
        let mut serve = self.world.command("openssl");
        serve.args([
            "s_server",
            "-quiet",
            "-www",
            "-accept",
            &format!("{FREE}:443"),
            "-key",
            &key,
            "-cert",
            &certificate,
        ]);
        let child = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let tls = Tls { child: child.expect("openssl can be started"), _files: files };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect((FREE, 443)).await.is_ok() {
                return tls;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the TLS server does not listen");
    }
}

/// A TLS server. Dropping it ends it.
pub(crate) struct Tls {
    child: Child,
    _files: TempDir,
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of what a program says that name a VM's tap.
fn about_taps(program: &str, arguments: &str) -> Vec<String> {
    let output = Command::new(program).args(arguments.split(' ')).output().expect("the program is there");
    assert!(output.status.success(), "{program} {arguments}");
    let names_one = |line: &&str| line.split("rds").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    String::from_utf8_lossy(&output.stdout).lines().filter(names_one).map(str::to_owned).collect()
}
