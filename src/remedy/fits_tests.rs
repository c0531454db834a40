//! Which remedies fit, as a table over everything that decides it.

use std::fmt::Write as _;

use super::*;
use crate::remedy;

const PYTHON: Binary = Binary { linking: Linking::Dynamic, language: None };
const GO: Binary = Binary { linking: Linking::Static, language: Some(Language::Go) };
const CGO: Binary = Binary { linking: Linking::Dynamic, language: Some(Language::Go) };
const RUST: Binary = Binary { linking: Linking::Static, language: Some(Language::Rust) };
const MUSL: Binary = Binary { linking: Linking::Static, language: None };
const DYNAMIC: Binary = PYTHON;

/// One connection: an application in a pod, outbound to port 443 with keepalive off, unless changed.
#[derive(Clone)]
struct Row {
    owner: Owner,
    /// `None`: nobody holds it, or the processes were not searched.
    holder: Option<Holder>,
    is_sought: bool,
    host_network: Option<bool>,
    direction: Direction,
    port: u16,
    keepalive: Keepalive,
    is_default: bool,
    reads_http2: bool,
}

fn of(exe: &str, binary: Binary) -> Row {
    Row {
        owner: Owner {
            kind: OwnerKind::Pod,
            namespace: Some("shop".to_owned()),
            pod: Some("web-0".to_owned()),
            container: Some("app".to_owned()),
            ..Owner::default()
        },
        holder: Some(Holder { pid: 7, exe: exe.to_owned(), binary: Some(binary), ..Holder::default() }),
        is_sought: true,
        host_network: Some(false),
        direction: Direction::Outbound,
        port: 443,
        keepalive: Keepalive::Off,
        is_default: false,
        reads_http2: false,
    }
}

impl Row {
    /// The container, and the pod that it is in.
    fn within(mut self, container: &str, pod: &str) -> Self {
        self.owner.container = Some(container.to_owned());
        self.owner.pod = Some(pod.to_owned());
        self
    }

    fn owned_by(mut self, kind: OwnerKind) -> Self {
        self.owner = Owner { kind, container: Some("data".to_owned()), ..Owner::default() };
        self
    }

    fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// On a path with a middlebox that reads HTTP/2 itself.
    fn behind_http2(self) -> Self {
        Self { reads_http2: true, ..self }
    }

    fn inbound(self, port: u16) -> Self {
        Self { direction: Direction::Inbound, port, ..self }
    }

    /// Late with the system's default times.
    fn late(self) -> Self {
        Self { keepalive: Keepalive::Late, is_default: true, ..self }
    }

    /// Late with times of its own.
    fn too_long(self) -> Self {
        Self { keepalive: Keepalive::Late, ..self }
    }

    fn in_host_network(self) -> Self {
        Self { host_network: Some(true), ..self }
    }

    fn with(mut self, library: &str) -> Self {
        self.holder.iter_mut().for_each(|holder| holder.libraries.push(library.to_owned()));
        self
    }

    fn called(mut self, comm: &str) -> Self {
        self.holder.iter_mut().for_each(|holder| {
            comm.clone_into(&mut holder.comm);
            comm.clone_into(&mut holder.argv0);
        });
        self
    }

    fn held_by_nobody(self) -> Self {
        Self { holder: None, ..self }
    }

    fn not_searched(self) -> Self {
        Self { holder: None, is_sought: false, ..self }
    }

    fn fitting(&self) -> (Vec<String>, Vec<String>) {
        let targets = remedy::list().expect("the data files parse");
        let held_by = match &self.holder {
            Some(holder) => HeldBy::Process(holder),
            None if self.is_sought => HeldBy::Nobody,
            None => HeldBy::Unknown,
        };
        let Self { host_network, direction, port, keepalive, is_default, reads_http2, .. } = *self;
        let owner = &self.owner;
        let situation = Situation { held_by, owner, host_network, direction, port, keepalive, is_default, reads_http2 };
        let Fitting { targets, in_code } = fitting(&targets, &situation);
        let names = |targets: Vec<&Target>| targets.into_iter().map(|target| target.name.clone()).collect();
        (names(targets), names(in_code))
    }
}

/// Whether exactly these remedies fit, in this order, of those that the table knows.
fn check(table: &[(&str, Row, &[&str])]) {
    let mut wrong = String::new();
    for (name, row, expected) in table {
        let (found, in_code) = row.fitting();
        if found != *expected || !in_code.is_empty() {
            let _ = writeln!(wrong, "{name}: {found:?} and {in_code:?} instead of {expected:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn proxies_are_configured_where_their_product_is_configured() {
    let envoy = || of("envoy", DYNAMIC).called("envoy");
    let istio = |pod| envoy().within("istio-proxy", pod);
    let mut gloo_mesh = istio("gateway-0").inbound(8443);
    gloo_mesh.owner.namespace = Some("gloo-mesh-gateways".to_owned());
    let gateway = "envoy-shop-eg-5391ade7-6b8c9d7f4b-zz5wq";
    check(&[
        ("sidecar, outbound", istio("web-0").port(5432), &["istio-destination-rule", "istio-mesh"]),
        ("sidecar, inbound", istio("web-0").inbound(15006), &["istio-sidecar-inbound"]),
        ("gateway, inbound", istio("istio-ingressgateway-6b8c9d7f4b-zz5wq").inbound(8443), &["istio-gateway"]),
        ("gateway of Gloo Mesh", gloo_mesh, &["gloo-mesh", "istio-gateway"]),
        ("waypoint, inbound", istio("waypoint-6b8c9d7f4b-zz5wq").inbound(15008), &[]),
        ("waypoint, another port", istio("shop-waypoint-6b8c9d7f4b-zz5wq").inbound(8443), &[]),
        ("waypoint, outbound", istio("waypoint-0").port(8080), &["istio-destination-rule", "istio-mesh"]),
        ("a control connection", istio("web-0").port(15012), &[]),
        ("pilot-agent", of("pilot-agent", GO).within("istio-proxy", "web-0").port(15012), &["go"]),
        ("another program in it", of("server", DYNAMIC).within("istio-proxy", "web-0"), &["c", "preload"]),
        ("not searched", istio("web-0").inbound(15006).not_searched(), &["istio-sidecar-inbound"]),
        ("Gloo, a client", envoy().within("gateway-proxy", "gateway-proxy-0").inbound(8443), &["gloo-gateway"]),
        ("Gloo, an upstream", envoy().within("gateway-proxy", "gateway-proxy-0"), &["gloo-upstream"]),
        ("Gloo, xDS", envoy().within("gateway-proxy", "gateway-proxy-0").port(9977), &["gloo-static-cluster"]),
        ("kgateway, outbound", envoy().within("kgateway-proxy", "http-0"), &["kgateway"]),
        ("kgateway, inbound", envoy().within("kgateway-proxy", "http-0").inbound(8080), &[]),
        ("Envoy Gateway", envoy().within("envoy", gateway).inbound(8443), &["envoy-gateway"]),
        ("Envoy alone", envoy().owned_by(OwnerKind::Unit).inbound(8443), &["envoy-listener"]),
        ("Envoy alone, outbound", envoy().owned_by(OwnerKind::Netns), &["envoy-cluster"]),
        ("nginx", of("nginx", DYNAMIC).inbound(80), &["nginx"]),
        ("HAProxy", of("haproxy", DYNAMIC).inbound(80), &["haproxy"]),
        ("its exporter", of("haproxy_exporter", GO).inbound(9101), &["go"]),
    ]);
}

#[test]
fn ztunnel_is_not_envoy() {
    let ztunnel = of("ztunnel", RUST).within("istio-proxy", "ztunnel-x2k8p");
    for row in [ztunnel.clone(), ztunnel.clone().inbound(15008), ztunnel.late(), of("x", GO).not_searched()] {
        let row = row.within("istio-proxy", "ztunnel-x2k8p");
        let (found, _) = row.fitting();
        assert!(!found.iter().any(|name| name.contains("istio") || name.contains("envoy")), "{found:?}");
    }
}

#[test]
fn ztunnel_is_configured_and_not_built_again() {
    let within = |row: Row| row.within("istio-proxy", "ztunnel-x2k8p").late();
    check(&[
        ("ztunnel", within(of("ztunnel", RUST)), &["ztunnel", "pod-sysctl"]),
        ("ztunnel, not searched", within(of("", RUST)).not_searched(), &["ztunnel", "pod-sysctl"]),
        ("another program", within(of("server", GO)), &["pod-sysctl", "go"]),
    ]);
}

#[test]
fn programs_are_fixed_in_their_language_and_preload_is_for_dynamic_ones() {
    check(&[
        ("Go", of("server", GO), &["go"]),
        ("Go with cgo", of("server", CGO), &["go"]),
        ("Go, late", of("server", GO).late(), &["pod-sysctl", "go"]),
        ("Rust", of("server", RUST), &["rust"]),
        ("static, another language", of("server", MUSL), &["c"]),
        ("static, late", of("server", MUSL).late(), &["pod-sysctl", "c"]),
        ("dynamic, another language", of("server", DYNAMIC), &["c", "preload"]),
        ("Python", of("python3.11", PYTHON).called("python3"), &["python", "preload"]),
        ("Python with gRPC", of("python3.11", PYTHON).with("cygrpc.cpython-311.so"), &["grpc", "python"]),
        (
            "behind an ALB",
            of("python3.11", PYTHON).with("cygrpc.cpython-311.so").behind_http2(),
            &["python", "preload"],
        ),
        ("Java", of("java", DYNAMIC), &["java", "preload"]),
        ("Node.js", of("node", DYNAMIC), &["node", "preload"]),
        ("a launcher of Java", of("shop", DYNAMIC).with("libjvm.so"), &["java", "preload"]),
        ("uWSGI", of("uwsgi-core", DYNAMIC).with("libpython3.11.so.1.0"), &["python", "preload"]),
        (".NET in one file", of("shop", DYNAMIC).with("libcoreclr.so").port(5432), &["npgsql", "dotnet"]),
        ("a bare namespace, late", of("server", MUSL).owned_by(OwnerKind::Netns).late(), &["sysctl", "c"]),
        ("PostgreSQL's exporter", of("postgres_exporter", GO).port(5432).late(), &["pod-sysctl", "go"]),
        ("Redis", of("redis-check-rdb", DYNAMIC).called("redis-server").inbound(6379).late(), &["redis", "pod-sysctl"]),
        ("PostgreSQL", of("postgres", DYNAMIC).inbound(5432).late(), &["postgresql", "pod-sysctl"]),
    ]);
}

#[test]
fn only_programs_with_libpq_are_offered_its_options() {
    let psycopg = |row: Row| row.with("libpq-9a8bcd12.so.5.16");
    check(&[
        ("psql", of("psql", DYNAMIC).with("libpq.so.5.17").port(5432).late(), &["libpq", "pod-sysctl"]),
        ("psycopg", psycopg(of("python3.11", PYTHON)).port(6432).late(), &["libpq", "pod-sysctl", "python"]),
        ("psycopg, another port", psycopg(of("python3.11", PYTHON)).late(), &["pod-sysctl", "python", "preload"]),
        ("asyncpg", of("python3.11", PYTHON).port(5432).late(), &["pod-sysctl", "python", "preload"]),
        ("a replica", of("postgres", DYNAMIC).with("libpq.so.5.17").port(5432).late(), &["libpq", "pod-sysctl"]),
        ("not searched", of("psql", DYNAMIC).port(5432).late().not_searched(), &["pod-sysctl"]),
    ]);
    for row in [of("pgbouncer", DYNAMIC).port(5432).late(), of("pgpool", DYNAMIC).with("libpq.so.5").port(5432).late()]
    {
        assert!(!row.fitting().0.iter().any(|name| name == "libpq"), "{:?}", row.fitting());
    }
}

#[test]
fn servers_drivers_and_ingress_controllers_have_settings_of_their_own() {
    let container = |row: Row| row.owned_by(OwnerKind::Container);
    check(&[
        ("PgBouncer", of("pgbouncer", DYNAMIC).port(5432), &["pgbouncer"]),
        ("MariaDB", of("mariadbd", DYNAMIC).inbound(3306).late(), &["mariadb", "pod-sysctl"]),
        ("RabbitMQ", of("beam.smp", DYNAMIC).inbound(5672), &["rabbitmq"]),
        ("sshd", of("sshd-session", DYNAMIC).inbound(22), &["sshd"]),
        ("curl", of("curl", DYNAMIC), &["curl"]),
        ("mysql2", of("node", DYNAMIC).port(3306), &["mysql2", "node"]),
        ("ioredis", of("node", DYNAMIC).port(6379), &["ioredis", "node"]),
        ("redis-py", of("python3.11", PYTHON).port(6379), &["redis-py", "python"]),
        ("Npgsql", of("dotnet", DYNAMIC).port(5432), &["npgsql", "dotnet"]),
        ("Traefik", of("traefik", GO), &["traefik"]),
        ("ztunnel", of("ztunnel", RUST).within("istio-proxy", "ztunnel-x2k8p"), &["ztunnel"]),
        ("ingress-nginx", of("nginx", DYNAMIC).within("controller", "ingress-nginx-controller-0"), &["ingress-nginx"]),
        (
            "its listeners",
            of("nginx", DYNAMIC).within("controller", "ingress-nginx-controller-0").inbound(443),
            &["preload"],
        ),
        ("HAProxy Ingress", of("haproxy", DYNAMIC).within("haproxy", "haproxy-ingress-0"), &["haproxy-ingress"]),
        ("Kong", of("nginx", DYNAMIC).within("proxy", "kong-kong-0"), &["kong"]),
        ("container, late", container(of("java", DYNAMIC)).late(), &["compose", "docker", "java", "preload"]),
        (
            "host, late",
            of("java", DYNAMIC).owned_by(OwnerKind::Host).in_host_network().late(),
            &["sysctl", "java", "preload"],
        ),
    ]);
}

#[test]
fn a_pods_sysctl_needs_a_pod_with_a_network_namespace_and_default_times() {
    let server = || of("server", DYNAMIC).late();
    check(&[
        ("pod", server(), &["pod-sysctl", "c", "preload"]),
        ("times of its own", of("server", DYNAMIC).too_long(), &["c", "preload"]),
        ("keepalive off", of("server", DYNAMIC), &["c", "preload"]),
    ]);
    let unknown = Row { host_network: None, ..server() };
    for row in [server().in_host_network(), server().owned_by(OwnerKind::Unit), unknown] {
        assert!(!row.fitting().0.iter().any(|name| name == "pod-sysctl"), "{:?}", row.fitting());
    }
}

#[test]
fn a_socket_that_nobody_holds_has_no_code() {
    for row in [of("", DYNAMIC), of("", DYNAMIC).inbound(50051), of("", DYNAMIC).within("istio-proxy", "web-0")] {
        assert_eq!(row.clone().held_by_nobody().fitting(), Default::default());
        // the kernel's own sockets obey the sysctl like all others
        let late = row.held_by_nobody().late().fitting();
        assert_eq!(late, (vec!["pod-sysctl".to_owned()], Vec::new()));
    }
}

#[test]
fn every_language_is_named_where_the_program_is_not_known() {
    let (found, in_code) = of("", DYNAMIC).not_searched().fitting();
    assert_eq!(found, Vec::<String>::new());
    for language in ["go", "java", "node", "python", "rust"] {
        assert!(in_code.iter().any(|name| name == language), "{in_code:?}");
    }
    // an executable that could not be read is still no interpreter
    let mut unread = of("server", DYNAMIC);
    unread.holder.iter_mut().for_each(|holder| holder.binary = None);
    let (found, in_code) = unread.fitting();
    assert_eq!((found.len(), in_code.contains(&"rust".to_owned())), (0, true), "{in_code:?}");
    assert!(!in_code.contains(&"java".to_owned()), "{in_code:?}");
}

/// What is only listed: notes, limits of a cloud, and what a socket does not show.
const ONLY_LISTED: [&str; 8] =
    ["aws-service", "azure-service", "cilium", "contour", "linkerd", "mysql", "systemd-socket", "user-timeout"];

#[test]
fn each_target_but_those_for_people_fits_something() {
    for target in remedy::list().expect("the data files parse") {
        let is_offered = !target.fits.0.is_empty();
        assert_eq!(is_offered, !ONLY_LISTED.contains(&target.name.as_str()), "{}", target.name);
    }
}

#[test]
fn an_unknown_condition_and_a_broken_glob_are_errors() {
    let parse = |text: &str| serde_saphyr::from_str::<Fits>(text);
    assert!(parse("{ programs: [a], ports: [1] }").is_ok_and(|fits| fits.0.len() == 1));
    assert!(parse("[{ programs: [a] }, { owners: [pod] }]").is_ok_and(|fits| fits.0.len() == 2));
    for (text, word) in [("{ program: [a] }", "program"), ("{ programs: ['a['] }", "a["), ("{ binary: [c] }", "c")] {
        let error = parse(text).expect_err("is wrong").to_string();
        assert!(error.contains(word), "{error}");
    }
}
