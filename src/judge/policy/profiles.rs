//! Known middleboxes and the idle time after which they drop a connection.

use std::time::Duration;

use super::RefreshedBy;

/// A kind of middlebox, with its vendor's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What a user writes: `--profile aws-nlb`.
    pub name: &'static str,
    /// Its default idle timeout.
    pub idle_timeout: Duration,
    /// The range of values that can be configured, or `fixed`.
    pub range: &'static str,
    /// What the two ends see after it has dropped the connection. `not stated` if the source does not say it.
    pub at_expiry: &'static str,
    /// Where the numbers come from.
    pub source: &'static str,
    /// What restarts the idle timeout. If only payload does, TCP keepalive protects nothing.
    pub refreshed_by: RefreshedBy,
}

/// Every profile, grouped by vendor. Those that only payload refreshes come last.
pub static PROFILES: &[Profile] = &[
    l4("aws-nlb", 350, "60-6000 s; fixed for a TLS listener", "silent, then RST to whoever sends next", AWS_NLB),
    l4("aws-nat-gateway", 350, "fixed", "RST to the inside host that goes on", "AWS VPC, NAT gateway troubleshooting"),
    l4("aws-gwlb", 350, "60-6000 s", "silent; RST with send_tcp_reset.on_idle_timeout.enabled", AWS_GWLB),
    l4("aws-network-firewall", 350, "60-6000 s", "as the stream exception policy says", AWS_FIREWALL),
    l4("aws-privatelink", 350, "fixed", NOT_STATED, "AWS blog, long-running TCP connections within VPC networking"),
    l4(
        "aws-nitro-conntrack",
        350,
        "60-432000 s; default 432000 s before Nitro v6 and on P6e-GB200",
        "silent drop",
        AWS_CONNTRACK,
    ),
    l4("azure-lb", 240, "4-100 min", "silent unless TCP reset is enabled", "Azure docs, load-balancer-tcp-reset"),
    l4("azure-nat-gateway", 240, "4-120 min", "RST", "Azure docs, nat-gateway-resource"),
    l4("azure-firewall", 240, "to 15 min by support request; east-west 300 s", "RST; silent east-west", AZURE_FIREWALL),
    l4(
        "aks-outbound",
        1800,
        "4-120 min",
        "silent unless TCP reset is enabled",
        "Azure docs, AKS load-balancer-standard",
    ),
    l4("gcp-vpc", 600, "fixed", "inbound is dropped until an outbound packet", "Compute Engine troubleshooting"),
    l4("gcp-cloud-nat", 1200, "tcpEstablishedIdleTimeoutSec", NOT_STATED, "Compute Engine API, routers.nats"),
    l4("oci-network-lb", 360, "tcp-idle-timeout", NOT_STATED, "Oracle Cloud docs, configure-idle-timeout"),
    l4("tencent-clb", 900, "10-900 s; LCU instances to 1980 s", "RST only with two-way RST enabled", TENCENT_CLB),
    l4("tencent-gwlb", 350, NOT_STATED, NOT_STATED, "Tencent Cloud SDK, GWLB"),
    l4("alibaba-nlb", 900, "10-900 s", NOT_STATED, "NLB API, IdleTimeout"),
    l4("huawei-elb", 300, "10-4000 s", "close", "Huawei Cloud ELB FAQ, listener timeouts"),
    l4("kube-proxy-ipvs", 900, "--ipvs-tcp-timeout", "silent drop or RST", "Linux ip_vs_proto_tcp.c"),
    l4("docker-swarm", 900, NOT_STATED, "the connection hangs", "Linux ip_vs_proto_tcp.c"),
    l4("docker-desktop", 300, NOT_STATED, NOT_STATED, "docker/for-mac issue 5886"),
    l4("kube-proxy-conntrack", 86_400, "--conntrack-tcp-timeout-established", "breaks behind NAT", KUBE_PROXY),
    l4("linux-conntrack", 432_000, "nf_conntrack_tcp_timeout_established", NOT_STATED, CONNTRACK),
    l4("cilium", 8000, "bpf-ct-timeout-regular-tcp; 21600 s in older releases", NOT_STATED, "cilium-agent flags"),
    l4("f5-fastl4", 300, "configurable", "RST", "F5 AS3, L4_Profile"),
    l4("cisco-asa", 3600, "configurable", "silent drop", "Cisco ASA configuration guide, timeout conn"),
    l4("palo-alto", 3600, "configurable", "silent drop", "PAN-OS session settings, tcp timeout"),
    l4("juniper-srx", 1800, "configurable", NOT_STATED, "Junos OS, inactivity-timeout"),
    l4("fortigate", 3600, "session-ttl", NOT_STATED, "Fortinet docs, session-ttl"),
    l4("meraki", 300, NOT_STATED, NOT_STATED, "haproxy pull request 252"),
    l4("mikrotik", 86_400, "tcp-established-timeout", NOT_STATED, "RouterOS defaults, ip firewall connection tracking"),
    l4("nsx-edge", 3600, NOT_STATED, NOT_STATED, "VMware KB 2101275"),
    l4("pf", 86_400, "set timeout tcp.established", NOT_STATED, "OpenBSD pf.conf, also of pfSense and OPNsense"),
    l7("aws-alb", 60, "configurable", "AWS Application Load Balancer, idle_timeout.timeout_seconds"),
    l7("aws-classic-elb", 60, "1-4000 s", "AWS Classic Load Balancer, config-idle-timeout"),
    l7("cloudflare-gateway", 270, NOT_STATED, "Cloudflare Gateway, connection limits"),
    l7("cloudflare-proxy", 400, "fixed; 900 s to the origin", "Cloudflare Fundamentals, connection limits"),
    l7("envoy-tcp-proxy", 3600, "tcp_proxy.idle_timeout", "Envoy docs, faq/configuration/timeouts"),
    l7("envoy-http", 3600, "common_http_protocol_options.idle_timeout", "Envoy docs, faq/configuration/timeouts"),
    l7("haproxy-ingress", 50, "timeout-client, timeout-server", "haproxytech kubernetes-ingress, annotations.md"),
    l7("ingress-nginx-tcp", 600, "proxy-stream-timeout", "ingress-nginx configmap.md"),
    l7("nginx-stream", 600, "proxy_timeout", "nginx ngx_stream_proxy_module"),
    l7("oci-lb", 300, "listener idle timeout; HTTP 65 s", "Oracle Cloud docs, load balancer timeout settings"),
    l7("octavia", 50, "timeout_client_data", "OpenStack Octavia API, listeners; the amphora provider renders HAProxy"),
    l7("openshift-router", 30, "timeout client; tunnels 1 h", "OpenShift haproxy-config.template"),
];

/// The profile of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

const AWS_NLB: &str = "AWS Network Load Balancer, update-idle-timeout";
const AWS_CONNTRACK: &str = "Amazon EC2, security group connection tracking";
const AWS_GWLB: &str = "AWS Gateway Load Balancer, listeners";
const AWS_FIREWALL: &str = "AWS Network Firewall API, FlowTimeouts";
const TENCENT_CLB: &str = "CLB API, IdleConnectTimeout";
const AZURE_FIREWALL: &str = "Azure docs, firewall tcp-session-behavior";
const KUBE_PROXY: &str = "kube-proxy reference";
const CONNTRACK: &str = "Linux nf_conntrack-sysctl";
const NOT_STATED: &str = "not stated";

const fn l4(
    name: &'static str,
    seconds: u64,
    range: &'static str,
    at_expiry: &'static str,
    source: &'static str,
) -> Profile {
    let idle_timeout = Duration::from_secs(seconds);
    Profile { name, idle_timeout, range, at_expiry, source, refreshed_by: RefreshedBy::Segment }
}

const fn l7(name: &'static str, seconds: u64, range: &'static str, source: &'static str) -> Profile {
    let idle_timeout = Duration::from_secs(seconds);
    Profile { name, idle_timeout, range, at_expiry: "close", source, refreshed_by: RefreshedBy::Payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for profile in PROFILES {
            assert!(
                std::ptr::eq(find(profile.name).expect("is in the table"), profile),
                "{} exists twice",
                profile.name
            );
        }
        assert_eq!(find("AWS-NLB"), None);
    }

    #[test]
    fn only_payload_refreshes_layer_7_proxies() {
        for (name, refreshed_by) in [
            ("aws-nlb", RefreshedBy::Segment),
            ("linux-conntrack", RefreshedBy::Segment),
            ("aws-alb", RefreshedBy::Payload),
            ("aws-classic-elb", RefreshedBy::Payload),
            ("envoy-http", RefreshedBy::Payload),
            ("nginx-stream", RefreshedBy::Payload),
            ("octavia", RefreshedBy::Payload),
            ("openshift-router", RefreshedBy::Payload),
        ] {
            assert_eq!(find(name).map(|profile| profile.refreshed_by), Some(refreshed_by), "{name}");
        }
        let order: Vec<_> = PROFILES.iter().map(|profile| profile.refreshed_by == RefreshedBy::Payload).collect();
        assert!(order.is_sorted(), "profiles that only payload refreshes come last");
    }
}
