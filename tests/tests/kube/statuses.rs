//! What `kubectl get environments` shows, and who writes it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use testbed::kube::Kind;
use testbed::kube::objects::{labelled, object, pod, service};
use testbed::{Agent, AgentOptions, eventually, require_privilege};

use crate::Result;
use crate::shop::{NODE, SOON, Shop};

fn environment(name: &str, spec: Value) -> Value {
    let mut environment = object(Kind::Environment, name);
    environment["spec"] = spec;
    environment
}

/// A Service with an annotation that means nothing.
fn misspelt(at: SocketAddr) -> Value {
    let mut service = service("cart-pr-2", at);
    service["metadata"]["annotations"] = json!({"picop.dev/header": "maybe"});
    service
}

#[test]
fn one_agent_writes_what_all_see() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("statuses")?;
    shop.label_client()?;
    shop.label_service()?;
    let policy = |name: &str| {
        let mut policy = object(Kind::ServicePolicy, name);
        policy["spec"] = json!({"service": {"name": name}, "header": "Strip"});
        policy
    };
    shop.server.apply_all([
        environment("pr-1", json!({"owner": "cart-team", "onExpiry": "Keep"})),
        environment("pr-2", json!({"onExpiry": "Keep"})),
        // Made at the beginning of 2026: both have ended.
        environment("kept", json!({"ttlSeconds": 60, "onExpiry": "Keep"})),
        environment("ended", json!({"ttlSeconds": 60, "onExpiry": "Delete"})),
        policy("cart"),
        policy("nothing"),
        // Objects that ask for what is not done: one that all agents see, and one of this node's.
        misspelt(shop.unused()),
        labelled(
            pod("other", "2222-2", NODE),
            json!({"picop.dev/environment": "pr-1", "picop.dev/bypass": "maybe"}),
        ),
    ])?;
    let args = vec!["--lease-namespace".to_owned(), "shop".to_owned()];
    let options = || Ok::<_, crate::shop::Boxed>(AgentOptions { args: args.clone(), ..shop.options()? });
    let _first = Agent::start_with(&shop.cluster, options()?)?;
    // Another agent, which the Lease tells apart by its node.
    let mut second = options()?;
    second.kubernetes = second.kubernetes.map(|(file, _)| (file, "node-2".to_owned()));
    second.cgroup = Some(shop.pr_1.cgroup_dir().to_owned());
    let _second = Agent::start_with(&shop.cluster, second)?;

    let condition = |kind, namespace: &str, name: &str| {
        let object = shop.server.get(kind, namespace, name).unwrap_or_default();
        let condition = &object["status"]["conditions"][0];
        let text = |field: &str| condition[field].as_str().unwrap_or("-").to_owned();
        (text("type"), text("status"), text("reason"))
    };
    let is = |(kind, status, reason): &(String, String, String), expected: [&str; 3]| {
        [kind.as_str(), status.as_str(), reason.as_str()] == expected
    };
    let written = || {
        is(&condition(Kind::Environment, "", "pr-1"), ["Active", "True", "Routed"])
            && is(&condition(Kind::Environment, "", "pr-2"), ["Active", "False", "NoVariants"])
            && is(&condition(Kind::Environment, "", "kept"), ["Active", "False", "Expired"])
            && is(&condition(Kind::ServicePolicy, "shop", "cart"), ["Accepted", "True", "Accepted"])
            && is(&condition(Kind::ServicePolicy, "shop", "nothing"), ["Accepted", "False", "NoSuchTarget"])
            && shop.server.get(Kind::Environment, "", "ended").is_none()
    };
    assert!(eventually(SOON * 3, written), "{:#?}", shop.server.all(Kind::Environment));
    let pr_1 = shop.server.get(Kind::Environment, "", "pr-1").unwrap_or_default();
    assert_eq!(pr_1["status"]["variantCount"], 1);
    assert_eq!(pr_1["status"]["variants"][0]["service"], "shop/cart");
    assert_eq!(pr_1["status"]["variants"][0]["variant"], "shop/cart-pr-1");
    assert_eq!(pr_1["status"]["variants"][0]["ready"], 1);
    assert_eq!(pr_1["spec"]["owner"], "cart-team", "the rest is as it was");
    let lease = shop.server.get(Kind::Lease, "shop", "picop-status").unwrap_or_default();
    assert!(lease["spec"]["holderIdentity"].is_string(), "{lease}");

    // What is not done is told once at the object that asks for it, whichever agent does so.
    let told = || {
        let events = shop.server.all(Kind::Event);
        let about = |kind: &str, name: &str| {
            let of = |it: &&Value| it["regarding"]["kind"] == kind && it["regarding"]["name"] == name;
            events.iter().filter(of).cloned().collect::<Vec<_>>()
        };
        let (service, pod, policy) =
            (about("Service", "cart-pr-2"), about("Pod", "other"), about("ServicePolicy", "nothing"));
        (service.len(), pod.len(), policy.len()) == (1, 1, 1)
            && service[0]["reason"] == "BadValue"
            && service[0]["type"] == "Warning"
            && policy[0]["reason"] == "NoSuchTarget"
            && [&service[0], &pod[0], &policy[0]].iter().all(|it| {
                it["metadata"]["namespace"] == "shop"
                    && it["regarding"]["uid"].is_string()
                    && it["reportingController"] == "picop.dev/agent"
            })
    };
    assert!(eventually(SOON * 3, told), "{:#?}", shop.server.all(Kind::Event));

    // And whether anybody uses an environment.
    let last_used = |name: &str| {
        let environment = shop.server.get(Kind::Environment, "", name).unwrap_or_default();
        environment["status"]["lastUsed"].as_str().map(str::to_owned)
    };
    assert_eq!(last_used("pr-1"), None, "nobody has connected");
    assert_eq!(shop.who()?, "cart-pr-1");
    assert!(
        eventually(SOON * 3, || last_used("pr-1").is_some()),
        "{:#?}",
        shop.server.all(Kind::Environment)
    );
    assert_eq!(last_used("pr-2"), None);

    // Each was written once: nobody writes what is written.
    let writes = |name: &str| {
        let path = format!("/{name}/status");
        shop.server.requests().iter().filter(|it| it.starts_with("PATCH") && it.contains(&path)).count()
    };
    // (And once more for its use.)
    assert_eq!((writes("pr-1"), writes("pr-2"), writes("kept")), (2, 1, 1));
    // And again when something is different.
    shop.server.delete(Kind::Service, "shop", "cart-pr-1")?;
    let gone = || is(&condition(Kind::Environment, "", "pr-1"), ["Active", "False", "NoVariants"]);
    assert!(eventually(SOON * 3, gone), "{:#?}", shop.server.all(Kind::Environment));
    Ok(())
}
