//! One controller on an SQLite file, killed again and again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::Result;
use crate::double::Double;
use crate::running::Controller;
use crate::state::State;
use crate::updates::{PROXIES, update};

/// Changes in all.
pub const UPDATES: u64 = 1_000;

/// Changes between two deaths.
const EVERY: u64 = 20;

/// A moment, so that deaths come at any point of what is done.
pub async fn a_moment() {
    let moment = RandomState::new().hash_one(0) % 8_000;
    tokio::time::sleep(Duration::from_micros(moment)).await;
}

pub async fn register(controller: &Controller, name: &str, double: &Double) -> Result {
    let endpoint = json!({"endpoint": double.endpoint()});
    controller.good("PUT", &format!("/proxy/{name}/register"), &endpoint).await?;
    controller.good("PUT", &format!("/proxy/{name}/activate"), &Value::Null).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_killed_again_and_again_loses_nothing() -> Result {
    let dir = tempfile::tempdir()?;
    let database = format!("sqlite:{}", dir.path().join("controller.db").display());
    let doubles = [Double::start(true).await?, Double::start(true).await?];
    let mut controller = Controller::start(&database).await?;
    for (name, double) in PROXIES.iter().zip(&doubles) {
        register(&controller, name, double).await?;
    }
    let (done, mut count) = watch::channel(0);
    let updating = tokio::spawn(update(vec![controller.place()], UPDATES, done));
    let mut deaths = 0;
    // An error: there is nobody left to count.
    while count.wait_for(|count| *count >= (deaths + 1) * EVERY).await.is_ok() {
        a_moment().await;
        controller.kill_and_restart().await?;
        deaths += 1;
        if deaths == 20 {
            // A proxy that is restarted has nothing, and says that it is there again.
            doubles[1].forget();
            register(&controller, PROXIES[1], &doubles[1]).await?;
        }
    }
    let mut wanted = updating.await??;
    assert!(deaths >= UPDATES / EVERY / 2, "{deaths} deaths");
    let state = State::read(&database).await?;
    let mut of = |name| wanted.remove(name).unwrap_or_default();
    let [p1, p2] = [of(PROXIES[0]), of(PROXIES[1])];
    assert!(!p1.is_empty() && !p2.is_empty());
    let settled = state.settled(&[(PROXIES[0], &doubles[0], p1), (PROXIES[1], &doubles[1], p2)]).await;
    assert!(settled.is_ok(), "{settled:?}\n{}", controller.log());
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_reaches_a_proxy_that_was_away_and_a_controller_that_has_died() -> Result {
    let dir = tempfile::tempdir()?;
    let database = format!("sqlite:{}", dir.path().join("controller.db").display());
    let mut controller = Controller::start(&database).await?;
    let double = Double::start(false).await?;
    register(&controller, "p", &double).await?;
    let route = |env| json!([{"proxy_id": "p", "env_id": env, "destination": "h:1"}]);
    controller.good("PUT", "/routes", &route("a")).await?;
    controller.good("PUT", "/routes", &route("b")).await?;
    let state = State::read(&database).await?;
    let table = |envs: &[&str]| envs.iter().map(|env| ((*env).to_owned(), "h:1".to_owned())).collect();
    state.settled(&[("p", &double, table(&["a", "b"]))]).await?;
    double.goes_away(true);
    controller.good("DELETE", "/routes", &route("a")).await?;
    controller.kill_and_restart().await?;
    assert_eq!(double.table(), table(&["a", "b"]));
    double.goes_away(false);
    state.settled(&[("p", &double, table(&["b"]))]).await?;
    controller.stop().await
}
