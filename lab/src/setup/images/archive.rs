//! Archives of images in the format of `docker save`, which `docker load` and `ctr images import`
//! read without a registry. The same files result in the same bytes.

use super::Arch;
use crate::run;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of a file that are hashed at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Flags of tar that fix owner and time of the files, so that an image has the same digest on every
/// machine.
const REPRODUCIBLE_TAR_FLAGS: [&str; 6] = [
    "--format=posix",
    "--pax-option=delete=atime,delete=ctime",
    "--sort=name",
    "--mtime=@0",
    "--owner=0",
    "--group=0",
];

/// A layer: the files of a directory.
#[derive(Clone, Debug)]
pub struct Layer {
    tar: PathBuf,
    digest: String,
}

impl Layer {
    /// Packs all files below `tree` into a file of that name with the extension `.layer`.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn pack(tree: &Path) -> Result<Self> {
        let tar = tree.with_extension("layer");
        pack(tree, &tar)?;
        Ok(Self { digest: digest(&tar)?, tar })
    }

    /// Returns the compressed layer, as a registry stores it.
    ///
    /// # Errors
    /// If gzip fails.
    pub fn compressed(&self) -> Result<Vec<u8>> {
        compress(&self.tar)
    }

    /// Removes the file of the layer.
    ///
    /// # Errors
    /// If the file does not exist.
    pub fn remove(&self) -> Result<()> {
        Ok(fs::remove_file(&self.tar)?)
    }

    /// Returns the digest of the layer before its compression: `sha256:` and 64 hexadecimal digits.
    pub fn diff_id(&self) -> String {
        format!("sha256:{}", self.digest)
    }
}

/// An image: its names, layers and entry point.
#[derive(Clone, Debug)]
pub struct ImageArchiveEntry {
    pub names: Vec<String>,
    pub layers: Vec<Layer>,
    /// Program and arguments; empty if every container specifies its command.
    pub entrypoint: Vec<String>,
    /// `UID:GID`, or empty for root.
    pub user: &'static str,
    /// Labels by name, such as [`CREATED`].
    pub labels: BTreeMap<&'static str, String>,
}

/// Label with the time at which an image was created (RFC 3339).
pub const CREATED: &str = "org.opencontainers.image.created";

/// Writes images into one archive; a shared layer is in it once.
///
/// # Errors
/// If a file cannot be written.
pub fn save(images: &[ImageArchiveEntry], arch: Arch, archive: &Path) -> Result<()> {
    let unpacked = archive.with_extension("unpacked");
    fs::create_dir_all(&unpacked)?;
    let mut manifest = Vec::new();
    for image in images {
        let config = config(image, arch).to_string();
        let name = format!("{}.json", hexadecimal(&Sha256::digest(&config)));
        fs::write(unpacked.join(&name), config)?;
        for layer in &image.layers {
            let linked = unpacked.join(layer_name(layer));
            if !linked.is_symlink() {
                symlink(fs::canonicalize(&layer.tar)?, linked)?;
            }
        }
        let layers: Vec<String> = image.layers.iter().map(layer_name).collect();
        manifest.push(json!({"Config": name, "RepoTags": image.names, "Layers": layers}));
    }
    fs::write(unpacked.join("manifest.json"), Value::from(manifest).to_string())?;
    let mut tar = Command::new("tar");
    tar.args(REPRODUCIBLE_TAR_FLAGS)
        .args(["--dereference", "--create", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(&unpacked);
    run::run(tar.args(fs::read_dir(&unpacked)?.flatten().map(|entry| entry.file_name())))?;
    Ok(fs::remove_dir_all(&unpacked)?)
}

fn layer_name(layer: &Layer) -> String {
    format!("{}.tar", layer.digest)
}

/// Returns the configuration of an image (OCI image specification 1.1, config.md).
pub fn config(image: &ImageArchiveEntry, arch: Arch) -> Value {
    let digests: Vec<String> = image.layers.iter().map(Layer::diff_id).collect();
    let mut config = json!({
        "architecture": arch.name(), "os": "linux",
        "config": {
            "Entrypoint": image.entrypoint, "User": image.user, "Labels": image.labels,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    if let Some(created) = image.labels.get(CREATED) {
        config["created"] = created.as_str().into();
    }
    config
}

/// Returns the content of a file, compressed. The same content results in the same bytes.
///
/// # Errors
/// If gzip fails.
pub fn compress(file: &Path) -> Result<Vec<u8>> {
    let gzip = Command::new("gzip").args(["--no-name", "--stdout"]).arg(file).output()?;
    anyhow::ensure!(gzip.status.success(), "gzip failed for {}", file.display());
    Ok(gzip.stdout)
}

fn pack(tree: &Path, tar: &Path) -> Result<()> {
    pack_names(tree, &["."], tar)
}

/// Packs these files and folders below `tree` into an archive. The same files result in the same
/// bytes.
///
/// # Errors
/// If a file cannot be read or written.
pub fn pack_names(tree: &Path, names: &[&str], tar: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command
        .args(REPRODUCIBLE_TAR_FLAGS)
        .args(["--mode=u+rw,go+r-w", "--numeric-owner", "--create", "--file"])
        .arg(tar)
        .arg("--directory")
        .arg(tree);
    run::run(command.args(names)).map(drop)
}

/// Returns the SHA-256 of a file in hexadecimal digits.
///
/// # Errors
/// If the file cannot be read.
pub fn digest(file: &Path) -> Result<String> {
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    let mut file = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            read => hash.update(&chunk[..read]),
        }
    }
}

/// Returns bytes as hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_reproducible_and_contain_a_layer_once() {
        let folder =
            std::env::temp_dir().join(format!("ferrolb-archive-test-{}", std::process::id()));
        let archives = ["one", "two"].map(|name| {
            let tree = folder.join(name).join("tree");
            fs::create_dir_all(tree.join("bin")).unwrap();
            fs::write(tree.join("bin/program"), "x").unwrap();
            let layer = Layer::pack(&tree).unwrap();
            let image = |name: &str| ImageArchiveEntry {
                names: vec![name.to_owned()],
                layers: vec![layer.clone()],
                entrypoint: vec!["/bin/program".to_owned()],
                user: "65532:65532",
                labels: BTreeMap::new(),
            };
            let archive = folder.join(name).join("images.tar");
            save(&[image("a:1"), image("b:1")], Arch::Amd64, &archive).unwrap();
            fs::read(archive).unwrap()
        });
        let listed = run::run(
            Command::new("tar").arg("--list").arg("--file").arg(folder.join("one/images.tar")),
        );
        fs::remove_dir_all(&folder).unwrap();
        assert!(archives[0] == archives[1], "the archives of the same files differ");
        let names: Vec<String> = listed.unwrap().lines().map(str::to_owned).collect();
        assert_eq!(names.iter().filter(|name| name.ends_with(".tar")).count(), 1, "{names:?}");
        assert!(names.contains(&"manifest.json".to_owned()), "{names:?}");
    }

    #[test]
    fn the_digest_of_a_file_is_sha256() {
        let file = std::env::temp_dir().join(format!("ferrolb-digest-test-{}", std::process::id()));
        fs::write(&file, "abc").unwrap();
        let found = digest(&file);
        fs::remove_file(&file).unwrap();
        assert!(found.unwrap().starts_with("ba7816bf8f01cfea414140de5dae2223"));
    }
}
