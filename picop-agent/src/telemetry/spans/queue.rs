//! From connections to the exporter: a bounded queue, and a thread that empties it. Whoever ends a span never waits.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{Span, SpanData, SpanExporter as _, SpanProcessor},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::SpansError;

/// What became of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Taken by the receiver.
    pub exported: u64,
    /// There was no room for them.
    pub dropped: u64,
    /// The receiver did not take them.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counted {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// Asked of the thread.
enum Ask {
    Span(Box<SpanData>),
    /// Send what there is, and say when that is done.
    Flush(oneshot::Sender<()>),
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    ask_tx: mpsc::Sender<Ask>,
    counted: Arc<Counted>,
}

/// How much at once, and how often: the variables `OTEL_BSP_*`, with the specification's defaults.
#[derive(Clone, Copy, Debug)]
struct Batches {
    queue: usize,
    most: usize,
    delay: Duration,
    patience: Duration,
}

impl Batches {
    fn of_variables() -> Self {
        let number = |name: &str, default: u64| {
            let set = env::var(name).ok().and_then(|value| value.parse().ok());
            set.filter(|value| *value > 0).unwrap_or(default)
        };
        let size = |name: &str, default| usize::try_from(number(name, default)).unwrap_or(usize::MAX);
        let queue = size("OTEL_BSP_MAX_QUEUE_SIZE", 2048).min(1 << 20);
        Self {
            queue,
            most: size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5000)),
            patience: Duration::from_millis(number("OTEL_BSP_EXPORT_TIMEOUT", 30_000)),
        }
    }
}

impl Queue {
    /// Starts the thread. The exporter is made there, where its connections live.
    pub fn start(resource: &Resource) -> Result<Self, SpansError> {
        let batches = Batches::of_variables();
        let (ask_tx, ask_rx) = mpsc::channel(batches.queue);
        let counted = Arc::new(Counted::default());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SpansError::Thread)?;
        let mut exporter = {
            let _inside = runtime.enter();
            exporter()?
        };
        exporter.set_resource(resource);
        let sender = Sender { exporter, batches, counted: Arc::clone(&counted) };
        thread::Builder::new()
            .name("picop-traces".into())
            .spawn(move || runtime.block_on(sender.run(ask_rx)))
            .map_err(SpansError::Thread)?;
        Ok(Self { ask_tx, counted })
    }

    /// Where spans come from.
    pub fn processor(&self) -> Processor {
        Processor { ask_tx: self.ask_tx.clone(), counted: Arc::clone(&self.counted) }
    }

    /// What became of spans so far.
    pub fn stats(&self) -> Stats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            exported: of(&self.counted.exported),
            dropped: of(&self.counted.dropped),
            failed: of(&self.counted.failed),
        }
    }
}

fn exporter() -> Result<SpanExporter, SpansError> {
    let name = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]
        .into_iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
    // What most collectors listen for, and what the SDKs of most languages default to.
    match name.as_deref().unwrap_or("http/protobuf") {
        "grpc" => Ok(SpanExporter::builder().with_tonic().build()?),
        "http/protobuf" => {
            Ok(SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build()?)
        }
        other => Err(SpansError::Protocol(other.to_owned())),
    }
}

/// Puts ended spans into the queue.
#[derive(Debug)]
pub struct Processor {
    ask_tx: mpsc::Sender<Ask>,
    counted: Arc<Counted>,
}

impl SpanProcessor for Processor {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.ask_tx.try_send(Ask::Span(Box::new(span))).is_err() {
            self.counted.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.shutdown_with_timeout(Duration::from_secs(5))
    }

    /// Blocks the caller: not for a thread that carries connections.
    fn shutdown_with_timeout(&self, patience: Duration) -> OTelSdkResult {
        let (done_tx, mut done_rx) = oneshot::channel();
        let deadline = std::time::Instant::now() + patience;
        let mut ask = Ask::Flush(done_tx);
        loop {
            match self.ask_tx.try_send(ask) {
                Ok(()) => break,
                Err(mpsc::error::TrySendError::Full(back)) => ask = back,
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(OTelSdkError::AlreadyShutdown),
            }
            if std::time::Instant::now() > deadline {
                return Err(OTelSdkError::Timeout(patience));
            }
            thread::sleep(Duration::from_millis(5));
        }
        while std::time::Instant::now() < deadline {
            match done_rx.try_recv() {
                Ok(()) => return Ok(()),
                Err(oneshot::error::TryRecvError::Closed) => return Err(OTelSdkError::AlreadyShutdown),
                Err(oneshot::error::TryRecvError::Empty) => thread::sleep(Duration::from_millis(5)),
            }
        }
        Err(OTelSdkError::Timeout(patience))
    }
}

/// The thread's work.
struct Sender {
    exporter: SpanExporter,
    batches: Batches,
    counted: Arc<Counted>,
}

impl Sender {
    async fn run(self, mut ask_rx: mpsc::Receiver<Ask>) {
        let mut batch = Vec::new();
        let mut was_failing = false;
        while let Some(ask) = ask_rx.recv().await {
            let deadline = Instant::now() + self.batches.delay;
            let mut flushed = Self::collect(ask, &mut batch);
            while flushed.is_none() && batch.len() < self.batches.most {
                match timeout_at(deadline, ask_rx.recv()).await {
                    Ok(Some(ask)) => flushed = Self::collect(ask, &mut batch),
                    Ok(None) | Err(_) => break,
                }
            }
            self.send(std::mem::take(&mut batch), &mut was_failing).await;
            if flushed.is_some_and(|done_tx| done_tx.send(()).is_err()) {
                tracing::debug!("whoever waited for the last traces has given up");
            }
        }
    }

    /// Takes a span; or says who wants to know when all are sent.
    fn collect(ask: Ask, batch: &mut Vec<SpanData>) -> Option<oneshot::Sender<()>> {
        match ask {
            Ask::Span(span) => {
                batch.push(*span);
                None
            }
            Ask::Flush(done_tx) => Some(done_tx),
        }
    }

    async fn send(&self, batch: Vec<SpanData>, was_failing: &mut bool) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        let why = match timeout(self.batches.patience, self.exporter.export(batch)).await {
            Ok(Ok(())) => {
                self.counted.exported.fetch_add(count, Ordering::Relaxed);
                if std::mem::take(was_failing) {
                    tracing::info!("traces are received again");
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.batches.patience),
        };
        self.counted.failed.fetch_add(count, Ordering::Relaxed);
        // Once, not for each batch: a receiver may be gone for days.
        if !std::mem::replace(was_failing, true) {
            tracing::warn!(error = why, "traces are not received; connections go on, and these are dropped");
        }
    }
}
