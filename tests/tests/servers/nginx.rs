//! nginx and curl: event loops that never block, keep-alive, large bodies, HTTP/2 without TLS.

pub mod bodies;
mod proxy;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use rustix::process::Signal;
use testbed::{Output, Pod, Proc};

use crate::Result;
use crate::programs::require;
use crate::scene::{ENV, PATIENCE, Scene, carried, command};

const PORT: u16 = 80;

/// A running nginx, and the directory of the files it serves and takes.
pub struct Nginx {
    proc: Proc,
    pub www: PathBuf,
    access_log: PathBuf,
}

impl Nginx {
    /// An nginx in `pod` which says at `/who` which it is, and takes files by PUT.
    fn serve(scene: &Scene, pod: &Pod, who: &str) -> Result<Self> {
        let servers = format!(
            "server {{
                listen {PORT} default_server;
                listen [::]:{PORT} default_server;
                location / {{ dav_methods PUT; }}
                location = /who {{ return 200 '{who}\\n'; }}
            }}"
        );
        Self::start(scene, pod, PORT, &servers)
    }

    /// An nginx in `pod` with these server blocks, one of which listens on `port`.
    pub fn start(scene: &Scene, pod: &Pod, port: u16, servers: &str) -> Result<Self> {
        let dir = scene.dir(&format!("nginx-{}", pod.name()))?;
        let (www, access_log) = (dir.join("www"), dir.join("access.log"));
        fs::create_dir_all(&www).with_context(|| format!("creating {}", www.display()))?;
        let config = format!(
            "daemon off; user root; worker_processes 2; error_log stderr; pid {dir}/pid;
            events {{ worker_connections 512; }}
            http {{
                log_format brief '$request_method $uri $status';
                access_log {log} brief;
                client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
                client_max_body_size 0; root {www};
                {servers}
            }}",
            dir = dir.display(),
            log = access_log.display(),
            www = www.display(),
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config).context("writing nginx's configuration")?;
        let mut server = command(pod, "nginx", ["-c"])?;
        server.arg(file);
        let mut proc = pod.spawn("nginx", server)?;
        proc.wait_for_port(port)?;
        Ok(Self { proc, www, access_log })
    }

    /// Ends it, and all of its connections.
    pub fn stop(mut self) -> Result {
        self.proc.signal(Signal::TERM)?;
        self.proc.wait(PATIENCE)?;
        Ok(())
    }

    /// One line per request.
    pub fn requests(&self) -> Result<String> {
        fs::read_to_string(&self.access_log).context("reading nginx's access log")
    }
}

pub fn url(to: SocketAddr, path: &str) -> String {
    format!("http://{to}{path}")
}

/// The IPv4 service by its v4-mapped address, for which curl takes an IPv6 socket.
pub fn mapped(scene: &Scene, path: &str) -> String {
    format!("http://[::ffff:{}]:{}{path}", scene.vip4.ip(), scene.vip4.port())
}

/// curl in `pod`, with nothing but these arguments to tell it what to do.
pub fn curl_command(pod: &Pod, args: &[&str]) -> Result<Command> {
    let always = ["--disable", "--silent", "--show-error", "--noproxy", "*", "--globoff", "--max-time", "50"];
    command(pod, "curl", always.iter().chain(args))
}

/// Runs curl, whatever comes of it.
pub fn try_curl(pod: &Pod, args: &[&str]) -> Result<Output> {
    pod.run(curl_command(pod, args)?, PATIENCE)
}

/// Runs curl, which must get a good answer.
pub fn curl(pod: &Pod, args: &[&str]) -> Result<String> {
    let args = [&["--fail"], args].concat();
    Ok(try_curl(pod, &args)?
        .success()
        .with_context(|| format!("curl {args:?} in pod {}", pod.name()))?
        .stdout)
}

#[test]
fn a_workloads_environment_picks_the_site() -> Result {
    require!("nginx", "curl");
    let scene = Scene::new("nginx-env", PORT, "strip")?;
    let _servers = [Nginx::serve(&scene, &scene.base, "base")?, Nginx::serve(&scene, &scene.variant, ENV)?];
    let ways = [
        (url(scene.vip4, "/who"), scene.vip4.ip().to_string()),
        (url(scene.vip6, "/who"), scene.vip6.ip().to_string()),
        (mapped(&scene, "/who"), format!("::ffff:{}", scene.vip4.ip())),
    ];
    for (url, peer) in &ways {
        let lost = try_curl(&scene.stranger, &[url])?;
        assert_eq!(lost.status.code(), Some(7), "nobody has the address: {lost:?}");
        // The application must see the peer it asked for.
        let answer = curl(&scene.member, &["--write-out", "%{remote_ip} %{remote_port}", url])?;
        assert_eq!(answer, format!("pr-1\n{peer} {PORT}"));
        assert_eq!(curl(&scene.instrumented, &[url])?, "base\n", "{url}, without a header");
    }
    for line in scene.access(3, "variant")?.iter().chain(&scene.access(3, "no_environment")?) {
        carried(line)?;
    }
    scene.finish()
}

#[test]
fn a_header_picks_the_site_and_stays_with_the_agent() -> Result {
    require!("nginx", "curl");
    let scene = Scene::new("nginx-header", PORT, "strip")?;
    let servers = [Nginx::serve(&scene, &scene.base, "base")?, Nginx::serve(&scene, &scene.variant, ENV)?];
    for (way, to, _forward) in scene.forwards()? {
        assert_eq!(curl(&scene.instrumented, &[&url(to, "/who")])?, "pr-1\n", "{way}");
    }
    for line in scene.access(3, "variant")? {
        assert_eq!((&line["env_source"], &line["header"]), (&"header".into(), &"strip".into()), "{line}");
        carried(&line)?;
    }
    assert_eq!(servers[0].requests()?, "");
    assert_eq!(servers[1].requests()?, "GET /who 200\n".repeat(3));
    scene.finish()
}

/// What `strip` is for.
#[test]
fn nginx_refuses_a_header_that_is_propagated() -> Result {
    require!("nginx", "curl");
    let scene = Scene::new("nginx-propagate", PORT, "propagate")?;
    let server = Nginx::serve(&scene, &scene.variant, ENV)?;
    let (_forward, by_header) = scene.forward(scene.vip4, false)?;
    let (by_header, by_workload) = (url(by_header, "/who"), url(scene.vip4, "/who"));
    let clients = [(&scene.instrumented, &by_header), (&scene.member, &by_workload)];
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    for (pod, url) in clients {
        let answer = try_curl(pod, &[&status[..], &[url]].concat())?;
        assert_eq!(answer.stdout, "400", "{answer:?}");
    }
    assert!(!server.requests()?.contains(" 200"), "{}", server.requests()?);
    scene.set_header("strip")?;
    for (pod, url) in clients {
        assert_eq!(curl(pod, &[url])?, "pr-1\n");
    }
    scene.finish()
}

#[test]
fn one_connection_serves_many_requests() -> Result {
    const REQUESTS: usize = 50;
    require!("nginx", "curl");
    let scene = Scene::new("nginx-keepalive", PORT, "strip")?;
    let server = Nginx::serve(&scene, &scene.variant, ENV)?;
    let (_forward, by_header) = scene.forward(scene.vip6, false)?;
    for (pod, to) in [(&scene.member, scene.vip4), (&scene.instrumented, by_header)] {
        let url = url(to, "/who");
        let mut args = vec!["--write-out", "%{num_connects}\n"];
        args.extend(std::iter::repeat_n(url.as_str(), REQUESTS));
        let expected = format!("pr-1\n1\n{}", "pr-1\n0\n".repeat(REQUESTS - 1));
        assert_eq!(curl(pod, &args)?, expected, "one connect, then none");
    }
    assert_eq!(server.requests()?.lines().count(), 2 * REQUESTS);
    assert_eq!(scene.access(2, "variant")?.len(), 2);
    scene.finish()
}

#[test]
fn http2_without_tls() -> Result {
    require!("nginx", "curl");
    let scene = Scene::new("nginx-h2c", PORT, "strip")?;
    let servers = format!(
        "server {{
            listen {PORT} http2;
            listen [::]:{PORT} http2;
            location = /who {{ return 200 '$server_protocol\\n'; }}
        }}"
    );
    let server = Nginx::start(&scene, &scene.variant, PORT, &servers)?;
    let (_forward, by_header) = scene.forward(scene.vip4, false)?;
    for (pod, to) in
        [(&scene.member, scene.vip4), (&scene.member, scene.vip6), (&scene.instrumented, by_header)]
    {
        // One request for each run: curl 7.88 fails at a second one on the connection, also without picop.
        assert_eq!(curl(pod, &["--http2-prior-knowledge", &url(to, "/who")])?, "HTTP/2.0\n", "{to}");
    }
    assert_eq!(server.requests()?, "GET /who 200\n".repeat(3));
    scene.finish()
}
