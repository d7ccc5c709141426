//! Every call is counted, by service, method and status, and for how long it took, and traced where that is wanted.
//!
//! A call ends with its status, which stands in the headers of an answer that is nothing else, and behind the last
//! message of any other. One whose caller goes away before ends as `Cancelled`.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use tonic::Code;
use tower::{Layer, Service};

use crate::metric;
use crate::trace::{self, Open};

/// Puts [`Measured`] around a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure;

impl<S> Layer<S> for Measure {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured(inner)
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub(super) struct Measured<S>(S);

impl<S, I, O> Service<Request<I>> for Measured<S>
where
    S: Service<Request<I>, Response = Response<O>, Future: Send + 'static>,
{
    type Response = Response<Answer<O>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let mut call = Call::begin(request.uri().path(), request.headers());
        let answering = self.0.call(request);
        Box::pin(async move {
            let response = if trace::is_on() {
                let span = call.span.as_ref().map(Open::context);
                trace::within(span, answering).await?
            } else {
                answering.await?
            };
            call.read(response.headers());
            Ok(response.map(|body| Answer { body, call }))
        })
    }
}

/// A call under way. Counted when it is dropped.
#[derive(Debug)]
struct Call {
    service: Box<str>,
    method: Box<str>,
    began: Instant,
    code: Option<Code>,
    span: Option<Open>,
}

impl Call {
    fn begin(path: &str, headers: &HeaderMap) -> Self {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let parent = headers.get("traceparent").and_then(|said| said.to_str().ok());
        Self {
            service: service.into(),
            method: method.into(),
            began: Instant::now(),
            code: None,
            span: trace::call(parent),
        }
    }

    /// As OpenTelemetry's conventions for RPCs name it.
    fn trace(&self, span: &Open, code: Code) {
        let attributes = vec![
            ("rpc.system", trace::text("grpc")),
            ("rpc.service", trace::text(&self.service)),
            ("rpc.method", trace::text(&self.method)),
            ("rpc.grpc.status_code", trace::Value::Number(i32::from(code).into())),
        ];
        // Of a server's statuses those that say that something is wrong with the server.
        let wrong = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        let error: Option<&dyn std::fmt::Display> = if wrong { Some(&code) } else { None };
        span.end(&format!("{}/{}", self.service, self.method), attributes, error);
    }

    /// The status, where it stands in these.
    fn read(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (code, took) = (self.code.unwrap_or(Code::Cancelled), self.began.elapsed());
        // A method that nobody serves has any name that a stranger likes.
        let labels = if code == Code::Unimplemented {
            ["other", "other"]
        } else {
            [&*self.service, &*self.method]
        };
        let [service, method] = labels;
        // Its name, as gRPC's documentation spells it.
        metric::RPCS.of([service, method, &format!("{code:?}")]).add(1);
        metric::RPC_SECONDS.of(labels).took(took);
        if let Some(span) = &self.span {
            self.trace(span, code);
        }
    }
}

/// The body of an answer, looked through for its status.
#[derive(Debug)]
pub(super) struct Answer<O> {
    body: O,
    call: Call,
}

impl<O: Body + Unpin> Body for Answer<O> {
    type Data = O::Data;
    type Error = O::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<O::Data>, O::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.read(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty, StreamBody};

    use super::*;

    /// How often a method ended so.
    fn count(method: &str, code: &str) -> u64 {
        metric::RPCS.of(["t.Test", method, code]).value()
    }

    async fn call<O>(method: &str, response: Response<O>) -> Response<Answer<O>>
    where
        O: Send + 'static,
    {
        let mut response = Some(response);
        let inner = tower::service_fn(move |_: Request<()>| {
            let response = response.take();
            async move { response.ok_or(()) }
        });
        let request = Request::builder().uri(format!("/t.Test/{method}")).body(()).unwrap();
        Measure.layer(inner).call(request).await.unwrap()
    }

    fn status(code: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", code.parse().unwrap());
        headers
    }

    #[tokio::test]
    async fn a_call_is_counted_once_with_the_status_it_ended_with() {
        let mut refused = Response::new(Empty::<bytes::Bytes>::new());
        refused.headers_mut().extend(status("5"));
        drop(call("Refused", refused).await);
        assert_eq!(count("Refused", "NotFound"), 1);

        let frames = |code| {
            let frame = Ok::<_, ()>(Frame::<bytes::Bytes>::trailers(status(code)));
            StreamBody::new(futures_util::stream::iter([frame]))
        };
        let answer = call("Answered", Response::new(frames("0"))).await;
        assert_eq!(count("Answered", "Ok"), 0, "it has not ended");
        answer.into_body().collect().await.unwrap();
        assert_eq!(count("Answered", "Ok"), 1);

        drop(call("Left", Response::new(frames("0"))).await);
        assert_eq!((count("Left", "Cancelled"), count("Left", "Ok")), (1, 0));
    }
}
