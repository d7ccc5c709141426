//! The way to a daemon's socket.
//!
//! What a call says of its deadline is for the server alone. tonic's own channel would time the call as well, and on
//! a busy machine be first: then nobody would see what the server says at that moment.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::codegen::http::{Request, Uri, uri};
use tonic::codegen::{Service, StdError};

/// Connects when it is first used, and again once a connection has ended.
#[derive(Debug, Clone)]
pub struct Channel(Http);

type Http = legacy::Client<Connector, Body>;
type Response = <Http as Service<Request<Body>>>::Response;
type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Channel {
    /// To the daemon at `socket`, which need not listen yet.
    pub(crate) fn new(socket: &Path) -> Self {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        Self(builder.http2_only(true).build(Connector(socket.into())))
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response;
    type Error = StdError;
    type Future = Answer<Response, StdError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut whole = std::mem::take(request.uri_mut()).into_parts();
        whole.scheme = Some(uri::Scheme::HTTP);
        whole.authority = Some(uri::Authority::from_static("localhost"));
        *request.uri_mut() = Uri::from_parts(whole).expect("a path was there");
        let answer = self.0.request(request);
        Box::pin(async move {
            answer.await.map_err(|err| match err.is_connect() {
                true => tonic::Status::unavailable(format!("{err:?}")).into(),
                false => err.into(),
            })
        })
    }
}

/// Dials the socket, whatever the address.
#[derive(Debug, Clone)]
pub struct Connector(Arc<Path>);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Answer<Self::Response, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move { UnixStream::connect(socket).await.map(TokioIo::new) })
    }
}
