//! Frames, honest and other.

use std::net::Ipv4Addr;

use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, PacketBuilder};
use rds_egress::Guest;
use rds_lab::ears::label;

use crate::rig::subnet;

/// A port that nobody listens to.
pub(crate) const PORT: u16 = 4_000;

/// From whom a packet says it is, and where it is to go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) from_mac: [u8; 6],
    pub(crate) to_mac: [u8; 6],
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
}

impl Way {
    /// As a guest's own kernel sends.
    pub(crate) fn of(guest: Guest, to: &str) -> Self {
        let (from_mac, to_mac) = (guest.mac().0, subnet().gateway_mac().0);
        Self { from_mac, to_mac, from: guest.address(), to: to.parse().unwrap() }
    }

    pub(crate) fn claiming(self, from: &str) -> Self {
        Self { from: from.parse().unwrap(), ..self }
    }

    fn ethernet(self) -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
        PacketBuilder::ethernet2(self.from_mac, self.to_mac)
    }

    fn ip(self) -> etherparse::PacketBuilderStep<IpHeaders> {
        self.ethernet().ipv4(self.from.octets(), self.to.octets(), 20)
    }

    pub(crate) fn udp(self, port: u16, text: &str) -> Vec<u8> {
        self.udp_between(PORT, port, text)
    }

    pub(crate) fn udp_between(self, from: u16, to: u16, text: &str) -> Vec<u8> {
        built(|frame| self.ip().udp(from, to).write(frame, &label(text)))
    }

    /// A segment with these flags and data.
    pub(crate) fn tcp(self, port: u16, flags: &str, text: &str) -> Vec<u8> {
        let mut step = self.ip().tcp(PORT, port, 1_000, 1_024);
        for flag in flags.chars() {
            step = match flag {
                'S' => step.syn(),
                'A' => step.ack(7),
                'F' => step.fin(),
                'R' => step.rst(),
                _ => step.psh(),
            };
        }
        built(|frame| step.write(frame, &label(text)))
    }

    pub(crate) fn ping(self, text: &str) -> Vec<u8> {
        built(|frame| self.ip().icmpv4_echo_request(5, 1).write(frame, &label(text)))
    }

    /// An ICMP message of any type, with what it is about.
    pub(crate) fn icmp(self, kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
        built(|frame| self.ip().icmpv4_raw(kind, code, self.to.octets()).write(frame, about))
    }

    /// Any protocol.
    pub(crate) fn protocol(self, number: u8, body: &[u8]) -> Vec<u8> {
        built(|frame| self.ip().write(frame, IpNumber(number), body))
    }

    /// A datagram with options in its IP header.
    pub(crate) fn options(self, options: &[u8], text: &str) -> Vec<u8> {
        let header = Ipv4Header { options: Ipv4Options::try_from(options).unwrap(), ..self.header() };
        let step = self.ethernet().ip(IpHeaders::Ipv4(header, Default::default())).udp(PORT, PORT);
        built(|frame| step.write(frame, &label(text)))
    }

    fn header(self) -> Ipv4Header {
        Ipv4Header {
            time_to_live: 20,
            source: self.from.octets(),
            destination: self.to.octets(),
            ..Ipv4Header::default()
        }
    }

    /// A part of a datagram, `at` bytes from its beginning.
    pub(crate) fn fragment(self, id: u16, at: u16, more: bool, body: &[u8]) -> Vec<u8> {
        let fragment_offset = IpFragOffset::try_new(at / 8).unwrap();
        let header = Ipv4Header { identification: id, more_fragments: more, fragment_offset, ..self.header() };
        let step = self.ethernet().ip(IpHeaders::Ipv4(header, Default::default()));
        built(|frame| step.write(frame, IpNumber::UDP, body))
    }

    /// The two halves of a datagram; its label is in the second one.
    pub(crate) fn halves(self, id: u16, text: &str) -> [Vec<u8>; 2] {
        let whole = self.udp(PORT, &format!("{text};{}", "x".repeat(48)));
        // After the headers of Ethernet and IP.
        let mut body = [&whole[34..42], [0; 16].as_slice(), &whole[42..]].concat();
        let length = (body.len() as u16).to_be_bytes();
        // A checksum of zero is none.
        body[4..8].copy_from_slice(&[length[0], length[1], 0, 0]);
        [self.fragment(id, 0, true, &body[..24]), self.fragment(id, 24, false, &body[24..])]
    }
}

/// Any frame at all.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &kind.to_be_bytes(), body].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An ARP message: `operation` 1 asks, 2 answers.
pub(crate) fn arp(from: [u8; 6], operation: u8, mac: [u8; 6], address: Ipv4Addr, about: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    frame([0xff; 6], from, 0x0806, &[&head[..], &mac, &address.octets(), &[0xff; 6], &about.octets()].concat())
}

fn built<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame).unwrap();
    frame
}
