//! The format of `--web.config.file`: that of Prometheus' exporter-toolkit.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, de::Error as _};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::small_file::{self, Stamp};
use crate::{words, yaml};

/// bcrypt hashes by user.
pub(super) type Users = BTreeMap<String, Hash>;

/// A check of a password costs 2^16 rounds at most: that is four seconds of a core.
const MAX_COST: u32 = 16;

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
pub(super) struct Hash {
    pub text: String,
    pub cost: u32,
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.parse::<bcrypt::HashParts>().map(|parts| parts.get_cost()) {
            Ok(cost) if cost > MAX_COST => Err(D::Error::custom(format!(
                "the cost {cost} of this bcrypt hash is above {MAX_COST}; `htpasswd -nBC 10 USER` makes one"
            ))),
            Ok(cost) => Ok(Self { text, cost }),
            // it may be the password itself: it is not repeated
            Err(_) => Err(D::Error::custom("this is not a bcrypt hash; `htpasswd -nBC 10 USER` makes one")),
        }
    }
}

/// What the file says.
pub(super) struct Rules {
    /// `None`: plain text.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether only clients that show a certificate are answered. The handshake asks for it and requests demand it, so
    /// that open pages stay open.
    pub certificate_required: bool,
    /// Empty: no password is needed.
    pub users: Users,
    /// The files that were read, as they were then.
    pub files: Vec<(PathBuf, Option<Stamp>)>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules({:?})", self.files)
    }
}

impl Rules {
    /// Reads the file, certificates and key. The error names file, line and key.
    pub fn read(path: &Path) -> Result<Self, String> {
        let mut files = vec![(path.to_owned(), small_file::stamp(path))];
        let text = small_file::read(path).map_err(|error| {
            format!("cannot read the web configuration file {}: {}", path.display(), words::reason(&error))
        })?;
        let wrong = |error: String| format!("{}: {error}", path.display());
        let file: File = yaml::parse(&text).map_err(wrong)?;
        if file.tls_server_config.is_none() && file.basic_auth_users.is_empty() {
            return Err(wrong(
                "it has neither tls_server_config nor basic_auth_users, so it would protect nothing; write one of \
                 them, or leave out --web.config.file to serve everybody in plain text"
                    .to_owned(),
            ));
        }
        let certificate_required = file
            .tls_server_config
            .as_ref()
            .is_some_and(|tls| tls.client_auth_type == ClientAuth::RequireAndVerifyClientCert);
        let tls = file.tls_server_config.map(|mut tls| {
            let folder = path.parent().unwrap_or(Path::new(""));
            for file in [&mut tls.cert_file, &mut tls.key_file].into_iter().chain(&mut tls.client_ca_file) {
                *file = folder.join(&*file);
                files.push((file.clone(), small_file::stamp(file)));
            }
            tls.build().map_err(|(key, error)| wrong(format!("key tls_server_config.{key}: {error}")))
        });
        Ok(Self { tls: tls.transpose()?.map(Arc::new), certificate_required, users: file.basic_auth_users, files })
    }

    /// What these rules would open that `before` had closed: an empty or cut-off file must not do that.
    pub fn opens(&self, before: &Self) -> Option<&'static str> {
        if before.tls.is_some() && self.tls.is_none() {
            Some("tls_server_config")
        } else if !before.users.is_empty() && self.users.is_empty() {
            Some("basic_auth_users")
        } else {
            None
        }
    }
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
                let error = "without client_auth_type no client is asked for a certificate";
                return Err(("client_ca_file", error.to_owned()));
            }
            (_, None) => return Err(("client_auth_type", "client_ca_file must say by which CA".to_owned())),
            (_, Some(file)) => {
                let about_ca = |error: String| ("client_ca_file", error);
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file).map_err(about_ca)? {
                    roots
                        .add(certificate)
                        .map_err(|_| about_ca(about(file, "TLS cannot use one of its certificates")))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), default_provider().into());
                let verifier = verifier.allow_unauthenticated().build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|_| about_ca(about(file, "it has no CA that TLS can use")))?,
                )
            }
        };
        let chain = certificates(&self.cert_file).map_err(|error| ("cert_file", error))?;
        let key = pem(&self.key_file).and_then(|text| {
            PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| not_pem(&self.key_file, &error))
        });
        let mut config =
            builder.with_single_cert(chain, key.map_err(|error| ("key_file", error))?).map_err(|error| {
                let reason = match error {
                    Error::InconsistentKeys(_) => "the key does not belong to the certificate",
                    _ => "TLS cannot use this certificate and key",
                };
                ("key_file", format!("{} and {}: {reason}", self.cert_file.display(), self.key_file.display()))
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = pem(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match all.map_err(|error| not_pem(file, &error))? {
        none if none.is_empty() => Err(about(file, "there is no certificate in it; write one in PEM")),
        all => Ok(all),
    }
}

fn pem(file: &Path) -> Result<String, String> {
    small_file::read(file).map_err(|error| format!("cannot read {}: {}", file.display(), words::reason(&error)))
}

fn not_pem(file: &Path, error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => about(file, "there is no PEM block of this kind in it; write one"),
        _ => about(file, "it is damaged, or not PEM"),
    }
}

fn about(file: &Path, error: impl fmt::Display) -> String {
    format!("{}: {error}", file.display())
}
