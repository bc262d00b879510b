//! An image of one program, by the OCI image specification: an index, a manifest, a configuration, one layer. The archive also
//! has what `docker load` looked for before it knew that.
//!
//! The same program makes the same bytes: nothing in it depends on when, where or by whom.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Where the program is.
pub const PROGRAM: &str = "/usr/bin/picop";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image.
pub struct Image {
    name: String,
    layer: Vec<u8>,
    /// Configuration, compressed layer, manifest.
    blobs: [Blob; 3],
}

struct Blob {
    kind: &'static str,
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(kind: &'static str, bytes: Vec<u8>) -> Self {
        Self { kind, digest: digest(&bytes), bytes }
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.kind, "digest": format!("sha256:{}", self.digest), "size": self.bytes.len()})
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }
}

impl Image {
    /// An image of a program.
    pub fn new(program: &[u8], name: &str) -> Result<Self> {
        let layer = layer(program)?;
        let config = json!({
            "architecture": architecture()?,
            "os": "linux",
            "config": {
                "Entrypoint": [PROGRAM],
                "Env": ["PATH=/usr/bin"],
                "Labels": {"org.opencontainers.image.title": "picop", "org.opencontainers.image.licenses": "Apache-2.0"},
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
            "history": [{"created_by": "cargo xtask dist"}],
        });
        let config = Blob::new(CONFIG, config.to_string().into_bytes());
        let compressed = Blob::new(LAYER, compressed(&layer)?);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": [compressed.descriptor()],
        });
        let manifest = Blob::new(MANIFEST, manifest.to_string().into_bytes());
        Ok(Self { name: name.to_owned(), layer, blobs: [config, compressed, manifest] })
    }

    /// What a registry will call it.
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.blobs[2].digest)
    }

    /// The layout as one file.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let [config, layer, manifest] = &self.blobs;
        let mut described = manifest.descriptor();
        let tag = self.name.rsplit(':').next().unwrap_or_default();
        described["annotations"] =
            json!({"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": self.name});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [described]});
        let docker = json!([{"Config": config.path(), "RepoTags": [self.name], "Layers": [layer.path()]}]);
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "oci-layout", 0o644, json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes())?;
        add(&mut tar, "index.json", 0o644, index.to_string().as_bytes())?;
        add(&mut tar, "manifest.json", 0o644, docker.to_string().as_bytes())?;
        for blob in &self.blobs {
            add(&mut tar, &blob.path(), 0o644, &blob.bytes)?;
        }
        tar.into_inner().context("putting the archive together")
    }

    /// Makes the image's files below a directory.
    pub fn unpack(&self, root: &Path) -> Result<()> {
        fs::create_dir_all(root).with_context(|| format!("creating {}", root.display()))?;
        tar::Archive::new(&*self.layer).unpack(root).context("unpacking the layer")
    }
}

/// What images call this machine's architecture.
pub fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no image is made for {other}"),
    }
}

fn layer(program: &[u8]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for directory in ["usr/", "usr/bin/"] {
        let mut header = header(0o755, 0);
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, directory, std::io::empty()).context("adding a directory")?;
    }
    add(&mut tar, PROGRAM.trim_start_matches('/'), 0o755, program)?;
    tar.into_inner().context("putting the layer together")
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    tar.append_data(&mut header(mode, bytes.len() as u64), path, bytes)
        .with_context(|| format!("adding {path}"))
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    // With neither name nor time.
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(bytes).context("compressing the layer")?;
    gzip.finish().context("compressing the layer")
}

fn digest(bytes: &[u8]) -> String {
    testbed::hex::encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(tar);
        let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("its bytes");
            (path, bytes)
        };
        archive.entries().expect("an archive").map(read).collect()
    }

    #[test]
    fn everything_named_is_there_by_its_digest() {
        let image = Image::new(b"a program", "picop:1").expect("an image");
        let files = files(&image.archive().expect("an archive"));
        let json = |path: &str| serde_json::from_slice::<Value>(&files[path]).expect("JSON");
        let blob = |descriptor: &Value| {
            let digest =
                descriptor["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
            let bytes = &files[&format!("blobs/sha256/{digest}")];
            assert_eq!(super::digest(bytes), digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let manifest = blob(&json("index.json")["manifests"][0]);
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).expect("JSON");
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(&*blob(&manifest["layers"][0]))
            .read_to_end(&mut layer)
            .expect("a layer");
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&layer)));
        assert_eq!(self::files(&layer)["usr/bin/picop"], b"a program");
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/picop");
        let again = Image::new(b"a program", "picop:1").expect("an image");
        assert_eq!(again.archive().expect("an archive"), image.archive().expect("an archive"));
    }
}
