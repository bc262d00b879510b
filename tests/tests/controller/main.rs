//! The controller as a program, with proxies' doubles: whatever is killed, the proxies end up with what is stored.

mod adopted;
mod agent;
mod database;
mod double;
mod http;
mod hung;
mod killed;
mod many;
mod passwords;
mod refused;
mod running;
mod state;
mod updates;
mod waiting;

type Result<T = ()> = anyhow::Result<T>;
