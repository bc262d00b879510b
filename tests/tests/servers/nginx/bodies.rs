//! Large bodies, both ways.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use testbed::blob;

use super::{Nginx, PORT, curl, mapped, url};
use crate::Result;
use crate::programs::require;
use crate::scene::{ENV, Scene, carried};

pub fn write_blob(path: &Path, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    blob::fill(0, &mut bytes);
    fs::write(path, &bytes).with_context(|| format!("writing {}", path.display()))?;
    Ok(bytes)
}

pub fn assert_same(path: &Path, expected: &[u8]) -> Result {
    let got = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let differ = got.iter().zip(expected).position(|(got, expected)| got != expected);
    assert_eq!((got.len(), differ), (expected.len(), None), "length, and where {} differs", path.display());
    Ok(())
}

#[test]
fn a_large_file_is_downloaded_unchanged() -> Result {
    const SIZE: usize = 50_000_000;
    require!("nginx", "curl");
    let scene = Scene::new("nginx-download", PORT, "strip")?;
    let server = Nginx::serve(&scene, &scene.variant, ENV)?;
    let bytes = write_blob(&server.www.join("large"), SIZE)?;
    let (_forward, by_header) = scene.forward(scene.vip4, false)?;
    let ways = [
        (&scene.member, url(scene.vip4, "/large")),
        (&scene.member, url(scene.vip6, "/large")),
        (&scene.member, mapped(&scene, "/large")),
        (&scene.instrumented, url(by_header, "/large")),
    ];
    let target = scene.cluster.dir().join("downloaded");
    for (pod, url) in &ways {
        curl(pod, &["--output", &target.to_string_lossy(), url])?;
        assert_same(&target, &bytes)?;
        fs::remove_file(&target).context("removing what was downloaded")?;
    }
    for line in scene.access(ways.len(), "variant")? {
        let Some((_, down)) = carried(&line)? else { continue };
        // The answer's own header is what is more.
        assert!((SIZE as u64 + 1..SIZE as u64 + 1000).contains(&down), "{line}");
    }
    scene.finish()
}

#[test]
fn a_large_file_is_uploaded_unchanged() -> Result {
    const SIZE: usize = 20_000_000;
    require!("nginx", "curl");
    let scene = Scene::new("nginx-upload", PORT, "strip")?;
    let server = Nginx::serve(&scene, &scene.variant, ENV)?;
    let source = scene.cluster.dir().join("source");
    let bytes = write_blob(&source, SIZE)?;
    let (_forward, by_header) = scene.forward(scene.vip6, false)?;
    let ways = [
        (&scene.member, url(scene.vip4, "/first")),
        (&scene.member, url(scene.vip6, "/second")),
        (&scene.instrumented, url(by_header, "/third")),
    ];
    for (pod, url) in &ways {
        // curl asks with `Expect: 100-continue` first, so the server speaks in between.
        curl(pod, &["--upload-file", &source.to_string_lossy(), url])?;
    }
    for name in ["first", "second", "third"] {
        assert_same(&server.www.join(name), &bytes)?;
    }
    for line in scene.access(ways.len(), "variant")? {
        let Some((up, _)) = carried(&line)? else { continue };
        assert!((SIZE as u64 + 1..SIZE as u64 + 1000).contains(&up), "{line}");
    }
    scene.finish()
}
