//! A session with a command or a container: WebSocket channels on one side, this terminal on the other.

use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::exec::exit_code;
use crate::tls::Tls;

/// The channels of version 5, which can end one at a time.
pub(crate) const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// What follows is a channel that has ended.
pub(crate) const CLOSE: u8 = 255;
/// How much is read from standard input at a time, and how many reads wait to be sent.
const READ: usize = 32 << 10;
const READS: usize = 4;

/// A connection to the streaming server.
pub(crate) type Stream = WebSocketStream<Box<dyn Bytes>>;

/// Bytes both ways, plain or under TLS.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Dials the URL that the daemon has answered.
pub(crate) async fn dial(tls: &Tls, url: &str) -> anyhow::Result<Stream> {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        Some((scheme, rest.split('/').next()?.parse::<SocketAddr>().ok()?))
    });
    let (scheme, address) = parts.with_context(|| format!("podwrightd answered {url:?}"))?;
    let socket = TcpStream::connect(address).await;
    let socket =
        socket.with_context(|| format!("connecting to podwrightd's streams at {address}"))?;
    socket.set_nodelay(true)?;
    let socket: Box<dyn Bytes> = match scheme {
        "https" => Box::new(tls.connect(socket, address.ip()).await?),
        _ => Box::new(socket),
    };
    let mut request = format!("ws{}", url.trim_start_matches("http")).into_client_request()?;
    let protocol = HeaderValue::from_static(PROTOCOL);
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    let (stream, _) = tokio_tungstenite::client_async(request, socket).await?;
    Ok(stream)
}

/// Raw mode of the terminal on standard input, for as long as this lives, a panic included.
struct Raw(Termios);

impl Raw {
    fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Runs the session to its end, and exits as the command did.
pub(crate) async fn run(tls: &Tls, url: &str, stdin: bool, tty: bool) -> anyhow::Result<ExitCode> {
    if tty && stdin && !std::io::stdin().is_terminal() {
        bail!("standard input is not a terminal: leave out -t");
    }
    let stream = dial(tls, url).await?;
    let raw = (tty && stdin).then(Raw::begin).transpose()?;
    let typed = stdin.then(|| read_all(std::io::stdin()));
    let carried = carry(stream, typed, &mut std::io::stdout(), tty).await;
    drop(raw);
    end(&carried?)
}

/// Runs a session without a terminal between a reader and a writer; what has no writer goes to standard output.
pub(crate) async fn pipe(
    tls: &Tls,
    url: &str,
    input: Option<Box<dyn Read + Send>>,
    output: Option<Box<dyn Write + Send>>,
) -> anyhow::Result<ExitCode> {
    let stream = dial(tls, url).await?;
    let mut output = output.unwrap_or_else(|| Box::new(std::io::stdout()));
    end(&carry(stream, input.map(read_all), &mut output, false).await?)
}

/// Carries bytes both ways until the server closes; what the error channel said.
async fn carry(
    stream: Stream,
    mut typed: Option<mpsc::Receiver<Vec<u8>>>,
    out: &mut (impl Write + ?Sized),
    tty: bool,
) -> anyhow::Result<Vec<u8>> {
    let (mut to, mut from) = stream.split();
    let mut resized = signal(SignalKind::window_change())?;
    let (mut ended, mut hung_up) =
        (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    // Beside the reading: a command that waits for its output to be read takes no input meanwhile.
    let up = async {
        let mut message = size(tty);
        loop {
            if let Some(bytes) = message.take() {
                // The server may have closed already; what it said is read still.
                let _ = to.send(Message::Binary(bytes.into())).await;
            }
            message = tokio::select! {
                bytes = next(&mut typed) => Some(match bytes {
                    Some(bytes) => [&[STDIN], &bytes[..]].concat(),
                    None => {
                        typed = None;
                        vec![CLOSE, STDIN]
                    }
                }),
                _ = resized.recv() => size(tty),
            };
        }
    };
    let down = async {
        let mut status = Vec::new();
        loop {
            match from.next().await {
                Some(Ok(Message::Binary(bytes))) => show(&bytes, out, &mut status)?,
                Some(Ok(Message::Close(_))) | None => return Ok(status),
                Some(Ok(_)) => {}
                // Some servers close without saying so.
                Some(Err(_)) if !status.is_empty() => return Ok(status),
                Some(Err(error)) => return Err(error).context("the session broke"),
            }
        }
    };
    tokio::select! {
        status = down => status,
        () = up => unreachable!("it goes on until the session is over"),
        _ = ended.recv() => bail!("ended by a signal"),
        _ = hung_up.recv() => bail!("the terminal has gone"),
    }
}

fn show(
    message: &[u8],
    out: &mut (impl Write + ?Sized),
    status: &mut Vec<u8>,
) -> std::io::Result<()> {
    let Some((channel, bytes)) = message.split_first() else { return Ok(()) };
    match *channel {
        STDOUT => {
            out.write_all(bytes)?;
            out.flush()
        }
        STDERR => std::io::stderr().lock().write_all(bytes),
        ERROR => {
            status.extend_from_slice(bytes);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Reads on a thread of its own: nothing else can wait for standard input and be given up.
fn read_all(mut reader: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (to, from) = mpsc::channel(READS);
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            if to.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    from
}

async fn next(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match typed {
        Some(typed) => typed.recv().await,
        None => std::future::pending().await,
    }
}

/// The message that tells the terminal's size, where there is a terminal.
fn size(tty: bool) -> Option<Vec<u8>> {
    let size = tty.then(|| tcgetwinsize(std::io::stdout()).ok()).flatten()?;
    let text = serde_json::json!({"Width": size.ws_col, "Height": size.ws_row}).to_string();
    Some([&[RESIZE], text.as_bytes()].concat())
}

/// The exit code that a status tells of.
fn end(status: &[u8]) -> anyhow::Result<ExitCode> {
    let status: serde_json::Value = serde_json::from_slice(status)
        .map_err(|_| anyhow!("the session ended without saying how"))?;
    if status["status"] == "Success" {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code = causes
        .filter(|cause| cause["reason"] == "ExitCode")
        .find_map(|cause| cause["message"].as_str()?.parse().ok());
    match code {
        Some(code) => Ok(exit_code(code)),
        None => bail!("{}", status["message"].as_str().unwrap_or("the session failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_taken_from_the_status() {
        let code = |status: &str| end(status.as_bytes()).map(|code| format!("{code:?}"));
        let of = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(r#"{"status":"Success"}"#).unwrap(), of(0));
        let exited =
            r#"{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(code(exited).unwrap(), of(7));
        let failed = code(r#"{"status":"Failure","message":"no such program"}"#);
        assert_eq!(failed.unwrap_err().to_string(), "no such program");
        assert!(code("").is_err());
    }
}
