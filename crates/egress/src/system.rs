//! What the host has to have and what is set on it beside the table: the lock, forwarding, taps.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rds_netif::{Interface, tap};

use crate::plan::{Guest, PREFIX, Policy};
use crate::subnet::Subnet;

/// Name of the interface that is the lock. It has no beginning in common with taps.
const LOCK: &str = "run-dat-sheesh";

/// One manager at a time has the network. [`io::ErrorKind::ResourceBusy`]: another one has it.
///
/// The lock is an interface that carries nothing. Like taps and tables, it belongs to a network namespace, whatever files a
/// server sees. It takes the right to change that namespace, which no monitor and no user of the host has; a socket or a file
/// that anybody can make could be held by them. It is gone with the process that has it open.
pub(crate) fn lock() -> io::Result<File> {
    tap::reserve(LOCK)
}

/// Has the host pass packets on between interfaces, as every host of containers does.
pub(crate) fn forward() -> io::Result<()> {
    let setting = "/proc/sys/net/ipv4/ip_forward";
    if fs::read_to_string(setting)?.trim() == "1" {
        return Ok(());
    }
    fs::write(setting, "1")
}

/// A route of somebody else's that the guests' network would be confused with: the network and its interface.
pub(crate) fn overlapping(subnet: Subnet) -> io::Result<Option<(Ipv4Net, String)>> {
    let table = fs::read_to_string("/proc/thread-self/net/route")?;
    let routes = table.lines().skip(1).filter_map(route);
    let others = routes.filter(|(network, interface)| network.prefix_len() > 0 && !interface.starts_with(PREFIX));
    let overlap = |network: &Ipv4Net| network.contains(&subnet.network()) || subnet.network().contains(network);
    Ok(others.into_iter().find(|(network, _)| overlap(network)))
}

/// A line of the kernel's table: interface, destination, …, mask as the eighth; both in the host's byte order.
fn route(line: &str) -> Option<(Ipv4Net, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = |field: &str| Some(Ipv4Addr::from(u32::from_str_radix(field, 16).ok()?.to_ne_bytes()));
    let (network, mask) = (address(fields.get(1)?)?, address(fields.get(7)?)?);
    Some((Ipv4Net::with_netmask(network, mask).ok()?, (*fields.first()?).to_owned()))
}

/// Makes a tap in place of one that was left there. It is down, and the host speaks no IPv6 on it.
pub(crate) fn make_tap(name: &str, subnet: Subnet, owner: Option<u32>) -> io::Result<()> {
    tap::remove(name)?;
    tap::create(name, owner)?;
    let settle = || {
        // A kernel that lacks the setting lacks the protocol.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        let interface = Interface::new(name)?;
        interface.set_mac(subnet.gateway_mac())?;
        interface.set_address(subnet.gateway())
    };
    settle().inspect_err(|_| {
        let _ = tap::remove(name);
    })
}

/// Brings a guest's tap up, with the one route and the one neighbour that there are on it.
pub(crate) fn connect(guest: Guest) -> io::Result<()> {
    let interface = Interface::new(&guest.tap())?;
    interface.up_without_arp()?;
    interface.set_neighbour(guest.address(), guest.mac())?;
    interface.add_host_route(guest.address())
}

/// Whether the host passes packets of a guest on at all: a second lock, which does not depend on the table.
pub(crate) fn set_forwarding(guest: Guest, policy: &Policy) -> io::Result<()> {
    let value = if policy.forwards() { "1" } else { "0" };
    fs::write(format!("/proc/sys/net/ipv4/conf/{}/forwarding", guest.tap()), value)
}

/// Takes a guest's tap down; whatever is under way ends there.
pub(crate) fn disconnect(name: &str) -> io::Result<()> {
    match Interface::new(name)?.down() {
        Err(error) if error.raw_os_error() == Some(19) => Ok(()),
        done => done,
    }
}

/// The names of all taps that look like ours.
pub(crate) fn taps() -> io::Result<Vec<String>> {
    let mut names = rds_netif::names()?;
    names.retain(|name| name.starts_with(PREFIX));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read() {
        let (network, interface) = route("eth0 000110AC 00000000 0001 0 0 0 00FFFFFF 0 0 0").unwrap();
        assert_eq!((network.to_string().as_str(), interface.as_str()), ("172.16.1.0/24", "eth0"));
        assert_eq!(route("Iface Destination"), None);
    }
}
