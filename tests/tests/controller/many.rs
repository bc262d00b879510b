//! Two controllers on one MySQL or MariaDB, all three of which are killed meanwhile.

use testbed::mysql::{Engine, on_each_engine};
use tokio::sync::watch;

use crate::Result;
use crate::database::Database;
use crate::double::Double;
use crate::killed::{UPDATES, a_moment, register};
use crate::running::Controller;
use crate::state::State;
use crate::updates::{PROXIES, update};

/// Changes between two deaths.
const EVERY: u64 = 40;

on_each_engine!(async two_controllers_and_their_database_are_killed_and_lose_nothing);

async fn two_controllers_and_their_database_are_killed_and_lose_nothing(engine: &Engine) -> Result {
    let dir = tempfile::tempdir()?;
    let mut server = Database::start(engine, dir.path()).await?;
    let database = server.url();
    let doubles = [Double::start(true).await?, Double::start(true).await?];
    // Both at once: both find a database without tables.
    let (one, other) = tokio::join!(Controller::start(&database), Controller::start(&database));
    let mut controllers = [one?, other?];
    for ((name, double), controller) in PROXIES.iter().zip(&doubles).zip(&controllers) {
        register(controller, name, double).await?;
    }
    let (done, mut count) = watch::channel(0);
    let places = controllers.iter().map(Controller::place).collect();
    let updating = tokio::spawn(update(places, UPDATES, done));
    let mut deaths = 0;
    // An error: there is nobody left to count.
    while count.wait_for(|count| *count >= (deaths + 1) * EVERY).await.is_ok() {
        a_moment().await;
        match deaths % 8 {
            3 => server.kill_and_restart().await?,
            even if even % 2 == 0 => controllers[0].kill_and_restart().await?,
            _ => controllers[1].kill_and_restart().await?,
        }
        deaths += 1;
    }
    let mut wanted = updating.await??;
    assert!(deaths > 4, "{deaths} deaths");
    let state = State::read(&database).await?;
    let mut of = |name| wanted.remove(name).unwrap_or_default();
    let [p1, p2] = [of(PROXIES[0]), of(PROXIES[1])];
    assert!(!p1.is_empty() && !p2.is_empty());
    let settled = state.settled(&[(PROXIES[0], &doubles[0], p1), (PROXIES[1], &doubles[1], p2)]).await;
    let [one, other] = controllers;
    assert!(settled.is_ok(), "{settled:?}\n{}\n\n{}", one.log(), other.log());
    one.stop().await?;
    other.stop().await
}
