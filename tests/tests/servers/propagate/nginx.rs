//! nginx as a reverse proxy: its connections to the service are those of its pod's environment.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Context as _;
use testbed::{Pod, Verdict};

use super::{Propagate, scene};
use crate::Result;
use crate::nginx::bodies::{assert_same, write_blob};
use crate::nginx::{Nginx, curl, curl_command, try_curl, url};
use crate::programs::require;
use crate::scene::{PATIENCE, Scene};

/// The service's, and the proxies'.
const PORT: u16 = 80;
/// nginx' own, as a server of the service.
const BEHIND: u16 = 8080;
/// How many clients the proxy has at once.
const CLIENTS: usize = 4;

/// An instance that answers with its name, what it was asked for, and the number of the connection.
fn site(who: &str) -> String {
    format!(
        "server {{
            listen 127.0.0.1:{BEHIND};
            keepalive_requests 1000000;
            location / {{ return 200 '{who} $uri $connection\\n'; }}
            location /files/ {{ dav_methods PUT; create_full_put_path on; }}
        }}"
    )
}

/// A reverse proxy that keeps its connections to the service for what comes at `/keep/`, and takes a fresh one for each
/// request at `/close/`.
fn proxy(Scene { vip4, vip6, .. }: &Scene) -> String {
    format!(
        "upstream keep {{ server {vip4}; keepalive 8; keepalive_requests 1000000; }}
        upstream close {{ server {vip6}; }}
        server {{
            listen {PORT};
            keepalive_requests 1000000;
            location /keep/ {{
                proxy_pass http://keep/;
                proxy_http_version 1.1;
                proxy_set_header Connection '';
            }}
            location /close/ {{ proxy_pass http://close/; }}
        }}"
    )
}

/// Sends so many requests for a path and all numbers; gives the connections by which the service was asked.
fn drive(scene: &Scene, front: &Pod, path: &str, who: &str, count: usize) -> Result<usize> {
    let share = count / CLIENTS;
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let urls =
            (0..share).map(|n| format!("url = \"{}\"\n", url(front.at4(PORT), &number(path, client, n))));
        let list = scene.cluster.dir().join(format!("{}-{client}.curl", front.name()));
        fs::write(&list, urls.collect::<String>()).context("writing curl's list")?;
        let list = list.to_string_lossy().into_owned();
        let command = curl_command(&scene.stranger, &["--fail", "--config", &list])?;
        clients.push(scene.stranger.spawn("curl", command)?);
    }
    let mut connections = BTreeSet::new();
    for (client, mut proc) in clients.into_iter().enumerate() {
        let status = proc.wait(PATIENCE)?;
        assert!(status.success(), "{path}: {status}: {}", proc.stderr());
        let answers = proc.stdout();
        assert_eq!(answers.lines().count(), share, "{path}");
        for (n, answer) in answers.lines().enumerate() {
            let connection = answer.strip_prefix(&format!("{who} {} ", number("/", client, n)));
            connections.insert(connection.with_context(|| format!("{answer:?} for {n}"))?.to_owned());
        }
    }
    Ok(connections.len())
}

fn number(path: &str, client: usize, n: usize) -> String {
    format!("{path}{client}/{n}")
}

#[test]
fn ten_thousand_requests_through_a_reverse_proxy() -> Result {
    const SIZE: usize = 3_000_000;
    require!("nginx", "curl");
    let scene = scene("propagate-nginx", PORT)?;
    let sites = [("pr-1", &scene.variant), ("base", &scene.base)]
        .map(|(who, pod)| Nginx::start(&scene, pod, BEHIND, &site(who)));
    let it = Propagate::new(scene, BEHIND)?;
    let config = proxy(&it.scene);
    let source = it.scene.cluster.dir().join("source");
    let (bytes, target) = (write_blob(&source, SIZE)?, it.scene.cluster.dir().join("target"));
    for (((pod, who), site), count) in it.clients().into_iter().zip(sites).zip([4_000, 1_000]) {
        let site = site?;
        let front = Nginx::start(&it.scene, pod, PORT, &config)?;
        let kept = drive(&it.scene, pod, "/keep/", who, count)?;
        assert!((1..=count / 10).contains(&kept), "{kept} connections for {count} requests");
        let fresh = drive(&it.scene, pod, "/close/", who, count)?;
        assert_eq!(fresh, count, "connections");
        // Bodies of many segments, both ways.
        for path in ["keep", "close"] {
            let file = url(pod.at4(PORT), &format!("/{path}/files/{path}"));
            curl(&it.scene.stranger, &["--upload-file", &source.to_string_lossy(), &file])?;
            assert_same(&site.www.join("files").join(path), &bytes)?;
            curl(&it.scene.stranger, &["--output", &target.to_string_lossy(), &file])?;
            assert_same(&target, &bytes)?;
        }
        // What it keeps would not end.
        front.stop()?;
        // A file by each request at `/close/`; those at `/keep/` may have taken one more that was not kept.
        let sum = it.check(pod, kept + fresh + 2)?;
        assert!(sum.connections <= kept + fresh + 4, "{sum:?}, {kept}");
        assert!(!site.requests()?.contains(" 4"), "a request that was refused");
    }
    it.notices(Verdict::NoHeader, |pod, to| Ok(try_curl(pod, &[&url(to, "/1")])?.status.success()))?;
    it.scene.finish()
}
