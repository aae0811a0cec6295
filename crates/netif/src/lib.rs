//! Network interfaces of this kernel: taps, addresses, neighbours and routes, as the manager needs them on the host and
//! the agent in a guest.
//!
//! Everything here is one request to the kernel by `ioctl` (netdevice(7), arp(7)), without a program or a library in
//! between: it takes microseconds, and the agent stays small. What the interfaces are for is not known here.

mod interface;
mod request;
pub mod tap;

use std::fmt;

pub use interface::{Interface, names};

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Text that is no hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidMac;

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a hardware address")
    }
}

impl std::error::Error for InvalidMac {}

impl std::str::FromStr for Mac {
    type Err = InvalidMac;

    /// Accepts exactly the form that [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = u8::from_str_radix(parts.next().ok_or(InvalidMac)?, 16).map_err(|_| InvalidMac)?;
        }
        let mac = Self(bytes);
        if parts.next().is_none() && mac.to_string() == text { Ok(mac) } else { Err(InvalidMac) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_read_as_it_is_written() {
        let mac = Mac([2, 0xfc, 172, 16, 0, 5]);
        assert_eq!(mac.to_string(), "02:fc:ac:10:00:05");
        assert_eq!("02:fc:ac:10:00:05".parse(), Ok(mac));
        for bad in
            ["", "02:fc:ac:10:00", "02:fc:ac:10:00:05:06", "2:fc:ac:10:0:5", "02:FC:ac:10:00:05", "+2:fc:ac:10:00:05"]
        {
            assert_eq!(bad.parse::<Mac>(), Err(InvalidMac), "{bad}");
        }
    }
}
