//! Where a remedy goes: names, host and port, checked so that every API accepts them and no template can be broken by
//! them.

use std::net::IpAddr;

use minijinja::Value;

use super::target::{Defaults, Target};
use super::{RemedyError, Request};

/// Where, as a template may name it.
#[derive(Debug, Default)]
pub struct Location {
    host: Option<String>,
    port: Option<u16>,
    name: Option<String>,
    namespace: Option<String>,
    /// Envoy's major and minor version.
    envoy: Option<[u16; 2]>,
    /// The host is an IP address.
    host_is_ip: bool,
    /// The host is outside the cluster.
    external: bool,
    /// The Service that the host names.
    service: Option<String>,
    /// The namespace that the host names.
    service_namespace: Option<String>,
}

impl Location {
    /// What was asked for, filled up with the target's defaults.
    pub(super) fn new(request: &Request, defaults: &Defaults) -> Result<Self, RemedyError> {
        let check = |flag, given: &Option<String>, default: &Option<String>, valid: fn(&str) -> bool, expected| {
            let Some(value) = given.as_ref().or(default.as_ref()) else { return Ok(None) };
            if valid(value) {
                Ok(Some(value.clone()))
            } else {
                Err(RemedyError::Malformed { flag, value: value.clone(), expected })
            }
        };
        let host = check("host", &request.host, &defaults.host, is_host, "a DNS name or an IP address")?;
        let name = check("name", &request.name, &defaults.name, is_object_name, "a name of letters, digits, - and .")?;
        let namespace =
            check("namespace", &request.namespace, &defaults.namespace, is_label, "a Kubernetes namespace")?;
        if request.port == Some(0) {
            return Err(RemedyError::Malformed { flag: "port", value: "0".into(), expected: "a port from 1 to 65535" });
        }
        let envoy = request.envoy_version.as_deref().map(envoy_version).transpose()?;

        let host_is_ip = host.as_deref().is_some_and(|host| host.parse::<IpAddr>().is_ok());
        let (service, service_namespace) = match host.as_deref() {
            Some(host) if !host_is_ip => service_of(host),
            _ => (None, None),
        };
        let external = service.is_none();
        // Where the default is a bare name, the target refers to an object of the cluster by it.
        let names_object = defaults.host.as_ref().is_some_and(|host| !host.contains('.'));
        if let Some(host) = host.as_ref().filter(|_| host_is_ip && names_object) {
            return Err(RemedyError::Malformed {
                flag: "host",
                value: host.clone(),
                expected: "the name of a Service",
            });
        }
        let port = request.port.or(defaults.port);
        Ok(Self { host, port, name, namespace, envoy, host_is_ip, external, service, service_namespace })
    }

    /// The values by the names that templates use. What was neither given nor has a default is undefined there, which
    /// fails.
    pub(super) fn values(&self) -> Vec<(&'static str, Value)> {
        let text = |name, value: &Option<String>| value.clone().map(|value| (name, Value::from(value)));
        let optional = [
            text("host", &self.host),
            text("name", &self.name),
            text("namespace", &self.namespace),
            self.port.map(|port| ("port", port.into())),
            self.envoy.map(|version| ("envoy", version.to_vec().into())),
        ];
        let always = [
            ("host_is_ip", self.host_is_ip.into()),
            ("external", self.external.into()),
            ("service", self.service.clone().into()),
            ("service_namespace", self.service_namespace.clone().into()),
        ];
        optional.into_iter().flatten().chain(always).collect()
    }
}

/// Which defaults of the target were taken, so that nobody applies an example by mistake, and which flags it has no use
/// for.
pub(super) fn assumptions(request: &Request, target: &Target) -> Vec<String> {
    let defaults = &target.defaults;
    let port = |port: Option<u16>| port.map(|port| port.to_string());
    let flags = [
        ("host", request.host.clone(), defaults.host.clone()),
        ("port", port(request.port), port(defaults.port)),
        ("name", request.name.clone(), defaults.name.clone()),
        ("namespace", request.namespace.clone(), defaults.namespace.clone()),
    ];
    let mut taken = String::new();
    let mut unused = String::new();
    for (flag, given, default) in flags {
        match (given, default) {
            (None, Some(default)) => taken += &[" --", flag, " ", &default].concat(),
            (Some(_), None) => unused += &[" --", flag].concat(),
            _ => {}
        }
    }
    let taken = (!taken.is_empty()).then(|| format!("Assumed, because not given:{taken}."));
    let unused = (!unused.is_empty()).then(|| format!("{} has no use for{unused}.", target.name));
    taken.into_iter().chain(unused).collect()
}

/// `orders`, `orders.shop.svc` and `orders.shop.svc.cluster.local` are Services; any other name is outside the cluster.
fn service_of(host: &str) -> (Option<String>, Option<String>) {
    let mut labels = host.trim_end_matches('.').split('.');
    match (labels.next(), labels.next(), labels.next()) {
        (Some(service), None, _) => (Some(service.into()), None),
        (Some(service), Some(namespace), Some("svc")) => (Some(service.into()), Some(namespace.into())),
        _ => (None, None),
    }
}

/// An RFC 1123 label, as Kubernetes wants it.
fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(|c| inner(c) || c == '-')
        && text.starts_with(inner)
        && text.ends_with(inner)
}

fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.to_ascii_lowercase().split('.').all(is_label))
}

/// An RFC 1123 subdomain, or a Helm key such as `gatewayProxy`.
fn is_object_name(text: &str) -> bool {
    text.len() <= 253 && text.to_ascii_lowercase().split('.').all(is_label)
}

/// `1.37`, `1.36.2` and `v1.36.2` as major and minor.
fn envoy_version(text: &str) -> Result<[u16; 2], RemedyError> {
    let mut numbers = text.strip_prefix('v').unwrap_or(text).split('.').map(str::parse::<u16>);
    match (numbers.next(), numbers.next(), numbers.all(|rest| rest.is_ok())) {
        (Some(Ok(major)), Some(Ok(minor)), true) => Ok([major, minor]),
        _ => Err(RemedyError::Malformed {
            flag: "envoy-version",
            value: text.into(),
            expected: "a version such as 1.37 or 1.36.2",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_inside_and_outside_the_cluster() {
        let service = |host| service_of(host).0;
        assert_eq!(service("orders").as_deref(), Some("orders"));
        assert_eq!(service_of("orders.shop.svc"), (Some("orders".into()), Some("shop".into())));
        assert_eq!(service_of("orders.shop.svc.cluster.local"), (Some("orders".into()), Some("shop".into())));
        assert_eq!(service("db.example.com"), None);
        assert_eq!(service("orders.shop"), None);
    }

    #[test]
    fn what_could_break_a_template_or_an_api_is_refused() {
        for host in ["", "a b", "x\"\nkind: Secret", "-a", "a..b", "{{ 7 }}", "*.example.com", &"a".repeat(254)] {
            assert!(!is_host(host), "{host:?}");
        }
        for host in ["db", "db.example.com", "10.0.0.1", "2001:db8::1", "RDS.Example.com"] {
            assert!(is_host(host), "{host:?}");
        }
        assert!(is_label("kube-system") && !is_label("kube.system") && !is_label("Shop"));
    }

    #[test]
    fn envoy_versions() {
        for text in ["1.37", "v1.37", "1.37.2"] {
            assert_eq!(envoy_version(text).ok(), Some([1, 37]), "{text}");
        }
        for text in ["", "1", "1.x", "latest", "1.37.x", "1.37."] {
            assert!(envoy_version(text).is_err(), "{text}");
        }
    }
}
