//! The form of each value of the configuration file, and the errors about wrong ones.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use globset::GlobMatcher;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::cli;
use crate::config::glob::glob;
use crate::judge::policy::filter::canonical;
use crate::judge::policy::profiles::{self, Profile};

/// One value, or a list of them.
#[derive(Debug)]
pub(in crate::config) struct OneOrMore<T>(pub(in crate::config) Vec<T>);

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = OneOrMore<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value or a list of values")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(serde::de::value::StrDeserializer::new(text)).map(|one| OneOrMore(vec![one]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(OneOrMore(all))
            }
        }
        from.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct DurationText(pub(in crate::config) Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        cli::duration(&text).map(Self).map_err(|error| D::Error::custom(format!("invalid value `{text}`: {error}")))
    }
}

#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct AddressText(pub(in crate::config) SocketAddr);

impl<'de> Deserialize<'de> for AddressText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        cli::listen_address(&text)
            .map(Self)
            .map_err(|error| D::Error::custom(format!("invalid value `{text}`: {error}")))
    }
}

#[derive(Debug)]
pub(in crate::config) struct ProfileName(pub(in crate::config) &'static Profile);

impl<'de> Deserialize<'de> for ProfileName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        profile(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Debug)]
pub(in crate::config) struct Cidr(pub(in crate::config) IpNet);

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let net = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        net.map(|net| Self(canonical(net))).map_err(|_| {
            D::Error::custom(format!("`{text}` is not a CIDR; write it like 10.20.0.0/16 or 2001:db8::/32"))
        })
    }
}

#[derive(Debug)]
pub(in crate::config) struct Ports(pub(in crate::config) RangeInclusive<u16>);

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Ports;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a port like 443 or a range like \"8000-8999\"")
            }
            fn visit_u64<E: serde::de::Error>(self, port: u64) -> Result<Ports, E> {
                let port = u16::try_from(port).map_err(|_| E::custom(format!("{port} is not a port (0 to 65535)")))?;
                Ok(Ports(port..=port))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ports, E> {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                match (first.trim().parse(), last.trim().parse()) {
                    (Ok(first), Ok(last)) if first <= last => Ok(Ports(first..=last)),
                    _ => Err(E::custom(format!("`{text}` is neither a port like 443 nor a range like 8000-8999"))),
                }
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[derive(Clone, Debug)]
pub(in crate::config) struct GlobText(pub(in crate::config) GlobMatcher);

impl<'de> Deserialize<'de> for GlobText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        glob(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

pub(in crate::config) fn profile(name: &str) -> Result<&'static Profile, String> {
    let known = cli::profile_name(name).map_err(|error| format!("invalid value `{name}`: {error}"))?;
    profiles::find(&known).ok_or(known)
}
