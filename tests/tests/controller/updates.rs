//! Clients that change routes until they are told that it is done.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Result;
use crate::double::Table;
use crate::http::ask;
use crate::running::Place;

/// The proxies.
pub const PROXIES: [&str; 2] = ["p1", "p2"];

/// Clients at once. Each has environments of its own.
const CLIENTS: u64 = 4;

/// Environments of a client.
const ENVS: u64 = 12;

/// What was answered 200 last, by proxy.
pub type Wanted = BTreeMap<&'static str, Table>;

/// Makes `count` changes by controllers that may be anywhere any time, and counts them.
pub async fn update(places: Vec<Place>, count: u64, done: watch::Sender<u64>) -> Result<Wanted> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (places, done) = (places.clone(), done.clone());
        clients.spawn(async move {
            let mut wanted = Wanted::new();
            for number in 0..count / CLIENTS {
                change(&places, client, number, &mut wanted).await?;
                done.send_modify(|done| *done += 1);
            }
            Ok::<_, anyhow::Error>(wanted)
        });
    }
    let mut all = Wanted::new();
    while let Some(wanted) = clients.join_next().await {
        for (proxy, table) in wanted?? {
            all.entry(proxy).or_default().extend(table);
        }
    }
    Ok(all)
}

/// One change: mostly of one route, every fifth of both proxies' at once; every third removes.
async fn change(places: &[Place], client: u64, number: u64, wanted: &mut Wanted) -> Result {
    let env = format!("c{client}-e{}", number * 7 % ENVS);
    let both = number.is_multiple_of(5);
    let proxies = PROXIES.iter().enumerate().filter(|(n, _)| both || number % 2 == *n as u64);
    let proxies: Vec<_> = proxies.map(|(_, proxy)| *proxy).collect();
    let to = format!("10.0.{client}.{}:{}", number % 250 + 1, number + 1);
    let entry = |proxy: &&str| json!({"proxy_id": proxy, "env_id": env, "destination": to});
    let body = Value::Array(proxies.iter().map(entry).collect());
    let removes = number % 3 == 2;
    let method = if removes { "DELETE" } else { "PUT" };
    until_done(places, client + number, method, "/routes", &body.to_string()).await?;
    for proxy in proxies {
        let table = wanted.entry(proxy).or_default();
        if removes { drop(table.remove(&env)) } else { drop(table.insert(env.clone(), to.clone())) }
    }
    Ok(())
}

/// Asks one controller or another until it is done.
pub async fn until_done(places: &[Place], first: u64, method: &str, path: &str, body: &str) -> Result {
    for place in places.iter().cycle().skip(usize::try_from(first)? % places.len()) {
        match ask(place.now(), method, path, body.to_owned()).await {
            Ok((200, _)) => return Ok(()),
            // It is not known whether it is stored: it is asked for again.
            Ok((503, _)) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Ok((status, why)) => bail!("{method} {path} {body} was answered {status}: {why}"),
        }
    }
    bail!("there is no controller")
}
