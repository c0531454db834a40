//! Addresses, networks and ports as ss writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An address as ss writes it, taken apart.
pub(super) struct Host<'a> {
    pub net: Option<IpNet>,
    pub port: Option<&'a str>,
}

/// `10.0.0.1`, `10/8`, `10.0.0.1:443`, `:443`, `*`, `2001:db8::1`, `[2001:db8::1]:443`, `fd00::/8:443`, `any`.
pub(super) fn host(word: &str) -> Result<Host<'_>, &'static str> {
    const WRONG: &str = "is not an address, a network, or an address with a port";
    let (family, rest) = match (word.strip_prefix("inet:"), word.strip_prefix("inet6:")) {
        (Some(rest), _) => (Some(IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0)), rest),
        (_, Some(rest)) => (Some(IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0)), rest),
        _ => (None, word),
    };
    let family = family.and_then(Result::ok);
    let (addr, tail) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']').ok_or(WRONG)?,
        None => cut(rest)?,
    };
    let (bits, port) = match tail.strip_prefix('/') {
        Some(tail) => tail.split_once(':').map_or((Some(tail), None), |(bits, port)| (Some(bits), Some(port))),
        None if tail.is_empty() => (None, None),
        None => (None, Some(tail.strip_prefix(':').ok_or(WRONG)?)),
    };
    if matches!(addr, "" | "*" | "all" | "any" | "default") {
        return if bits.is_some() { Err(WRONG) } else { Ok(Host { net: family, port }) };
    }
    let addr = address(addr, bits.is_some()).ok_or(WRONG)?;
    let most = if addr.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Ok(most), str::parse).map_err(|_| WRONG)?;
    let net = IpNet::new(addr, bits).map_err(|_| WRONG)?.trunc();
    if family.is_some_and(|family| family.addr().is_ipv4() != addr.is_ipv4()) {
        return Err("is an address of the other family");
    }
    Ok(Host { net: Some(net), port })
}

/// Where the address of a word without brackets ends.
fn cut(word: &str) -> Result<(&str, &str), &'static str> {
    let colons = word.matches(':').count();
    let at = word.find('/').or_else(|| if colons == 1 { word.find(':') } else { None }).unwrap_or(word.len());
    if at == word.len() && colons > 1 {
        // ss reads what follows the last colon as a port
        let (before, after) = word.rsplit_once(':').unwrap_or_default();
        let is_port = after.parse::<u16>().is_ok() && before.parse::<Ipv6Addr>().is_ok();
        if is_port && word.parse::<Ipv6Addr>().is_ok() {
            return Err("may be an address or an address with a port; write [ADDRESS] or [ADDRESS]:PORT");
        }
        if is_port || after == "*" {
            return Ok((before, &word[before.len()..]));
        }
    }
    Ok(word.split_at(at))
}

/// An address; IPv4 may be short, as in `10/8` or `10.1`. ss fills it up at its end, so that `10.1` is 10.1.0.0.
fn address(text: &str, has_prefix: bool) -> Option<IpAddr> {
    let parts = text.split('.').count();
    if (has_prefix || parts > 1) && parts < 4 && !text.contains(':') {
        return format!("{text}{}", ".0".repeat(4 - parts)).parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    text.parse().ok()
}
