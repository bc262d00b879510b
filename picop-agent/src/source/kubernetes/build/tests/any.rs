//! Whatever the objects are.

use super::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn a_name() -> impl Strategy<Value = &'static str> {
    sample::select(NAMES.as_slice())
}

/// Labels and annotations that meet, contradict, or mean nothing.
fn marks() -> impl Strategy<Value = Value> {
    let values = prop_oneof![
        4 => a_name().prop_map(str::to_owned),
        1 => a_name().prop_map(|name| format!("{name}.two")),
        1 => Just("refuse".to_owned()),
        1 => Just("header".to_owned()),
        1 => Just("*".to_owned()),
        1 => Just(String::new()),
        1 => "[a-z]{0,5}",
    ];
    let keys = sample::select(vec![
        "picop.dev/variant-of",
        "picop.dev/environment",
        "picop.dev/environment",
        "picop.dev/variants-from",
        "picop.dev/fallback",
        "picop.dev/context",
        "picop.dev/bypass",
        "picop.dev/header",
    ]);
    collection::btree_map(keys, values, 0..4).prop_map(|map| json!(map))
}

fn an_address() -> impl Strategy<Value = String> {
    (1..8u8).prop_map(|n| format!("10.0.0.{n}"))
}

fn any_service() -> impl Strategy<Value = Value> {
    let ip = prop_oneof![6 => an_address(), 2 => Just("None".to_owned()), 1 => Just(String::new())];
    let ports = collection::vec((option::of(a_name()), 79..83u16), 0..3);
    let kind = prop_oneof![8 => Just("ClusterIP"), 1 => Just("ExternalName")];
    (marks(), ip, ports, kind, any::<bool>(), 0..3u8).prop_map(|(marks, ip, ports, kind, affinity, day)| {
        let ports: Value = ports.iter().map(|(name, port)| json!({"name": name.unwrap_or(""), "port": port})).collect();
        json!({
            "metadata": {"labels": marks, "creationTimestamp": format!("2026-01-0{}T00:00:00Z", day + 1)},
            "spec": {"type": kind, "clusterIP": ip, "ports": ports, "sessionAffinity": if affinity { "ClientIP" } else { "None" }}
        })
    })
}

fn any_slice() -> impl Strategy<Value = Value> {
    let endpoints = collection::vec((an_address(), option::of(any::<bool>()), any::<bool>()), 0..4);
    let ports = collection::vec((option::of(a_name()), 79..83u16), 0..3);
    (a_name(), endpoints, ports).prop_map(|(of, endpoints, ports)| {
        let endpoints: Value = endpoints
            .iter()
            .map(|(at, ready, gone)| json!({"addresses": [at], "conditions": {"ready": ready, "terminating": gone}}))
            .collect();
        let ports: Value = ports.iter().map(|(name, port)| json!({"name": name.unwrap_or(""), "port": port})).collect();
        json!({"metadata": {"labels": {"kubernetes.io/service-name": of}}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports})
    })
}

/// A deed: an object of a kind and name is put, or goes.
type Deed = (u8, &'static str, &'static str, Option<Value>);

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let namespaces = || sample::select(["one", "two"].as_slice());
    let put = prop_oneof![
        4 => (Just(0u8), namespaces(), a_name(), option::weighted(0.8, any_service())),
        3 => (Just(1u8), namespaces(), a_name(), option::weighted(0.8, any_slice())),
        2 => (Just(2u8), namespaces(), a_name(), option::weighted(0.8, marks().prop_map(|marks| json!({"metadata": {"labels": marks}})))),
        1 => (Just(3u8), Just(""), namespaces(), option::weighted(0.8, marks().prop_map(|marks| json!({"metadata": {"labels": marks}})))),
    ];
    collection::vec(put, 0..60)
}

fn perform(objects: &mut Objects, (kind, namespace, name, value): &Deed) {
    fn change<K, T: PartialEq>(
        name: Name,
        value: Option<&Value>,
        keep: impl Fn(&K) -> Option<T>,
        to: &mut BTreeMap<Name, T>,
    ) where
        K: serde::de::DeserializeOwned,
    {
        let kept = value.and_then(|value| keep(&serde_json::from_value(value.clone()).unwrap()));
        kept.map_or_else(|| Change::Gone(name.clone()), |kept| Change::Put(name.clone(), kept)).apply(to);
    }
    let name = Name::new(namespace, name);
    let mut value = value.clone();
    if let Some(value) = &mut value {
        value["metadata"]["name"] = json!(&*name.name);
        value["metadata"]["namespace"] = json!(&*name.namespace);
        value["metadata"]["uid"] = json!(format!("{}-1", name.name));
    }
    let node = objects::Node::default();
    match kind {
        0 => change(name, value.as_ref(), |it: &wire::Service| Some(it.into()), &mut objects.services),
        1 => change(name, value.as_ref(), |it| Slice::new(it, &node), &mut objects.slices),
        2 => change(name, value.as_ref(), |it: &wire::Pod| Some(it.into()), &mut objects.pods),
        _ => change(name, value.as_ref(), |it: &wire::Namespace| Some(it.into()), &mut objects.namespaces),
    }
}

proptest! {
    /// Whatever the objects are: they make a table, none of them spoils another's, and each variant in it was asked for.
    #[test]
    fn any_objects_make_a_table(deeds in deeds()) {
        let mut objects = Objects::default();
        for deed in &deeds {
            perform(&mut objects, deed);
        }
        let built = build(&objects, 0, Translation::None);
        let table = built.table.unwrap();
        for service in table.services() {
            let (name, _) = service.name.split_once(':').unwrap();
            let (namespace, name) = name.split_once('/').unwrap();
            let base = Name::new(namespace, name);
            prop_assert!(objects.services.contains_key(&base));
            for environment in service.variants.keys() {
                let asked = objects.services.iter().any(|(_, it)| {
                    let of = it.marks.get("picop.dev/variant-of");
                    of == Some(name) || of == Some(&format!("{name}.{namespace}"))
                });
                prop_assert!(asked, "{environment} of {base}");
                let variants = &built.environments[environment];
                prop_assert_eq!(variants.iter().filter(|it| it.service == base).count(), 1);
            }
        }
        let pods = objects.pods.len();
        prop_assert!(table.workloads().len() <= pods);
    }

    /// The same objects make the same table, however they came to be: by a list, by changes, or by changes and lists between.
    #[test]
    fn lists_and_changes_come_to_the_same(deeds in deeds(), at in any::<sample::Index>()) {
        let mut by_changes = Objects::default();
        for deed in &deeds {
            perform(&mut by_changes, deed);
        }
        let mut by_list = Objects::default();
        for deed in &deeds[..at.index(deeds.len() + 1)] {
            perform(&mut by_list, deed);
        }
        let all = |from: &Objects| (from.services.clone(), from.slices.clone(), from.pods.clone(), from.namespaces.clone());
        let (services, slices, pods, namespaces) = all(&by_changes);
        Change::All(services.into_iter().rev().collect()).apply(&mut by_list.services);
        Change::All(slices.into_iter().rev().collect()).apply(&mut by_list.slices);
        Change::All(pods.into_iter().rev().collect()).apply(&mut by_list.pods);
        Change::All(namespaces.into_iter().rev().collect()).apply(&mut by_list.namespaces);
        prop_assert_eq!(&by_list, &by_changes);
        prop_assert!(build(&by_list, 0, Translation::None).table.unwrap().same_routes(&build(&by_changes, 0, Translation::None).table.unwrap()));
    }

    /// A variant that goes leaves the table as it was before it came.
    #[test]
    fn what_comes_and_goes_leaves_nothing(deeds in deeds(), of in a_name()) {
        let mut objects = Objects::default();
        for deed in &deeds {
            perform(&mut objects, deed);
        }
        let before = build(&objects, 0, Translation::None).table.unwrap();
        let mut value = service("variant", "10.9.9.9");
        value["metadata"]["labels"] = json!({"picop.dev/variant-of": of, "picop.dev/environment": "new"});
        perform(&mut objects, &(0, "one", "variant", Some(value)));
        perform(&mut objects, &(0, "one", "variant", None));
        prop_assert!(build(&objects, 0, Translation::None).table.unwrap().same_routes(&before));
    }
}

#[test]
fn addresses_are_those_of_hosts() {
    let is = |text: &str| crate::source::file::is_host(text.parse::<SocketAddr>().unwrap());
    assert!(is("10.0.0.1:80") && is("[fd00::1]:80"));
    assert!(
        !is("10.0.0.1:0")
            && !is("0.0.0.0:80")
            && !is("224.0.0.1:80")
            && !is("[::]:80")
            && !is("255.255.255.255:1")
    );
}
