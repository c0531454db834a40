//! Values in the fewest bytes: what keeps an entry of the memory within its 96 bytes.

use std::net::{IpAddr, Ipv6Addr};

use crate::socket::Endpoint;

/// An [`Endpoint`] in 18 bytes instead of 20: IPv4 as an IPv4-mapped address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedEndpoint {
    addr: [u8; 16],
    port: u16,
}

impl From<Endpoint> for PackedEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        let addr = match endpoint.addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        Self { addr: addr.octets(), port: endpoint.port }
    }
}

impl From<PackedEndpoint> for Endpoint {
    fn from(packed: PackedEndpoint) -> Self {
        Self::new(Ipv6Addr::from(packed.addr).into(), packed.port)
    }
}

/// The low 24 bits of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct U24([u8; 3]);

impl U24 {
    /// Drops what does not fit.
    #[must_use]
    pub fn wrapping(value: u32) -> Self {
        let [a, b, c, _] = value.to_le_bytes();
        Self([a, b, c])
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_comes_back_as_it_was() {
        for addr in ["10.0.0.1", "::1", "fe80::1", "::10.0.0.1", "0.0.0.0"] {
            let endpoint = Endpoint::new(addr.parse().unwrap(), 443);
            assert_eq!(Endpoint::from(PackedEndpoint::from(endpoint)), endpoint);
        }
    }

    #[test]
    fn a_number_keeps_its_low_24_bits() {
        for (number, kept) in [(0, 0), (0x00ff_ffff, 0x00ff_ffff), (0x0100_0001, 1), (u32::MAX, 0x00ff_ffff)] {
            assert_eq!(U24::wrapping(number).get(), kept);
        }
    }
}
