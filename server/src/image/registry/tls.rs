//! Whom a TLS connection trusts: Mozilla's authorities, the system's, and those that hosts.toml names; and what
//! we show to a server that wants to know who we are.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme,
};

use super::super::error::Error;
use super::hosts::{ClientFiles, Tls};

/// Where distributions keep all authorities in one file; the first that exists counts.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Largest file of authorities, certificates or keys.
const MAX_PEM: u64 = 8 << 20;

/// A [`Tls`] with its files read, so that a changed file makes another value. Holds keys: it is never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    skip_verify: bool,
    pems: Vec<Vec<u8>>,
    /// Certificates and keys; where both are in one file, it is here twice.
    identities: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Trust {
    pub(super) fn read(tls: &Tls) -> Result<Self, Error> {
        let pems = tls.ca.iter().map(|path| read("authority", path)).collect::<Result<_, _>>()?;
        let identity = |files: &ClientFiles| {
            let certificate = read("client certificate", &files.certificate)?;
            let key = match &files.key {
                Some(key) => read("client key", key)?,
                None => certificate.clone(),
            };
            Ok((certificate, key))
        };
        let identities = tls.client.iter().map(identity).collect::<Result<_, Error>>()?;
        Ok(Self { skip_verify: tls.skip_verify.unwrap_or_default(), pems, identities })
    }

    /// What a connection is made with.
    pub(super) fn client_config(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|err| Error::Internal(format!("tls: {err}")))?;
        let builder = if self.skip_verify {
            let verifier = Arc::new(TrustAnyone(provider.clone()));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            let mut roots = system_roots().clone();
            for pem in &self.pems {
                add(&mut roots, pem).map_err(Error::Config)?;
            }
            builder.with_root_certificates(roots)
        };
        if self.identities.is_empty() {
            return Ok(builder.with_no_client_auth());
        }
        let load = |(certificate, key): &(Vec<u8>, Vec<u8>)| identity(&provider, certificate, key);
        let identities = self.identities.iter().map(load).collect::<Result<_, _>>();
        let resolver = Identities(identities.map_err(Error::Config)?);
        Ok(builder.with_client_cert_resolver(Arc::new(resolver)))
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let told = |err: std::io::Error| Error::Config(format!("{what} {}: {err}", path.display()));
    if std::fs::metadata(path).map_err(told)?.len() > MAX_PEM {
        return Err(Error::Config(format!("{what} {}: larger than 8 MiB", path.display())));
    }
    std::fs::read(path).map_err(told)
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

fn identity(
    provider: &CryptoProvider,
    certificate: &[u8],
    key: &[u8],
) -> Result<Arc<CertifiedKey>, String> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|err| format!("client certificate: {err}"))?;
    if chain.is_empty() {
        return Err("client certificate: the file holds none".into());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|err| format!("client key: {err}"))?;
    let key = provider.key_provider.load_private_key(key);
    let pair = CertifiedKey::new(chain, key.map_err(|err| format!("client key: {err}"))?);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(Arc::new(pair))
        }
        Err(_) => Err("client key: it is another certificate's".into()),
    }
}

/// What we can show to a server that asks who we are.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    /// The first that one of the authorities named by the server signed, else the first that the server can
    /// verify at all: it may trust more authorities than it names.
    fn resolve(
        &self,
        authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        // An issuer's name is in the certificate byte for byte.
        let named = |pair: &CertifiedKey| {
            let has = |name: &&[u8]| {
                let in_one = |der: &CertificateDer<'_>| memchr::memmem::find(der, name).is_some();
                pair.cert.iter().any(in_one)
            };
            authorities.iter().any(has)
        };
        let usable = || self.0.iter().filter(|pair| pair.key.choose_scheme(schemes).is_some());
        usable().find(|pair| named(pair)).or_else(|| usable().next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
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
            .find_map(|path| read("authorities", &path).ok());
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
    fn files_that_hold_nothing_of_use_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let tls = Tls { ca: vec![path.clone()], ..Tls::default() };
        assert!(Trust::read(&tls).err().unwrap().to_string().contains("ca.pem"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(Trust::read(&tls).unwrap().client_config().is_err());
        let client = vec![ClientFiles { certificate: path, key: None }];
        let tls = Tls { client, ..Tls::default() };
        assert!(Trust::read(&tls).unwrap().client_config().is_err());
        let any = Tls { skip_verify: Some(true), ..Tls::default() };
        assert!(Trust::read(&any).unwrap().client_config().is_ok());
        assert!(Trust::read(&Tls::default()).unwrap().client_config().is_ok());
    }
}
