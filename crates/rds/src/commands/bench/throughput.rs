//! How fast a guest sends to the world with a full list, beside the same guest and no rules at all. The host and the world are
//! network namespaces.

use std::fs;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use super::figure::{Figure, Limit, median, milliseconds};
use super::namespace::{apart, output, run};
use super::run::{command, sample};
use super::server::BenchServer;
use crate::api::CreateVm;
use crate::error::CliError;

/// Where the guest sends to; it is the last of its list.
const WORLD: &str = "203.0.113.10";

/// Sends datagrams of a full frame for as long as the figures may take. One program does, since starts of others would be
/// counted with it; it ends when a datagram is refused, as while the rules are changed.
const SEND: &str = "setsid bash -c 'while :; do dd if=/dev/zero bs=1400 > /dev/udp/203.0.113.10/9; done' \
                    > /dev/null 2>&1 < /dev/null &";

/// How long it is counted each time: short, for what else the machine does to disturb both ways alike.
const WINDOW: Duration = Duration::from_millis(500);

/// Times that it is counted for each round, both ways.
const WINDOWS_A_ROUND: usize = 6;

/// Measures in the namespace that this runs in.
pub(super) async fn measure(rounds: usize) -> Result<Figure, CliError> {
    run("ip", "link set lo up", "").await?;
    let bytes = Arc::new(AtomicU64::new(0));
    let ((ready, of_world), (_end, ended)) = (oneshot::channel(), oneshot::channel::<()>());
    let count = Arc::clone(&bytes);
    tokio::spawn(apart(move || world(ready, count, ended)));
    let world = of_world.await.map_err(|_| CliError::Failed("there is no world".into()))?;
    run("ip", &format!("link add up0 type veth peer name eth0 netns {}", world.thread), "").await?;
    for line in ["addr add 198.51.100.1/24 dev up0", "link set up0 up", "route add 203.0.113.10/32 dev up0"] {
        run("ip", line, "").await?;
    }
    let _ = world.linked.send(());
    let server = BenchServer::start_with(&[("NETWORK", "on"), ("ENABLE_SNAPSHOTS", "false")]).await?;
    let measured = sent(&server, &bytes, rounds).await;
    if let Some(pid) = Pid::from_raw(server.pid().cast_signed()) {
        let _ = kill_process(pid, Signal::CONT);
    }
    server.end().await;
    measured
}

/// The world, as soon as it has a thread.
struct World {
    thread: i32,
    linked: oneshot::Sender<()>,
}

/// Counts what arrives, until nobody wants to know.
async fn world(
    ready: oneshot::Sender<World>,
    bytes: Arc<AtomicU64>,
    ended: oneshot::Receiver<()>,
) -> Result<(), CliError> {
    let (linked, link) = oneshot::channel();
    let _ = ready.send(World { thread: rustix::thread::gettid().as_raw_nonzero().get(), linked });
    let _ = link.await;
    for line in [
        "link set eth0 up",
        "addr add 198.51.100.2/24 dev eth0",
        "addr add 203.0.113.10/32 dev eth0",
        "route add default via 198.51.100.1",
    ] {
        run("ip", line, "").await?;
    }
    let socket = UdpSocket::bind((WORLD, 9)).map_err(CliError::file("a socket"))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok(length) = socket.recv(&mut buffer) {
            bytes.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    let _ = ended.await;
    Ok(())
}

async fn sent(server: &BenchServer, bytes: &AtomicU64, rounds: usize) -> Result<Figure, CliError> {
    let client = server.client()?;
    let others = (0..63).map(|number| format!("192.0.2.{number}"));
    let allow_ips = others.chain([WORLD.to_owned()]).collect();
    let wish = CreateVm { outbound_internet: true, allow_ips, ..super::vm(256) };
    let vm = client.create_vm(&wish).await?.id;
    sample(&client, command(&client, &vm, SEND)).await?;
    while bytes.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nobody is to repair what is taken away. The guard cannot be flushed: it becomes a table like any other.
    let pid = Pid::from_raw(server.pid().cast_signed()).ok_or_else(|| CliError::Failed("a process".into()))?;
    kill_process(pid, Signal::STOP).map_err(|error| CliError::Failed(format!("the server: {error}")))?;
    run("nft", "flush set inet rds pace", "").await?;
    let rules = output("nft", "list ruleset").await?.replace("flags owner", "");
    end_guard(server.pid());
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..rounds * WINDOWS_A_ROUND {
        run("nft", "flush ruleset", "").await?;
        without.push(milliseconds_a_megabyte(bytes).await);
        run("nft", "-f -", &rules).await?;
        with.push(milliseconds_a_megabyte(bytes).await);
    }
    // 95 % of the throughput.
    let limit = Limit::Times(1.05);
    let name = "guest to world, 64 entries, a megabyte, p50";
    Ok(Figure::beside(name, median(&with), median(&without), "the same guest without any rules", limit))
}

async fn milliseconds_a_megabyte(bytes: &AtomicU64) -> f64 {
    // What is under way belongs to nobody.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (begun, before) = (Instant::now(), bytes.load(Ordering::Relaxed));
    tokio::time::sleep(WINDOW).await;
    let more = bytes.load(Ordering::Relaxed) - before;
    #[expect(clippy::cast_precision_loss, reason = "a count of some megabytes")]
    let megabytes = more as f64 / 1e6;
    milliseconds(begun) / megabytes
}

/// Ends the process that holds the server's second table.
fn end_guard(server: u32) {
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(process.path().join(name)).unwrap_or_default();
        if !read("cmdline").starts_with("rds-guard\0") || !read("status").contains(&format!("\nPPid:\t{server}\n")) {
            continue;
        }
        if let Some(pid) = process.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
