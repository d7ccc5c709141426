//! TLS for the streaming server: a certificate from files, read again when they change, or one of our own making.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{StreamingConfig, TlsFiles};
use crate::error::{Error, Result};

/// What connections are accepted with.
pub(super) struct Tls {
    files: Option<TlsFiles>,
    current: Mutex<Current>,
}

/// When a file was changed, how long it is and which: clocks of file systems are coarse.
type Seen = (SystemTime, u64, u64);

struct Current {
    config: Arc<ServerConfig>,
    /// What each file was, as it was read.
    seen: Vec<Option<Seen>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.files)
    }
}

impl Tls {
    /// `None` where the configuration wants none.
    ///
    /// # Errors
    /// `Unavailable` with what is wrong with the files.
    pub(super) fn new(config: &StreamingConfig) -> Result<Option<Self>> {
        if !config.tls {
            return Ok(None);
        }
        let seen = config.tls_files.as_ref().map(look).unwrap_or_default();
        let made = match &config.tls_files {
            Some(files) => from_files(files),
            None => self_signed(&config.address.to_string()),
        };
        let config_ =
            made.map_err(|what| Error::Unavailable(format!("streaming server's TLS: {what}")))?;
        let files = config.tls_files.clone();
        Ok(Some(Self { files, current: Mutex::new(Current { config: config_, seen }) }))
    }

    /// The handshake, with the files as they are now.
    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.current()).accept(socket).await
    }

    /// Files that changed and are wrong leave what was in force.
    fn current(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(files) = &self.files else { return current.config.clone() };
        let now = look(files);
        if now != current.seen {
            match from_files(files) {
                Ok(config) => current.config = config,
                Err(what) => tracing::error!(what, "the certificate on disk is not used"),
            }
            current.seen = now;
        }
        current.config.clone()
    }
}

fn look(files: &TlsFiles) -> Vec<Option<Seen>> {
    let look = |path: &Path| {
        let meta = path.metadata().ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    };
    let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    paths.into_iter().flatten().map(|path| look(path)).collect()
}

fn from_files(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let certificates = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.map_err(|err| format!("{}: {err}", files.key.display()))?;
    serve(certificates, key, files.client_ca.as_deref())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let told = |err| format!("{}: {err}", path.display());
    let read = CertificateDer::pem_file_iter(path).map_err(told)?;
    let read: Vec<_> = read.collect::<Result<_, _>>().map_err(told)?;
    if read.is_empty() {
        return Err(format!("{}: no certificate in it", path.display()));
    }
    Ok(read)
}

/// For those who cannot check it anyway: the kubelet and crictl skip that unless told otherwise.
fn self_signed(address: &str) -> Result<Arc<ServerConfig>, String> {
    let names = vec![address.to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|err| err.to_string())?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    serve(vec![made.cert.der().clone()], key, None)
}

fn serve(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|err| err.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(path)? {
                roots.add(certificate).map_err(|err| format!("{}: {err}", path.display()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|err| err.to_string())?)
        }
    };
    let config = builder.with_single_cert(certificates, key).map_err(|err| err.to_string())?;
    Ok(Arc::new(config))
}
