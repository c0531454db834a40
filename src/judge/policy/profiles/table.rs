//! The known middleboxes: one row each, with the vendor's numbers and the words of its documentation.

use super::{NOT_STATED, Profile, l4, l7, tcp_proxy};

/// Every profile, grouped by vendor. Those that only payload refreshes come last.
pub static PROFILES: &[Profile] = &[
    l4("aws-nlb", 350, "60-6000 s; fixed for a TLS listener")
        .expiry("silent, then RST to whoever sends next")
        .change("aws elbv2 modify-listener-attributes, tcp.idle_timeout.seconds (`remedy aws-service` for a Service)")
        .source("AWS Network Load Balancer, update-idle-timeout"),
    l4("aws-nat-gateway", 350, "fixed")
        .expiry("RST to the inside host that goes on")
        .source("AWS VPC, NAT gateway troubleshooting"),
    l4("aws-gwlb", 350, "60-6000 s")
        .expiry("silent; RST with send_tcp_reset.on_idle_timeout.enabled")
        .change("aws elbv2 modify-listener-attributes, tcp.idle_timeout.seconds")
        .source("AWS Gateway Load Balancer, listeners, update-idle-timeout"),
    l4("aws-network-firewall", 350, "60-6000 s")
        .expiry("drops it; later packets go as the stream exception policy says")
        .change("the firewall policy, StatefulEngineOptions.FlowTimeouts.TcpIdleTimeoutSeconds")
        .source("AWS Network Firewall API, FlowTimeouts"),
    l4("aws-privatelink", 350, "fixed").source("AWS blog, long-running TCP connections within VPC networking"),
    l4("aws-nitro-conntrack", 350, "60-432000 s; default 432000 s before Nitro v6 and on P6e-GB200")
        .expiry("silent drop")
        .change("the network interface, ConnectionTrackingSpecification.TcpEstablishedTimeout")
        .source("Amazon EC2 API, ConnectionTrackingConfiguration"),
    l4("azure-lb", 240, "4-100 min")
        .expiry("silent unless TCP reset is enabled")
        .change("idleTimeoutInMinutes of the load balancing rule (`remedy azure-service` for a Service)")
        .source("Azure docs, load-balancer-tcp-reset, load-balancer-tcp-idle-timeout"),
    l4("azure-nat-gateway", 240, "4-120 min")
        .expiry("RST")
        .change("idleTimeoutInMinutes of the NAT gateway")
        .source("Azure docs, nat-gateway-resource"),
    l4("azure-firewall", 240, "to 15 min north-south; east-west is fixed at 300 s")
        .expiry("RST; silent east-west")
        .change("a support request")
        .source("Azure docs, firewall tcp-session-behavior"),
    l4("aks-outbound", 1800, "4-120 min")
        .expiry("silent unless TCP reset is enabled")
        .change("az aks update --load-balancer-idle-timeout MINUTES")
        .source("Azure docs, AKS load-balancer-standard"),
    l4("gcp-vpc", 600, "fixed")
        .expiry("inbound is dropped until an outbound packet")
        .source("Compute Engine troubleshooting"),
    l4("gcp-cloud-nat", 1200, "yes")
        .change("gcloud compute routers nats update NAME --tcp-established-idle-timeout SECONDS")
        .source("Compute Engine API, routers.nats, tcpEstablishedIdleTimeoutSec"),
    l4("oci-network-lb", 360, "yes")
        .change("oci nlb listener update --tcp-idle-timeout SECONDS")
        .source("Oracle Cloud docs, configure-idle-timeout"),
    l4("tencent-clb", 900, "10-900 s; LCU instances to 1980 s")
        .expiry("RST only with two-way RST enabled")
        .change("the listener, IdleConnectTimeout")
        .source("CLB API, IdleConnectTimeout"),
    l4("tencent-gwlb", 350, NOT_STATED).source("Tencent Cloud SDK, GWLB"),
    l4("alibaba-nlb", 900, "1-900 s")
        .change("the listener, IdleTimeout")
        .source("Alibaba Cloud NLB API, CreateListener, IdleTimeout"),
    l4("huawei-elb", 300, "10-4000 s")
        .expiry("close")
        .change("the listener, keepalive_timeout (annotation kubernetes.io/elb.keepalive_timeout of a Service)")
        .source("Huawei Cloud ELB FAQ 0309, listener timeouts"),
    l4("kube-proxy-ipvs", 900, "yes")
        .expiry("silent drop or RST")
        .change("kube-proxy --ipvs-tcp-timeout")
        .source("Linux ip_vs_proto_tcp.c"),
    l4("docker-swarm", 900, NOT_STATED).expiry("the connection hangs").source("Linux ip_vs_proto_tcp.c"),
    l4("docker-desktop", 300, NOT_STATED).source("docker/for-mac issue 5886"),
    l4("kube-proxy-conntrack", 86_400, "yes")
        .expiry("breaks behind NAT")
        .change("kube-proxy --conntrack-tcp-timeout-established")
        .source("kube-proxy reference"),
    l4("linux-conntrack", 432_000, "yes")
        .expiry("drops its entry: behind NAT it breaks")
        .change("sysctl net.netfilter.nf_conntrack_tcp_timeout_established, or a ct timeout of nftables")
        .source("Linux nf_conntrack-sysctl"),
    l4("cilium", 8000, "yes; 21600 s before 1.15")
        .change("bpf-ct-timeout-regular-tcp of cilium-config; `cilium-dbg config -a` shows yours")
        .source("cilium-agent flags, bpf-ct-timeout-regular-tcp; cilium/cilium#27665"),
    l4("f5-fastl4", 300, "yes; -1 is never")
        .expiry("RST with resetOnTimeout, which is the default")
        .change("the profile's idleTimeout")
        .source("F5 AS3, L4_Profile"),
    l4("cisco-asa", 3600, "1 s-1193 h; 0 is never")
        .expiry("silent drop; RST with `reset`")
        .change("timeout conn, or in a policy map: set connection timeout idle HH:MM:SS reset")
        .source("Cisco ASA Firewall CLI configuration guide, connection settings"),
    l4("palo-alto", 3600, "1-15999999 s")
        .expiry("closes its session; what the ends see is not stated")
        .change("Device > Setup > Session > Session Timeouts, TCP; an application may have its own")
        .source("PAN-OS documentation, configure session timeouts"),
    l4("juniper-srx", 1800, "4-86400 s")
        .change("inactivity-timeout of the application")
        .source("Junos OS documentation, flow-based sessions"),
    l4("huawei-usg", 1200, "yes")
        .change("in a rule of the security policy: session aging-time SECONDS")
        .source("output of `display firewall session aging-time`; USG documentation, security policies"),
    l4("fortigate", 3600, "yes").change("config system session-ttl").source("Fortinet docs, session-ttl"),
    l4("meraki", 300, NOT_STATED).source("haproxy pull request 252"),
    l4("mikrotik", 86_400, "yes")
        .change("/ip firewall connection tracking set tcp-established-timeout")
        .source("RouterOS defaults, ip firewall connection tracking"),
    l4("nsx-edge", 3600, NOT_STATED).source("VMware KB 2101275"),
    l4("pf", 86_400, "yes")
        .change("set timeout tcp.established SECONDS")
        .source("OpenBSD pf.conf, also of pfSense and OPNsense"),
    l7("aws-alb", 60, "1-4000 s")
        .expiry("close; HTTP/2 and gRPC PINGs do not refresh it")
        .pings("do not refresh it (the page on load balancer attributes says so)")
        .change("the load balancer attribute idle_timeout.timeout_seconds")
        .source("AWS Application Load Balancer, load balancer attributes"),
    tcp_proxy("aws-classic-elb", 60, "1-4000 s")
        .pings("refresh it: it reads no HTTP/2, so they cross it only as bytes of a TCP or SSL listener")
        .change("ConnectionSettings.IdleTimeout (annotation aws-load-balancer-connection-idle-timeout of a Service)")
        .source("AWS Classic Load Balancer, config-idle-timeout"),
    l7("cloudflare-gateway", 270, NOT_STATED).source("Cloudflare Gateway, connection limits; not confirmed by us"),
    l7("cloudflare-proxy", 400, "fixed; 900 s to the origin")
        .pings("are not stated to refresh its limit `Connection Idle HTTP/2`, so they do not count")
        .change("for Enterprise customers by the account team")
        .source("Cloudflare Fundamentals, connection limits"),
    tcp_proxy("envoy-tcp-proxy", 3600, "yes; 0 is never")
        .change("idle_timeout of the TCP proxy")
        .source("Envoy docs, faq/configuration/timeouts"),
    l7("envoy-http", 3600, "yes; 0 is never")
        .pings("do not refresh it: it runs while no request is open (Istio's API, idleTimeout; envoyproxy/envoy#6464)")
        .change("common_http_protocol_options.idle_timeout; it counts only while no request is open")
        .source("Envoy docs, faq/configuration/timeouts"),
    l7("gcp-alb", 610, "5-1200 s; 600 s where regional or internal, and fixed 600 s to the backend")
        .change("gcloud compute target-https-proxies update NAME --http-keep-alive-timeout-sec SECONDS")
        .source("Compute Engine API, targetHttpsProxies, httpKeepAliveTimeoutSec"),
    l7("haproxy", 50, "yes; none if it is not set")
        .pings("do not refresh `timeout http-keep-alive` (mode http; mux_h2.c); without it and in mode tcp they do")
        .change("timeout client, timeout server, timeout tunnel")
        .source("Debian's haproxy.cfg and the HAProxy configuration manual, which has no default"),
    l7("haproxy-ingress", 50, "yes")
        .pings("do not refresh `timeout http-keep-alive` (HAProxy mux_h2.c, idle_start)")
        .change("timeout-client, timeout-server of the ConfigMap")
        .source("haproxytech kubernetes-ingress, annotations.md"),
    tcp_proxy("ingress-nginx-tcp", 600, "yes")
        .change("proxy-stream-timeout of the ConfigMap")
        .source("ingress-nginx configmap.md"),
    l7("nginx-http", 75, "yes")
        .pings("do not refresh it: since 1.19.7 the timeout runs once between requests (commit 94567a8f8)")
        .change("keepalive_timeout; `keep-alive` in the ConfigMap of ingress-nginx")
        .source("nginx ngx_http_core_module, keepalive_timeout"),
    tcp_proxy("nginx-stream", 600, "yes").change("proxy_timeout").source("nginx ngx_stream_proxy_module"),
    l7("oci-lb", 300, "yes; HTTP 65 s")
        .change("the listener's idle timeout")
        .source("Oracle Cloud docs, load balancer timeout settings"),
    l7("octavia", 50, "yes")
        .pings("do not refresh a listener that ends TLS, which offers h2; they refresh a TCP listener")
        .change("openstack loadbalancer listener set --timeout-client-data MS --timeout-member-data MS")
        .source("OpenStack Octavia API, listeners; the amphora provider renders HAProxy"),
    l7("openshift-router", 30, "yes; tunnels 1 h")
        .pings("do not refresh edge and re-encrypt routes (http-keep-alive); they refresh passthrough routes")
        .change("annotation haproxy.router.openshift.io/timeout of the Route")
        .source("OpenShift haproxy-config.template"),
];
