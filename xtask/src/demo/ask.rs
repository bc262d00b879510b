//! Asking in each environment, and who answered why.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testbed::{Client, Pod};

use super::stage::{CLIENTS, Cart, Stage};

/// The services on the way of every request, in order.
pub const SERVICES: [&str; 3] = ["frontend", "cart", "db"];

/// One service's part in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The instance that served, in its own words.
    pub instance: String,
    /// Why it was this one, in picop's.
    pub reason: String,
    /// Where picop had the environment from.
    pub source: String,
    /// What the server was told of it.
    pub header: String,
}

/// A request of one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub client: &'static str,
    pub environment: Option<&'static str>,
    /// In the order of [`SERVICES`].
    pub hops: Vec<Hop>,
}

/// One request from each client.
pub fn ask_all(stage: &Stage) -> Result<Vec<Row>> {
    CLIENTS.into_iter().map(|(client, environment)| ask(stage, client, environment)).collect()
}

fn ask(stage: &Stage, client: &'static str, environment: Option<&'static str>) -> Result<Row> {
    let agent = stage.agent()?;
    let before = agent.access_lines().len();
    let instances = request(stage, stage.pod(client)?)?;
    ensure!(instances.len() == SERVICES.len(), "{client} got {instances:?}");
    // One line for each connection: of a direct one when it begins, of a relayed one when it ends.
    let lines = agent.wait_access(before + SERVICES.len(), |_| true)?;
    let hops = SERVICES.iter().zip(instances).map(|(service, instance)| {
        let line = lines[before..].iter().find(|line| line["service"] == stage.service_name(service));
        let line = line.with_context(|| format!("picop logged no connection to {service}"))?;
        let text = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
        let good = if line["path"] == "direct" { "routed" } else { "ok" };
        ensure!(line["outcome"] == good, "a connection did not go well: {line}");
        ensure!(line["environment"].as_str() == environment, "{client} is in {environment:?}: {line}");
        Ok(Hop { instance, reason: text("reason"), source: text("env_source"), header: text("header") })
    });
    Ok(Row { client, environment, hops: hops.collect::<Result<_>>()? })
}

/// Asks the frontend who serves, and returns the instances' names in the order of [`SERVICES`].
pub fn request(stage: &Stage, from: &Pod) -> Result<Vec<String>> {
    let client = Client::to(stage.frontend).text("who\n").read_all().timeout(Duration::from_secs(10));
    let report = client.run(from)?;
    ensure!(report.ok, "{}'s request failed: {report:?}", from.name());
    // `getpeername` tells the client that it talks to the service it asked for.
    ensure!(report.peer == Some(stage.frontend), "{} believes to talk to {:?}", from.name(), report.peer);
    instances(&report.text)
}

/// Reads the demo services' answer: `["frontend-base","cart-pr-1",{"redis":"db-base"}]`.
pub fn instances(answer: &str) -> Result<Vec<String>> {
    let path: Vec<Value> =
        serde_json::from_str(answer).with_context(|| format!("the answer was {answer:?}"))?;
    let name = |hop: &Value| hop.as_str().or_else(|| hop["redis"].as_str()).map(str::to_owned);
    path.iter().map(name).collect::<Option<_>>().with_context(|| format!("the answer was {answer:?}"))
}

/// What must have come out: the instance, the reason, where the environment came from, what the server was told.
fn expected() -> [(&'static str, [[&'static str; 4]; 3]); 3] {
    [
        (
            "client",
            [
                ["frontend-base", "no_environment", "none", "none"],
                ["cart-base", "no_environment", "none", "none"],
                ["db-base", "no_environment", "none", "none"],
            ],
        ),
        (
            "client-pr-1",
            [
                ["frontend-base", "no_variant", "workload", "propagate"],
                [Cart::First.name(), "variant", "header", "propagate"],
                ["db-base", "no_variant", "header", "strip"],
            ],
        ),
        (
            "client-pr-2",
            [
                ["frontend-base", "no_variant", "workload", "propagate"],
                ["cart-base", "no_variant", "header", "propagate"],
                ["db-pr-2", "variant", "header", "strip"],
            ],
        ),
    ]
}

/// Compares the table with what it must be.
pub fn check(rows: &[Row]) -> Result<()> {
    let expected = expected();
    ensure!(rows.len() == expected.len(), "{} rows", rows.len());
    for (row, (client, hops)) in rows.iter().zip(expected) {
        let seen: Vec<_> =
            row.hops.iter().map(|h| [&*h.instance, &*h.reason, &*h.source, &*h.header]).collect();
        ensure!(
            row.client == client && seen == hops,
            "the table is wrong: {client} got {seen:?}, not {hops:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_list_of_instances() {
        let names = instances(r#"["frontend-base","cart-pr-1",{"redis":"db-base"}]"#).expect("an answer");
        assert_eq!(names, ["frontend-base", "cart-pr-1", "db-base"]);
        for wrong in ["", "{}", r#"["a",{"mysql":"b"}]"#] {
            assert!(instances(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_table_with_one_thing_wrong_is_refused() {
        let right: Vec<Row> = expected()
            .into_iter()
            .zip(CLIENTS)
            .map(|((client, hops), (_, environment))| {
                let hop = |[instance, reason, source, header]: [&str; 4]| Hop {
                    instance: instance.into(),
                    reason: reason.into(),
                    source: source.into(),
                    header: header.into(),
                };
                Row { client, environment, hops: hops.map(hop).into() }
            })
            .collect();
        check(&right).expect("what is expected");
        let mut wrong = right.clone();
        wrong[1].hops[1].instance = "cart-base".into();
        assert!(check(&wrong).is_err());
        assert!(check(&right[..2]).is_err());
    }
}
