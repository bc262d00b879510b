use std::fmt::Write as _;

use super::*;
use crate::route::{Balancing, Fallback, GraftPolicy, HeaderPolicy, PathChoice, SpeaksFirst};

fn read(text: &str) -> Result<RouteTable, String> {
    table(text, Path::new("routes.yaml")).map_err(|error| error.to_string())
}

#[test]
fn everything_said() {
    let table = read(
        r#"
services:
  - name: cart
    addresses: ["10.96.0.10:80", "[fd00:10::10]:80"]
    header: propagate
    expect_header: sniff(200ms)
    speaks_first: server
    graft: always
    fallback: refuse
    balancing: client
    base: ["10.77.0.2:8080"]
    variants:
      pr-1: ["10.77.0.3:8080", "10.77.0.4:8080"]
      pr-2: []
      1.10: ["10.77.0.5:8080"]
workloads:
  - cgroup: kubepods.slice/*/pod*
    environment: pr-1
    keys: { tenant: acme }
    context: header
    path: relay
    netns: /run/netns/a
    bypass: true
    max_connections: 100
"#,
    )
    .unwrap();
    let addresses = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<SocketAddr>>();
    let env = |name| EnvId::new(name).unwrap();
    let cart = Service {
        name: "cart".into(),
        addresses: addresses(&["10.96.0.10:80", "[fd00:10::10]:80"]),
        header: HeaderPolicy::Propagate,
        base: Base::Endpoints(addresses(&["10.77.0.2:8080"]).into()),
        variants: [
            (env("pr-1"), addresses(&["10.77.0.3:8080", "10.77.0.4:8080"]).into()),
            (env("pr-2"), Endpoints::default()),
            (env("1.10"), addresses(&["10.77.0.5:8080"]).into()),
        ]
        .into(),
        fallback: Fallback::Refuse,
        expect_header: ExpectHeader::Sniff(std::time::Duration::from_millis(200)),
        speaks_first: SpeaksFirst::Server,
        graft: GraftPolicy::Always,
        translated: Vec::new(),
        balancing: Balancing::Client,
        timeouts: Timeouts::default(),
    };
    let pods = WorkloadSpec {
        name: None,
        cgroup: CgroupPattern::new("kubepods.slice/*/pod*").unwrap().into(),
        own: Context::for_workload(Some(&env("pr-1")), &[("tenant".into(), "acme".into())].into()).unwrap(),
        environment: Some(env("pr-1")),
        context: ContextSource::Header,
        path: PathChoice::Relay,
        netns: Some("/run/netns/a".into()),
        bypass: true,
        max_connections: Some(100),
    };
    assert!(table.same_routes(&RouteTable::new(vec![cart], vec![pods]).unwrap()), "{table:?}");
}

#[test]
fn as_little_as_possible() {
    let table = read("services: [{name: db, addresses: ['[::ffff:10.96.0.20]:6379']}]").unwrap();
    let db = Service::new("db", vec!["10.96.0.20:6379".parse().unwrap()]);
    assert!(table.same_routes(&RouteTable::new(vec![db], vec![]).unwrap()), "{table:?}");
    assert!(read("services: []").unwrap().same_routes(&RouteTable::default()));
}

#[test]
fn aliases() {
    let table = read(
        "services:
  - {name: a, addresses: ['10.96.0.1:80'], base: &servers ['10.77.0.1:80']}
  - {name: b, addresses: ['10.96.0.2:80'], base: *servers}",
    )
    .unwrap();
    assert_eq!(table.services()[0].base, table.services()[1].base);
}

#[test]
fn weights() {
    let table = read(
        r#"
services:
  - name: cart
    addresses: ["10.96.0.10:80"]
    base: ["10.77.0.2:80", {address: "10.77.0.3:80", weight: 3}]
    variants:
      pr-1:
        - address: 10.77.0.4:80
          weight: 0
        - 10.77.0.5:80
        - address: "[::ffff:10.77.0.6]:80"
        - {weight: 1000000, address: "10.77.0.7:80"}
      pr-2: &drained [{address: "10.77.0.8:80", weight: 0}]
      pr-3: *drained
"#,
    )
    .unwrap();
    let cart = &table.services()[0];
    let seen = |endpoints: &Endpoints| -> Vec<_> {
        endpoints.iter().map(|it| (it.address.to_string(), it.weight.get())).collect()
    };
    let said = |all: &[(&str, u32)]| -> Vec<_> { all.iter().map(|(a, w)| ((*a).to_owned(), *w)).collect() };
    let Base::Endpoints(base) = &cart.base else { panic!("{cart:?}") };
    assert_eq!(seen(base), said(&[("10.77.0.2:80", 1), ("10.77.0.3:80", 3)]));
    let variant = |name| cart.variant(&EnvId::new(name).unwrap()).unwrap();
    assert_eq!(
        seen(variant("pr-1")),
        said(&[("10.77.0.4:80", 0), ("10.77.0.5:80", 1), ("10.77.0.6:80", 1), ("10.77.0.7:80", 1_000_000)])
    );
    assert_eq!(seen(variant("pr-2")), said(&[("10.77.0.8:80", 0)]));
    assert_eq!(variant("pr-2"), variant("pr-3"));
    assert!(variant("pr-2").is_empty() && !variant("pr-1").is_empty());
}

const SERVICE: &str = "services:\n- name: a\n  addresses: ['10.96.0.1:80']\n";

/// One problem each: what is appended to [`SERVICE`], and what is said about it.
#[test]
fn problems_and_their_places() {
    for (more, expected) in [
        ("  frobnicate: 1", "4:3: unknown key \"frobnicate\"; known here: name, addresses, header, "),
        ("environments: 1", "4:1: unknown key \"environments\"; known here: services, workloads"),
        ("workloads: [{cgroup: a, env: b}]", "4:25: unknown key \"env\"; known here: cgroup, environment, "),
        ("  header: keep", "4:11: \"keep\" is not one of: strip, propagate"),
        ("  fallback: none", "4:13: \"none\" is not one of: base, refuse"),
        ("  name: b", "4:3: the key \"name\" is there already; merge the two"),
        ("- name: b", "4:3: the key \"addresses\" is missing"),
        ("  header: [", "4:11: one word is expected here"),
        ("  header: {keep: 1}", "4:12: \"keep\" is not one of: strip, propagate"),
        ("  base: [", "4:9: unclosed bracket '['"),
        ("- {name: b, addresses: []}", "4:24: a service needs at least one address"),
        ("- {name: '', addresses: ['10.96.0.2:80']}", "4:10: a service's name must not be empty"),
        (
            "- {name: a, addresses: ['10.96.0.2:80']}",
            "4:10: the service on line 2 is named \"a\" too; rename one",
        ),
        (
            "- {name: b, addresses: ['[::ffff:10.96.0.1]:80']}",
            "4:25: 10.96.0.1:80 is an address of service \"a\" on line 3 already; remove it from one",
        ),
        ("  base: []", "4:9: the base has no endpoint; leave `base` out"),
        ("  base: ['10.96.0.1:80']", "4:10: 10.96.0.1:80 is the service's own address, so connections would"),
        ("  base: [b:80]", "4:10: \"b:80\" is not an IP address and port; names are not resolved"),
        ("  base: 10.77.0.1:80", "4:9: a list is expected here: [a, b], or lines that start with `- `"),
        (
            "  base:\n  - 10.77.0.1:80\n  - 10.77.0.1:80",
            "6:5: 10.77.0.1:80 is in this list on line 5 already; remove one",
        ),
        (
            "  base: [{address: '10.77.0.1:80', weight: -1}]",
            "4:44: \"-1\" is no weight; a weight is a whole number from 0 ",
        ),
        (
            "  base: [{address: '10.77.0.1:80', weight: 1000001}]",
            "4:44: \"1000001\" is no weight; a weight is a whole number from 0 (drained: no connections) to 1000000, and 1 where none is said",
        ),
        ("  base: [{address: '10.77.0.1:80', weight: 0.5}]", "4:44: \"0.5\" is no weight"),
        ("  base: [{address: '10.77.0.1:80', weight: 50%}]", "4:44: \"50%\" is no weight"),
        ("  base: [{address: '10.77.0.1:80', weight: }]", "4:"),
        ("  base: [{address: '10.77.0.1:80', weight: [1]}]", "4:"),
        ("  base: [{address: '10.77.0.1', weight: 1}]", "4:20: \"10.77.0.1\" has no port"),
        ("  base: [{address: '10.96.0.1:80', weight: 1}]", "4:20: 10.96.0.1:80 is the service's own address"),
        ("  base: [{weight: 1}]", "4:11: the key \"address\" is missing"),
        (
            "  base: [{address: '10.77.0.1:80', wieght: 1}]",
            "4:36: unknown key \"wieght\"; known here: address, weight",
        ),
        (
            "  base: ['10.77.0.1:80', {address: '10.77.0.1:80', weight: 0}]",
            "4:36: 10.77.0.1:80 is in this list on line 4 already",
        ),
        ("  base: [80]", "4:10: \"80\" is not an IP address and port"),
        ("  base: [1.5]", "4:10: \"1.5\" is not an IP address and port"),
        ("  base: [true]", "4:10: \"true\" is not an IP address and port"),
        ("  base: [~]", "4:10: "),
        ("  base: [['10.77.0.1:80']]", "4:10: "),
        ("  variants: {pr-1: {address: '10.77.0.1:80', weight: 1}}", "4:20: a list is expected here"),
        ("  variants: {pr-1: ['10.96.0.1:80']}", "4:21: 10.96.0.1:80 is the service's own address"),
        ("  variants: {pr-1: ['10.77.0.1']}", "4:21: \"10.77.0.1\" has no port; write IP:port"),
        ("  variants: {'': ['10.77.0.1:80']}", "4:14: an environment's name is empty"),
        ("  variants: {pr-1: [], pr-1: []}", "4:24: the key \"pr-1\" is there already; merge the two"),
        ("  expect_header: maybe", "4:18: \"maybe\" does not say whether to expect a header; write always, "),
        ("  expect_header: sniff(0ms)", "4:18: \"sniff(0ms)\" asks to sniff for 0ns; 1ms to "),
        (
            "workloads: [{cgroup: a}]",
            "4:13: this workload has no environment, so nothing of it would be routed",
        ),
        ("workloads: [{environment: b}]", "4:14: the key \"cgroup\" is missing"),
        ("workloads: [{cgroup: /, bypass: true}]", "4:22: \"/\": the root cgroup cannot be a workload"),
        ("workloads: [{cgroup: 'a[', bypass: true}]", "4:22: \"a[\": not a glob (at its character "),
        (
            "workloads:\n- {cgroup: a, bypass: true}\n- {cgroup: /a, bypass: true}",
            "6:12: the workload on line 5 has this cgroup too, and the first one wins; remove one",
        ),
        (
            "workloads: [{cgroup: a, environment: ' b'}]",
            "4:38: an environment's name starts or ends with a space",
        ),
        (
            "workloads: [{cgroup: a, bypass: true, netns: b}]",
            "4:46: the path of a network namespace must be absolute",
        ),
        ("workloads: [{cgroup: a, bypass: yes}]", "4:33: "),
        (
            "workloads: [{cgroup: a, bypass: true, max_connections: 0}]",
            "4:56: no connection at all could be relayed; write `bypass: true`",
        ),
        ("workloads: [{cgroup: a, bypass: true, max_connections: many}]", "4:56: "),
        ("---\nservices: []", "4:1: "),
    ] {
        let said = read(&format!("{SERVICE}{more}\n")).expect_err(more);
        let start = format!("routes.yaml:{expected}");
        assert!(said.starts_with(&start), "{more}\n said {said}\n not {start}");
        assert_eq!(said.lines().count(), 1, "{more}: {said}");
    }
    read(SERVICE).unwrap();
}

#[test]
fn nothing_there() {
    for (text, expected) in [
        ("", "routes.yaml: the file is empty; for no routes at all write `services: []`"),
        (" \n", "routes.yaml: the file is empty"),
        ("# nothing\n", "routes.yaml:"),
        ("{}", "routes.yaml:1:1: the key \"services\" is missing"),
        ("services:", "routes.yaml:1:9: a list is expected here"),
        ("serv", "routes.yaml:1:1: keys and values are expected here: `key: value`"),
        ("workloads: []", "routes.yaml:1:1: the key \"services\" is missing"),
        ("services:\n- name: a\n  addresses: ['10.96.0.1:80']\n  variants:", "routes.yaml:4:"),
        ("services:\n- name: a\n  addresses: ['10.96.0.1:80']\n  variants: {pr-1: }", "routes.yaml:4:"),
    ] {
        let said = read(text).expect_err(text);
        assert!(said.starts_with(expected), "{text:?} said {said}");
    }
}

#[test]
fn several_problems_are_told_in_the_order_of_the_file() {
    let said = read(
        "workloads:
  - cgroup: /
    context: header
services:
  - name: a
    addresses: [a:80, '10.96.0.1:80']
    variants:
      z: ['10.77.0.1:0']
      b: ['10.77.0.1']
",
    )
    .unwrap_err();
    let places: Vec<_> = said.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(
        places,
        ["routes.yaml:2:13", "routes.yaml:6:17", "routes.yaml:8:11", "routes.yaml:9:11"],
        "{said}"
    );
}

#[test]
fn a_bound_on_problems() {
    let mut text = String::from("services:\n");
    for n in 0..50 {
        writeln!(text, "- {{name: s{n}, addresses: []}}").unwrap();
    }
    let said = read(&text).unwrap_err();
    assert_eq!(said.lines().count(), MAX_PROBLEMS + 1);
    assert!(said.ends_with("\nroutes.yaml: and 30 more"), "{said}");
}

#[test]
fn what_is_said_of_a_parser_error_has_no_control_characters() {
    let said =
        read("services:\n- name: a\n  header: \"\\u001b[31m\"\n  addresses: ['10.96.0.1:80']\n").unwrap_err();
    assert!(said.contains("is not one of: strip, propagate"), "{said}");
    assert!(!said.contains(char::is_control), "{said:?}");
}

/// Aliases of aliases: a file of a few hundred bytes that means billions of endpoints.
#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("services:\n- name: a\n  addresses: &a0 ['10.96.0.1:80']\n");
    for level in 1..10 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "- name: &a{level} [{list}]").unwrap();
    }
    assert!(read(&text).is_err());
    // The same where a list may be: expanding stops at a limit. Without one, neither time nor memory would do for this.
    let mut text = String::from("x0: &a0 [lol]\n");
    for level in 1..20 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "x{level}: &a{level} [{list}]").unwrap();
    }
    assert!(serde_like_any(&text).is_err());
}

fn serde_like_any(text: &str) -> Result<serde_json::Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, options())
}

/// 10,000 services and 100,000 variants fit within the bounds that stop a bomb.
#[test]
fn a_large_file() {
    let mut text = String::from("services:\n");
    for n in 0..10_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        writeln!(text, "- name: s{n}\n  addresses: [\"10.{a}.{b}.{c}:80\"]\n  variants:").unwrap();
        for v in 0..10 {
            writeln!(text, "    pr-{}: [\"11.{a}.{b}.{c}:{}\"]", (n + v) % 1000, 8000 + v).unwrap();
        }
    }
    let table = read(&text).unwrap();
    assert_eq!(table.services().iter().map(|s| s.variants.len()).sum::<usize>(), 100_000);
    assert_eq!(table.environments().len(), 1000);
}
