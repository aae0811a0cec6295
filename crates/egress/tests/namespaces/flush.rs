//! Somebody takes all rules away.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rds_lab::ears::{WORLD, label};
use rds_lab::run;

use crate::frames::{PORT, Way};
use crate::rig::{Rig, guest, inside, network, policy};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_rules_nothing_passes() {
    if !inside("flush::without_rules_nothing_passes") {
        return;
    }
    let rig = Rig::new().await;
    let one = rig.line(0, policy(&["203.0.113.10/32"])).await;
    let two = rig.line(1, policy(&["0.0.0.0/0"])).await;
    two.listen(&rig.ears, "two");
    let stop = Arc::new(AtomicBool::new(false));
    let sender = std::thread::spawn({
        let (stop, line, honest) = (Arc::clone(&stop), one.clone(), Way::of(one.guest, "203.0.113.10"));
        let never = [
            "203.0.113.11",
            "172.16.0.1",
            "198.51.100.1",
            "198.51.100.255",
            "255.255.255.255",
            "224.0.0.1",
            "172.16.0.3",
        ];
        // As many as fit in between: one of them is to be under way whenever rules come and go.
        let mut frames = vec![honest.claiming("8.8.8.8").udp(PORT, "never as another"); 20];
        frames.push(honest.udp(PORT, "allowed"));
        frames.extend(never.map(|to| Way::of(one.guest, to).udp(PORT, &format!("never {to}"))));
        move || {
            while !stop.load(Ordering::Relaxed) {
                frames.iter().for_each(|frame| line.send(frame).unwrap());
                std::thread::sleep(Duration::from_micros(300));
            }
        }
    });
    // The world and this host try the guests, too.
    rig.world.spawn(async || shout("never from the world").await);
    tokio::spawn(shout("never from the host"));

    for _ in 0..25 {
        let passed = rig.ears.count(WORLD, "allowed");
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert!(rig.ears.count(WORLD, "allowed") > passed, "nothing is sent");
        run(Command::new("nft").args(["flush", "ruleset"]));
        tokio::time::sleep(Duration::from_millis(40)).await;
        let passed = rig.ears.count(WORLD, "allowed");
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(rig.ears.count(WORLD, "allowed"), passed, "without rules");
        assert!(rig.network.compare().await.unwrap().is_some());
    }
    // Nobody else can take the guard away, and it does not end with the server.
    let refused = Command::new("nft").args(["delete", "table", "inet", "rds-guard"]).output().unwrap();
    assert!(!refused.status.success());
    drop(rig.network);
    run(Command::new("nft").args(["flush", "ruleset"]));
    a_moment().await;
    let passed = rig.ears.count(WORLD, "allowed");
    a_moment().await;
    assert_eq!(rig.ears.count(WORLD, "allowed"), passed, "without rules and without a server");

    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    let never: Vec<String> = rig.ears.all().into_iter().filter(|line| line.contains("never")).collect();
    assert_eq!(never, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_with_a_guests_own_address() {
    if !inside("flush::nothing_leaves_with_a_guests_own_address") {
        return;
    }
    let rig = Rig::new().await;
    let line = rig.line(0, policy(&["203.0.113.10/32"])).await;
    let way = Way::of(line.guest, "203.0.113.10");
    line.send(&way.udp(PORT, "before")).unwrap();
    run(Command::new("nft").args(["delete", "chain", "inet", "rds", "leave"]));
    for port in PORT + 1..PORT + 20 {
        line.send(&way.udp(port, "never")).unwrap();
    }
    a_moment().await;
    assert!(rig.network.compare().await.unwrap().is_some());
    // What was dropped is forgotten: it is not in the way of what is sent now.
    line.send(&way.udp(PORT + 1, "after")).unwrap();
    a_moment().await;
    assert_eq!(rig.ears.all(), ["the world: after × 1", "the world: before × 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guard_ends_with_a_server_that_has_no_guests() {
    if !inside("flush::the_guard_ends_with_a_server_that_has_no_guests") {
        return;
    }
    let (first, guarded) = (network().await, ["table inet rds", "table inet rds-guard"]);
    assert_eq!(tables(), guarded);
    drop(first);
    let second = network().await;
    assert_eq!(tables(), guarded, "the next server goes on with it");
    second.attach(guest(0), None).await.unwrap();
    second.open(guest(0), policy(&[])).await.unwrap();
    second.end().await.unwrap();
    assert_eq!(tables(), guarded, "there is a guest");
    second.close(guest(0)).await.unwrap();
    second.end().await.unwrap();
    a_moment().await;
    assert_eq!(tables(), ["table inet rds"]);
}

fn tables() -> Vec<String> {
    let output = Command::new("nft").args(["list", "tables"]).output().unwrap();
    let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Tries a guest's ports, one after the other.
async fn shout(what: &str) {
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
    for port in (1..=u16::MAX).cycle() {
        let _ = socket.send_to(&label(what), ("172.16.0.3", port)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
