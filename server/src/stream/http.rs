//! The HTTP side: one request for each connection, which takes its token and is upgraded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::channel::{Activity, messages};
use super::conversation::{self, Limits};
use super::negotiate::{self, Agreed};
use super::spdy::connection::{Reading, opened, read, write};
use super::upgrade::{self, Connection, Taken};
use super::websocket::{self, Protocol, Tunnel};
use super::{Asked, Server, forward, remote};

/// For the TLS handshake and the whole request.
const REQUEST: Duration = Duration::from_secs(15);
/// For its head.
const HEAD: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 64;
/// Of the request's head.
const MAX_HEAD: usize = 16 << 10;
/// After a connection could not be accepted: descriptors have run out, most likely.
const PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<Full<Bytes>>;

impl Server {
    /// Accepts until the server ends.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(self.pods.node.config.streaming.max_connections));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let span = tracing::info_span!("stream", %peer);
                    let (this, place) = (self.clone(), Arc::new(place));
                    self.tasks.spawn(span, async move {
                        let place_ = place.clone();
                        let served = this.clone().connection(socket, place);
                        let limited = tokio::time::timeout(REQUEST, served);
                        tokio::select! {
                            _ = limited => {}
                            () = this.stop.cancelled() => {}
                        }
                        drop(place_);
                    });
                }
                Err(err) => {
                    tracing::warn!(%err, "a stream's connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Answers one request. The session that it may begin has a task of its own and keeps the connection's `place`.
    async fn connection(self: Arc<Self>, socket: TcpStream, place: Arc<Place>) {
        let connected = async {
            Connection::settle(&socket)?;
            Ok(match &self.tls {
                Some(tls) => Connection::Tls(Box::new(tls.accept(socket).await?)),
                None => Connection::Plain(socket),
            })
        };
        let connection: std::io::Result<Connection> = connected.await;
        let connection = match connection {
            Ok(connection) => connection,
            Err(err) => return tracing::debug!(%err, "no connection"),
        };
        let service = service_fn(|request| {
            let answer = self.clone().answer(request, place.clone());
            async { Ok::<_, Infallible>(answer) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(connection), service)
            .with_upgrades()
            .await;
        if let Err(err) = served {
            tracing::debug!(%err, "a request was not served");
        }
    }

    fn answer(self: Arc<Self>, request: Request<Incoming>, place: Arc<Place>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::POST) {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST");
        }
        let path = request.uri().path().trim_start_matches('/');
        let asked = path.split_once('/').and_then(|(verb, token)| {
            let asked = self.tokens.take(token)?;
            (asked.verb() == verb).then_some(asked)
        });
        let Some(asked) = asked else {
            return refuse(StatusCode::NOT_FOUND, "no such token, or it was used or has expired");
        };
        let for_ports = matches!(asked, Asked::Forward { .. });
        let agreed = match negotiate::agree(request.headers(), for_ports) {
            Ok(agreed) => agreed,
            Err(refused) => {
                let mut answer = refuse(refused.status, refused.text);
                refused.tell(answer.headers_mut());
                return answer;
            }
        };
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        agreed.tell(answer.headers_mut());
        self.begin(request, asked, agreed, place);
        answer
    }

    /// Runs the session once the connection is upgraded.
    fn begin(
        self: Arc<Self>,
        request: Request<Incoming>,
        asked: Asked,
        agreed: Agreed,
        place: Arc<Place>,
    ) {
        let span = tracing::info_span!("session", verb = asked.verb(), protocol = agreed.name());
        let upgraded = hyper::upgrade::on(request);
        let this = self.clone();
        self.tasks.spawn(span, async move {
            let taken = upgraded.await.map_err(std::io::Error::other).and_then(upgrade::take);
            match taken {
                Ok(taken) => {
                    tracing::debug!("begins");
                    this.session(taken, asked, agreed).await;
                    tracing::debug!("is over");
                }
                Err(err) => tracing::debug!(%err, "not upgraded"),
            }
            drop(place);
        });
    }

    async fn session(&self, taken: Taken, asked: Asked, agreed: Agreed) {
        let Taken { connection, buffered, hangup } = taken;
        let config = &self.pods.node.config;
        let limits = Limits {
            hangup,
            activity: Activity::new(),
            idle: config.streaming.idle_timeout,
            gone: self.stop.child_token(),
        };
        let agreed = match agreed {
            Agreed::Spdy(protocol) => {
                let (from, to) = tokio::io::split(connection);
                return self.spdy(from, to, buffered, limits, asked, protocol).await;
            }
            Agreed::WebSocket(agreed) => agreed,
        };
        let stream = websocket::stream(connection, buffered).await;
        match (agreed.protocol, asked) {
            (Protocol::Tunnel, asked) => {
                let (from, to) = tokio::io::split(Tunnel::new(stream));
                self.spdy(from, to, Bytes::new(), limits, asked, forward::PROTOCOL).await;
            }
            (
                Protocol::Channels { version, coding, closes },
                Asked::Exec(remote) | Asked::Attach(remote),
            ) => {
                let speaks = (version, coding, closes);
                websocket::remote(stream, limits, remote, speaks, config.exec_drain).await;
            }
            (Protocol::Channels { coding, closes, .. }, Asked::Forward { sandbox, ports }) => {
                websocket::forward(stream, limits, (sandbox, ports), (coding, closes)).await;
            }
        }
    }

    async fn spdy(
        &self,
        from: impl AsyncRead + Unpin,
        to: impl AsyncWrite + Unpin,
        buffered: Bytes,
        limits: Limits,
        asked: Asked,
        protocol: &str,
    ) {
        let config = &self.pods.node.config;
        let (drain, creation) = (config.exec_drain, config.streaming.creation_timeout);
        let (sender, receiver) = messages();
        let (streams, opened) = opened();
        let reading = Reading {
            opened: streams,
            messages: sender.downgrade(),
            activity: limits.activity.clone(),
        };
        let reading = async {
            if let Err(violation) = read(from, buffered, reading).await {
                tracing::info!(%violation, "the client broke the protocol");
            }
        };
        let writing = write(to, receiver, limits.activity.clone());
        let writing = async {
            writing.await.ok();
        };
        let gone = limits.gone.clone();
        let work = async {
            let _keeps_writing = sender;
            match asked {
                Asked::Exec(remote) | Asked::Attach(remote) => {
                    let version = remote::version(protocol);
                    remote::serve(remote, version, opened, gone, (creation, drain)).await;
                }
                Asked::Forward { sandbox, .. } => {
                    forward::serve(sandbox, opened, gone, creation).await;
                }
            }
        };
        conversation::run(limits, reading, writing, work).await;
    }
}

/// A connection's part of those that are allowed.
type Place = tokio::sync::OwnedSemaphorePermit;

fn refuse(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::from(format!("{text}\n")));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    *answer.status_mut() = status;
    answer
}
