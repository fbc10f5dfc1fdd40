//! A folder in the layout of OCI images: blobs by digest, and an index that names them (OCI image
//! specification 1.1, image-layout.md). `crane push`, `skopeo copy oci:` and `oras` read it. The
//! same contents result in the same digests.

use crate::setup::images::archive;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Annotation with the tag (OCI image specification 1.1, image-layout.md).
const TAG: &str = "org.opencontainers.image.ref.name";
/// Annotation with the complete name, which containerd's import reads.
const NAME: &str = "io.containerd.image.name";

/// A content that a layout names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Name in a registry, as in `registry/path/component:version`.
    pub name: String,
    /// Digest of the manifest or of the index.
    pub digest: String,
}

/// Returns the content that the layout in this folder names.
///
/// # Errors
/// If the folder has no layout, or one without a name.
pub fn named(folder: &Path) -> Result<Named> {
    let file = folder.join("index.json");
    let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let index: Value = serde_json::from_slice(&text)?;
    let content = &index["manifests"][0];
    let (name, digest) = (content["annotations"][NAME].as_str(), content["digest"].as_str());
    let (name, digest) = name
        .zip(digest)
        .with_context(|| format!("{} names no content: build the release again", file.display()))?;
    Ok(Named { name: name.to_owned(), digest: digest.to_owned() })
}

/// A layout that is being written.
#[derive(Debug)]
pub struct Layout {
    folder: PathBuf,
    /// Descriptors of the named contents.
    named: Vec<Value>,
}

/// A blob of the layout, as an OCI descriptor names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Size in bytes.
    pub size: usize,
    media_type: &'static str,
}

impl Blob {
    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

impl Layout {
    /// Begins an empty layout in a new folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("blobs/sha256"))
            .with_context(|| format!("cannot create {}", folder.display()))?;
        fs::write(folder.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
        Ok(Self { folder: folder.to_owned(), named: Vec::new() })
    }

    /// Adds a blob.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn blob(&self, media_type: &'static str, content: &[u8]) -> Result<Blob> {
        let hash = archive::hexadecimal(&Sha256::digest(content));
        fs::write(self.folder.join("blobs/sha256").join(&hash), content)?;
        Ok(Blob { digest: format!("sha256:{hash}"), size: content.len(), media_type })
    }

    /// Adds the manifest of one image or artifact: its configuration and its layers.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn manifest(
        &self,
        config: &Blob,
        layers: &[Blob],
        annotations: &BTreeMap<&str, String>,
    ) -> Result<Blob> {
        let layers: Vec<Value> = layers.iter().map(Blob::descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": config.descriptor(), "layers": layers, "annotations": annotations,
        });
        self.blob(MANIFEST_TYPE, manifest.to_string().as_bytes())
    }

    /// Adds the index of one image: a manifest for each architecture.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn image_index(
        &self,
        manifests: &[(&str, Blob)],
        annotations: &BTreeMap<&str, String>,
    ) -> Result<Blob> {
        let of_platform = |(arch, manifest): &(&str, Blob)| {
            let mut descriptor = manifest.descriptor();
            descriptor["platform"] = json!({"architecture": arch, "os": "linux"});
            descriptor
        };
        let manifests: Vec<Value> = manifests.iter().map(of_platform).collect();
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX_TYPE,
            "manifests": manifests, "annotations": annotations,
        });
        self.blob(INDEX_TYPE, index.to_string().as_bytes())
    }

    /// Names a manifest or an index, as in `registry/path/component:version`.
    pub fn name(&mut self, content: &Blob, name: &str) {
        let mut descriptor = content.descriptor();
        let tag = name.rsplit(':').next();
        descriptor["annotations"] = json!({TAG: tag, NAME: name});
        self.named.push(descriptor);
    }

    /// Writes the index of the layout, which lists the named contents.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(self) -> Result<()> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": self.named});
        Ok(fs::write(self.folder.join("index.json"), index.to_string())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_contents_have_the_same_digests_and_every_digest_names_a_blob() {
        let folder = std::env::temp_dir().join(format!("ferrolb-layout-{}", std::process::id()));
        let annotations = BTreeMap::from([("org.opencontainers.image.version", "1".to_owned())]);
        let indexes = ["one", "two"].map(|name| {
            let mut layout = Layout::create(&folder.join(name)).unwrap();
            let layer = layout.blob("application/x", b"layer").unwrap();
            let config = layout.blob("application/y", b"{}").unwrap();
            let manifest = layout.manifest(&config, &[layer], &annotations).unwrap();
            let manifests = [("amd64", manifest.clone()), ("arm64", manifest)];
            let index = layout.image_index(&manifests, &annotations).unwrap();
            layout.name(&index, "r.example.com:5000/a:1");
            layout.finish().unwrap();
            index
        });
        let read = |path: &str| -> Value {
            serde_json::from_slice(&fs::read(folder.join("one").join(path)).unwrap()).unwrap()
        };
        let named = read("index.json")["manifests"][0].clone();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            read(&format!("blobs/{digest}"))
        };
        let index = blob(&named);
        let manifest = blob(&index["manifests"][1]);
        let content = super::named(&folder.join("one")).unwrap();
        let blobs = fs::read_dir(folder.join("one/blobs/sha256")).unwrap().count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(indexes[0], indexes[1]);
        assert_eq!(named["annotations"]["org.opencontainers.image.ref.name"], "1");
        assert_eq!(content.name, "r.example.com:5000/a:1");
        assert_eq!(content.digest, indexes[0].digest);
        assert_eq!(index["manifests"][1]["platform"]["architecture"], "arm64");
        assert_eq!((manifest["layers"][0]["size"].as_u64(), blobs), (Some(5), 4));
    }
}
