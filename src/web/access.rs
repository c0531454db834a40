//! Who may ask, and by which certificate they are answered: `--web.config.file`, in the form of Prometheus' exporter-toolkit.
//!
//! The file and what it names are looked at for each connection and request, and read again when they have changed: certificates are
//! renewed under the running program.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Deserializer, de::Error as _};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::yaml;

/// bcrypt hashes by user.
pub(super) type Users = BTreeMap<String, Hash>;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    tls_server_config: Option<TlsKeys>,
    basic_auth_users: Users,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsKeys {
    cert_file: PathBuf,
    key_file: PathBuf,
    #[serde(default)]
    client_auth_type: ClientAuth,
    client_ca_file: Option<PathBuf>,
    #[serde(default)]
    min_version: Option<Version>,
    #[serde(default)]
    max_version: Option<Version>,
}

/// Go's names. The two of its kinds that ask for a certificate and believe any are left out.
#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
enum ClientAuth {
    #[default]
    NoClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Version {
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

/// A bcrypt hash as `htpasswd -B` writes it.
#[derive(Clone, Hash)]
pub(super) struct Hash(pub String);

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.parse::<bcrypt::HashParts>() {
            Ok(_) => Ok(Self(text)),
            // what stands there may be the password itself: it is not repeated
            Err(_) => Err(D::Error::custom("this is no bcrypt hash; `htpasswd -nBC 10 USER` makes one")),
        }
    }
}

/// What the file says.
pub(super) struct Rules {
    /// `None`: plain text.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether only those who show a certificate are answered. It is asked for in the handshake and demanded later, so that open
    /// pages stay open.
    pub certificate_required: bool,
    /// Empty: no password is needed.
    pub users: Users,
    /// The files that were read, as they were then.
    read: Vec<(PathBuf, Option<Stamp>)>,
}

/// What changes when a file is written or replaced: device, inode, size, seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

/// The file, and what it said when it last made sense.
pub struct Access {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    rules: Arc<Rules>,
    /// A change that made no sense, told once.
    refused: Option<Vec<(PathBuf, Option<Stamp>)>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({})", self.path.display())
    }
}

impl Access {
    /// Reads the file, certificates and key. The error names file, line and key.
    pub fn load(path: &Path) -> Result<Self, String> {
        let rules = Arc::new(read(path)?);
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { rules, refused: None }) })
    }

    /// What counts now. After a change that makes no sense it is what counted before.
    pub(super) fn current(&self) -> Arc<Rules> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<_> = state.rules.read.iter().map(|(path, _)| (path.clone(), stamp(path))).collect();
        if now != state.rules.read && state.refused.as_ref() != Some(&now) {
            match read(&self.path) {
                Ok(rules) => {
                    tracing::info!(file = %self.path.display(), "read the web configuration again");
                    *state = State { rules: Arc::new(rules), refused: None };
                }
                Err(error) => {
                    tracing::error!("{error}; what was read before still counts");
                    state.refused = Some(now);
                }
            }
        }
        state.rules.clone()
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let stat = std::fs::metadata(path).ok()?;
    Some((stat.dev(), stat.ino(), stat.size(), stat.mtime(), stat.mtime_nsec()))
}

fn read(path: &Path) -> Result<Rules, String> {
    let mut seen = vec![(path.to_owned(), stamp(path))];
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the web configuration file {}: {error}", path.display()))?;
    let wrong = |error: String| format!("{}: {error}", path.display());
    let file: File = yaml::parse(&text).map_err(wrong)?;
    let certificate_required = file
        .tls_server_config
        .as_ref()
        .is_some_and(|tls| tls.client_auth_type == ClientAuth::RequireAndVerifyClientCert);
    let tls = file.tls_server_config.map(|mut tls| {
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in [&mut tls.cert_file, &mut tls.key_file].into_iter().chain(&mut tls.client_ca_file) {
            *file = folder.join(&*file);
            seen.push((file.clone(), stamp(file)));
        }
        tls.build().map_err(|(key, error)| wrong(format!("key tls_server_config.{key}: {error}")))
    });
    Ok(Rules { tls: tls.transpose()?.map(Arc::new), certificate_required, users: file.basic_auth_users, read: seen })
}

impl TlsKeys {
    /// The server's side of TLS; an error comes with the key that it is about.
    fn build(&self) -> Result<ServerConfig, (&'static str, String)> {
        let (min, max) = (self.min_version.unwrap_or(Version::Tls12), self.max_version.unwrap_or(Version::Tls13));
        let versions: Vec<&'static SupportedProtocolVersion> = [(Version::Tls12, &TLS12), (Version::Tls13, &TLS13)]
            .into_iter()
            .filter_map(|(version, known)| (min..=max).contains(&version).then_some(known))
            .collect();
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&versions)
            .map_err(|_| ("min_version", "it is above max_version".to_owned()))?;
        let builder = match (self.client_auth_type, &self.client_ca_file) {
            (ClientAuth::NoClientCert, None) => builder.with_no_client_auth(),
            (ClientAuth::NoClientCert, Some(_)) => {
                return Err((
                    "client_ca_file",
                    "without client_auth_type no client is asked for a certificate".to_owned(),
                ));
            }
            (_, None) => return Err(("client_auth_type", "client_ca_file must say by which CA".to_owned())),
            (_, Some(file)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file).map_err(|error| ("client_ca_file", error))? {
                    roots.add(certificate).map_err(|error| ("client_ca_file", told(file, error)))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), default_provider().into());
                let verifier = verifier.allow_unauthenticated().build();
                builder.with_client_cert_verifier(verifier.map_err(|error| ("client_ca_file", told(file, error)))?)
            }
        };
        let chain = certificates(&self.cert_file).map_err(|error| ("cert_file", error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key_file)
            .map_err(|error| ("key_file", unread(&self.key_file, error)))?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            ("key_file", format!("{} and {}: {error}", self.cert_file.display(), self.key_file.display()))
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all.map_err(|error| unread(file, error))? {
        none if none.is_empty() => Err(told(file, "there is no certificate in it")),
        all => Ok(all),
    }
}

fn unread(file: &Path, error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot read {}: {error}", file.display()),
        pem::Error::NoItemsFound => told(file, "there is no PEM block of this kind in it"),
        other => told(file, format!("it is not PEM: {other:?}")),
    }
}

fn told(file: &Path, error: impl fmt::Display) -> String {
    format!("{}: {error}", file.display())
}
