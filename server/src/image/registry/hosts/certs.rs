//! Certificates beside each other in a directory, as Docker has them.

use std::path::Path;

use super::super::super::error::Error;
use super::{ClientFiles, Tls};

/// Every `*.crt` is an authority, every `*.cert` a certificate of ours, with its key in the `*.key` of the same
/// name or in the file itself.
pub(super) fn find(dir: &Path) -> Result<Tls, Error> {
    let mut tls = Tls::default();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        if !entry.path().is_dir() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    for path in &paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.ca.push(path.clone()),
            Some("cert") => {
                let key = Some(path.with_extension("key")).filter(|key| paths.contains(key));
                tls.client.push(ClientFiles { certificate: path.clone(), key });
            }
            _ => {}
        }
    }
    Ok(tls)
}
