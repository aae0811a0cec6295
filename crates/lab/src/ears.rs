//! Ears: what arrives where. Senders put a label into what they send, and ears count the labels that they hear.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Namespace, WORLD_MAC};

const BEGIN: &[u8] = b"rds-label:";
const END: u8 = b';';

/// What is heard on the world's wire.
pub const WORLD: &str = "the world";

/// What this host took as its own.
pub const HERE: &str = "this host";

/// The bytes that ears know a packet by. A label has no semicolon.
pub fn label(text: &str) -> Vec<u8> {
    [BEGIN, text.as_bytes(), &[END]].concat()
}

/// All ears of a lab, each at a place of its own.
#[derive(Debug, Clone, Default)]
pub struct Ears(Arc<Mutex<BTreeMap<(String, String), usize>>>);

impl Ears {
    /// Ears on the world's wire, and at every protocol that programs of this host could listen to.
    ///
    /// # Panics
    /// The system refuses.
    pub async fn of(world: &Namespace) -> Self {
        let ears = Self::default();
        // ETH_P_ALL, linux/if_ether.h.
        let all = Protocol::from(i32::from(3_u16.to_be()));
        let wire = world.run(async move || Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap()).await;
        let mut frames = socket(wire);
        ears.listen(WORLD, move |buffer| {
            // What the world itself says is on its wire, too.
            let length = frames(buffer)?;
            Ok(if buffer[6..12] == WORLD_MAC.0 { 0 } else { length })
        });
        // A raw socket gets a copy of whatever the host delivers to itself: ICMP, IGMP, TCP, UDP, and one for tests.
        for protocol in [1, 2, 6, 17, 253] {
            let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol))).unwrap();
            ears.listen(HERE, socket(raw));
        }
        ears
    }

    /// Listens to what can be read, a packet each time, until that ends.
    pub fn listen(&self, place: &str, mut read: impl FnMut(&mut [u8]) -> io::Result<usize> + Send + 'static) {
        let (ears, place) = (self.clone(), place.to_owned());
        std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while let Ok(length) = read(&mut buffer) {
                ears.hear(&place, &buffer[..length]);
            }
        });
    }

    /// Counts a packet, if it has a label.
    ///
    /// # Panics
    /// If a thread panicked while it held the lock.
    pub fn hear(&self, place: &str, packet: &[u8]) {
        let Some(begin) = packet.windows(BEGIN.len()).position(|bytes| bytes == BEGIN) else { return };
        let text = packet[begin + BEGIN.len()..].split(|byte| *byte == END).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text).into_owned();
        *self.0.lock().unwrap().entry((place.to_owned(), text)).or_default() += 1;
    }

    /// How often a label was heard at a place.
    ///
    /// # Panics
    /// If a thread panicked while it held the lock.
    pub fn count(&self, place: &str, label: &str) -> usize {
        self.0.lock().unwrap().get(&(place.to_owned(), label.to_owned())).copied().unwrap_or_default()
    }

    /// Everything that was heard: `place: label × count`.
    ///
    /// # Panics
    /// If a thread panicked while it held the lock.
    pub fn all(&self) -> Vec<String> {
        let heard = self.0.lock().unwrap();
        heard.iter().map(|((place, label), count)| format!("{place}: {label} × {count}")).collect()
    }
}

fn socket(socket: Socket) -> impl FnMut(&mut [u8]) -> io::Result<usize> {
    // A burst is to wait here rather than to be lost.
    socket.set_recv_buffer_size(16 << 20).unwrap();
    let mut file = std::fs::File::from(OwnedFd::from(socket));
    move |buffer| file.read(buffer)
}
