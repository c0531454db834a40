//! `--web.config.file`: TLS, client certificates and passwords of the agent's port, by real handshakes with the real binary.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use support::binary::{command, run};
use tokio_rustls::rustls;

/// An authority that signs certificates.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self) -> (Certificate, KeyPair) {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// Makes a certificate and puts it and its key into a folder, for the server. Gives the certificate.
    fn renew(&self, folder: &Path) -> CertificateDer<'static> {
        let (certificate, key) = self.sign();
        // as kubelet does: never half of it
        for (name, text) in [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())] {
            fs::write(folder.join("new"), text).expect("write");
            fs::rename(folder.join("new"), folder.join(name)).expect("mv");
        }
        certificate.der().clone()
    }

    /// A client that trusts this authority, with a certificate of `who` if given.
    fn client(&self, versions: &[&'static SupportedProtocolVersion], who: Option<&Self>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
        let builder = builder.with_root_certificates(roots);
        Arc::new(match who.map(Self::sign) {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).expect("its key")
            }
        })
    }
}

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// An agent with a web configuration, in a folder of its own.
struct Agent {
    folder: tempfile::TempDir,
    child: Child,
    at: SocketAddr,
}

impl Agent {
    fn start(folder: tempfile::TempDir, config: &str) -> Self {
        let at = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        fs::write(folder.path().join("web.yaml"), config).expect("write");
        let file = folder.path().join("web.yaml").display().to_string();
        let listen = at.to_string();
        let arguments = [
            "agent",
            "--web.listen-address",
            &listen,
            "--web.config.file",
            &file,
            "--interval",
            "1h",
            "--log.level",
            "warn",
        ];
        let child = command(&arguments).stdout(Stdio::null()).spawn().expect("the binary starts");
        let mut agent = Self { folder, child, at };
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(agent.at).is_err() {
            assert_eq!(agent.child.try_wait().expect("our child"), None, "the agent ended at once");
            assert!(Instant::now() < end, "the agent does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    /// What the server sends over plain TCP.
    fn plain(&self, path: &str, user: Option<&str>) -> String {
        ask(connect(self.at), path, user)
    }

    /// The status over plain TCP.
    fn status(&self, path: &str, user: Option<&str>) -> u16 {
        status(&self.plain(path, user))
    }

    /// The server's certificate, and what it sends.
    fn tls(
        &self,
        client: &Arc<ClientConfig>,
        path: &str,
        user: Option<&str>,
    ) -> std::io::Result<(CertificateDer<'static>, String)> {
        let name = ServerName::from(self.at.ip());
        let mut connection = ClientConnection::new(client.clone(), name).expect("a client");
        let mut stream = connect(self.at);
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let shown = connection.peer_certificates().expect("a certificate")[0].clone().into_owned();
        let answer = ask(StreamOwned::new(connection, stream), path, user);
        // in TLS 1.3 a client is refused after its own side of the handshake is done
        if answer.is_empty() { Err(std::io::ErrorKind::ConnectionReset.into()) } else { Ok((shown, answer)) }
    }

    fn tls_status(&self, client: &Arc<ClientConfig>, path: &str) -> Option<u16> {
        self.tls(client, path, None).ok().map(|(_, answer)| status(&answer))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).expect("the agent listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// One request; an answer that breaks off is what came of it.
fn ask(mut stream: impl Read + Write, path: &str, user: Option<&str>) -> String {
    let user = user.map(|user| format!("Authorization: Basic {}\r\n", STANDARD.encode(user))).unwrap_or_default();
    let mut answer = Vec::new();
    if stream.write_all(format!("GET {path} HTTP/1.0\r\n{user}\r\n").as_bytes()).is_ok() {
        let _ = stream.read_to_end(&mut answer);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

const TLS: &str = "tls_server_config: { cert_file: tls.crt, key_file: tls.key }\n";

#[test]
fn tls_is_spoken_and_a_renewed_certificate_is_shown_without_a_restart() {
    let (authority, folder) = (Authority::new(), folder());
    let first = authority.renew(folder.path());
    let agent = Agent::start(folder, TLS);
    let client = authority.client(&BOTH, None);
    let (shown, answer) = agent.tls(&client, "/metrics", None).expect("a handshake");
    assert_eq!((status(&answer), &shown), (200, &first));
    assert!(answer.contains("keepalive_auditor_build_info"), "{answer}");
    assert!(!agent.plain("/metrics", None).contains("HTTP/"), "nothing is told in plain text");
    assert!(
        agent.tls(&Authority::new().client(&BOTH, None), "/metrics", None).is_err(),
        "it is this authority's certificate"
    );

    // one who says nothing holds up nobody
    let _dawdler = connect(agent.at);
    let second = authority.renew(agent.folder.path());
    assert_ne!(first, second);
    let shown = || agent.tls(&client, "/readyz", None).expect("a handshake").0;
    assert_eq!(shown(), second);

    fs::write(agent.folder.path().join("tls.key"), "no key").expect("write");
    assert_eq!(shown(), second, "what makes no sense does not take the agent down");
    let third = authority.renew(agent.folder.path());
    assert_eq!(shown(), third);
}

#[test]
fn the_oldest_version_may_be_chosen() {
    let (authority, folder) = (Authority::new(), folder());
    authority.renew(folder.path());
    let agent =
        Agent::start(folder, "tls_server_config: { cert_file: tls.crt, key_file: tls.key, min_version: TLS13 }\n");
    assert_eq!(agent.tls_status(&authority.client(&[&TLS13], None), "/metrics"), Some(200));
    assert_eq!(agent.tls_status(&authority.client(&[&TLS12], None), "/metrics"), None);
}

#[test]
fn clients_show_certificates_and_probes_need_none() {
    let (authority, clients, folder) = (Authority::new(), Authority::new(), folder());
    authority.renew(folder.path());
    fs::write(folder.path().join("ca.crt"), clients.certificate.pem()).expect("write");
    let config = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n  client_ca_file: ca.crt\n  \
                  client_auth_type: RequireAndVerifyClientCert\n";
    let agent = Agent::start(folder, config);
    for versions in [&BOTH[..1], &BOTH[1..]] {
        let certified = authority.client(versions, Some(&clients));
        assert_eq!(agent.tls_status(&certified, "/metrics"), Some(200));
        let foreign = authority.client(versions, Some(&authority));
        assert_eq!(
            agent.tls_status(&foreign, "/healthz"),
            None,
            "a certificate of another authority ends the handshake"
        );
        let nobody = authority.client(versions, None);
        for path in ["/metrics", "/", "/api/v1/report", "/nothing"] {
            assert_eq!(agent.tls_status(&nobody, path), Some(403), "{path}");
        }
        assert_eq!(agent.tls_status(&nobody, "/healthz"), Some(200));
    }
    let if_given = config.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven");
    fs::write(agent.folder.path().join("web.yaml"), if_given).expect("write");
    assert_eq!(
        agent.tls_status(&authority.client(&BOTH, None), "/metrics"),
        Some(200),
        "the file itself is read again, too"
    );
}

#[test]
fn passwords_are_asked_for_but_not_by_probes() {
    let users =
        |password: &str| format!("basic_auth_users:\n  prometheus: {}\n", bcrypt::hash(password, 4).expect("a hash"));
    let agent = Agent::start(folder(), &users("secret: with a colon"));
    let right = Some("prometheus:secret: with a colon");
    for wrong in
        [None, Some("prometheus:"), Some("prometheus:Secret"), Some("prometheus"), Some("grafana:secret: with a colon")]
    {
        for path in ["/metrics", "/", "/api/v1/report", "/nothing"] {
            let answer = agent.plain(path, wrong);
            assert_eq!(status(&answer), 401, "{path} {wrong:?}");
            assert!(answer.to_ascii_lowercase().contains("\r\nwww-authenticate: basic "), "{answer}");
            assert!(!answer.contains("keepalive_auditor_"), "{answer}");
        }
    }
    assert_eq!(agent.status("/healthz", None), 200);
    assert_ne!(agent.status("/readyz", None), 401);
    assert_eq!(agent.status("/metrics", right), 200);
    assert_eq!(agent.status("/metrics", Some("prometheus:wrong")), 401, "what was right once admits nobody else");

    fs::write(agent.folder.path().join("web.yaml"), users("changed")).expect("write");
    assert_eq!(agent.status("/metrics", right), 401);
    assert_eq!(agent.status("/metrics", Some("prometheus:changed")), 200);
}

#[test]
fn a_password_is_hashed_once_not_for_each_scrape() {
    let hash = bcrypt::hash("secret", 11).expect("a hash");
    let agent = Agent::start(folder(), &format!("basic_auth_users: {{ prometheus: {hash} }}\n"));
    let ask = || {
        let begun = Instant::now();
        assert_eq!(agent.status("/metrics", Some("prometheus:secret")), 200);
        begun.elapsed()
    };
    let first = ask();
    let twenty: Duration = (0..20).map(|_| ask()).sum();
    assert!(twenty < 10 * first, "the first took {first:?}, twenty more {twenty:?}");
}

#[test]
fn what_is_wrong_is_named_by_file_line_and_key() {
    let (authority, folder) = (Authority::new(), folder());
    authority.renew(folder.path());
    let (other, _) = authority.sign();
    fs::write(folder.path().join("other.crt"), other.pem()).expect("write");
    let file = folder.path().join("web.yaml").display().to_string();
    // an agent that starts all the same ends there, with status 1
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("its address").to_string();
    for (config, names) in [
        ("tls_sever_config: {}\n", &["line 1", "tls_sever_config"][..]),
        ("tls_server_config:\n  cert_file: tls.crt\n", &["line 2", "tls_server_config", "key_file"]),
        ("basic_auth_users:\n  a: secret\n", &["line 2", "basic_auth_users.a", "bcrypt"]),
        (
            "tls_server_config: { cert_file: gone.crt, key_file: tls.key }\n",
            &["tls_server_config.cert_file", "gone.crt"],
        ),
        ("tls_server_config: { cert_file: tls.crt, key_file: tls.crt }\n", &["tls_server_config.key_file", "tls.crt"]),
        ("tls_server_config: { cert_file: tls.key, key_file: tls.key }\n", &["tls_server_config.cert_file", "tls.key"]),
        (
            "tls_server_config: { cert_file: other.crt, key_file: tls.key }\n",
            &["tls_server_config.key_file", "other.crt"],
        ),
        (
            "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n  min_version: TLS10\n",
            &["line 4", "tls_server_config.min_version", "TLS10"],
        ),
        (
            "tls_server_config: { cert_file: tls.crt, key_file: tls.key, min_version: TLS13, max_version: TLS12 }\n",
            &["tls_server_config.min_version"],
        ),
        (
            "tls_server_config: { cert_file: tls.crt, key_file: tls.key, client_auth_type: RequestClientCert }\n",
            &["line 1", "tls_server_config.client_auth_type", "RequestClientCert"],
        ),
        (
            "tls_server_config: { cert_file: tls.crt, key_file: tls.key, client_auth_type: RequireAndVerifyClientCert }\n",
            &["tls_server_config.client_auth_type", "client_ca_file"],
        ),
        (
            "tls_server_config: { cert_file: tls.crt, key_file: tls.key, client_ca_file: tls.crt }\n",
            &["tls_server_config.client_ca_file"],
        ),
    ] {
        fs::write(&file, config).expect("write");
        let outcome = run(&["agent", "--web.listen-address", &taken, "--web.config.file", &file]);
        assert_eq!(outcome.code(), 2, "{config}: {outcome:?}");
        for name in names.iter().copied().chain([&*file]) {
            assert!(outcome.stderr.contains(name), "{config}: {name} is not named: {}", outcome.stderr);
        }
        assert!(!outcome.stderr.contains("secret"), "a password is not repeated: {}", outcome.stderr);
    }
}
