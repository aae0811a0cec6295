//! Packets that no honest guest sends.

use std::net::Ipv4Addr;

use rds_lab::ears::{WORLD, label};

use crate::frames::{PORT, Way, arp, frame};
use crate::rig::{Line, METADATA, Rig, guest, inside, policy, subnet};

/// The one address that the attacker may reach.
const ALLOWED: &str = "203.0.113.10";
/// One that it may not.
const FORBIDDEN: &str = "203.0.113.11";

const BROADCAST: [u8; 6] = [0xff; 6];
/// 224.0.0.1 on Ethernet.
const ALL_HOSTS: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
/// ff02::1 on Ethernet.
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

fn shell(program: &str, arguments: &str) -> String {
    let output = std::process::Command::new(program).args(arguments.split(' ')).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the host believes of its networks.
fn beliefs() -> String {
    let asked = ["addr show", "-4 route show table all", "-6 route show table all", "neigh show", "-6 neigh show"];
    // Neighbours of the world's link come and go.
    // The kernel learns a moment after a tap was opened that it is up.
    let told = asked.map(|what| shell("ip", what).replace(" state UNKNOWN", " state UP"));
    let mut lines: Vec<&str> = told.iter().flat_map(|told| told.lines()).filter(|line| line.contains("rds")).collect();
    // The kernel tells of neighbours in the order of a table that it makes anew when they are many.
    lines.sort_unstable();
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_that_should_not() {
    if !inside("attacks::nothing_passes_that_should_not") {
        return;
    }
    let rig = Rig::new().await;
    let one = rig.line(0, policy(&["203.0.113.10/32"])).await;
    let two = rig.line(1, policy(&["0.0.0.0/0", "172.16.0.0/12"])).await;
    two.listen(&rig.ears, "two");
    let before = beliefs();
    let honest = Way::of(one.guest, ALLOWED);
    one.send(&honest.udp(PORT, "honest")).unwrap();
    rig.settle().await;
    assert_eq!(rig.ears.all(), ["the world: honest × 1"], "the ears work");

    // Twice: what the first one leaves behind is to be no help to the second.
    for _ in 0..2 {
        for attack in attacks(&one, &two) {
            // The kernel itself refuses some.
            let _ = one.send(&attack);
        }
        rig.settle().await;
    }
    one.send(&honest.udp(PORT, "honest")).unwrap();
    let [first, second] = honest.halves(99, "in halves");
    one.send(&first).unwrap();
    one.send(&second).unwrap();
    rig.settle().await;
    assert_eq!(rig.ears.all(), ["the world: honest × 2", "the world: in halves × 1"]);
    assert_eq!(beliefs(), before);
}

/// All of them, as sent by `one`; `two` is the other guest. Each has a label.
fn attacks(one: &Line, two: &Line) -> Vec<Vec<u8>> {
    let mut all = false_sources(one, two);
    all.extend(forbidden_destinations(one, two));
    all.extend(odd_packets(one));
    all.extend(fragments(one));
    all.extend(other_protocols(one, two));
    all
}

fn false_sources(one: &Line, two: &Line) -> Vec<Vec<u8>> {
    let honest = Way::of(one.guest, ALLOWED);
    let mut all = Vec::new();
    for source in [
        "172.16.0.3",
        "172.16.0.1",
        "172.16.0.77",
        "198.51.100.1",
        "198.51.100.2",
        "8.8.8.8",
        "0.0.0.0",
        "127.0.0.1",
        "255.255.255.255",
        "224.0.0.1",
    ] {
        for to in [ALLOWED, FORBIDDEN, "172.16.0.1", "198.51.100.1", "172.16.0.3"] {
            let way = Way::of(one.guest, to).claiming(source);
            all.push(way.udp(PORT, &format!("from {source} to {to}")));
            all.push(way.tcp(80, "S", &format!("tcp from {source} to {to}")));
        }
    }
    for mac in [two.guest.mac().0, subnet().gateway_mac().0, [2, 0, 0, 0, 0, 9], BROADCAST, [0; 6]] {
        all.push(Way { from_mac: mac, ..honest }.udp(PORT, &format!("by {mac:?}")));
    }
    // Wholly the other guest.
    all.push(Way::of(two.guest, ALLOWED).udp(PORT, "as the other guest"));
    all
}

fn forbidden_destinations(one: &Line, two: &Line) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let others = [
        FORBIDDEN,
        "172.16.0.1",
        "172.16.0.2",
        "172.16.0.3",
        "172.16.0.255",
        "198.51.100.1",
        "198.51.100.255",
        "127.0.0.1",
        "0.0.0.0",
        "10.9.9.9",
        METADATA,
        "224.0.0.1",
        "224.0.0.251",
        "239.1.2.3",
        "255.255.255.255",
    ];
    for to in others {
        for to_mac in [subnet().gateway_mac().0, two.guest.mac().0, BROADCAST, ALL_HOSTS] {
            let way = Way { to_mac, ..Way::of(one.guest, to) };
            for port in [53, 67, 80, 443, 1900, 5353, 15_080] {
                all.push(way.udp(port, &format!("udp {port} to {to}")));
                all.push(way.tcp(port, "S", &format!("tcp {port} to {to}")));
            }
            for flags in ["A", "F", "R", "SA", "PA"] {
                all.push(way.tcp(80, flags, &format!("{flags} to {to}")));
            }
            all.push(way.ping(&format!("ping to {to}")));
            all.push(way.protocol(253, &label(&format!("253 to {to}"))));
        }
    }
    // A resolver, over TCP, in the middle of a connection that never was.
    all.push(Way::of(one.guest, "198.51.100.2").tcp(53, "PA", "dns over tcp"));
    all
}

fn odd_packets(one: &Line) -> Vec<Vec<u8>> {
    let (honest, forbidden) = (Way::of(one.guest, ALLOWED), Way::of(one.guest, FORBIDDEN));
    let by = |to: [u8; 4], kind: u8| [&[kind, 7, 4], &to[..], &[0]].concat();
    let mut all = vec![
        // Loose and strict source routes, a record of the route, a router's alert, time stamps.
        honest.options(&by([203, 0, 113, 11], 0x83), "loose source route"),
        honest.options(&by([203, 0, 113, 11], 0x89), "strict source route"),
        honest.options(&by([0; 4], 7), "record route"),
        honest.options(&[0x94, 4, 0, 0], "router alert"),
        honest.options(&[0x44, 8, 5, 0, 0, 0, 0, 0], "time stamp"),
        honest.options(&[1, 1, 1, 0], "nothing"),
        // Errors about connections of nobody's.
        honest.icmp(5, 1, &[&[0x45, 0, 0, 28], &label("redirect")[..]].concat()),
        forbidden.icmp(3, 4, &[&[0x45, 0, 0, 28], &label("too big")[..]].concat()),
        Way::of(one.guest, "172.16.0.1").icmp(5, 1, &[&[0x45, 0, 0, 28], &label("redirect the host")[..]].concat()),
        // A packet in a packet, and tunnels.
        forbidden.protocol(4, &honest.udp(PORT, "in a packet")[14..]),
        forbidden.protocol(47, &[&[0, 0, 8, 0], &honest.udp(PORT, "in a tunnel")[14..]].concat()),
        forbidden.protocol(2, &label("igmp")),
        forbidden.protocol(132, &label("sctp")),
    ];
    let mut wrong = honest.udp(PORT, "wrong checksum");
    wrong[24] ^= 1;
    let mut longer = honest.udp(PORT, "longer than it is");
    longer[16] = 0x20;
    let mut six = forbidden.udp(PORT, "version six");
    six[14] = 0x65;
    all.extend([wrong, longer, six, honest.udp(PORT, "short")[..30].to_vec()]);
    all
}

fn fragments(one: &Line) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let ways = [
        ("forbidden", Way::of(one.guest, FORBIDDEN)),
        ("gateway", Way::of(one.guest, "172.16.0.1")),
        ("host", Way::of(one.guest, "198.51.100.1")),
        ("other guest", Way::of(one.guest, "172.16.0.3")),
        ("false source", Way::of(one.guest, ALLOWED).claiming("172.16.0.3")),
    ];
    for (id, (name, way)) in (1_u16..).zip(ways) {
        let [first, second] = way.halves(id, &format!("halves, {name}"));
        all.extend([second.clone(), first.clone(), second]);
    }
    // The first half is honest, the second one is another's; and the other way round.
    let honest = Way::of(one.guest, ALLOWED);
    let [_, false_half] = honest.claiming("172.16.0.3").halves(50, "half false");
    let [honest_half, _] = honest.halves(50, "half honest");
    let [_, elsewhere] = Way::of(one.guest, FORBIDDEN).halves(50, "half elsewhere");
    all.extend([honest_half, false_half, elsewhere]);
    // A header in pieces of eight bytes, and parts that lie over others.
    let way = Way::of(one.guest, FORBIDDEN);
    let body = [&[0x0f, 0xa0, 0x0f, 0xa0, 0, 32, 0, 0][..], &label("in pieces")].concat();
    all.extend((0..3_u16).map(|at| way.fragment(60, at * 8, at < 2, &body[usize::from(at) * 8..][..8])));
    all.push(honest.fragment(61, 0, true, &label("overlapping")[..16]));
    all.push(way.fragment(61, 8, false, &label("overlapping")));
    all
}

fn other_protocols(one: &Line, two: &Line) -> Vec<Vec<u8>> {
    let (mac, gateway_mac) = (one.guest.mac().0, subnet().gateway_mac().0);
    let (own, other, gateway) = (one.guest.address(), two.guest.address(), subnet().gateway());
    let mut all = Vec::new();
    for address in [gateway, other, own, Ipv4Addr::new(198, 51, 100, 2)] {
        // Gratuitous, both ways, and questions.
        all.extend([arp(mac, 1, mac, address, address), arp(mac, 2, mac, address, address)]);
        all.push(arp(mac, 1, mac, own, address));
    }
    // A router's advertisement, a neighbour's, a question, a datagram; and as IPv4 would be.
    for to in [ALL_NODES, gateway_mac, two.guest.mac().0] {
        for (next, body) in [
            (58, &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0][..]),
            (58, &[136, 0, 0, 0, 0x20, 0, 0, 0]),
            (58, &[135, 0, 0, 0, 0, 0, 0, 0]),
            (17, &[0x0f, 0xa0, 0x0f, 0xa0, 0, 40, 0, 0]),
        ] {
            let body = [body, &label("version six")].concat();
            let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, next, 255];
            packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
            packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            packet.extend(body);
            all.push(frame(to, mac, 0x86dd, &packet));
        }
    }
    // In a VLAN, twice in one; PPPoE, a bridge's talk, a loop, nothing known.
    let inner = Way::of(one.guest, FORBIDDEN).udp(PORT, "in a vlan")[14..].to_vec();
    all.push(frame(gateway_mac, mac, 0x8100, &[&[0, 5, 8, 0], &inner[..]].concat()));
    all.push(frame(gateway_mac, mac, 0x8100, &[&[0, 0, 8, 0], &inner[..]].concat()));
    all.push(frame(gateway_mac, mac, 0x88a8, &[&[0, 5, 0x81, 0, 0, 6, 8, 0], &inner[..]].concat()));
    for kind in [0x8864, 0x88cc, 0x9000, 0x1234, 0x0026] {
        all.push(frame([1, 0x80, 0xc2, 0, 0, 0], mac, kind, &label(&format!("type {kind:x}"))));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_that_is_not_open_passes_nothing() {
    if !inside("attacks::a_tap_that_is_not_open_passes_nothing") {
        return;
    }
    let rig = Rig::new().await;
    rig.network.attach(guest(0), None).await.unwrap();
    rig.network.attach_nobody(None).await.unwrap();
    let line = Line::of(guest(0));
    let way = Way::of(line.guest, ALLOWED);
    let _ = line.send(&way.udp(PORT, "before"));
    rig.network.open(line.guest, policy(&["0.0.0.0/0"])).await.unwrap();
    line.send(&way.udp(PORT, "while")).unwrap();
    rig.settle().await;
    assert_eq!(rig.ears.count(WORLD, "while"), 1);
    // The monitor still holds it, so it cannot be removed; but it is shut.
    rig.network.close(line.guest).await.unwrap_err();
    let _ = line.send(&way.udp(PORT, "after"));
    rig.settle().await;
    // Even if somebody brings it up.
    rds_lab::ip("link set rds0 up");
    let _ = line.send(&way.udp(PORT, "brought up"));
    // A machine that makes a seed is nobody's.
    let nobody = rds_netif::tap::open("rds-seed").unwrap();
    rds_lab::ip("link set rds-seed up");
    std::io::Write::write_all(&mut &nobody, &[&[0; 10][..], &way.udp(PORT, "nobody's")].concat()).unwrap();
    rig.settle().await;
    assert_eq!(rig.ears.all(), ["the world: while × 1"]);
}
