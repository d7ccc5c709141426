//! Debian's docker-registry, and its storage filled directly, which also allows what no push would: lies.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::image::{Image, digest};

/// Every world's registry listens here, in its own network.
pub const HOST: &str = "127.0.0.1:5000";

/// A registry's storage directory.
#[derive(Debug, Clone)]
pub struct Storage {
    dir: PathBuf,
}

impl Storage {
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    /// The configuration of a registry that serves this storage and takes no push.
    pub fn configuration(&self) -> String {
        format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             maintenance:\n    readonly:\n      enabled: true\nhttp:\n  addr: {HOST}\n",
            self.dir.display()
        )
    }

    /// Stores an image under `repository:tag` and returns its reference.
    pub fn put(&self, repository: &str, tag: &str, image: &Image) -> String {
        self.blob(repository, &image.config);
        for layer in &image.layers {
            self.blob(repository, layer);
        }
        self.manifest(repository, tag, &image.manifest)
    }

    /// Stores a manifest or an index under `repository:tag` and returns its reference.
    pub fn manifest(&self, repository: &str, tag: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.content(&digest, bytes);
        self.link(repository, &format!("_manifests/revisions/{}", path_of(&digest)), &digest);
        self.link(repository, &format!("_manifests/tags/{tag}/current"), &digest);
        self.link(
            repository,
            &format!("_manifests/tags/{tag}/index/{}", path_of(&digest)),
            &digest,
        );
        format!("{HOST}/{repository}:{tag}")
    }

    /// Stores a manifest that only its digest names.
    pub fn revision(&self, repository: &str, bytes: &[u8]) {
        let digest = digest(bytes);
        self.content(&digest, bytes);
        self.link(repository, &format!("_manifests/revisions/{}", path_of(&digest)), &digest);
    }

    pub fn blob(&self, repository: &str, bytes: &[u8]) {
        self.lie(repository, &digest(bytes), bytes);
    }

    /// Serves `bytes` under a digest that may not be theirs.
    pub fn lie(&self, repository: &str, digest: &str, bytes: &[u8]) {
        self.content(digest, bytes);
        self.link(repository, &format!("_layers/{}", path_of(digest)), digest);
    }

    /// Makes the registry take a blob for a manifest.
    pub fn alias(&self, repository: &str, hex: &str) {
        let digest = format!("sha256:{hex}");
        self.link(repository, &format!("_manifests/revisions/{}", path_of(&digest)), &digest);
    }

    /// A blob or a manifest.
    pub fn read(&self, digest: &str) -> Vec<u8> {
        std::fs::read(self.data(digest)).expect("the storage has it")
    }

    /// The digests of an image's layers, bottom first.
    pub fn layers(&self, repository: &str, tag: &str) -> Vec<String> {
        let link = format!(
            "docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link"
        );
        let digest = std::fs::read_to_string(self.dir.join(link)).expect("the storage has it");
        let manifest: Value = serde_json::from_slice(&self.read(&digest)).expect("it is JSON");
        let layers = manifest["layers"].as_array().into_iter().flatten();
        layers.filter_map(|layer| layer["digest"].as_str().map(str::to_owned)).collect()
    }

    fn data(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    fn content(&self, digest: &str, bytes: &[u8]) {
        write(&self.data(digest), bytes);
    }

    fn link(&self, repository: &str, path: &str, digest: &str) {
        let path = format!("docker/registry/v2/repositories/{repository}/{path}/link");
        write(&self.dir.join(path), digest.as_bytes());
    }
}

fn path_of(digest: &str) -> String {
    digest.replace(':', "/")
}

/// Tests share the storage, so a file appears whole.
fn write(path: &Path, bytes: &[u8]) {
    let dir = path.parent().expect("a file lies in a directory");
    std::fs::create_dir_all(dir).expect("the storage can be written");
    let unique = format!(".{:?}", std::thread::current().id());
    let part = path.with_extension(unique);
    std::fs::write(&part, bytes).expect("the storage can be written");
    std::fs::rename(&part, path).expect("the storage can be written");
}
