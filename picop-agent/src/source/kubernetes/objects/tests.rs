use serde_json::{Value, json};

use super::*;

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// As `kubectl get service -o json` shows one; what is not used is skipped, what is null is as if it were not there.
#[test]
fn a_service_is_cut_down() {
    let wire: wire::Service = parse(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "cart", "namespace": "shop", "uid": "1-2", "resourceVersion": "7", "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"app": "cart", "picop.dev/environment": "pr-1"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "picop.dev/header": "propagate"},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "selector": {"app": "cart"}, "sessionAffinity": "ClientIP", "type": "ClusterIP",
            "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web", "appProtocol": "http"},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            ],
        },
        "status": {"loadBalancer": {}},
    }));
    let service = Service::from(&wire);
    assert_eq!(name_of(&wire), Name::new("shop", "cart"));
    assert_eq!(service.created, 1_767_323_045);
    assert_eq!(service.marks.get("picop.dev/environment"), Some("pr-1"));
    assert_eq!(service.marks.get("picop.dev/header"), Some("propagate"));
    assert_eq!(service.marks.0.len(), 2);
    assert_eq!(*service.ports, [Port { name: "http".into(), number: 80 }]);
    assert!(service.affinity && !service.local_only);
    let cluster = Box::new(["10.96.0.10".parse().unwrap()]);
    assert_eq!(service.kind, ServiceKind::Addresses { cluster, external: Box::new([]) });
}

#[test]
fn kinds_of_services() {
    let of = |spec: Value| {
        Service::from(&parse::<wire::Service>(json!({"metadata": {"name": "a"}, "spec": spec}))).kind
    };
    assert_eq!(of(json!({"type": "ExternalName", "externalName": "a.example"})), ServiceKind::ExternalName);
    assert_eq!(
        of(json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]})),
        ServiceKind::Headless
    );
    // Before an address is given out.
    let none = ServiceKind::Addresses { cluster: Box::new([]), external: Box::new([]) };
    assert_eq!(of(json!({"type": "ClusterIP"})), none);
    assert_eq!(of(json!({"type": "NodePort", "clusterIP": ""})), none);
}

#[test]
fn a_slice_of_no_service_is_not_kept() {
    let slice: wire::EndpointSlice =
        parse(json!({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": null, "ports": null}));
    assert_eq!(Slice::new(&slice, &Node::default()), None);
}

/// An endpoint must stay as small as this for 50,000 of them to be a few megabytes.
#[test]
fn an_endpoint_is_small() {
    assert_eq!(size_of::<Endpoint>(), 18);
}

#[test]
fn a_list_replaces_and_tells_whether_it_did() {
    let pod =
        |host_network| Pod { uid: PodUid::new("1"), marks: Marks::default(), host_network, ended: false };
    let (a, b) = (Name::new("n", "a"), Name::new("n", "b"));
    let mut to = BTreeMap::new();
    assert!(Change::Put(a.clone(), pod(false)).apply(&mut to));
    assert!(!Change::Put(a.clone(), pod(false)).apply(&mut to));
    assert!(Change::All(vec![(b.clone(), pod(true))]).apply(&mut to));
    assert!(!Change::All(vec![(b.clone(), pod(true))]).apply(&mut to));
    assert!(!Change::Gone(a).apply(&mut to));
    assert!(Change::Gone(b).apply(&mut to));
    assert!(to.is_empty());
}
