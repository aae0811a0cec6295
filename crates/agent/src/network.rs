//! The guest's way out: one point-to-point link to the host, which alone decides what gets through.

use rds_netif::{Interface, Mac};
use rds_protocol::guest::Network;

use crate::boot::wait_for;
use crate::error::{SystemError, While};

/// The kernel's name of the only interface besides loopback.
const NAME: &str = "eth0";

/// Gives the interface what it has to have and brings it up.
pub(crate) fn set_up(network: &Network) -> Result<(), SystemError> {
    wait_for(&format!("/sys/class/net/{NAME}"))?;
    // Nothing of the host's speaks it. A kernel that lacks the setting lacks the protocol.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{NAME}/disable_ipv6"), "1");
    let mac = |text: &str| text.parse::<Mac>().map_err(std::io::Error::other).while_("read a hardware address");
    let (own, gateway) = (mac(&network.mac)?, mac(&network.gateway_mac)?);
    let interface = Interface::new(NAME).while_("open a socket")?;
    // A machine that was restored has what the one that was saved had; what hangs on it goes when it is down.
    interface.down().while_("take the network interface down")?;
    interface.set_mac(own).while_("set the hardware address")?;
    interface.set_address(network.address).while_("set the address")?;
    interface.up().while_("raise the network interface")?;
    interface.set_neighbour(network.gateway, gateway).while_("set the gateway's hardware address")?;
    interface.add_host_route(network.gateway).while_("route to the gateway")?;
    interface.add_default_route(network.gateway).while_("route through the gateway")
}
