//! nginx as a client: its own connections are routed by its pod's environment.

use super::{Nginx, PORT, curl, try_curl, url};
use crate::Result;
use crate::programs::require;
use crate::scene::{ENV, Scene};

/// A reverse proxy at port 80 that keeps connections to the service, at `/v4/` and `/v6/`.
fn proxy_config(scene: &Scene) -> String {
    let Scene { vip4, vip6, .. } = scene;
    format!(
        "upstream v4 {{ server {vip4}; keepalive 4; }}
        upstream v6 {{ server {vip6}; keepalive 4; }}
        server {{
            listen {PORT};
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            location /v4/ {{ proxy_pass http://v4/; }}
            location /v6/ {{ proxy_pass http://v6/; }}
        }}"
    )
}

#[test]
fn a_reverse_proxys_own_connections_go_where_its_pod_belongs() -> Result {
    const REQUESTS: usize = 40;
    require!("nginx", "curl");
    let scene = Scene::new("nginx-proxy", PORT, "strip")?;
    let _servers = [Nginx::serve(&scene, &scene.base, "base")?, Nginx::serve(&scene, &scene.variant, ENV)?];
    let fronts = [&scene.member, &scene.instrumented, &scene.stranger];
    let config = proxy_config(&scene);
    let _proxies =
        fronts.map(|pod| Nginx::start(&scene, pod, PORT, &config)).into_iter().collect::<Result<Vec<_>>>()?;
    let outside = scene.cluster.pod("outside")?;

    for path in ["/v4/who", "/v6/who"] {
        for (front, who) in [(&scene.member, "pr-1\n"), (&scene.instrumented, "base\n")] {
            let url = url(front.at4(PORT), path);
            let urls: Vec<_> = std::iter::repeat_n(url.as_str(), REQUESTS).collect();
            assert_eq!(curl(&outside, &urls)?, who.repeat(REQUESTS), "{url}");
        }
        // A proxy that the agent does not know reaches nobody at that address.
        let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        let lost = try_curl(&outside, &[&status[..], &[&url(scene.stranger.at4(PORT), path)]].concat())?;
        assert_eq!(lost.stdout, "502", "{lost:?}");
    }
    scene.finish()
}
