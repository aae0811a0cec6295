//! Many guests at once, and servers that are killed.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rds_egress::{Guest, Network, Policy};
use rds_lab::ears::WORLD;
use rds_netif::tap;

use crate::frames::{PORT, Way};
use crate::rig::{Rig, guest, inside, network, policy};

/// Set in a process that plays a server, to what it is to do.
const PLAY: &str = "RDS_PLAY";

/// Allowed in one of two policies.
const SOMETIMES: &str = "203.0.113.11";
/// Never allowed.
const NEVER: [&str; 4] = ["198.51.100.2", "172.16.0.1", "198.51.100.1", "10.9.9.9"];

fn policies() -> [Policy; 2] {
    [policy(&["203.0.113.10/32"]), policy(&["203.0.113.0/24"])]
}

/// Everything that there is of guests on this host: elements, taps, addresses, routes, neighbours.
fn left() -> Vec<String> {
    let asked = [
        ("nft", "list table inet rds"),
        ("ip", "-o link show"),
        ("ip", "-o addr show"),
        ("ip", "route show table all"),
        ("ip", "rule show"),
        ("ip", "neigh show"),
    ];
    let mut lines = Vec::new();
    for (program, arguments) in asked {
        let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let about_guests =
            |line: &&str| line.contains("rds") && !line.contains("\"rds*\"") && !line.starts_with("table");
        lines.extend(text.lines().filter(about_guests).map(str::to_owned));
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_once_leave_nothing() {
    if !inside("crowd::a_hundred_at_once_leave_nothing") {
        return;
    }
    let rig = Rig::new().await;
    let live = |network: Network, guest: Guest| async move {
        network.attach(guest, None).await.unwrap();
        network.open(guest, policies()[guest.number() as usize % 2].clone()).await.unwrap();
    };
    let all: Vec<_> = (0..100).map(|number| tokio::spawn(live(rig.network.clone(), guest(number)))).collect();
    for one in all {
        one.await.unwrap();
    }
    assert_eq!(rig.network.compare().await.unwrap(), None);
    let taps = left().iter().filter(|line| line.contains(": rds") && line.contains("mtu")).count();
    assert_eq!(taps, 100);
    let close = |network: Network, guest: Guest| async move { network.close(guest).await.unwrap() };
    // Half of them come back while the others go.
    let half: Vec<_> = (0..100).map(|number| tokio::spawn(close(rig.network.clone(), guest(number)))).collect();
    for (number, one) in (0_u32..).zip(half) {
        one.await.unwrap();
        if number % 2 == 0 {
            live(rig.network.clone(), guest(number)).await;
            close(rig.network.clone(), guest(number)).await;
        }
    }
    assert_eq!(left(), Vec::<String>::new());
    assert_eq!(rig.network.compare().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_lets_nothing_pass() {
    if std::env::var_os(PLAY).is_some() {
        return play().await;
    }
    if !inside("crowd::a_server_that_is_killed_lets_nothing_pass") {
        return;
    }
    let Rig { network: here, world: _world, ears } = Rig::new().await;
    drop(here);
    // A hostile monitor, which takes the tap whenever there is one, and never stops.
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let monitor = std::thread::spawn({
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        move || hammer(&stop, &sent)
    });
    let before = Instant::now();
    let mut rounds = 0_u64;
    while before.elapsed() < Duration::from_secs(15) {
        let mut server = server();
        // From before it has done anything to well within its changes.
        tokio::time::sleep(Duration::from_micros(rounds * 7_919 % 250_000)).await;
        server.kill().unwrap();
        server.wait().unwrap();
        rounds += 1;
    }
    stop.store(true, Ordering::Relaxed);
    monitor.join().unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;

    let never: Vec<String> = ears.all().into_iter().filter(|line| line.contains("never")).collect();
    assert_eq!(never, Vec::<String>::new());
    // And it was no wonder: something was sent all the time, and what may pass did.
    let sent = sent.load(Ordering::Relaxed);
    assert!(rounds > 20 && sent > 5_000, "{rounds} {sent}");
    assert!(ears.count(WORLD, "allowed") > 100 && ears.count(WORLD, "sometimes") > 10, "{:?}", ears.all());
    // The next one puts everything in order.
    network().await;
    assert_eq!(left(), Vec::<String>::new());
}

/// This test program once more, in this namespace, as a server.
fn server() -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crowd::a_server_that_is_killed_lets_nothing_pass"])
        .env(PLAY, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a server does for a VM, again and again.
async fn play() {
    let (network, [narrow, wide], one) = (network().await, policies(), guest(0));
    loop {
        // The monitor may hold the tap of the one before.
        if network.attach(one, None).await.is_ok() {
            network.open(one, narrow.clone()).await.unwrap();
            network.change(one, wide.clone()).await.unwrap();
            network.change(one, narrow.clone()).await.unwrap();
        }
        let _ = network.close(one).await;
    }
}

fn hammer(stop: &AtomicBool, sent: &AtomicUsize) {
    let one = guest(0);
    let honest = |to: &str, text: &str| Way::of(one, to).udp(PORT, text);
    let mut frames = vec![honest("203.0.113.10", "allowed"), honest(SOMETIMES, "sometimes")];
    frames.extend(NEVER.map(|to| honest(to, &format!("never {to}"))));
    frames.push(Way::of(one, "203.0.113.10").claiming("172.16.0.9").udp(PORT, "never by another source"));
    while !stop.load(Ordering::Relaxed) {
        let Ok(file) = tap::open(&one.tap()) else { continue };
        // Lets go of it when it is shut, so that a server can remove it.
        let mut refused = 0;
        while refused < 10 && !stop.load(Ordering::Relaxed) {
            for frame in &frames {
                let sent_one = std::io::Write::write_all(&mut &file, &[&[0; 10][..], frame].concat()).is_ok();
                refused = if sent_one { 0 } else { refused + 1 };
                sent.fetch_add(usize::from(sent_one), Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        drop(file);
        std::thread::sleep(Duration::from_millis(2));
    }
}
