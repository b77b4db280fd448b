//! Sigma's `cidr`: the value is an address of a network, IPv4 or IPv6.

use super::Value;
use crate::RuleError;
use std::net::IpAddr;

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Op {
    network: IpAddr,
    prefix: u8,
}

/// Reads `10.0.0.0/8`, `fe80::/10`, or one address. Bits behind the prefix must be zero.
pub fn compile(written: &str) -> Result<Op, RuleError> {
    let bad = |problem| RuleError::Network { written: written.to_owned(), problem };
    let (address, prefix) = written.trim().split_once('/').map_or((written.trim(), None), |(a, p)| (a, Some(p)));
    let network: IpAddr = address.parse().map_err(|_| bad("the part before `/` is no IP address"))?;
    let bits: u8 = if network.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => bits,
        Some(text) => {
            text.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(|| bad("the prefix is too long"))?
        }
    };
    let op = Op { network, prefix };
    if op.masked(network) != op.masked_bits() {
        return Err(bad("it has bits set behind its prefix"));
    }
    Ok(op)
}

/// Whether the value is an address of the network.
pub fn matches(op: &Op, value: &Value<'_>) -> bool {
    match value {
        Value::Text { raw, .. } => op.contains(raw),
        Value::Absent | Value::Oid(_) | Value::Severity(_) => false,
    }
}

impl Op {
    /// Whether the text is an address of the network; an IPv4 address written as IPv6
    /// (`::ffff:10.0.0.1`) is IPv6.
    pub fn contains(&self, text: &str) -> bool {
        match text.parse::<IpAddr>() {
            Ok(address) => address.is_ipv4() == self.network.is_ipv4() && self.masked(address) == self.masked_bits(),
            Err(_) => false,
        }
    }

    /// First address of the network.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Last address of the network.
    pub fn last(&self) -> IpAddr {
        let behind = |width: u32| width - u32::from(self.prefix).min(width);
        match self.network {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(32 - behind(32)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) | host).into())
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(128 - behind(128)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) | host).into())
            }
        }
    }

    /// Leading bits that all its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// In words, to stand after the field's name.
    pub fn describe(&self) -> String {
        format!("is an address of {}/{}", self.network, self.prefix)
    }

    fn masked_bits(&self) -> u128 {
        bits(self.network)
    }

    fn masked(&self, address: IpAddr) -> u128 {
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let behind = width - u32::from(self.prefix).min(width);
        bits(address).checked_shr(behind).and_then(|kept| kept.checked_shl(behind)).unwrap_or(0)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_their_networks_only() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("192.168.1.1", "192.168.1.1", true),
            ("192.168.1.0/31", "192.168.1.2", false),
            ("fe80::/10", "febf::1", true),
            ("::/0", "::ffff:1.2.3.4", true),
            ("10.0.0.0/8", "10.0.0.1 ", false),
            ("10.0.0.0/8", "10.0.0.01", false),
            ("10.0.0.0/8", "host", false),
        ] {
            assert_eq!(compile(network).expect(network).contains(address), expected, "{network} {address}");
        }
        for (network, last) in [
            ("10.0.0.0/8", "10.255.255.255"),
            ("0.0.0.0/0", "255.255.255.255"),
            ("1.2.3.4", "1.2.3.4"),
            ("fe80::/10", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::1", "::1"),
        ] {
            assert_eq!(compile(network).expect(network).last().to_string(), last, "{network}");
        }
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "10.0/8", "::/129", "x", "", "10.0.0.0/-1"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }
}
