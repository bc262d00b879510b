//! Following controller and route file: whatever changes, the table is made anew.
use std::{path::Path, sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinSet};

use super::{
    ControllerSource, admin,
    build::{Resolver, build},
    envs::Table,
    replace,
};
use crate::{
    controller::http::Server,
    route::{RouteHandle, RouteTable},
    source::file::{self, watch::Watch},
    telemetry::chain,
};

/// How often destinations that are names are looked up again.
const NAMES: Duration = Duration::from_secs(30);

impl ControllerSource {
    /// Follows controller and file until the future is dropped. `reload` has the file be read, and names be looked up.
    pub async fn run(self, reload: Arc<Notify>) {
        let Self { handle, routes, service, mut base, envs, mut resolver, presence, listener, lost: _lost } =
            self;
        let server = Server::start(listener, admin::Admin(Arc::clone(&envs)));
        let mut tasks = JoinSet::new();
        tasks.spawn(presence.run());
        let mut changes = envs.subscribe();
        let mut watch = Watch::new(&routes);
        let mut names = tokio::time::interval(NAMES);
        // What happened between `open` and here.
        let (mut look, mut asked, mut again) = (true, false, false);
        loop {
            watch.note();
            let now = Arc::clone(&changes.borrow_and_update());
            resolver.look_up(&now, again).await;
            // Both take longer than a runtime's thread may be kept.
            let made = tokio::task::spawn_blocking({
                let make = Make {
                    handle: handle.clone(),
                    service: service.clone(),
                    envs: now,
                    resolver: resolver.clone(),
                };
                let (was, file) = (Arc::clone(&base), look.then(|| routes.clone()));
                move || make.run(was, file.as_deref(), asked)
            });
            base = match made.await {
                Ok(base) => base,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down.
                Err(_) => return server.stop().await,
            };
            (look, asked, again) = (false, false, false);
            // Set up anew: something may have happened before that was done.
            if watch.refresh() {
                look = true;
                continue;
            }
            tokio::select! {
                () = reload.notified() => (look, asked, again) = (true, true, true),
                () = watch.changed(file::QUIET, file::UNQUIET) => look = true,
                Ok(()) = changes.changed() => {}
                _ = names.tick() => again = true,
            }
        }
    }
}

/// What a table is made with, besides the file's.
struct Make {
    handle: RouteHandle,
    service: Option<String>,
    envs: Arc<Table>,
    resolver: Resolver,
}

impl Make {
    /// Makes a table and puts it in effect: with the file as it is, if it is to be read, else with what it `was`. Returns which
    /// it is. While the file is bad, what it was goes on to be used.
    fn run(&self, was: Arc<RouteTable>, file: Option<&Path>, asked: bool) -> Arc<RouteTable> {
        let read = file.map(|path| {
            let base = file::load(path).map_err(|error| error.to_string())?;
            Ok::<_, String>((self.table(&base)?, base))
        });
        let bad = match read {
            Some(Ok((table, base))) => {
                self.settle(table, asked);
                return Arc::new(base);
            }
            Some(Err(bad)) => Some(bad),
            None => None,
        };
        match self.table(&was) {
            Ok(table) => self.settle(table, false),
            Err(error) => self.refuse(error),
        }
        // Last: it is what the status is to say.
        if let Some(bad) = bad {
            self.refuse(bad);
        }
        was
    }

    fn table(&self, base: &RouteTable) -> Result<RouteTable, String> {
        build(base, self.service.as_deref(), &self.envs, &self.resolver).map_err(|error| chain(&error))
    }

    /// Puts a table in effect, if it says anything new.
    fn settle(&self, table: RouteTable, asked: bool) {
        if table.same_routes(&self.handle.load()) {
            self.handle.confirm();
            if asked {
                let version = self.handle.status().version;
                tracing::info!(version, "routes read again: no difference");
            }
        } else if let Err(error) = replace(&self.handle, table) {
            self.refuse(chain(&error));
        }
    }

    fn refuse(&self, error: String) {
        let version = self.handle.status().version;
        tracing::error!(version, error, "routes refused; those of this version stay in effect");
        self.handle.reject(error);
    }
}
