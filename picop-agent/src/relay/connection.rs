//! One relayed connection, from accept to end.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::{
    pump::{self, Carried, End},
    server::{Shared, reset},
    upstream::{self, UpstreamError},
};
use crate::{
    intercept::workloads::ManagedWorkload,
    protocol::{Context, ExpectHeader, read_head},
    route::{ContextSource, Decision, Facts, HeaderPolicy, Reason, WorkloadSpec, decide},
    telemetry::{
        access::{AccessRecord, Outcome},
        chain,
    },
};

/// Serves it. Returns whether it ended in order; otherwise the caller resets the client. The record is filled in as
/// things become known, so that it tells the truth wherever this is cut off.
pub async fn serve(
    shared: &Shared,
    workload: &ManagedWorkload,
    client: &mut TcpStream,
    from: SocketAddr,
    listener_port: u16,
    record: &mut AccessRecord,
) -> bool {
    let original = match shared.maps.take_original(workload.netns_cookie, from, listener_port) {
        Ok(Some(original)) => SocketAddr::from(original.destination),
        Ok(None) => {
            // The second loop guard: whoever connects to the listener itself wanted to go nowhere else.
            record.end(Outcome::NoOriginal, "no destination was recorded for it".to_owned());
            return false;
        }
        Err(error) => {
            record.end(Outcome::Internal, chain(&error));
            return false;
        }
    };
    record.original = Some(original);
    // One table and one spec for the whole connection, whatever changes meanwhile.
    let (table, spec) = (shared.routes.load(), workload.spec.load_full());

    let expect = match spec.context {
        ContextSource::None => ExpectHeader::Never,
        ContextSource::Header => table.service_at(&original).map_or(ExpectHeader::Never, |s| s.expect_header),
    };
    let mut head = BytesMut::new();
    let context = match read_head(client, &mut head, expect, shared.limits.header_timeout).await {
        Ok(read) => read.context,
        Err(error) => {
            record.end(Outcome::BadHeader, chain(&error));
            return false;
        }
    };

    let decision = {
        let in_header = context.as_ref().and_then(Context::env_id);
        decide(&Facts {
            table: &table,
            destination: original,
            from_header: in_header.as_ref(),
            of_workload: spec.environment.as_ref(),
        })
    };
    drop(table);
    let outgoing = outgoing(&decision, context, &spec);
    record.header = outgoing.told;
    record.dropped = outgoing.dropped;
    let (backends, why) = (decision.backends.clone(), decision.reason);
    record.decision = Some(decision);
    if matches!(backends, crate::route::Backends::Refused) {
        record.end(Outcome::Refused, format!("refused: {}", why.as_str()));
        return false;
    }

    let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
    let connected =
        upstream::connect(&shared.netns, &workload.netns, &backends, turn, shared.limits.connect_timeout)
            .await;
    let (server, backend) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let outcome = match error {
                UpstreamError::Netns(_) => Outcome::Internal,
                UpstreamError::AllFailed { .. } | UpstreamError::None => Outcome::UpstreamFailed,
            };
            record.end(outcome, chain(&error));
            return false;
        }
    };
    record.backend = Some(backend);
    if let Err(error) = client.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }

    // Header and payload that came with the client's header go in one write: one segment, as the client sent them.
    let payload = head.len() as u64;
    let first = match outgoing.header {
        Some(mut header) => {
            header.extend_from_slice(&head);
            header
        }
        None => head,
    };
    let carried = Arc::new(Carried::default());
    if let Err(error) = pump::write_all(&server, &first).await {
        reset(&server);
        record.end(Outcome::UpstreamReset, error.to_string());
        return false;
    }
    drop(first);
    carried.up.fetch_add(payload, Ordering::Relaxed);

    let guard = Tally { carried: &carried, server: &server, record, orderly: false };
    guard.run(client).await
}

/// Puts the byte counts into the record and resets the server, also when the connection is cut off by a drain.
struct Tally<'a> {
    carried: &'a Carried,
    server: &'a TcpStream,
    record: &'a mut AccessRecord,
    orderly: bool,
}

impl Tally<'_> {
    async fn run(mut self, client: &TcpStream) -> bool {
        match pump::pump(client, self.server, self.carried).await {
            End::Closed => {
                self.orderly = true;
                self.record.end(Outcome::Ok, None);
            }
            End::Client(kind) => self.record.end(Outcome::ClientReset, kind.to_string()),
            End::Upstream(kind) => self.record.end(Outcome::UpstreamReset, kind.to_string()),
        }
        self.orderly
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.record.bytes_up = self.carried.up.load(Ordering::Relaxed);
        self.record.bytes_down = self.carried.down.load(Ordering::Relaxed);
        if !self.orderly {
            reset(self.server);
        }
    }
}

/// What is written to the server ahead of the payload.
#[derive(Debug, Default)]
struct Outgoing {
    header: Option<BytesMut>,
    told: &'static str,
    dropped: usize,
}

/// The header for the server: what the client sent, plus the workload's environment if it names none; nothing for a
/// server that is not to be told. What is no service is passed what the client sent, as it would be without picop.
fn outgoing(decision: &Decision, context: Option<Context>, spec: &WorkloadSpec) -> Outgoing {
    let told = |context: &Context, dropped: usize| Outgoing {
        header: Some(BytesMut::from(context.wire())),
        told: "propagate",
        dropped,
    };
    if decision.reason == Reason::NotAService {
        return context.map_or(Outgoing { told: "none", ..Outgoing::default() }, |c| told(&c, 0));
    }
    let known = context.is_some() || spec.own.is_some();
    match decision.header {
        HeaderPolicy::Strip => Outgoing { told: if known { "strip" } else { "none" }, ..Outgoing::default() },
        HeaderPolicy::Propagate => match (context, &spec.environment) {
            (Some(context), Some(env)) if context.env_id().is_none() => {
                let (context, dropped) = context.with_env(env);
                told(&context, dropped.baggage + dropped.tracestate + dropped.lines)
            }
            (Some(context), _) => told(&context, 0),
            (None, _) => {
                spec.own.as_ref().map_or(Outgoing { told: "none", ..Outgoing::default() }, |own| told(own, 0))
            }
        },
    }
}
