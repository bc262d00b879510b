//! A controller that hangs in the middle of a change, as one on a machine that has stalled.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde_json::json;
use testbed::mysql::{Engine, on_each_engine};
use tokio::time::timeout;

use crate::Result;
use crate::database::Database;
use crate::double::Double;
use crate::http::ask;
use crate::killed::register;
use crate::running::Controller;
use crate::state::State;
use crate::updates::until_done;

/// How long a change may take after that.
const PATIENCE: Duration = Duration::from_secs(60);

on_each_engine!(async it_does_not_keep_others_from_their_changes);

async fn it_does_not_keep_others_from_their_changes(engine: &Engine) -> Result {
    let dir = tempfile::tempdir()?;
    let server = Database::start(engine, dir.path()).await?;
    let double = Double::start(false).await?;
    let hung = Controller::start(&server.url()).await?;
    let other = Controller::start(&server.url()).await?;
    register(&hung, "p", &double).await?;
    let state = State::read(&server.url()).await?;
    let body = |env: &str| json!([{"proxy_id": "p", "env_id": env, "destination": "h:1"}]).to_string();

    // It begins a change, waits for the lock that all changes begin with, and gets it when it does nothing any more.
    let lock = state.lock().await?;
    let asked = tokio::spawn(ask(hung.place().now(), "PUT", "/routes", body("hung")));
    state.somebody_waits().await?;
    hung.hang()?;
    lock.commit().await?;
    ensure!(state.is_locked().await?, "it does not have the lock");

    let places = [other.place()];
    timeout(PATIENCE, until_done(&places, 0, "PUT", "/routes", &body("other"))).await.context("kept")??;
    assert!(state.routes("p").await?.contains_key("other"));

    // What it was doing was undone. It tries again, or says that it could not, if whoever asked has waited for so long.
    hung.signal(Signal::CONT)?;
    if let Ok((status, why)) = asked.await? {
        let stored = state.routes("p").await?.contains_key("hung");
        assert!(matches!((status, stored), (200, true) | (503, false)), "{status} {why}, stored: {stored}");
    }
    until_done(&[hung.place()], 0, "PUT", "/routes", &body("hung")).await?;
    other.stop().await?;
    hung.stop().await
}
