//! What Pods are.

use super::*;

#[test]
fn pods_become_workloads() {
    let mut cluster = Cluster::new();
    cluster.namespace("shop", json!({"picop.dev/environment": "ns"}), json!({}));
    for (name, labels, annotations) in [
        ("plain", json!({}), json!({})),
        ("own", json!({"picop.dev/environment": "pr-1"}), json!({"picop.dev/path": "relay"})),
        ("none", json!({"picop.dev/environment": ""}), json!({})),
        ("instrumented", json!({"picop.dev/environment": ""}), json!({"picop.dev/context": "header"})),
        ("bypassed", json!({"picop.dev/bypass": "true"}), json!({})),
        ("wrong", json!({"picop.dev/bypass": "yes"}), json!({"picop.dev/context": "maybe"})),
    ] {
        cluster.pod(pod(name, labels, annotations));
    }
    let mut ended = pod("ended", json!({}), json!({}));
    ended["status"]["phase"] = json!("Succeeded");
    cluster.pod(ended);
    let mut mirror = pod("mirror", json!({}), json!({"kubernetes.io/config.hash": "0123abcd"}));
    mirror["spec"]["hostNetwork"] = json!(true);
    cluster.pod(mirror);

    let table = cluster.table();
    let all: Vec<_> = table
        .workloads()
        .iter()
        .map(|it| {
            let environment = it.environment.as_ref().map(EnvId::as_str);
            (it.name.as_deref().unwrap(), environment, it.context, it.path, it.bypass)
        })
        .collect();
    let (none, header, auto, relay) =
        (ContextSource::None, ContextSource::Header, PathChoice::Auto, PathChoice::Relay);
    assert_eq!(
        all,
        [
            ("shop/bypassed", Some("ns"), none, auto, true),
            ("shop/instrumented", None, header, auto, false),
            ("shop/mirror", Some("ns"), none, auto, false),
            ("shop/own", Some("pr-1"), none, relay, false),
            ("shop/plain", Some("ns"), none, auto, false),
            ("shop/wrong", Some("ns"), none, auto, true),
        ]
    );
    assert_eq!(cluster.problems(), ["wrong: BadValue"; 2]);
    let at = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0123abcd.slice";
    assert_eq!(table.workload_for(at).and_then(|it| it.name.clone()).as_deref(), Some("shop/mirror"));
    let at = "kubepods/besteffort/poduid-own-1";
    assert_eq!(table.workload_for(at).and_then(|it| it.name.clone()).as_deref(), Some("shop/own"));
    assert!(table.workload_for("kubepods/besteffort/poduid-none-1").is_none());
}

#[test]
fn a_namespace_may_opt_out() {
    let mut cluster = Cluster::new();
    cluster.namespace("shop", json!({"picop.dev/environment": "ns", "picop.dev/bypass": "true"}), json!({}));
    cluster.pod(pod("plain", json!({}), json!({})));
    cluster.pod(pod("back", json!({"picop.dev/bypass": "false"}), json!({})));
    let bypassed: Vec<_> = cluster.table().workloads().iter().map(|it| it.bypass).collect();
    assert_eq!(bypassed, [false, true]);
}

#[test]
fn headers_are_kept_from_every_service_once_a_pod_sends_them() {
    let mut cluster = Cluster::cart();
    cluster.service(service("other", "10.96.0.20"));
    assert_eq!(cluster.table().services().len(), 1);
    cluster.pod(pod("instrumented", json!({}), json!({"picop.dev/context": "header"})));
    let table = cluster.table();
    let names: Vec<_> = table.services().iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["shop/cart:80", "shop/other:80", "shop/cart-pr-1:80"]);
    assert!(table.services().iter().all(|it| it.header == HeaderPolicy::Strip));
}
