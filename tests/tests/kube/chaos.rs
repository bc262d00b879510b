//! A thousand random deeds at speed. Afterwards the kernel has what the agent has, and the agent has what one that has seen
//! nothing but the final objects has.

use std::process::Command;

use serde_json::{Value, json};
use testbed::kube::Kind;
use testbed::kube::objects::{NAMESPACE, annotated, labelled, pod, service, slice};
use testbed::{Agent, AgentOptions, eventually, picop_bin, require_privilege};

use crate::Result;
use crate::shop::{NODE, PORT, SOON, Shop};

const DEEDS: usize = 1_000;
const NAMES: u64 = 12;

/// A small generator, so that a seed says all. <https://doi.org/10.1145/2714064.2660195>
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

fn picop(agent: &Agent, args: &[&str]) -> Result<(bool, String)> {
    let output =
        Command::new(picop_bin()?).args(args).env("PICOP_ADMIN_SOCKET", agent.admin_socket()).output()?;
    Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

/// The services of an agent's table.
fn services(agent: &Agent) -> Result<Value> {
    let (ok, text) = picop(agent, &["routes", "--json"])?;
    if !ok {
        return Err(text.into());
    }
    let mut routes: Value = serde_json::from_str(&text)?;
    Ok(routes["services"].take())
}

/// One deed; a name that is not there cannot go.
fn deed(shop: &Shop, chance: &mut Chance) -> Result {
    let number = chance.below(NAMES);
    let name = format!("service-{number}");
    let at =
        |last: u64, port| std::net::SocketAddr::from(([10, 100, 0, u8::try_from(last).unwrap_or(1)], port));
    match chance.below(8) {
        0..=2 => {
            let mut labels = json!({"app": name});
            if chance.one_in(2) {
                let of = format!("service-{}", chance.below(NAMES));
                labels = json!({"picop.dev/variant-of": of, "picop.dev/environment": format!("pr-{}", chance.below(4))});
            }
            let header = if chance.one_in(2) { "propagate" } else { "strip" };
            let object = annotated(service(&name, at(number + 1, PORT)), json!({"picop.dev/header": header}));
            shop.server.apply(labelled(object, labels))?;
        }
        3 | 4 => {
            let endpoints: Vec<_> = (0..chance.below(4)).map(|n| at(100 + number * 4 + n, 8080)).collect();
            shop.server.apply(slice(&name, &endpoints))?;
        }
        5 => {
            let labels = json!({"picop.dev/environment": format!("pr-{}", chance.below(4))});
            let context = if chance.one_in(3) { "header" } else { "none" };
            let uid = format!("33333333-0000-4000-8000-{number:012x}");
            let object =
                annotated(pod(&format!("pod-{number}"), &uid, NODE), json!({"picop.dev/context": context}));
            shop.server.apply(labelled(object, labels))?;
        }
        6 => drop(shop.server.delete(Kind::Service, NAMESPACE, &name)),
        _ => {
            shop.server.delete(Kind::EndpointSlice, NAMESPACE, &format!("{name}-x7k2p")).ok();
            shop.server.delete(Kind::Pod, NAMESPACE, &format!("pod-{number}")).ok();
        }
    }
    if chance.one_in(100) {
        shop.server.cut();
    }
    if chance.one_in(100) {
        // What was seen may be forgotten by the time a client comes back.
        shop.server.set_there(false);
        shop.server.compact();
        shop.server.set_there(true);
    }
    Ok(())
}

#[test]
fn a_thousand_deeds_leave_what_the_last_objects_say() -> Result {
    require_privilege!(Ok(()));
    let seed = std::env::var("PICOP_CHAOS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut chance = Chance(seed);
    let shop = Shop::new("chaos")?;
    shop.label_client()?;
    let agent = shop.agent()?;
    for number in 0..DEEDS {
        deed(&shop, &mut chance)?;
        if number % 10 == 0 {
            std::thread::yield_now();
        }
    }
    // A route at last that tells that everything before it has arrived: each kind is followed in order, but not with the
    // others, so all of them are waited for by what comes of them.
    shop.label_service()?;
    shop.until_served_by("cart-pr-1")?;

    // One that has seen nothing but what is there now. It routes nobody: no pod is below its cgroup.
    let other = shop.cluster.pod("elsewhere")?;
    let cgroup = Some(other.cgroup_dir().to_owned());
    let fresh = Agent::start_with(&shop.cluster, AgentOptions { cgroup, ..shop.options()? })?;
    let expected = services(&fresh)?;
    assert!(expected.as_array().is_some_and(|all| all.len() > 1), "seed {seed}: {expected}");
    let mut last = Value::Null;
    let same = eventually(SOON * 2, || {
        last = services(&agent).unwrap_or_default();
        last == expected
    });
    assert!(same, "seed {seed}: the agent has\n{last:#}\nand not\n{expected:#}");
    let mut said = String::new();
    let verified = eventually(SOON, || {
        let (ok, text) = picop(&agent, &["routes", "--verify"]).unwrap_or_default();
        said = text;
        ok
    });
    assert!(verified, "seed {seed}: {said}");
    let versions = agent.log_lines().iter().filter(|line| line["message"] == "routes in effect").count();
    println!(
        "{DEEDS} deeds, {versions} tables in effect, {} services at the end: {said}",
        expected.as_array().map_or(0, Vec::len)
    );
    Ok(())
}
