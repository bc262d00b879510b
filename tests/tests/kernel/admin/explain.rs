//! `explain` against what the kernel then does: random connections of random workloads, each explained before it is made.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use testbed::{Agent, AgentOptions, Asked, Cluster, Pod, hex, require_privilege, wait_until};

use crate::common::{Result, Routes, base, header, list, scaled, soon, workload};

/// How many are tried.
const TRIPLES: usize = 10_000;
/// Where the servers' ports begin, and how many there are.
const FIRST: u16 = 9000;
const PORTS: u16 = 20;
/// Environments of the routes, and one that nobody knows.
const ENVS: [&str; 4] = ["pr-1", "pr-2", "pr-3", "unheard-of"];

/// Numbers by chance, the same in every run of a seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(bits).expect("31 bits") % below
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next(of.len())]
    }
}

/// One connection.
struct Triple {
    workload: usize,
    to: SocketAddr,
    environment: Option<&'static str>,
}

struct World {
    cluster: Cluster,
    workloads: Vec<Pod>,
    routes: Routes,
    destinations: Vec<SocketAddr>,
}

impl World {
    fn new(dice: &mut Dice) -> Result<(Self, Vec<testbed::Proc>)> {
        let cluster = Cluster::new("explain")?;
        let (mut servers, mut at4, mut at6) = (Vec::new(), Vec::new(), Vec::new());
        for name in ["one", "two"] {
            let pod = cluster.pod(name)?;
            servers.push(pod.serve(
                "tell",
                format!("[::]:{FIRST}").parse()?,
                ["--ports", &PORTS.to_string()],
            )?);
            at4.extend((0..PORTS).map(|port| pod.at4(FIRST + port)));
            at6.extend((0..PORTS).map(|port| pod.at6(FIRST + port)));
        }
        let mut routes = Routes::new();
        let mut destinations = Vec::new();
        for number in 0..24_usize {
            let vip4 = SocketAddr::new(cluster.service_addr4().into(), 80);
            let vip6 = SocketAddr::new(cluster.service_addr6().into(), 80);
            let group = |dice: &mut Dice| -> Vec<SocketAddr> {
                let mut all = Vec::new();
                for _ in 0..dice.next(4) {
                    // Now and then one of the other family.
                    let at = if dice.next(6) == 0 { dice.one(&at6) } else { dice.one(&at4) };
                    if !all.contains(&at) {
                        all.push(at);
                    }
                }
                all
            };
            // Every fourth is an address where somebody is, and its own base.
            let itself = number % 4 == 0;
            let addresses = if itself { vec![at4[number]] } else { vec![vip4, vip6] };
            let mut settings = format!(
                "header: {}, fallback: {}, speaks_first: {}, expect_header: {}",
                dice.one(&["strip", "propagate"]),
                dice.one(&["base", "refuse"]),
                dice.one(&["client", "client", "server"]),
                dice.one(&["sniff", "always"]),
            );
            if !itself {
                let at = group(dice);
                // A base with nothing ready is one whose endpoints are drained.
                let drained = format!("base: [{{address: \"{}\", weight: 0}}]", at4[number]);
                write!(settings, ", {}", if at.is_empty() { drained } else { base(&at) })?;
            }
            let mut variants = Vec::new();
            for env in &ENVS[..3] {
                if dice.next(2) == 0 {
                    let mut at = group(dice);
                    at.retain(|at| !addresses.contains(at));
                    variants.push(format!("{env}: {}", list(&at)));
                }
            }
            write!(settings, ", variants: {{{}}}", variants.join(", "))?;
            routes = routes.service(&format!("service-{number}"), &addresses, &settings);
            destinations.extend(addresses);
        }
        // Nobody's, and somebody's who is no service.
        destinations.push(SocketAddr::new(cluster.service_addr4().into(), 80));
        destinations.push(at4[usize::from(PORTS) + 1]);
        let mut workloads = Vec::new();
        for (number, environment) in ["-", "pr-1", "pr-2", "pr-3", "unheard-of"].into_iter().enumerate() {
            for (kind, settings) in [
                ("direct", "path: auto"),
                ("header", "context: header, path: auto"),
                ("relay", "path: relay"),
                ("bypass", "bypass: true, path: auto"),
            ] {
                // Without an environment only a header of its own makes a workload one.
                if (kind == "bypass" && number > 1)
                    || (environment == "-" && !matches!(kind, "header" | "bypass"))
                {
                    continue;
                }
                let pod = cluster.pod(format!("{kind}-{number}").as_str())?;
                let environment =
                    if environment == "-" { String::new() } else { format!("environment: {environment}, ") };
                routes = routes.workload(workload(&pod, &format!("{environment}{settings}")));
                workloads.push(pod);
            }
        }
        Ok((Self { cluster, workloads, routes, destinations }, servers))
    }

    fn agent(&self) -> Result<Agent> {
        let options = AgentOptions { routes: self.routes.to_string(), ..AgentOptions::default() };
        let agent = Agent::start_with(&self.cluster, options)?;
        let mut asked = Asked::at(agent.admin_socket())?;
        let all_managed = || {
            let managed = asked.get("/v1/workloads").ok()?;
            let managed = managed.as_array()?.iter().filter(|one| one["state"] == "managed").count();
            (managed == self.workloads.len()).then_some(())
        };
        wait_until("all workloads to be managed", soon(), all_managed)?;
        Ok(agent)
    }

    /// Makes connections of one workload, and returns what became of each.
    fn make(&self, number: usize, triples: &[&Triple]) -> Result<Vec<String>> {
        let pod = &self.workloads[number];
        let lines = triples.iter().map(|triple| {
            let mut say = triple.environment.map(|env| header(&[("Env-Id", env)])).unwrap_or_default();
            say.push(b'x');
            format!("{} {}\n", triple.to, hex::encode(&say))
        });
        let input = self.cluster.dir().join(format!("asks-{number}"));
        fs::write(&input, lines.collect::<String>())?;
        let mut command = pod.hop(["asks"])?;
        command.stdin(Stdio::from(fs::File::open(&input)?));
        let output = pod.run(command, Duration::from_secs(300))?;
        Ok(output.stdout.lines().map(str::to_owned).collect())
    }
}

/// What became of a connection must be what was said of it.
fn check(said: &Value, met: &str, headers_read: bool) -> std::result::Result<(), String> {
    let path = said["path"].as_str().unwrap_or_default();
    let backends: Vec<_> = said["backends"].as_array().into_iter().flatten().collect();
    let agrees = match (path, backends.is_empty()) {
        ("refused", _) => met == "refused",
        ("relay", true) => met == "reset",
        _ => backends.iter().any(|it| it["address"] == met && it["share"].as_f64() > Some(0.0)),
    };
    // Where nobody is there is nobody to tell.
    let nowhere = met == "unreachable" && path == "passthrough";
    if agrees || nowhere {
        return Ok(());
    }
    Err(format!("met {met} (a header was sent where one is read: {headers_read}) although {said:#}"))
}

/// Ten thousand connections, each explained first: all are met where it was said, and the reasons that the kernel and the
/// relay tell are those that were said, one by one.
#[test]
fn what_is_explained_is_what_happens() -> Result {
    require_privilege!(Ok(()));
    let seed = 0x5eed_0001_u64;
    let mut dice = Dice(seed);
    let (world, _servers) = World::new(&mut dice)?;
    let agent = world.agent()?;
    let mut asked = Asked::at(agent.admin_socket())?;
    let verified = asked.get("/v1/routes/verify")?;
    assert_eq!(verified["same"], true, "{verified:#}");

    let triples: Vec<_> = (0..scaled(TRIPLES))
        .map(|_| Triple {
            workload: dice.next(world.workloads.len()),
            to: dice.one(&world.destinations),
            environment: (dice.next(2) == 0).then(|| dice.one(&ENVS)),
        })
        .collect();
    let mut said = Vec::new();
    for triple in &triples {
        // Only who is said to send headers does: anybody else's would be payload.
        let pod = &world.workloads[triple.workload];
        let environment = triple.environment.filter(|_| pod.name().starts_with("header"));
        let environment = environment.map(|env| format!("&environment={env}")).unwrap_or_default();
        let to = triple.to.to_string().replace('[', "%5B").replace(']', "%5D");
        said.push(asked.get(&format!("/v1/explain?from={}&to={to}{environment}", pod.cgroup_path_rel()))?);
    }
    let mut wrong = Vec::new();
    // Which connections the hooks and the relay tell of, by what they tell.
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..world.workloads.len() {
        let reads = world.workloads[number].name().starts_with("header");
        let own: Vec<_> = triples.iter().zip(&said).filter(|(triple, _)| triple.workload == number).collect();
        let made: Vec<_> = own
            .iter()
            .map(|(it, _)| Triple { environment: it.environment.filter(|_| reads), ..**it })
            .collect();
        let met = world.make(number, &made.iter().collect::<Vec<_>>())?;
        assert_eq!(met.len(), own.len());
        for ((triple, said), met) in own.iter().zip(&met) {
            if let Err(why) = check(said, met, reads && triple.environment.is_some()) {
                wrong.push(why);
            }
            let silent = ["not_a_service", "bypassed"];
            if !silent.contains(&said["kernel_reason"].as_str().unwrap_or_default()) {
                *expected
                    .entry(key(&said["workload"], &said["destination"], &said["reason"]))
                    .or_default() += 1;
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "seed {seed:#x}: {} of {} differ, such as {}",
        wrong.len(),
        triples.len(),
        wrong[0]
    );
    let told = wait_until("a line for each connection", soon(), || {
        let mut told: BTreeMap<String, usize> = BTreeMap::new();
        for line in agent.access_lines() {
            *told.entry(key(&line["workload"], &line["original"], &line["reason"])).or_default() += 1;
        }
        (told.values().sum::<usize>() >= expected.values().sum()).then_some(told)
    });
    let told = told.context("lines are missing")?;
    let differs = told.iter().filter(|(key, count)| expected.get(*key) != Some(count)).collect::<Vec<_>>();
    assert_eq!(told, expected, "these were told and not said so often: {differs:?}");
    let reasons: std::collections::BTreeSet<_> = said.iter().map(|it| it["reason"].to_string()).collect();
    assert!(reasons.len() >= 8, "a test of few reasons proves little: {reasons:?}");
    Ok(())
}

fn key(workload: &Value, original: &Value, reason: &Value) -> String {
    format!("{workload} {original} {reason}")
}
