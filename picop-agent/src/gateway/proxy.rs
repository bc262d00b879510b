//! `picop gateway proxy`: what PiCoP's reference proxy does, by the same flags and the same admin API.

mod admin;
mod register;
mod table;

use std::sync::Arc;

use self::{register::Registration, table::Table};
use super::{
    GatewayError, Life,
    args::ProxyArgs,
    connection::{self, Route, Router, Rules},
    life::{announce, listen_everywhere},
    tcp::source_name,
};
use crate::protocol::Context;

/// Clients of the admin API at once.
const ADMINS: u32 = 64;

/// Routes by the header.
#[derive(Debug)]
struct Proxy {
    table: Arc<Table>,
    default: Option<Arc<str>>,
    propagate: bool,
}

impl Router for Proxy {
    fn route(&self, context: Option<&Context>) -> Route {
        let named = context.and_then(Context::env);
        let found = named.map(|(env, _)| self.table.get(env.as_str()));
        let (destination, reason) = match found {
            Some(Some(destination)) => (Some(destination), "variant"),
            Some(None) => (self.default.clone(), "unknown_environment"),
            None => (self.default.clone(), "no_environment"),
        };
        let told = match (context, self.propagate) {
            (None, _) => "none",
            (Some(_), true) => "propagate",
            (Some(_), false) => "strip",
        };
        Route {
            destination,
            environment: named.map(|(env, _)| env.clone()),
            env_source: named.map_or("none", |(_, source)| source_name(source)),
            reason,
            header: context.filter(|_| self.propagate).cloned(),
            told,
            dropped: 0,
        }
    }
}

/// Begins to listen, and to register at the controller; returns at once.
///
/// # Errors
/// When a port is not to be had, or a URL is none.
pub async fn start(args: ProxyArgs, life: &Life) -> Result<(), GatewayError> {
    let table = Arc::new(Table::default());
    let admin = listen_everywhere(args.admin_port).await?;
    let admin_port = admin.local_addr().map_or(args.admin_port, |address| address.port());
    let registration = Registration::new(args.controller_url, args.id, args.endpoint, admin_port)?;
    let listener = listen_everywhere(args.proxy_port).await?;

    announce("admin API", &admin);
    let told = Arc::clone(&table);
    let serving = life.clone();
    life.accept(admin, ADMINS, |_| {
        let (told, serving) = (Arc::clone(&told), serving.clone());
        move |client, _| admin::serve(Arc::clone(&told), serving.clone(), client)
    })?;

    announce("connections", &listener);
    let default = args.default_addr.and_then(|address| address.0).map(Arc::from);
    let proxy = Arc::new(Proxy { table, default, propagate: args.propagate });
    let rules = Rules {
        expect: args.expect_header,
        header_timeout: args.common.header_timeout,
        connect_timeout: args.common.connect_timeout,
        buffer: args.buf,
    };
    let serving = life.clone();
    life.accept(listener, args.common.max_connections, |_| {
        let (proxy, serving) = (Arc::clone(&proxy), serving.clone());
        move |client, peer| connection::serve(Arc::clone(&proxy), rules, serving.clone(), client, peer)
    })?;

    if let Some(registration) = registration {
        let stopping = life.clone();
        life.spawn(async move {
            tokio::select! {
                () = registration.keep_trying() => {}
                () = stopping.stopping() => {}
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
