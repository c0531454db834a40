//! `--web.config.file`: TLS, client certificates and passwords of the agent's port, tested with real handshakes and the
//! real binary.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::rustls;

use super::agent::{Agent, connect, folder, status, wait_until};
use super::support::binary::run;

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

    /// Writes a new certificate and its key for the server into a folder, and returns the certificate.
    fn renew(&self, folder: &Path) -> CertificateDer<'static> {
        let (certificate, key) = self.sign();
        // atomically, as kubelet does
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

const TLS: &str = "tls_server_config: { cert_file: tls.crt, key_file: tls.key }\n";

#[test]
fn tls_is_spoken_and_a_renewed_certificate_is_shown_without_a_restart() {
    let (authority, folder) = (Authority::new(), folder());
    let first = authority.renew(folder.path());
    let agent = Agent::guarded(folder, TLS);
    let client = authority.client(&BOTH, None);
    let (shown, answer) = agent.tls(&client, "/metrics", None).expect("a handshake");
    assert_eq!((status(&answer), &shown), (200, &first));
    assert!(answer.contains("keepalive_auditor_build_info"), "{answer}");
    assert!(!agent.plain("/metrics", None).contains("HTTP/"), "plain text gets no HTTP answer");
    assert!(
        agent.tls(&Authority::new().client(&BOTH, None), "/metrics", None).is_err(),
        "it is this authority's certificate"
    );

    // a client that sends nothing does not block the others
    let _dawdler = connect(agent.at);
    let second = authority.renew(agent.folder.path());
    assert_ne!(first, second);
    let shown = || agent.tls(&client, "/readyz", None).expect("a handshake").0;
    assert_eq!(shown(), second);

    fs::write(agent.folder.path().join("tls.key"), "no key").expect("write");
    assert_eq!(shown(), second, "a broken key file does not stop the agent");
    let third = authority.renew(agent.folder.path());
    assert_eq!(shown(), third);
}

#[test]
fn the_oldest_version_may_be_chosen() {
    let (authority, folder) = (Authority::new(), folder());
    authority.renew(folder.path());
    let agent =
        Agent::guarded(folder, "tls_server_config: { cert_file: tls.crt, key_file: tls.key, min_version: TLS13 }\n");
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
    let agent = Agent::guarded(folder, config);
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
    let agent = Agent::guarded(folder(), &users("secret: with a colon"));
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
    assert_eq!(agent.status("/metrics", Some("prometheus:wrong")), 401, "a cached password does not admit another one");

    fs::write(agent.folder.path().join("web.yaml"), users("changed")).expect("write");
    assert_eq!(agent.status("/metrics", right), 401);
    assert_eq!(agent.status("/metrics", Some("prometheus:changed")), 200);
}

#[test]
fn a_password_is_hashed_once_not_for_each_scrape() {
    let hash = bcrypt::hash("secret", 11).expect("a hash");
    let agent = Agent::guarded(folder(), &format!("basic_auth_users: {{ prometheus: {hash} }}\n"));
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
fn errors_name_file_line_and_key() {
    let (authority, folder) = (Authority::new(), folder());
    authority.renew(folder.path());
    let (other, _) = authority.sign();
    fs::write(folder.path().join("other.crt"), other.pem()).expect("write");
    let file = folder.path().join("web.yaml").display().to_string();
    // this address is taken, so an agent that starts in spite of the error ends with status 1
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("its address").to_string();
    for (config, names) in [
        ("", &["neither tls_server_config nor basic_auth_users"][..]),
        ("# nothing\n", &["neither tls_server_config nor basic_auth_users"]),
        ("{}\n", &["neither tls_server_config nor basic_auth_users"]),
        ("basic_auth_users:\n", &["basic_auth_users"]),
        (
            "basic_auth_users: { a: $2y$31$..................................................... }\n",
            &["basic_auth_users.a", "cost 31"],
        ),
        ("tls_sever_config: {}\n", &["line 1", "tls_sever_config"]),
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
            "tls_server_config: { cert_file: tls.crt, key_file: tls.key, client_auth_type: VerifyClientCertIfGiven }\n",
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

#[test]
fn a_change_that_would_open_the_port_is_refused() {
    let (authority, folder) = (Authority::new(), folder());
    authority.renew(folder.path());
    let users = format!("basic_auth_users: {{ a: {} }}\n", bcrypt::hash("secret", 4).expect("a hash"));
    let both = format!("{TLS}{users}");
    let agent = Agent::guarded(folder, &both);
    let client = authority.client(&BOTH, None);
    let file = agent.folder.path().join("web.yaml");
    let ask = |user: Option<&str>| status(&agent.tls(&client, "/metrics", user).expect("TLS").1);
    let refused = || {
        let metrics = agent.tls(&client, "/metrics", Some("a:secret")).expect("TLS").1;
        metrics.contains("\nkeepalive_auditor_web_config_last_reload_successful 0\n")
    };
    assert!(!refused());
    let truncated = &both[..both.len() - 20];
    for opening in ["", "# all of it is gone\n", TLS, &users, truncated, "basic_auth_users: {}\n"] {
        fs::write(&file, opening).expect("write");
        assert_eq!(ask(None), 401, "{opening:?}");
        assert_eq!(ask(Some("a:secret")), 200, "{opening:?}");
        assert!(refused(), "{opening:?}");
    }
    fs::write(&file, &both).expect("write");
    assert_eq!((ask(None), ask(Some("a:secret")), refused()), (401, 200, false));
}

#[test]
fn a_web_configuration_that_blocks_does_not_stop_the_agent() {
    let users = format!("basic_auth_users: {{ a: {} }}\n", bcrypt::hash("secret", 4).expect("a hash"));
    let agent = Agent::guarded(folder(), &users);
    assert_eq!(agent.status("/metrics", Some("a:secret")), 200);
    // a FIFO without a writer
    let (file, fifo) = (agent.folder.path().join("web.yaml"), agent.folder.path().join("fifo"));
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    fs::rename(fifo, &file).expect("mv");
    let start = Instant::now();
    assert_eq!((agent.status("/metrics", None), agent.status("/metrics", Some("a:secret"))), (401, 200));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    wait_until("the change is reported", || {
        agent.plain("/metrics", Some("a:secret")).contains("web_config_last_reload_successful 0")
    });
}

#[test]
fn guesses_are_limited_and_do_not_block_users_who_logged_in_before() {
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    let agent = Agent::guarded(folder(), &format!("basic_auth_users: {{ a: {hash} }}\n"));
    assert_eq!(agent.status("/metrics", Some("a:secret")), 200);
    let answers: Vec<_> = (0..20).map(|guess| agent.plain("/metrics", Some(&format!("a:{guess}")))).collect();
    let limited = answers.iter().find(|answer| status(answer) == 429).expect("guesses are limited");
    assert!(limited.to_ascii_lowercase().contains("\r\nretry-after: 1\r\n"), "{limited}");
    assert_eq!(status(&answers[0]), 401);
    assert_eq!(agent.status("/metrics", Some("a:secret")), 200);
}
