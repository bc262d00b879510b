//! curl, by HTTP/1.1 and by HTTP/2 without TLS, with large bodies both ways.

use testbed::Verdict;

use super::{Propagate, scene};
use crate::Result;
use crate::nginx::bodies::{assert_same, write_blob};
use crate::nginx::{Nginx, curl, mapped, try_curl, url};
use crate::programs::require;
use crate::scene::Scene;

/// The service's; nginx itself has its own.
const PORT: u16 = 80;
const BEHIND: u16 = 8080;
const SIZE: usize = 10_000_000;

/// An instance that takes and gives files, and says who it is.
fn site(listen: &str, who: &str) -> String {
    format!(
        "server {{
            listen 127.0.0.1:{BEHIND}{listen};
            location / {{ dav_methods PUT; }}
            location = /who {{ return 200 '{who} $server_protocol\\n'; }}
        }}"
    )
}

fn exchange(name: &str, listen: &str, options: &[&str], protocol: &str) -> Result {
    let scene = scene(name, PORT)?;
    let start = |pod, who| Nginx::start(&scene, pod, BEHIND, &site(listen, who));
    let sites = [start(&scene.variant, "pr-1")?, start(&scene.base, "base")?];
    let it = Propagate::new(scene, BEHIND)?;
    let Scene { vip4, vip6, .. } = it.scene;
    let (source, target) = (it.scene.cluster.dir().join("source"), it.scene.cluster.dir().join("target"));
    let bytes = write_blob(&source, SIZE)?;
    for ((pod, who), site) in it.clients().into_iter().zip(&sites) {
        let curl = |args: &[&str]| curl(pod, &[options, args].concat());
        // The application must see the peer it asked for.
        for (url, peer) in [
            (url(vip4, "/who"), vip4.ip().to_string()),
            (url(vip6, "/who"), vip6.ip().to_string()),
            (mapped(&it.scene, "/who"), format!("::ffff:{}", vip4.ip())),
        ] {
            let answer = curl(&["--write-out", "%{remote_ip}", &url])?;
            assert_eq!(answer, format!("{who} {protocol}\n{peer}"));
        }
        write_blob(&site.www.join("large"), SIZE)?;
        curl(&["--output", &target.to_string_lossy(), &url(vip4, "/large")])?;
        assert_same(&target, &bytes)?;
        curl(&["--upload-file", &source.to_string_lossy(), &url(vip6, "/uploaded")])?;
        assert_same(&site.www.join("uploaded"), &bytes)?;
        let sum = it.check(pod, 5)?;
        assert_eq!(sum.connections, 5);
        assert!(sum.up > SIZE as u64 && sum.down > SIZE as u64, "{sum:?}");
    }
    it.notices(Verdict::NoHeader, |pod, to| {
        Ok(try_curl(pod, &[options, &[&url(to, "/who")]].concat())?.status.success())
    })?;
    it.scene.finish()
}

#[test]
fn curl_by_http_1() -> Result {
    require!("nginx", "curl");
    exchange("propagate-http1", "", &["--http1.1"], "HTTP/1.1")
}

#[test]
fn curl_by_http_2_without_tls() -> Result {
    require!("nginx", "curl");
    exchange("propagate-http2", " http2", &["--http2-prior-knowledge"], "HTTP/2.0")
}
