//! What guests and monitors may take of what there is once for the whole host.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rds_egress::{Network, Policy};
use rds_lab::ears::{HERE, WORLD, label};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frames::{PORT, Way};
use crate::rig::{MONITORS, Rig, Stack, guest, inside, network, policy, serve_here, settings};

const TO: &str = "203.0.113.10";
const ALLOWED: &str = "203.0.113.10/32";

/// Connections in this host's table, all zones.
fn connections() -> usize {
    let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
    count.trim().parse().unwrap()
}

/// Datagrams of this host that wait for the rest of them.
fn unfinished() -> usize {
    let facts = std::fs::read_to_string("/proc/thread-self/net/sockstat").unwrap();
    let line = facts.lines().find_map(|line| line.strip_prefix("FRAG: inuse ")).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_guest_does_not_fill_the_table_of_connections() {
    if !inside("limits::one_guest_does_not_fill_the_table_of_connections") {
        return;
    }
    let rig = Rig::new().await;
    let before = connections();
    let one = rig.line(0, policy(&[ALLOWED])).await;
    let two = rig.line(1, policy(&[ALLOWED])).await;
    // Who is silent for a while is not forgotten.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let way = Way::of(one.guest, TO);
    for from in [PORT, PORT + 1] {
        for port in 10_000..u16::MAX {
            one.send(&way.udp_between(from, port, "flood")).unwrap();
        }
    }
    rig.settle().await;
    let taken = connections() - before;
    assert!((2_000..2_010).contains(&taken), "{taken}");
    // What it has goes on, and others have their own.
    let passed = rig.ears.count(WORLD, "flood");
    one.send(&way.udp_between(PORT, 10_000, "flood")).unwrap();
    two.send(&Way::of(two.guest, TO).udp(PORT, "another's")).unwrap();
    rig.settle().await;
    assert_eq!((rig.ears.count(WORLD, "flood"), rig.ears.count(WORLD, "another's")), (passed + 1, 1));
    // What it did is nothing of the next one's with its number.
    drop(one);
    let counted = rig.network.close(guest(0)).await.unwrap();
    let left = Command::new("nft").args(["list", "set", "inet", "rds", "flows"]).output().unwrap();
    let left = String::from_utf8(left.stdout).unwrap();
    assert!(left.contains("\"rds1\"") && !left.contains("\"rds0\""), "{left}");
    assert!(counted.dropped.packets > 100_000 && counted.sent.packets > 2_000, "{counted:?}");
    let next = rig.line(0, policy(&[ALLOWED])).await;
    next.send(&way.udp(PORT, "the next one's")).unwrap();
    rig.settle().await;
    assert_eq!(rig.ears.count(WORLD, "the next one's"), 1);
    assert_eq!(rig.network.compare().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_at_once_do_not_fill_it_either() {
    if !inside("limits::connections_that_end_at_once_do_not_fill_it_either") {
        return;
    }
    let rig = Rig::new().await;
    rds_lab::servers::start(&rig.world).await;
    let one = Stack::behind(rig.line(0, policy(&[ALLOWED])).await, &rig.ears, "one").await;
    let made = one
        .space
        .run(async || {
            let (begun, mut made) = (Instant::now(), 0_usize);
            while begun.elapsed() < Duration::from_secs(6) {
                let stream = timeout(Duration::from_millis(50), TcpStream::connect((TO, 80))).await;
                made += usize::from(stream.is_ok_and(|stream| stream.is_ok()));
            }
            made
        })
        .await;
    assert!(made > 1_000 && connections() < 2_000 + 2_000 + 700, "{made} made, {}", connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_forgotten() {
    if !inside("limits::silent_connections_are_forgotten") {
        return;
    }
    let rig = Rig::new().await;
    rds_lab::servers::start(&rig.world).await;
    let one = Stack::behind(rig.line(0, policy(&[ALLOWED])).await, &rig.ears, "one").await;
    assert!(one.reaches("203.0.113.10:443").await || one.reaches("203.0.113.10:80").await);
    let left: Vec<u32> = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack")
        .unwrap()
        .lines()
        .filter(|line| line.contains("src=172.16.0.2 "))
        .map(|line| line.split_whitespace().nth(4).unwrap().parse().unwrap())
        .collect();
    assert!(!left.is_empty() && left.iter().all(|seconds| *seconds <= 1_200), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reaches_nothing_leaves_no_fragments() {
    if !inside("limits::who_reaches_nothing_leaves_no_fragments") {
        return;
    }
    let rig = Rig::new().await;
    let nothing = [policy(&[]), Policy { outbound: false, ..policy(&[ALLOWED]) }];
    for (number, policy) in (0..).zip(nothing) {
        let line = rig.line(number, policy).await;
        for id in 0..500 {
            let [first, second] = Way::of(line.guest, TO).halves(id, "half");
            line.send(&first).unwrap();
            line.send(&second).unwrap();
            line.send(&Way::of(line.guest, TO).halves(id + 500, "half")[0]).unwrap();
        }
    }
    assert_eq!(unfinished(), 0);
    let other = rig.line(2, policy(&[ALLOWED])).await;
    other.send(&Way::of(other.guest, TO).halves(1, "half")[0]).unwrap();
    assert_eq!(unfinished(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_come_at_a_pace() {
    if !inside("limits::questions_come_at_a_pace") {
        return;
    }
    let rig = Rig::new().await;
    let resolver = tokio::net::UdpSocket::bind("0.0.0.0:53").await.unwrap();
    let by_name = || Policy { by_name: true, ..policy(&[]) };
    let (one, two) = (rig.line(0, by_name()).await, rig.line(1, by_name()).await);
    for _ in 0..5_000 {
        one.send(&Way::of(one.guest, "172.16.0.1").udp(53, "one asks")).unwrap();
    }
    two.send(&Way::of(two.guest, "192.0.2.53").udp(53, "two asks")).unwrap();
    let (mut asked, mut buffer) = ([0, 0], [0; 256]);
    while let Ok(Ok((_, from))) = timeout(Duration::from_millis(300), resolver.recv_from(&mut buffer)).await {
        asked[usize::from(from.ip() == two.guest.address())] += 1;
    }
    assert!((200..250).contains(&asked[0]) && asked[1] == 1, "{asked:?}");
    assert_eq!(rig.network.look().await.unwrap().1.len(), 0, "that is no destination to tell of");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_among_private_addresses_answers_who_may_reach_all() {
    if !inside("limits::a_resolver_among_private_addresses_answers_who_may_reach_all") {
        return;
    }
    let rig = Rig::new().await;
    rds_lab::servers::start(&rig.world).await;
    rig.world.spawn(async || {
        let bind = async |address| tokio::net::TcpListener::bind((address, 53)).await.unwrap();
        let (one, two) = (bind("10.9.9.9").await, bind("168.63.129.16").await);
        loop {
            let accepted = tokio::select! { stream = one.accept() => stream, stream = two.accept() => stream };
            tokio::io::AsyncWriteExt::write_all(&mut accepted.unwrap().0, b"answer").await.unwrap();
        }
    });
    let _here = serve_here(53).await;
    let one = Stack::behind(rig.line(0, Policy::default()).await, &rig.ears, "one").await;
    let way = Way::of(one.line.guest, "10.9.9.9");
    // Two of the world's, and one on this host.
    for resolver in ["10.9.9.9", "168.63.129.16", "198.51.100.1"] {
        let asking = |allow: &[&str]| Policy { resolver: Some(resolver.parse().unwrap()), ..policy(allow) };
        let to = format!("{resolver}:53");
        rig.network.change(one.line.guest, asking(&["0.0.0.0/0"])).await.unwrap();
        assert!(one.reaches(&to).await, "{resolver}");
        assert!(!one.reaches(&format!("{resolver}:80")).await, "{resolver}");
        rig.network.change(one.line.guest, asking(&["203.0.113.0/24"])).await.unwrap();
        assert!(!one.reaches(&to).await, "{resolver}");
        assert_eq!(rig.network.compare().await.unwrap(), None);
    }
    let resolver = Some("10.9.9.9".parse().unwrap());
    rig.network.change(one.line.guest, Policy { resolver, ..policy(&["0.0.0.0/0"]) }).await.unwrap();
    one.line.send(&way.udp(53, "a question")).unwrap();
    one.line.send(&way.udp(54, "never")).unwrap();
    one.line.send(&way.ping("never")).unwrap();
    rig.settle().await;
    assert_eq!((rig.ears.count(WORLD, "a question"), rig.ears.count(WORLD, "never")), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_has_no_way_but_its_taps() {
    if !inside("limits::a_monitor_has_no_way_but_its_taps") {
        return;
    }
    let rig = Rig::new().await;
    let send = |user: u32, to: &str, what: &str| {
        let text = String::from_utf8(label(what)).unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", &format!("printf %s '{text}' > /dev/udp/{to}/4000")]);
        command.uid(user).gid(user).status().unwrap();
    };
    for user in [0, MONITORS.start() - 1, *MONITORS.start(), *MONITORS.end(), MONITORS.end() + 1] {
        send(user, TO, &format!("by {user}"));
        send(user, "127.0.0.1", &format!("by {user}"));
    }
    rig.settle().await;
    let heard = |user: u32| rig.ears.count(WORLD, &format!("by {user}")) + rig.ears.count(HERE, &format!("by {user}"));
    let others = [0, MONITORS.start() - 1, MONITORS.end() + 1].map(heard);
    assert!(others.iter().all(|heard| *heard > 0), "{others:?} {:?}", rig.ears.all());
    assert_eq!([*MONITORS.start(), *MONITORS.end()].map(heard), [0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_network_takes_it_from_its_guests() {
    if !inside("limits::a_server_without_a_network_takes_it_from_its_guests") {
        return;
    }
    let rig = Rig::new().await;
    let lines = [rig.line(0, policy(&[ALLOWED])).await, rig.line(1, policy(&[ALLOWED])).await];
    let send = |text: &str| {
        for line in &lines {
            let _ = line.send(&Way::of(line.guest, TO).udp(PORT, &format!("{text} {}", line.guest.number())));
        }
    };
    // A server that runs has these taps.
    rds_egress::shut(vec![0]).await.unwrap();
    send("with");
    rig.settle().await;
    let Rig { network: old, world: _world, ears } = rig;
    drop(old);
    let _bound = bind_like_a_lock();
    send("after");
    rds_egress::shut(vec![0, 7]).await.unwrap();
    send("without");
    tokio::time::sleep(Duration::from_millis(400)).await;
    let heard =
        ["with 0", "with 1", "after 0", "after 1", "without 0", "without 1"].map(|text| ears.count(WORLD, text));
    assert_eq!(heard, [1, 1, 1, 1, 0, 1]);
    // Nothing is left to do.
    rds_egress::shut(vec![0]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_holds_both_ways_and_for_one_guest_alone() {
    if !inside("limits::a_rate_holds_both_ways_and_for_one_guest_alone") {
        return;
    }
    const PACKETS: usize = 600;
    let rig = Rig::new().await;
    let slow = Policy { bytes_per_second: Some(20_000), ..policy(&[ALLOWED]) };
    let lines = [rig.line(0, slow.clone()).await, rig.line(1, policy(&[ALLOWED])).await];
    let socket = rig.world.run(async || std::net::UdpSocket::bind((TO, PORT)).unwrap()).await;
    std::thread::spawn(move || {
        let mut buffer = [0; 2_000];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            if !buffer[..length].ends_with(b"back;") {
                continue;
            }
            for round in 0..PACKETS {
                socket.send_to(&[&label("back")[..], &[0; 950]].concat(), from).unwrap();
                // A tap has room for a few.
                if round % 20 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    });
    for line in &lines {
        line.listen(&rig.ears, &format!("guest {}", line.guest.number()));
    }
    let try_both_ways = async |round: &str| {
        for line in &lines {
            let way = Way::of(line.guest, TO);
            let (word, filling) = (format!("{round} {}", line.guest.number()), "x".repeat(900));
            for _ in 0..PACKETS {
                line.send(&way.udp(PORT, &format!("{word};{filling}"))).unwrap();
            }
            rig.settle().await;
            // The server has forgotten what it had no time for.
            line.send(&way.udp(PORT, "send back")).unwrap();
            rig.settle().await;
        }
        [0, 1].map(|number| {
            let back = rig.ears.count(&format!("guest {number}"), "back");
            (rig.ears.count(WORLD, &format!("{round} {number}")), back)
        })
    };
    let [(sent, received), fast] = try_both_ways("first").await;
    assert!((130..450).contains(&sent) && (130..450).contains(&received), "{sent} {received}");
    assert_eq!(fast, (PACKETS, PACKETS));
    assert_eq!(rig.network.compare().await.unwrap(), None, "it is found as it was written");
    let (counted, _) = rig.network.look().await.unwrap();
    assert!(counted[&0].dropped.packets > 100 && counted[&1].dropped.packets == 0, "{counted:?}");
    rig.network.change(guest(0), Policy { bytes_per_second: Some(2 << 20), ..slow }).await.unwrap();
    let [(sent, back), _] = try_both_ways("second").await;
    assert_eq!((sent, back - received), (PACKETS, PACKETS));
    assert_eq!(rig.network.compare().await.unwrap(), None);
}

/// A name that any process of a network namespace can have to itself, as long as it likes.
fn bind_like_a_lock() -> UnixListener {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name("run-dat-sheesh.network").unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_a_server_has_the_network_to_himself() {
    if !inside("limits::nobody_but_a_server_has_the_network_to_himself") {
        return;
    }
    let _bound = bind_like_a_lock();
    let make = |user: u32| {
        let mut command = Command::new("ip");
        command.args(["tuntap", "add", "dev", "run-dat-sheesh", "mode", "tun"]).uid(user).gid(user);
        command.output().unwrap().status.success()
    };
    assert!(!make(*MONITORS.start()));
    let first = network().await;
    assert!(!make(*MONITORS.start()) && !make(0), "it is held");
    let refused = Network::take(&settings()).await.unwrap_err();
    assert_eq!(refused, "another server on this host has the network");
    drop(first);
    assert!(!make(*MONITORS.start()));
    network().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_whose_making_was_given_up_is_gone_after_its_end() {
    if !inside("limits::a_tap_whose_making_was_given_up_is_gone_after_its_end") {
        return;
    }
    let network = network().await;
    for micros in (0..100).map(|round| round * 40) {
        let making = network.attach(guest(0), None);
        let _ = timeout(Duration::from_micros(micros), making).await;
        network.close(guest(0)).await.unwrap();
        assert!(!rds_netif::names().unwrap().contains(&guest(0).tap()), "after {micros} µs");
    }
}
