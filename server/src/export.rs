//! Sends ended spans to an OpenTelemetry collector: OTLP over HTTP, in protobuf.
//!
//! One task takes what the queue holds, waits a moment for more, and posts it, on a connection for each batch. A
//! collector that is busy or away is asked again a few times; then the batch is counted as lost. Nothing here holds up
//! an operation, and nothing runs while there are no spans. The way to the collector is not encrypted: it is on the node,
//! or whatever lies between is trusted.

use std::pin::pin;
use std::time::Duration;

use api::otlp;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Collector, TracingConfig};
use crate::metric;
use crate::sandbox::Pods;
use crate::telemetry::Tasks;
use crate::trace::{self, Kind, Span, Value};

/// Spans in one request.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// For one request, from the connection to the answer.
const REQUEST: Duration = Duration::from_secs(10);
/// Before a request is tried again; as often as there are pauses.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// For what is left when the daemon ends.
const GRACE: Duration = Duration::from_secs(2);

/// The task that sends.
#[derive(Debug, Default)]
pub(crate) struct Exporter {
    tasks: Tasks,
    stop: CancellationToken,
}

impl Exporter {
    /// Begins to make spans and to send them, if the configuration says where.
    pub(crate) fn start(pods: &Pods) -> Self {
        let exporter = Self::default();
        let node = &pods.node;
        let Some(TracingConfig { collector, per_million }) = node.config.tracing.clone() else {
            return exporter;
        };
        let Some(spans) = trace::install(per_million) else { return exporter };
        let resource = resource(&node.host.hostname);
        tracing::info!(%collector, per_million, "sending traces");
        let sender = Sender { collector, resource, away: false };
        let work = sender.serve(spans, exporter.stop.clone());
        exporter.tasks.spawn(tracing::info_span!("traces"), work);
        exporter
    }

    /// Sends what is left.
    pub(crate) async fn end(&self) {
        self.stop.cancel();
        tokio::time::timeout(GRACE, self.tasks.finish()).await.ok();
    }
}

struct Sender {
    collector: Collector,
    resource: otlp::Resource,
    /// The last batch was lost: it is said when that begins, and when it is over.
    away: bool,
}

impl Sender {
    async fn serve(mut self, mut spans: mpsc::Receiver<Span>, stop: CancellationToken) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                _ = spans.recv_many(&mut batch, BATCH) => {}
                () = stop.cancelled() => {}
            }
            let full = async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    spans.recv_many(&mut batch, room).await;
                }
            };
            tokio::select! {
                () = full => {}
                () = tokio::time::sleep(DELAY) => {}
                () = stop.cancelled() => {}
            }
            if stop.is_cancelled() {
                // The rest of it at once, and no second try: the daemon waits for it.
                while let Ok(span) = spans.try_recv() {
                    batch.push(span);
                }
                self.send(batch, &[]).await;
                return;
            }
            self.send(batch, &PAUSES).await;
        }
    }

    async fn send(&mut self, batch: Vec<Span>, pauses: &[Duration]) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len();
        let body = Bytes::from(request(&self.resource, batch).encode_to_vec());
        let mut result = post(&self.collector, body.clone()).await;
        for pause in pauses {
            if !matches!(result, Err(Refused::ForNow(_))) {
                break;
            }
            tokio::time::sleep(*pause).await;
            result = post(&self.collector, body.clone()).await;
        }
        let label = if result.is_ok() { "exported" } else { "failed" };
        metric::SPANS.of([label]).add(count as u64);
        match result {
            Ok(()) if self.away => {
                tracing::info!(collector = %self.collector, "traces arrive again");
            }
            Err(Refused::ForNow(err) | Refused::ForGood(err)) if !self.away => {
                tracing::warn!(%err, collector = %self.collector, "traces are lost");
            }
            Ok(()) | Err(_) => {}
        }
        self.away = label == "failed";
    }
}

/// Why a batch was not taken.
enum Refused {
    ForNow(String),
    ForGood(String),
}

async fn post(collector: &Collector, body: Bytes) -> Result<(), Refused> {
    match tokio::time::timeout(REQUEST, try_post(collector, body)).await {
        Ok(Ok(status)) if status.is_success() => Ok(()),
        // Those that OTLP's specification lets a client try again.
        Ok(Ok(status)) if matches!(status.as_u16(), 429 | 502..=504) => {
            Err(Refused::ForNow(status.to_string()))
        }
        Ok(Ok(status)) => Err(Refused::ForGood(status.to_string())),
        Ok(Err(err)) => Err(Refused::ForNow(err)),
        Err(_) => Err(Refused::ForNow(format!("no answer within {} s", REQUEST.as_secs()))),
    }
}

async fn try_post(collector: &Collector, body: Bytes) -> Result<StatusCode, String> {
    let text = |err: &dyn std::fmt::Display| err.to_string();
    let socket = TcpStream::connect(&collector.authority).await.map_err(|err| text(&err))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|err| text(&err))?;
    let request = Request::post(&collector.path)
        .header(HOST, &collector.authority)
        .header(CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(body))
        .map_err(|err| text(&err))?;
    // The answer's body tells nothing that its status does not; the connection goes with this future.
    let mut answer = pin!(sender.send_request(request));
    tokio::select! {
        biased;
        answer = &mut answer => return answer.map(|got| got.status()).map_err(|err| text(&err)),
        // Whatever came of it has been handed over by then.
        _ = connection => {}
    }
    answer.await.map(|answer| answer.status()).map_err(|err| text(&err))
}

fn attribute(key: &str, value: Value) -> otlp::KeyValue {
    let value = match value {
        Value::Text(text) => otlp::any_value::Value::StringValue(text),
        Value::Number(number) => otlp::any_value::Value::IntValue(number),
    };
    otlp::KeyValue { key: key.to_owned(), value: Some(otlp::AnyValue { value: Some(value) }) }
}

/// Who sends, as OpenTelemetry's conventions name it.
fn resource(hostname: &str) -> otlp::Resource {
    let attributes = vec![
        attribute("service.name", trace::text("podwrightd")),
        attribute("service.version", trace::text(env!("CARGO_PKG_VERSION"))),
        attribute("host.name", trace::text(hostname)),
        attribute("process.pid", Value::Number(std::process::id().into())),
    ];
    otlp::Resource { attributes }
}

fn request(resource: &otlp::Resource, batch: Vec<Span>) -> otlp::ExportTraceServiceRequest {
    let scope = otlp::InstrumentationScope {
        name: "podwrightd".into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let spans = batch.into_iter().map(span).collect();
    let scope_spans = vec![otlp::ScopeSpans { scope: Some(scope), spans }];
    let resource = Some(resource.clone());
    let resource_spans = vec![otlp::ResourceSpans { resource, scope_spans }];
    otlp::ExportTraceServiceRequest { resource_spans }
}

fn span(span: Span) -> otlp::Span {
    let kind = match span.kind {
        Kind::Server => otlp::span::Kind::Server,
        Kind::Internal => otlp::span::Kind::Internal,
    };
    let status =
        span.error.map(|message| otlp::Status { message, code: otlp::status::Code::Error.into() });
    otlp::Span {
        trace_id: span.context.trace.to_vec(),
        span_id: span.context.span.to_vec(),
        parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.to_vec()),
        name: span.name,
        kind: kind.into(),
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end,
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        status,
    }
}
