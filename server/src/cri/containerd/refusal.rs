//! What containerd serves and we do not is refused with a word that helps: changing anything, and whole services.
//!
//! A layer above all services, since what is not served has no handler that could say so.

use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// What containerd's services begin with, and nobody else's.
const PREFIX: &str = "/containerd.";
/// After the call's name.
const WORD: &str = "is not served: podwright shows containers and images by containerd's interface, \
    and changes them by CRI alone (podwright, crictl)";

/// Puts the word into bare refusals.
#[derive(Debug, Clone, Copy)]
pub(in crate::cri) struct Refusal;

impl<S> Layer<S> for Refusal {
    type Service = Refusing<S>;

    fn layer(&self, inner: S) -> Refusing<S> {
        Refusing(inner)
    }
}

/// What [`Refusal`] makes of a service.
#[derive(Debug, Clone)]
pub(in crate::cri) struct Refusing<S>(S);

impl<S> Service<http::Request<Body>> for Refusing<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = request.uri().path().to_owned();
        let answer = self.0.call(request);
        if !call.starts_with(PREFIX) {
            return Either::Left(answer);
        }
        Either::Right(answer.map(move |answer| answer.map(|answer| told(answer, &call))).boxed())
    }
}

fn told(answer: http::Response<Body>, call: &str) -> http::Response<Body> {
    let is_bare = Status::from_header_map(answer.headers())
        .is_some_and(|status| status.code() == Code::Unimplemented && status.message().is_empty());
    match is_bare {
        true => Status::unimplemented(format!("{} {WORD}", &call[1..])).into_http(),
        false => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(path: &'static str, answer: Status) -> Option<Status> {
        let inner = tower::service_fn(move |_: http::Request<Body>| {
            let answer = answer.clone().into_http();
            async move { Ok::<http::Response<Body>, std::convert::Infallible>(answer) }
        });
        let request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = Refusal.layer(inner).call(request).await.unwrap();
        Status::from_header_map(answer.headers())
    }

    #[tokio::test]
    async fn a_bare_refusal_of_containerds_gets_the_word() {
        let bare = || Status::unimplemented("");
        let told = ask("/containerd.services.leases.v1.Leases/Create", bare()).await.unwrap();
        assert_eq!(told.code(), Code::Unimplemented);
        assert!(
            told.message().starts_with("containerd.services.leases.v1.Leases/Create is not served")
        );
        let other = ask("/runtime.v1.RuntimeService/CheckpointContainer", bare()).await.unwrap();
        assert_eq!((other.code(), other.message()), (Code::Unimplemented, ""));
        let own = ask("/containerd.x/Get", Status::unimplemented("no")).await.unwrap();
        assert_eq!(own.message(), "no");
        let found = ask("/containerd.x/Get", Status::not_found("")).await.unwrap();
        assert_eq!((found.code(), found.message()), (Code::NotFound, ""));
    }
}
