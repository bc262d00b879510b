//! One relayed connection, from accept to end.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use picop_common::connect;

use super::{
    event_loop::sleep,
    graft::Graft,
    pump::{self, End},
    server::{Shared, Workload, reset},
    socket::Socket,
    upstream::{self, Connected, UpstreamError},
};
use crate::{
    intercept::grafts::Ticket,
    late::{Next, first_word},
    protocol::{Context, EnvId, ExpectHeader, HeadError, HeadKind, read_head},
    route::{
        Backends, Balancing, ContextSource, Decision, Facts, GraftPolicy, HeaderPolicy, Reason, RouteTable,
        WorkloadSpec, decide,
    },
    telemetry::{
        access::{AccessRecord, Outcome},
        chain,
        live::Carried,
    },
};

/// How often a connection that waits for a variant looks whether it has something ready: few wait, and not for long.
const WAIT_LOOK: Duration = Duration::from_millis(20);

/// Serves it. Returns whether it ended in order; otherwise the caller resets the client. The record is filled in as
/// things become known, so that it tells the truth wherever this is cut off.
pub async fn serve(
    shared: &Shared,
    workload: &Workload,
    client: &Socket,
    from: SocketAddr,
    listener_port: u16,
    record: &mut AccessRecord,
) -> bool {
    // Errors of a connection are ends of it.
    match try_serve(shared, workload, client, from, listener_port, record).await {
        Ok(()) => true,
        Err((outcome, why)) => {
            record.end(outcome, why);
            false
        }
    }
}

type Ended = (Outcome, String);

async fn try_serve(
    shared: &Shared,
    workload: &Workload,
    client: &Socket,
    from: SocketAddr,
    listener_port: u16,
    record: &mut AccessRecord,
) -> Result<(), Ended> {
    let (original, ticket) =
        match shared.maps.take_original(workload.managed.netns_cookie, from, listener_port) {
            Ok(Some(original)) => {
                record.relayed_for = connect::Reason::of(original.reason.into());
                (SocketAddr::from(original.destination), shared.maps.grafts.claim(&original))
            }
            // The second loop guard: whoever connects to the listener itself wanted to go nowhere else.
            Ok(None) => return Err((Outcome::NoOriginal, "no destination was recorded for it".to_owned())),
            Err(error) => return Err((Outcome::Internal, chain(&error))),
        };
    record.wanted(original);
    // One table and one spec for the whole connection, whatever changes meanwhile.
    let (table, spec) = (shared.routes.load(), workload.managed.spec.load_full());
    let router = Router { shared, workload, client, table, spec, original, ticket };

    let mut head = BytesMut::new();
    let timeout = shared.limits.header_timeout;
    let mut reading = client;
    let read =
        read_head(&mut reading, &mut head, router.expects(), timeout).await.map_err(|e| bad_head(&e))?;
    let open = Arc::clone(record.open());
    let carried = &open.carried;
    let upstream = if read.why == HeadKind::Silent {
        let mut upstream = router.connect(read.context, &[], First::Held, record).await?;
        let word = first_word(&mut reading, &&upstream.server, &mut head, &carried.down, timeout).await;
        match word.decide("`expect_header: always`") {
            Next::Stays => {
                upstream.first.extend_from_slice(&head);
                upstream
            }
            Next::Anew(context) => router.connect(Some(context), &head, First::Sent, record).await?,
            Next::Ends(outcome, why) => {
                reset(&upstream.server);
                return Err((outcome, why));
            }
        }
    } else {
        router.connect(read.context, &head, First::Sent, record).await?
    };
    let payload = head.len() as u64;
    drop(head);
    let graft = router.graft(client, &upstream.server);

    let Upstream { server, first, sent } = upstream;
    if let Err(error) = server.send_all(&first[sent..]).await {
        reset(&server);
        return Err((Outcome::UpstreamReset, error.to_string()));
    }
    drop(first);
    carried.up.fetch_add(payload, Ordering::Relaxed);

    Tally { carried, server: &server, graft, record, orderly: false }.run(client).await
}

fn bad_head(error: &HeadError) -> Ended {
    let outcome = match error {
        HeadError::Io(_) => Outcome::ClientReset,
        HeadError::Timeout { .. } | HeadError::Truncated { .. } => Outcome::BadHeader,
    };
    (outcome, chain(error))
}

/// What one connection is routed by.
struct Router<'a> {
    shared: &'a Shared,
    workload: &'a Workload,
    client: &'a Socket,
    table: Arc<RouteTable>,
    spec: Arc<WorkloadSpec>,
    original: SocketAddr,
    /// The client's place in a graft, if it is enrolled for one.
    ticket: Option<Ticket>,
}

/// A connection to a backend.
struct Upstream {
    server: Socket,
    /// What it is told first. Header and payload that came with the client's header go in one write: one segment, as the
    /// client sent them.
    first: Vec<u8>,
    /// How much of that it was told already.
    sent: usize,
}

/// When a server is told its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// As soon as it can be.
    Sent,
    /// Not yet: the connection may turn out to be for another one.
    Held,
}

impl Router<'_> {
    /// Whether the client may begin with a header.
    fn expects(&self) -> ExpectHeader {
        match self.spec.context {
            ContextSource::None => ExpectHeader::Never,
            ContextSource::Header => {
                self.table.service_meant(&self.original).map_or(ExpectHeader::Never, |s| s.expect_header)
            }
        }
    }

    /// The graft to come, if the client is enrolled for one and the service still wants it.
    fn graft(self, client: &Socket, server: &Socket) -> Option<Graft> {
        let ticket = self.ticket?;
        let policy = self.table.service_meant(&self.original).map_or(GraftPolicy::Never, |s| s.graft);
        Graft::new(ticket, policy, client, server)
    }

    fn decide(&self, table: &RouteTable, in_header: Option<&EnvId>) -> Decision {
        decide(&Facts {
            table,
            destination: self.original,
            from_header: in_header,
            of_workload: self.spec.environment.as_ref(),
        })
    }

    /// Decides by the tables to come, until one has something ready, or something else to say. After too long: as now.
    async fn wait(&self, in_header: Option<&EnvId>) -> Result<Decision, Ended> {
        let own = self.table.service_meant(&self.original).and_then(|service| service.timeouts.variant_wait);
        let until = Instant::now() + own.unwrap_or(self.shared.limits.variant_wait);
        loop {
            let decision = self.decide(&self.shared.routes.load(), in_header);
            if decision.reason != Reason::VariantEmptyWaits || Instant::now() >= until {
                return Ok(decision);
            }
            // Nothing is read meanwhile, and a reset is told to nobody else.
            if let Poll::Ready(error) = poll_fn(|cx| Poll::Ready(self.client.poll_failed(cx))).await {
                return Err((Outcome::ClientReset, error.to_string()));
            }
            sleep(WAIT_LOOK).await;
        }
    }

    /// Decides, and connects.
    async fn connect(
        &self,
        context: Option<Context>,
        head: &[u8],
        when: First,
        record: &mut AccessRecord,
    ) -> Result<Upstream, Ended> {
        if let Some(context) = &context {
            record.carries(context);
        }
        let in_header = context.as_ref().and_then(Context::env_id);
        let mut decision = self.decide(&self.table, in_header.as_ref());
        if decision.reason == Reason::VariantEmptyWaits {
            decision = self.wait(in_header.as_ref()).await?;
        }
        let outgoing = outgoing(&decision, context, &self.spec);
        record.header = outgoing.told;
        record.dropped = outgoing.dropped;
        let (backends, why) = (decision.backends.clone(), decision.reason);
        let own = decision.service.as_ref().and_then(|service| service.timeouts.connect);
        let balancing =
            decision.service.as_ref().map_or_else(Balancing::default, |service| service.balancing);
        record.decided(decision);
        if backends == Backends::Refused {
            return Err((Outcome::Refused, format!("refused: {}", why.as_str())));
        }
        let Shared { maps, limits, turn, .. } = self.shared;
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let mut first = outgoing.header;
        first.extend_from_slice(head);
        let early = if when == First::Sent { &first[..] } else { &[] };
        let Connected { server, backend, sent } = upstream::connect(
            &self.workload.sockets,
            maps,
            backends.order(balancing, self.workload.managed.id, turn),
            early,
            self.ticket.as_ref(),
            own.unwrap_or(limits.connect_timeout),
        )
        .await
        .map_err(|error| {
            let outcome = match error {
                UpstreamError::Netns(_) => Outcome::Internal,
                UpstreamError::AllFailed { .. } | UpstreamError::None => Outcome::UpstreamFailed,
            };
            (outcome, chain(&error))
        })?;
        record.connected(backend);
        Ok(Upstream { server, first, sent })
    }
}

/// Puts the byte counts into the record and resets the server, also when the connection is cut off by a drain.
struct Tally<'a> {
    carried: &'a Carried,
    server: &'a Socket,
    graft: Option<Graft>,
    record: &'a mut AccessRecord,
    orderly: bool,
}

impl Tally<'_> {
    async fn run(mut self, client: &Socket) -> Result<(), Ended> {
        match pump::pump(client, self.server, self.carried, self.graft.as_mut()).await {
            End::Closed => {
                self.orderly = true;
                self.record.end(Outcome::Ok, None);
                Ok(())
            }
            End::Client(kind) => Err((Outcome::ClientReset, kind.to_string())),
            End::Upstream(kind) => Err((Outcome::UpstreamReset, kind.to_string())),
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.record.bytes_up = self.carried.up.load(Ordering::Relaxed);
        self.record.bytes_down = self.carried.down.load(Ordering::Relaxed);
        if let Some(graft) = &self.graft {
            graft.tell(self.record);
        }
        if !self.orderly {
            reset(self.server);
        }
    }
}

/// What is written to the server ahead of the payload.
#[derive(Debug, Default)]
struct Outgoing {
    /// Empty for none.
    header: Vec<u8>,
    told: &'static str,
    dropped: usize,
}

/// The header for the server: what the client sent, plus the workload's environment if it names none; nothing for a
/// server that is not to be told. What is no service is passed what the client sent, as it would be without picop.
fn outgoing(decision: &Decision, context: Option<Context>, spec: &WorkloadSpec) -> Outgoing {
    let told = |context: &Context, dropped: usize| Outgoing {
        header: context.wire().to_vec(),
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
