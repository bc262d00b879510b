//! Real servers and their own clients, which know nothing of picop, over the real agent.

mod counters;
mod demo;
mod mariadb;
mod memcached;
mod nginx;
mod postgres;
mod propagate;
mod redis;
mod routes;
mod scene;

use testbed::programs;

type Result<T = ()> = anyhow::Result<T>;
