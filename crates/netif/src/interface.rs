//! What can be set on an interface.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};

use crate::Mac;
use crate::request::{about, ask, hardware, internet, name_bytes};

/// `ATF_COM` and `ATF_PERM`, linux/if_arp.h: complete, and not to be forgotten.
const PERMANENT: libc::c_int = 0x02 | 0x04;

/// The names of all interfaces.
pub fn names() -> io::Result<Vec<String>> {
    // Two lines of headings; then one for each, whose name ends with a colon.
    let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    Ok(table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}

/// An interface by its name. Every method is one change; one that cannot be made changes nothing.
#[derive(Debug)]
pub struct Interface {
    name: String,
    /// Any socket will do to ask the kernel.
    socket: UdpSocket,
}

impl Interface {
    /// The interface of this name, which need not be there yet.
    pub fn new(name: &str) -> io::Result<Self> {
        name_bytes(name)?;
        Ok(Self { name: name.to_owned(), socket: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))? })
    }

    /// Sets its hardware address; it must be down.
    pub fn set_mac(&self, mac: Mac) -> io::Result<()> {
        let mut request = about(&self.name)?;
        request.ifr_ifru.ifru_hwaddr = hardware(mac);
        // SAFETY: the operation reads an interface request.
        unsafe { ask(&self.socket, libc::SIOCSIFHWADDR, &mut request) }
    }

    /// Gives it this one address, alone in its network; while it is down, no route comes with it.
    pub fn set_address(&self, address: Ipv4Addr) -> io::Result<()> {
        for (number, address) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, Ipv4Addr::BROADCAST)] {
            let mut request = about(&self.name)?;
            request.ifr_ifru.ifru_addr = internet(address);
            // SAFETY: the operations read an interface request.
            unsafe { ask(&self.socket, number, &mut request) }?;
        }
        Ok(())
    }

    /// Brings it up.
    pub fn up(&self) -> io::Result<()> {
        self.change_flags(libc::IFF_UP, 0)
    }

    /// Brings it up, and has it neither ask for neighbours nor answer to anybody who does.
    pub fn up_without_arp(&self) -> io::Result<()> {
        self.change_flags(libc::IFF_UP | libc::IFF_NOARP, 0)
    }

    /// Takes it down. Its routes and neighbours go with that.
    pub fn down(&self) -> io::Result<()> {
        self.change_flags(0, libc::IFF_UP)
    }

    fn change_flags(&self, set: libc::c_int, clear: libc::c_int) -> io::Result<()> {
        let mut request = about(&self.name)?;
        // SAFETY: the operations read and write an interface request, and the first one writes the flags.
        unsafe {
            ask(&self.socket, libc::SIOCGIFFLAGS, &mut request)?;
            let flags = libc::c_int::from(request.ifr_ifru.ifru_flags);
            let changed = (flags | set) & !clear;
            if changed == flags {
                // Who may not change anything may find it as it is to be.
                return Ok(());
            }
            // Flags are 16 bits that happen to be signed.
            request.ifr_ifru.ifru_flags = changed as libc::c_short;
            ask(&self.socket, libc::SIOCSIFFLAGS, &mut request)
        }
    }

    /// Says for good which hardware has an address behind it.
    pub fn set_neighbour(&self, address: Ipv4Addr, mac: Mac) -> io::Result<()> {
        let mut request = libc::arpreq {
            arp_pa: internet(address),
            arp_ha: hardware(mac),
            arp_flags: PERMANENT,
            arp_netmask: internet(Ipv4Addr::UNSPECIFIED),
            arp_dev: name_bytes(&self.name)?,
        };
        // SAFETY: the operation reads an ARP request.
        unsafe { ask(&self.socket, libc::SIOCSARP, &mut request) }
    }

    /// Leads one address through it; it must be up.
    pub fn add_host_route(&self, address: Ipv4Addr) -> io::Result<()> {
        self.add_route(address, Ipv4Addr::BROADCAST, None, libc::RTF_HOST)
    }

    /// Leads everything that has no other route through it, by a gateway that it has a route to.
    pub fn add_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        self.add_route(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, Some(gateway), libc::RTF_GATEWAY)
    }

    fn add_route(&self, to: Ipv4Addr, mask: Ipv4Addr, gateway: Option<Ipv4Addr>, flags: u16) -> io::Result<()> {
        let name = CString::new(self.name.as_str())?;
        // SAFETY: a route request is plain data, for which zero is a value.
        let mut request: libc::rtentry = unsafe { std::mem::zeroed() };
        request.rt_dst = internet(to);
        request.rt_genmask = internet(mask);
        request.rt_gateway = internet(gateway.unwrap_or(Ipv4Addr::UNSPECIFIED));
        request.rt_flags = libc::RTF_UP | flags;
        request.rt_dev = name.as_ptr().cast_mut();
        // SAFETY: the operation reads a route request and the name that it points to, which lives until then.
        unsafe { ask(&self.socket, libc::SIOCADDRT, &mut request) }
    }
}
