//! What `allowIps` opens, and nothing else, with a guest that has a kernel of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rds_egress::{Network, Policy};
use rds_lab::ears::{HERE, WORLD, label};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::frames::{PORT, Way};
use crate::rig::{Line, Rig, Stack, guest, inside, policy, serve_here, settings};

/// A service of the host's, such as the server's own API.
const SERVICE: u16 = 3_000;

/// Everything that a guest could want to reach; the rest of each line are the entries that let it.
const DESTINATIONS: [(&str, &[&str]); 8] = [
    ("203.0.113.10:80", &["203.0.113.10/32", "203.0.113.0/24", "192.0.0.0/2", "0.0.0.0/0"]),
    ("203.0.113.11:443", &["203.0.113.0/24", "192.0.0.0/2", "0.0.0.0/0"]),
    ("198.51.100.2:80", &["192.0.0.0/2", "0.0.0.0/0"]),
    ("10.9.9.9:80", &["10.9.9.9/32", "10.0.0.0/8"]),
    ("169.254.169.254:80", &["169.254.169.254/32"]),
    ("168.63.129.16:80", &["168.63.129.16/32"]),
    ("172.16.0.1:3000", &["172.16.0.1/32"]),
    ("198.51.100.1:3000", &["198.51.100.1/32"]),
];

/// All entries above, and some that open nothing of it.
const ENTRIES: [&str; 15] = [
    "203.0.113.10/32",
    "203.0.113.0/24",
    "192.0.0.0/2",
    "0.0.0.0/0",
    "10.9.9.9/32",
    "10.0.0.0/8",
    "169.254.169.254/32",
    "168.63.129.16/32",
    "168.63.129.16/31",
    "172.16.0.1/32",
    "198.51.100.1/32",
    "172.16.0.3/32",
    "172.16.0.0/12",
    "127.0.0.1/32",
    "203.0.113.12/31",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_opens_what_it_names_and_nothing_else() {
    if !inside("addresses::an_entry_opens_what_it_names_and_nothing_else") {
        return;
    }
    let rig = Rig::new().await;
    rds_lab::servers::start(&rig.world).await;
    let here = serve_here(SERVICE).await;
    let one = Stack::behind(rig.line(0, Policy::default()).await, &rig.ears, "one").await;
    let two = Stack::behind(rig.line(1, policy(&["0.0.0.0/0"])).await, &rig.ears, "two").await;
    two.space.spawn(async || {
        let listener = TcpListener::bind(("0.0.0.0", 80)).await.unwrap();
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"two").await.unwrap();
        }
    });

    for entry in ENTRIES {
        rig.network.change(one.line.guest, policy(&[entry])).await.unwrap();
        for (to, by) in DESTINATIONS {
            assert_eq!(one.reaches(to).await, by.contains(&entry), "{to} with {entry}");
        }
        assert!(!one.reaches("172.16.0.3:80").await, "another guest, with {entry}");
    }
    // All of them, but nothing is to leave.
    let allow = ENTRIES.map(|entry| entry.parse().unwrap()).into();
    rig.network.change(one.line.guest, Policy { allow, ..Policy::default() }).await.unwrap();
    here.lock().unwrap().clear();
    for (to, _) in DESTINATIONS {
        assert!(!one.reaches(to).await, "{to}");
    }
    assert!(here.lock().unwrap().is_empty());
    // The other one reached what it may all the time.
    assert!(two.reaches("203.0.113.10:80").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_guest_and_the_host_are_out_of_reach_on_every_port() {
    if !inside("addresses::another_guest_and_the_host_are_out_of_reach_on_every_port") {
        return;
    }
    let rig = Rig::new().await;
    let everything = ["0.0.0.0/0", "172.16.0.0/12", "172.16.0.3/32", "169.254.0.0/16"];
    let one = rig.line(0, policy(&everything)).await;
    let two = rig.line(1, policy(&everything)).await;
    two.listen(&rig.ears, "two");
    for to in ["172.16.0.3", "172.16.0.1", "198.51.100.1"] {
        let way = Way::of(one.guest, to);
        for port in 1..=u16::MAX {
            one.send(&way.udp(port, "udp")).unwrap();
            one.send(&way.tcp(port, "S", "tcp")).unwrap();
        }
        one.send(&way.ping("ping")).unwrap();
    }
    one.send(&Way::of(one.guest, "203.0.113.10").udp(PORT, "honest")).unwrap();
    rig.settle().await;
    assert_eq!(rig.ears.all(), ["the world: honest × 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_outside_reaches_a_guest() {
    if !inside("addresses::nobody_outside_reaches_a_guest") {
        return;
    }
    let rig = Rig::new().await;
    let stack = Stack::behind(rig.line(0, policy(&["0.0.0.0/0", "172.16.0.1/32"])).await, &rig.ears, "one").await;
    stack.space.spawn(async || {
        let listener = TcpListener::bind(("0.0.0.0", 80)).await.unwrap();
        let _ = listener.accept().await;
    });
    let opened = rig
        .world
        .run(async || {
            let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
            socket.send_to(&label("from the world"), ("172.16.0.2", PORT)).await.unwrap();
            let stream = TcpStream::connect("172.16.0.2:80");
            timeout(Duration::from_secs(2), stream).await.is_ok_and(|opened| opened.is_ok())
        })
        .await;
    assert!(!opened);
    // Nor does the host itself begin anything.
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let _ = socket.send_to(&label("from the host"), ("172.16.0.2", PORT)).await;
    rig.settle().await;
    assert_eq!(rig.ears.count("one", "from the world") + rig.ears.count("one", "from the host"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_when_its_rule_is_withdrawn() {
    if !inside("addresses::a_connection_ends_when_its_rule_is_withdrawn") {
        return;
    }
    let rig = Rig::new().await;
    // Both ends of each connection talk all the time.
    rig.world.spawn(async || chatter("0.0.0.0:81").await);
    tokio::spawn(chatter("0.0.0.0:82"));
    rig.settle().await;
    let both = policy(&["203.0.113.10/32", "172.16.0.1/32", "203.0.113.11/32"]);
    let one = Stack::behind(rig.line(0, both.clone()).await, &rig.ears, "one").await;
    one.space.spawn(async || {
        for to in ["203.0.113.10:81", "172.16.0.1:82"] {
            let stream = TcpStream::connect(to).await.unwrap();
            tokio::task::spawn(talk(stream, "asked"));
        }
        let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        loop {
            let _ = socket.send_to(&label("datagram"), ("203.0.113.10", PORT)).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let counts = || {
        let ears = &rig.ears;
        [(WORLD, "asked"), (HERE, "asked"), ("one", "told"), (WORLD, "datagram")].map(|(at, what)| ears.count(at, what))
    };
    // The kernel learns a moment after a link came up that it is there; what is sent before is sent again a second later.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) && !counts().iter().all(|count| *count > 10) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = counts();
    assert!(before.iter().all(|count| *count > 10), "{before:?}");

    rig.network.change(one.line.guest, policy(&["203.0.113.11/32"])).await.unwrap();
    let withdrawn = counts();
    rig.settle().await;
    let after = counts();
    // What the kernel had passed may have been on its way to the ear.
    assert!(after.iter().zip(withdrawn).all(|(after, then)| *after <= then + 3), "{withdrawn:?} {after:?}");
    assert_eq!(
        {
            rig.settle().await;
            counts()
        },
        after
    );

    // What a guest that is gone had open is nothing of the next one's with its number.
    rig.network.change(one.line.guest, both).await.unwrap();
    rig.settle().await;
    drop(one);
    rig.network.close(guest(0)).await.unwrap_err();
    rig.settle().await;
    let closed = counts();
    rig.settle().await;
    assert_eq!(counts(), closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guest_had_open_is_nothing_of_the_next_one_with_its_address() {
    if !inside("addresses::what_a_guest_had_open_is_nothing_of_the_next_one_with_its_address") {
        return;
    }
    let rig = Rig::new().await;
    let told = Arc::new(AtomicUsize::new(0));
    let telling = Arc::clone(&told);
    // Whoever has said a word there is told something for good.
    rig.world.spawn(async move || {
        let socket = UdpSocket::bind(("203.0.113.10", PORT)).await.unwrap();
        let mut callers = BTreeSet::new();
        loop {
            let mut buffer = [0; 64];
            if let Ok(Ok((_, from))) = timeout(Duration::from_millis(5), socket.recv_from(&mut buffer)).await {
                callers.insert(from);
            }
            for to in &callers {
                telling.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&label("told"), to).await;
            }
        }
    });
    rig.settle().await;
    let allowed = || policy(&["203.0.113.10/32"]);
    let ask = |line: &Line| line.send(&Way::of(line.guest, "203.0.113.10").udp(PORT, "asked")).unwrap();

    let first = rig.line(0, allowed()).await;
    ask(&first);
    rig.settle().await;
    assert!(told.load(Ordering::Relaxed) > 10);
    drop(first);
    rig.network.close(guest(0)).await.unwrap();

    let next = rig.line(0, allowed()).await;
    next.listen(&rig.ears, "the next one");
    let before = told.load(Ordering::Relaxed);
    rig.settle().await;
    assert!(told.load(Ordering::Relaxed) > before + 10);
    assert_eq!(rig.ears.count("the next one", "told"), 0);
    // It has the same for the asking, and keeps it when another server takes over.
    ask(&next);
    rig.settle().await;
    assert!(rig.ears.count("the next one", "told") > 10, "{:?}", rig.ears.all());
    let Rig { network: old, world: _world, ears } = rig;
    drop(old);
    let again = Network::take(&settings()).await.unwrap();
    again.restore(vec![(guest(0), allowed())], vec![]).await.unwrap();
    let before = ears.count("the next one", "told");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(ears.count("the next one", "told") > before + 10, "{:?}", ears.all());
}

/// Accepts, and talks to whoever is there.
async fn chatter(at: &str) {
    let listener = TcpListener::bind(at).await.unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(talk(stream, "told"));
    }
}

async fn talk(stream: TcpStream, what: &str) {
    let (mut from, mut to) = stream.into_split();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while from.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    });
    while to.write_all(&label(what)).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
