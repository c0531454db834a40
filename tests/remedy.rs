//! Every remedy: parses the printed configuration and checks its exact objects and fields in the form of their APIs.

#![expect(clippy::panic, reason = "helpers of tests may panic like tests")]

use std::time::Duration;

use keepalive_auditor::remedy::{self, RemedyError, Rendered, Request};
use serde_json::{Value, json};

const TARGETS: [&str; 55] = [
    "aws-service",
    "azure-service",
    "c",
    "cilium",
    "compose",
    "contour",
    "curl",
    "docker",
    "dotnet",
    "envoy-cluster",
    "envoy-gateway",
    "envoy-listener",
    "gloo-gateway",
    "gloo-mesh",
    "gloo-static-cluster",
    "gloo-upstream",
    "go",
    "grpc",
    "haproxy",
    "haproxy-ingress",
    "haproxytech-ingress",
    "ingress-nginx",
    "ioredis",
    "istio-destination-rule",
    "istio-gateway",
    "istio-mesh",
    "istio-sidecar-inbound",
    "java",
    "kafka",
    "kgateway",
    "kong",
    "libpq",
    "linkerd",
    "mariadb",
    "mysql",
    "mysql2",
    "nginx",
    "node",
    "npgsql",
    "pgbouncer",
    "pod-sysctl",
    "postgresql",
    "preload",
    "python",
    "rabbitmq",
    "redis",
    "redis-py",
    "rust",
    "sshd",
    "sysctl",
    "systemd-socket",
    "systemd-unit",
    "traefik",
    "user-timeout",
    "ztunnel",
];

/// They raise the limit of the path and set no times.
const WITHOUT_TIMES: [&str; 2] = ["aws-service", "azure-service"];

fn request(target: &str) -> Request {
    Request {
        target: target.into(),
        idle: Some(Duration::from_mins(5)),
        interval: Some(Duration::from_secs(20)),
        probes: Some(4),
        host: None,
        port: None,
        name: None,
        namespace: None,
        envoy_version: None,
        budget: Duration::from_secs(350),
    }
}

fn render(request: &Request) -> Rendered {
    remedy::render(request).unwrap_or_else(|error| panic!("{}: {error}", request.target))
}

fn documents(request: &Request) -> Vec<Value> {
    let text = render(request).stdout;
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", request.target))
}

fn document(request: &Request) -> Value {
    let mut documents = documents(request);
    assert_eq!(documents.len(), 1, "{}", request.target);
    documents.remove(0)
}

/// The four options of a listener, in Gloo's or Envoy's spelling of the value.
fn socket_options(value_key: &str) -> Value {
    let state = "STATE_PREBIND";
    let option = |description, level, name, value| {
        json!({ "description": description, "level": level, "name": name,
        value_key: value, "state": state })
    };
    json!([
        option("SO_KEEPALIVE", 1, 9, 1),
        option("TCP_KEEPIDLE", 6, 4, 300),
        option("TCP_KEEPINTVL", 6, 5, 20),
        option("TCP_KEEPCNT", 6, 6, 4),
    ])
}

fn metadata(name: &str, namespace: &str) -> Value {
    json!({ "name": name, "namespace": namespace })
}

#[test]
fn the_list_describes_every_target() {
    let targets = remedy::list().expect("all parse");
    assert_eq!(targets.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), TARGETS);
    for target in targets {
        let text = target.to_string();
        for word in ["fixes: ", "keepalive ", "effect: ", "caveat: "] {
            assert!(text.contains(word), "{text}");
        }
        assert!(!target.sources.is_empty(), "{} names no source", target.name);
        assert!(!target.takes_effect.is_empty() && !target.caveat.is_empty(), "{text}");
        assert!(!text.contains("{{") && !text.contains("{%"), "{text}");
    }
}

#[test]
fn every_target_renders_with_and_without_flags_and_carries_the_idle_time() {
    for target in TARGETS {
        let derived = Request { idle: None, interval: None, probes: None, ..request(target) };
        for (request, idle) in [(request(target), "300"), (derived, "175")] {
            let stdout = render(&request).stdout;
            assert!(stdout.contains(idle) || WITHOUT_TIMES.contains(&target), "{target}:\n{stdout}");
            assert!(stdout.ends_with('\n'), "{target}:\n{stdout}");
            let rendered = render(&request);
            for text in rendered.hints.iter().chain([&rendered.stdout]) {
                assert!(!text.contains("{{") && !text.contains("{%"), "{target} leaks a variable:\n{text}");
            }
        }
    }
}

#[test]
fn istio_destination_rule() {
    let request = Request {
        host: Some("db.example.com".into()),
        port: Some(5432),
        name: Some("db".into()),
        namespace: Some("shop".into()),
        ..request("istio-destination-rule")
    };
    let keepalive = json!({ "time": "300s", "interval": "20s", "probes": 4 });
    let rule = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": metadata("db", "shop"),
        "spec": {
            "host": "db.example.com",
            "trafficPolicy": { "connectionPool": { "tcp": { "tcpKeepalive": keepalive } } },
        },
    });
    let entry = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": metadata("db", "shop"),
        "spec": {
            "hosts": ["db.example.com"],
            "location": "MESH_EXTERNAL",
            "resolution": "DNS",
            "ports": [{ "number": 5432, "name": "tcp-5432", "protocol": "TCP" }],
        },
    });
    assert_eq!(documents(&request), [entry, rule]);
}

#[test]
fn a_host_of_the_cluster_needs_no_service_entry() {
    for host in ["orders", "orders.shop.svc", "orders.shop.svc.cluster.local"] {
        let rule = document(&Request { host: Some(host.into()), ..request("istio-destination-rule") });
        assert_eq!((&rule["kind"], &rule["spec"]["host"]), (&json!("DestinationRule"), &json!(host)));
    }
}

#[test]
fn an_external_address_gets_a_name_for_both_objects() {
    let found =
        documents(&Request { host: Some("192.0.2.7".into()), port: Some(443), ..request("istio-destination-rule") });
    let spec = &found[0]["spec"];
    assert_eq!(spec["addresses"], json!(["192.0.2.7"]));
    assert_eq!((&spec["resolution"], &spec["endpoints"]), (&json!("STATIC"), &json!([{ "address": "192.0.2.7" }])));
    assert_eq!(spec["ports"][0]["protocol"], "TLS");
    assert_eq!(spec["hosts"][0], found[1]["spec"]["host"]);
}

#[test]
fn istio_mesh() {
    let tcp_keepalive = json!({ "time": "300s", "interval": "20s", "probes": 4 });
    assert_eq!(document(&request("istio-mesh")), json!({ "meshConfig": { "tcpKeepalive": tcp_keepalive } }));
}

fn envoy_filter(namespace: &str, matches: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": metadata("keepalive", namespace),
        "spec": { "configPatches": [{
            "applyTo": "LISTENER",
            "match": matches,
            "patch": { "operation": "MERGE", "value": { "socket_options": socket_options("int_value") } },
        }] },
    })
}

#[test]
fn istio_gateway_and_sidecar() {
    let gateway = document(&Request { port: Some(443), ..request("istio-gateway") });
    let matches = json!({ "context": "GATEWAY", "listener": { "portNumber": 443 } });
    assert_eq!(gateway, envoy_filter("istio-system", &matches));

    let sidecar = document(&request("istio-sidecar-inbound"));
    let matches =
        json!({ "context": "SIDECAR_INBOUND", "listener": { "name": "virtualInbound", "portNumber": 15006 } });
    assert_eq!(sidecar, envoy_filter("default", &matches));
}

#[test]
fn envoy_in_both_forms() {
    let old = json!({ "socket_options": socket_options("int_value") });
    let new = json!({ "tcp_keepalive": { "keepalive_probes": 4, "keepalive_time": 300, "keepalive_interval": 20 } });
    for (version, expected) in [(None, &old), (Some("1.36.2"), &old), (Some("1.37"), &new), (Some("v1.40.0"), &new)] {
        let found = document(&Request { envoy_version: version.map(Into::into), ..request("envoy-listener") });
        assert_eq!(&found, expected, "{version:?}");
    }
    assert_eq!(document(&request("envoy-cluster")), json!({ "upstream_connection_options": new }));
}

#[test]
fn gloo_edge() {
    let gateway = document(&request("gloo-gateway"));
    assert_eq!((&gateway["apiVersion"], &gateway["kind"]), (&json!("gateway.solo.io/v1"), &json!("Gateway")));
    assert_eq!(gateway["spec"]["options"], json!({ "socketOptions": socket_options("intValue") }));
    assert_eq!(gateway["spec"]["bindPort"], 8080);

    let keepalive = json!({ "keepaliveTime": "300s", "keepaliveInterval": "20s", "keepaliveProbes": 4 });
    let upstream = document(&request("gloo-upstream"));
    assert_eq!((&upstream["apiVersion"], &upstream["kind"]), (&json!("gloo.solo.io/v1"), &json!("Upstream")));
    assert_eq!(upstream["spec"]["connectionConfig"], json!({ "tcpKeepalive": keepalive }));
    assert_eq!(upstream["spec"]["static"]["hosts"], json!([{ "addr": "backend.example.com", "port": 443 }]));
    let service = document(&Request { host: Some("orders.shop.svc".into()), ..request("gloo-upstream") });
    let kube = json!({ "serviceName": "orders", "serviceNamespace": "shop", "servicePort": 443 });
    assert_eq!(service["spec"]["kube"], kube);

    let helm = document(&request("gloo-static-cluster"));
    assert_eq!(helm, json!({ "gloo": { "gatewayProxies": { "gatewayProxy": { "tcpKeepaliveTimeSeconds": 60 } } } }));
}

#[test]
fn gloo_static_clusters_are_never_loosened() {
    for (idle, expected) in [(20, 20), (60, 60), (175, 60)] {
        let request = Request { idle: Some(Duration::from_secs(idle)), ..request("gloo-static-cluster") };
        let proxy = &document(&request)["gloo"]["gatewayProxies"]["gatewayProxy"];
        assert_eq!(proxy["tcpKeepaliveTimeSeconds"], expected, "{idle}");
    }
}

#[test]
fn gloo_mesh() {
    let keepalive = json!({ "time": "300s", "interval": "20s", "probes": 4 });
    let found = documents(&request("gloo-mesh"));
    assert_eq!(found.iter().map(|d| &d["apiVersion"]).collect::<Vec<_>>(), ["resilience.policy.gloo.solo.io/v2"; 2]);
    assert_eq!(found.iter().map(|d| &d["kind"]).collect::<Vec<_>>(), ["ConnectionPolicy", "ListenerConnectionPolicy"]);
    let selector = json!({ "name": "backend", "namespace": "default" });
    assert_eq!(found[0]["spec"]["applyToDestinations"], json!([{ "kind": "SERVICE", "selector": selector }]));
    assert_eq!(found[0]["spec"]["config"], json!({ "tcp": { "tcpKeepalive": keepalive } }));
    assert_eq!(found[1]["spec"]["config"], json!({ "tcpKeepalive": keepalive }));
    assert_eq!(found[1]["spec"]["applyToListeners"][0]["port"], json!({ "number": 443 }));
}

#[test]
fn kgateway_and_envoy_gateway() {
    let policy = document(&request("kgateway"));
    assert_eq!(
        (&policy["apiVersion"], &policy["kind"]),
        (&json!("gateway.kgateway.dev/v1alpha1"), &json!("BackendConfigPolicy"))
    );
    assert_eq!(policy["spec"]["targetRefs"], json!([{ "group": "", "kind": "Service", "name": "backend" }]));
    let keepalive = json!({ "keepAliveProbes": 4, "keepAliveTime": "300s", "keepAliveInterval": "20s" });
    assert_eq!(policy["spec"]["tcpKeepalive"], keepalive);

    let found = documents(&request("envoy-gateway"));
    assert_eq!(found.iter().map(|d| &d["apiVersion"]).collect::<Vec<_>>(), ["gateway.envoyproxy.io/v1alpha1"; 2]);
    assert_eq!(found.iter().map(|d| &d["kind"]).collect::<Vec<_>>(), ["ClientTrafficPolicy", "BackendTrafficPolicy"]);
    for policy in found {
        assert_eq!(policy["spec"]["tcpKeepalive"], json!({ "probes": 4, "idleTime": "300s", "interval": "20s" }));
        assert_eq!(policy["spec"]["targetRefs"][0]["kind"], "Gateway");
    }
}

#[test]
fn pod_sysctl() {
    let pod = document(&request("pod-sysctl"));
    assert_eq!((&pod["apiVersion"], &pod["kind"]), (&json!("v1"), &json!("Pod")));
    let sysctl = |name, value| json!({ "name": format!("net.ipv4.tcp_keepalive_{name}"), "value": value });
    // Values of sysctls are strings in this API.
    let sysctls = json!([sysctl("time", "300"), sysctl("intvl", "20"), sysctl("probes", "4")]);
    assert_eq!(pod["spec"]["securityContext"], json!({ "sysctls": sysctls }));
}

#[test]
fn containers_and_ingress_controllers() {
    let sysctl = |name| format!("net.ipv4.tcp_keepalive_{name}");
    let sysctls = json!({ sysctl("time"): 300, sysctl("intvl"): 20, sysctl("probes"): 4 });
    let app = Request { name: Some("web".into()), ..request("compose") };
    assert_eq!(document(&app), json!({ "services": { "web": { "sysctls": sysctls } } }));

    let data = |target| document(&request(target))["data"].clone();
    let lines = |side| format!("option {side}tcpka\n{side}tcpka-idle 300s\n{side}tcpka-intvl 20s\n{side}tcpka-cnt 4\n");
    assert_eq!(data("haproxy-ingress"), json!({ "config-defaults": lines("cli") + &lines("srv") }));
    let snippets = json!({ "frontend-config-snippet": lines("cli"), "backend-config-snippet": lines("srv") });
    assert_eq!(data("haproxytech-ingress"), snippets);
    let http = "proxy_socket_keepalive on;\ngrpc_socket_keepalive on;\n";
    assert_eq!(data("ingress-nginx"), json!({ "http-snippet": http }));

    assert_eq!(document(&request("traefik"))["spec"], json!({ "dialKeepAlive": "300s" }));
    let env = json!({
        "KEEPALIVE_ENABLED": "true",
        "KEEPALIVE_TIME": "300s",
        "KEEPALIVE_INTERVAL": "20s",
        "KEEPALIVE_RETRIES": "4",
    });
    assert_eq!(document(&request("ztunnel")), json!({ "env": env }));
}

#[test]
fn a_clouds_limit_is_raised_by_an_annotation() {
    let annotations = |target| {
        let service = document(&Request { port: Some(5432), ..request(target) });
        assert_eq!((&service["apiVersion"], &service["kind"]), (&json!("v1"), &json!("Service")));
        service["metadata"]["annotations"].clone()
    };
    let listener = "service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-5432";
    assert_eq!(annotations("aws-service"), json!({ listener: "tcp.idle_timeout.seconds=6000" }));
    let minutes = "service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout";
    assert_eq!(annotations("azure-service"), json!({ minutes: "30" }));
}

#[test]
fn configuration_that_is_not_yaml_is_printed_word_for_word() {
    let has = |target: &str, line: &str| {
        let stdout = render(&request(target)).stdout;
        assert!(stdout.lines().any(|found| found.trim() == line), "{target} lacks {line:?}:\n{stdout}");
    };
    has("nginx", "listen 80 so_keepalive=300s:20s:4;");
    has("nginx", "proxy_socket_keepalive on;");
    for line in ["option clitcpka", "clitcpka-idle 300s", "clitcpka-intvl 20s", "clitcpka-cnt 4", "option srvtcpka"] {
        has("haproxy", line);
    }
    for line in ["export LD_PRELOAD=libkeepalive.so", "export KEEPIDLE=300", "export KEEPINTVL=20", "export KEEPCNT=4"]
    {
        has("preload", line);
    }
    has("redis", "tcp-keepalive 300");
    has("node", "socket.setKeepAlive(true, 300 * 1000, 20 * 1000, 4);");
    has("grpc", "#     Time: 300 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true})");
    has("grpc", "#     .permitKeepAliveTime(150000, MILLISECONDS).permitKeepAliveWithoutCalls(true)");
    // Without it the client closes a connection that is idle for a minute, and sends no PING before.
    has("grpc", "#     PooledConnectionIdleTimeout = Timeout.InfiniteTimeSpan }");
    has("grpc", "#     options.Limits.KeepAliveTimeout = TimeSpan.FromSeconds(600)");
    has("postgresql", "tcp_keepalives_idle = 300");
    has("sysctl", "net.ipv4.tcp_keepalive_time = 300");
    has("mysql", "net.ipv4.tcp_keepalive_intvl = 20");
    has("systemd-socket", "KeepAliveTimeSec=300");
    has("curl", "keepalive-time = 300");
    has("sshd", "ClientAliveInterval 300");
    has("mysql2", "const KEEPALIVE = { enableKeepAlive: true, keepAliveInitialDelay: 300 * 1000 };");
    has("ioredis", "keepAlive: 300 * 1000,");
    has("redis-py", "socket.TCP_KEEPIDLE: 300,");
    has("rabbitmq", "{raw, 6, 4, <<300:32/native>>},");
    has("kafka", "socket.keepalive.enable=true");
    has("kafka", "connections.max.idle.ms=300000");
    has("kong", "nginx_proxy_proxy_socket_keepalive = on");
    has("npgsql", "Host=db.example.com;Port=5432;Tcp Keepalive=true;Tcp Keepalive Time=300;Tcp Keepalive Interval=20");
    for line in ["tcp_keepalive = 1", "tcp_keepidle = 300", "tcp_keepintvl = 20", "tcp_keepcnt = 4"] {
        has("pgbouncer", line);
    }
    for line in ["[mariadbd]", "tcp_keepalive_time = 300", "tcp_keepalive_interval = 20", "tcp_keepalive_probes = 4"] {
        has("mariadb", line);
    }
    has("dotnet", "socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, 300);");
    has("c", "int on = 1, idle = 300, interval = 20, probes = 4;");
    has("go", "Idle:     300 * time.Second,");
    let libpq =
        "host=db.example.com port=5432 keepalives=1 keepalives_idle=300 keepalives_interval=20 keepalives_count=4\n";
    assert_eq!(render(&request("libpq")).stdout, libpq, "a connection string cannot hold anything else");
}

#[test]
fn values_that_cannot_protect_are_refused_for_every_target() {
    for target in TARGETS {
        for idle in [7200, 700, 350, 340] {
            let request = Request { idle: Some(Duration::from_secs(idle)), ..request(target) };
            let error = remedy::render(&request).expect_err("cannot protect");
            assert!(matches!(error, RemedyError::TooLate { .. }), "{target}: {error}");
            assert!(error.to_string().contains(&format!("--idle {idle}s cannot protect")), "{error}");
        }
    }
    let slow =
        Request { idle: Some(Duration::from_secs(700)), budget: Duration::from_mins(15), ..request("gloo-mesh") };
    assert_eq!(documents(&slow)[0]["spec"]["config"]["tcp"]["tcpKeepalive"]["time"], "700s");
}

#[test]
fn invalid_values_are_refused() {
    let refused = |request: Request, word: &str| {
        let error = remedy::render(&request).expect_err("is wrong").to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(Request { namespace: Some("Shop".into()), ..request("istio-gateway") }, "--namespace");
    refused(Request { name: Some("a\nb".into()), ..request("istio-gateway") }, "--name");
    refused(Request { host: Some("a b".into()), ..request("python") }, "--host");
    refused(Request { host: Some("10.0.0.1".into()), ..request("kgateway") }, "--host");
    refused(Request { port: Some(0), ..request("nginx") }, "--port");
    refused(Request { envoy_version: Some("new".into()), ..request("envoy-listener") }, "--envoy-version");
    refused(request("apache"), "--list");
}

#[test]
fn hints_say_what_was_assumed_and_never_reach_stdout() {
    let all = Request {
        host: Some("db.example.com".into()),
        port: Some(5432),
        name: Some("db".into()),
        namespace: Some("shop".into()),
        ..request("istio-destination-rule")
    };
    assert!(!render(&all).hints.iter().any(|hint| hint.contains("Assumed")), "nothing was assumed");
    let useless = Request { namespace: Some("shop".into()), ..request("nginx") };
    assert!(render(&useless).hints.iter().any(|hint| hint == "nginx has no use for --namespace."));
    let hints = render(&request("istio-destination-rule")).hints.join("\n");
    assert!(hints.contains("--host backend.example.com --port 443 --name keepalive --namespace default"), "{hints}");
    assert!(hints.contains("a dead peer is noticed only after 380 s"), "{hints}");
}
