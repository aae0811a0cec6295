//! A host with taps, beside a world, and ears everywhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rds_egress::{Guest, Network, Policy, Settings, Subnet};
use rds_lab::ears::Ears;
use rds_lab::{Namespace, RESOLVER, ip};
use rds_netif::{Interface, tap};

/// Says why this cannot run here, or runs the test once more in a network namespace of its own. `true`: go on.
pub(crate) fn inside(test: &str) -> bool {
    if let Some(missing) = rds_lab::missing() {
        println!("skipped: {missing}");
        return false;
    }
    rds_lab::enter(&["--exact", test, "--nocapture"])
}

/// What precedes each frame on a tap: nothing is left to the host.
const HEADER: [u8; 10] = [0; 10];

/// A cloud's metadata service, which the world has, too.
pub(crate) const METADATA: &str = "169.254.169.254";

/// What Azure's hosts are for their machines, which the world is, too.
const AZURE: &str = "168.63.129.16";

/// Users that run monitors.
pub(crate) const MONITORS: std::ops::RangeInclusive<u32> = 199_999..=200_100;

/// This process's namespace is the host.
pub(crate) struct Rig {
    pub(crate) network: Network,
    pub(crate) world: Namespace,
    pub(crate) ears: Ears,
}

pub(crate) fn subnet() -> Subnet {
    "172.16.0.0/24".parse().unwrap()
}

pub(crate) fn settings() -> Settings {
    Settings { subnet: subnet(), monitors: Some(MONITORS) }
}

pub(crate) fn guest(number: u32) -> Guest {
    Guest::new(subnet(), number).unwrap()
}

/// What may be reached; nothing by name.
pub(crate) fn policy(allow: &[&str]) -> Policy {
    Policy { outbound: true, allow: allow.iter().map(|entry| entry.parse().unwrap()).collect(), ..Policy::default() }
}

/// A server's network, with no guests yet.
pub(crate) async fn network() -> Network {
    let network = Network::take(&settings()).await.unwrap();
    network.restore(vec![], vec![]).await.unwrap();
    network
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let world = rds_lab::world();
        for address in [METADATA, AZURE] {
            world.ip(&format!("addr add {address}/32 dev eth0"));
            ip(&format!("route add {address}/32 via {RESOLVER}"));
        }
        // Refusals are to come at once, however many there are.
        std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").unwrap();
        let ears = Ears::of(&world).await;
        Self { network: network().await, world, ears }
    }

    /// A guest's tap, with what it may reach, and the end that its monitor holds.
    pub(crate) async fn line(&self, number: u32, policy: Policy) -> Line {
        let guest = guest(number);
        self.network.attach(guest, None).await.unwrap();
        self.network.open(guest, policy).await.unwrap();
        Line::of(guest)
    }

    /// Waits until whatever is under way has arrived.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

/// The monitor's end of a tap.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) guest: Guest,
    file: Arc<File>,
}

impl Line {
    /// Takes the end of a tap that nobody holds.
    pub(crate) fn of(guest: Guest) -> Self {
        Self { guest, file: Arc::new(tap::open(&guest.tap()).unwrap()) }
    }

    /// Sends a frame. The kernel may refuse it, as it does all while the tap is down.
    pub(crate) fn send(&self, frame: &[u8]) -> std::io::Result<()> {
        (&*self.file).write_all(&[&HEADER, frame].concat())
    }

    /// Listens to what arrives at the guest.
    pub(crate) fn listen(&self, ears: &Ears, place: &str) {
        let file = Arc::clone(&self.file);
        ears.listen(place, move |buffer| (&*file).read(buffer));
    }
}

/// A guest with a kernel of its own behind a tap: a namespace, whose interface's frames are carried to the tap and back.
pub(crate) struct Stack {
    pub(crate) space: Namespace,
    pub(crate) line: Line,
}

impl Stack {
    /// As an agent sets a guest's interface up.
    pub(crate) async fn behind(line: Line, ears: &Ears, place: &str) -> Self {
        let (space, guest) = (Namespace::new(), line.guest);
        let inner = space
            .run(async move || {
                tap::create("eth0", None).unwrap();
                let interface = Interface::new("eth0").unwrap();
                interface.set_mac(guest.mac()).unwrap();
                interface.set_address(guest.address()).unwrap();
                interface.up_without_arp().unwrap();
                interface.set_neighbour(subnet().gateway(), subnet().gateway_mac()).unwrap();
                interface.add_host_route(subnet().gateway()).unwrap();
                interface.add_default_route(subnet().gateway()).unwrap();
                Arc::new(tap::open("eth0").unwrap())
            })
            .await;
        let (from, to) = (Arc::clone(&inner), Arc::clone(&line.file));
        carry(from, to, |_| {});
        let (ears, place) = (ears.clone(), place.to_owned());
        carry(Arc::clone(&line.file), inner, move |frame| ears.hear(&place, frame));
        Self { space, line }
    }

    /// Whether a connection comes about, and something comes back.
    pub(crate) async fn reaches(&self, to: &str) -> bool {
        let to: SocketAddr = to.parse().unwrap();
        self.space
            .run(async move || {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let ask = async {
                    let mut stream = tokio::net::TcpStream::connect(to).await?;
                    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
                    stream.read_u8().await
                };
                tokio::time::timeout(Duration::from_secs(2), ask).await.is_ok_and(|asked| asked.is_ok())
            })
            .await
    }
}

fn carry(from: Arc<File>, to: Arc<File>, also: impl Fn(&[u8]) + Send + 'static) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 70_000];
        while let Ok(length) = (&*from).read(&mut buffer) {
            also(&buffer[..length]);
            let _ = (&*to).write_all(&buffer[..length]);
        }
    });
}

/// A server of this host on every one of its addresses, which answers whoever says something.
pub(crate) async fn serve_here(port: u16) -> Arc<Mutex<BTreeSet<SocketAddr>>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.unwrap();
    let all = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, from)) = listener.accept().await {
            all.lock().unwrap().insert(from);
            tokio::spawn(async move {
                let mut buffer = [0; 256];
                while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                    stream.write_all(b"here").await.unwrap();
                }
            });
        }
    });
    seen
}
