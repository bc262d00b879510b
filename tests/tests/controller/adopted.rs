//! A database that the reference's controller has made.

use serde_json::json;
use testbed::mysql::{Engine, on_each_engine};

use crate::Result;
use crate::database::Database;
use crate::double::Double;
use crate::running::Controller;
use crate::state::State;

/// As the reference makes them. This collation does not tell upper case from lower case.
const TABLES: [&str; 2] = [
    "CREATE TABLE proxies (proxy_id VARCHAR(512) CHARACTER SET ascii PRIMARY KEY, \
     endpoint VARCHAR(512) CHARACTER SET ascii NOT NULL, activate BOOLEAN NOT NULL)",
    "CREATE TABLE routes (proxy_id VARCHAR(512) CHARACTER SET ascii NOT NULL, \
     env_id VARCHAR(512) CHARACTER SET ascii NOT NULL, destination VARCHAR(512) CHARACTER SET ascii NOT NULL, \
     PRIMARY KEY (proxy_id, env_id), \
     FOREIGN KEY (proxy_id) REFERENCES proxies (proxy_id) ON DELETE CASCADE)",
];

on_each_engine!(async a_database_of_the_reference_is_gone_on_with);

async fn a_database_of_the_reference_is_gone_on_with(engine: &Engine) -> Result {
    let dir = tempfile::tempdir()?;
    let server = Database::start(engine, dir.path()).await?;
    let database = server.url();
    let double = Double::start(false).await?;
    let state = State::read(&database).await?;
    for table in TABLES {
        state.execute(table).await?;
    }
    let endpoint = double.endpoint();
    state.execute(&format!("INSERT INTO proxies VALUES ('p', '{endpoint}', 1)")).await?;
    state.execute("INSERT INTO routes VALUES ('p', 'pr-1', 'h:1'), ('p', 'pr-2', 'h:2')").await?;

    let table = |routes: &[(&str, &str)]| {
        routes.iter().map(|(env, to)| ((*env).to_owned(), (*to).to_owned())).collect()
    };
    let controller = Controller::start(&database).await?;
    state.settled(&[("p", &double, table(&[("pr-1", "h:1"), ("pr-2", "h:2")]))]).await?;

    // To that table it is the same environment, by the name it has.
    let route = |env, to| json!([{"proxy_id": "p", "env_id": env, "destination": to}]);
    controller.good("PUT", "/routes", &route("PR-1", "h:3")).await?;
    state.settled(&[("p", &double, table(&[("pr-1", "h:3"), ("pr-2", "h:2")]))]).await?;
    controller.good("DELETE", "/routes", &route("PR-2", "h:2")).await?;
    state.settled(&[("p", &double, table(&[("pr-1", "h:3")]))]).await?;
    controller.good("DELETE", "/proxy/p", &json!(null)).await?;
    assert_eq!(state.routes("p").await?, table(&[]));
    // It was not told. Should it come back, it is.
    assert_eq!(double.table(), table(&[("pr-1", "h:3")]));
    controller.good("PUT", "/proxy/p/register", &json!({"endpoint": endpoint})).await?;
    controller.good("PUT", "/proxy/p/activate", &json!(null)).await?;
    state.settled(&[("p", &double, table(&[]))]).await?;
    controller.stop().await
}
