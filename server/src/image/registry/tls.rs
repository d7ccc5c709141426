//! Whom a TLS connection trusts: Mozilla's authorities, the system's, and those that hosts.toml names.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::super::error::Error;
use super::hosts::Tls;

/// Where distributions keep all authorities in one file; the first that exists counts.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Largest file of authorities.
const MAX_PEM: u64 = 8 << 20;

/// A [`Tls`] with its files read, so that a changed file makes another value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    skip_verify: bool,
    pems: Vec<Vec<u8>>,
}

impl Trust {
    pub(super) fn read(tls: &Tls) -> Result<Self, Error> {
        let pems = tls.ca.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
        Ok(Self { skip_verify: tls.skip_verify, pems })
    }

    /// What a connection is made with.
    pub(super) fn client_config(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|err| Error::Internal(format!("tls: {err}")))?;
        if self.skip_verify {
            let verifier = Arc::new(TrustAnyone(provider));
            let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
            return Ok(builder.with_no_client_auth());
        }
        let mut roots = system_roots().clone();
        for pem in &self.pems {
            add(&mut roots, pem).map_err(Error::Config)?;
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let meta = std::fs::metadata(path).map_err(Error::io("read the authority", path))?;
    if meta.len() > MAX_PEM {
        return Err(Error::Config(format!("{}: larger than 8 MiB", path.display())));
    }
    std::fs::read(path).map_err(Error::io("read the authority", path))
}

fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|err| format!("authority: {err}"))?;
        roots.add(certificate).map_err(|err| format!("authority: {err}"))?;
        found = true;
    }
    if found { Ok(()) } else { Err("authority: the file holds no certificate".into()) }
}

/// Read once: an update of the system's bundle counts from the next start.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
        let bundle = named
            .into_iter()
            .chain(SYSTEM_BUNDLES.map(Into::into))
            .find_map(|path| read(&path).ok());
        // A certificate of the system's that cannot be parsed must not disable the others.
        let certificates = CertificateDer::pem_slice_iter(bundle.as_deref().unwrap_or_default());
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        roots
    })
}

/// `skip_verify = true`: whoever answers is believed to be the server.
#[derive(Debug)]
struct TrustAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_file_without_a_certificate_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let tls = Tls { skip_verify: false, ca: vec![path.clone()] };
        assert!(Trust::read(&tls).unwrap_err().to_string().contains("ca.pem"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(Trust::read(&tls).unwrap().client_config().is_err());
        let any = Tls { skip_verify: true, ca: Vec::new() };
        assert!(Trust::read(&any).unwrap().client_config().is_ok());
        assert!(Trust::read(&Tls::default()).unwrap().client_config().is_ok());
    }
}
