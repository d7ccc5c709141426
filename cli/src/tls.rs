//! TLS to the daemon's streams.
//!
//! Where they are the daemon says itself, over a socket that only its own user reaches. So without an authority to
//! check it against, a certificate is taken as it is, as kubelets take it; with one it has to be of that authority.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// After the verbs' own options in their help.
const LAST: usize = 901;

/// PEM files, where the daemon is configured for them.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Tls {
    /// The authority of the certificate of podwrightd's streams
    #[arg(long, global = true, display_order = LAST, env = "PODWRIGHT_TLS_CA", hide_env_values = true, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Our own certificate for podwrightd's streams
    #[arg(long, global = true, display_order = LAST, env = "PODWRIGHT_TLS_CERT", hide_env_values = true, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, global = true, display_order = LAST, env = "PODWRIGHT_TLS_KEY", hide_env_values = true, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Tls {
    /// The handshake with the server at `address`.
    pub(crate) async fn connect(
        &self,
        socket: TcpStream,
        address: IpAddr,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(self.config()?));
        let connected = connector.connect(ServerName::from(address), socket).await;
        connected.context("the TLS handshake with podwrightd's streams")
    }

    fn config(&self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let builder = match &self.tls_ca {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).with_context(|| path.display().to_string())?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TakenAsItIs(provider))),
        };
        Ok(match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                let read = PrivateKeyDer::from_pem_file(key);
                let read = read.with_context(|| key.display().to_string())?;
                builder.with_client_auth_cert(certificates(certificate)?, read)?
            }
            _ => builder.with_no_client_auth(),
        })
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.with_context(|| path.display().to_string())
}

/// Any certificate, from whoever has its key.
#[derive(Debug)]
struct TakenAsItIs(Arc<CryptoProvider>);

impl ServerCertVerifier for TakenAsItIs {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
