//! Traces: which call led to which operation, and how long each stage of it took.
//!
//! A span belongs to a trace and has a parent: a call's is the caller's, told by `traceparent`; an operation's is the
//! call, or the operation, that began it; a stage's is its operation. What the caller samples is sampled, and what
//! nobody asked for by the configured share. Ended spans wait in a queue of bounded length for `export`; what finds no
//! room is counted and forgotten. Without a configured collector there are no spans, and asking for one is a load.

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use crate::{metric, recorder};

/// Ended spans that wait to be sent: some seconds of a busy node's.
const QUEUE: usize = 4096;
/// Longest text of an attribute or an error, in bytes.
const MAX_TEXT: usize = 1024;

/// Which span of which trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    pub trace: [u8; 16],
    pub span: [u8; 8],
}

/// Whose work a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A call from outside.
    Server,
    Internal,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
}

/// A span that has not ended.
#[derive(Debug)]
pub(crate) struct Open {
    context: Context,
    /// `None`: the first of its trace.
    parent: Option<[u8; 8]>,
    kind: Kind,
    began: Instant,
    /// The same in nanoseconds since 1970.
    at: u64,
}

/// A span that has ended.
#[derive(Debug)]
pub(crate) struct Span {
    pub context: Context,
    pub parent: Option<[u8; 8]>,
    pub name: String,
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub attributes: Vec<(&'static str, Value)>,
    pub error: Option<String>,
}

struct Tracer {
    per_million: u64,
    queue: mpsc::Sender<Span>,
}

static TRACER: OnceLock<Tracer> = OnceLock::new();

tokio::task_local! {
    /// The span within which a task works; `None`: in none, since its trace is not sampled.
    static CURRENT: Option<Context>;
}

/// Begins to make spans, of so many in a million traces that nobody else decides on. They come out of what is returned;
/// `None` if they already come out of another.
pub(crate) fn install(per_million: u64) -> Option<mpsc::Receiver<Span>> {
    let (queue, spans) = mpsc::channel(QUEUE);
    TRACER.set(Tracer { per_million, queue }).ok()?;
    Some(spans)
}

/// Whether there are spans at all.
pub(crate) fn is_on() -> bool {
    TRACER.get().is_some()
}

/// Does `work` within that span, or in an unsampled trace.
pub(crate) fn within<F: Future>(
    span: Option<Context>,
    work: F,
) -> impl Future<Output = F::Output> + use<F> {
    CURRENT.scope(span, work)
}

/// The span of a call whose caller said this in `traceparent`; `None` where it is not sampled.
pub(crate) fn call(traceparent: Option<&str>) -> Option<Open> {
    let tracer = TRACER.get()?;
    match traceparent.and_then(parse) {
        Some((_, Sampled::No)) => None,
        Some((parent, Sampled::Yes)) => Some(Open::begin(Some(parent), Kind::Server)),
        None => tracer.root(Kind::Server),
    }
}

/// The span of work that begins here: below that of the work around it, if there is such work and it is traced, else
/// below the call that this task serves.
pub(crate) fn work(outer: Option<Option<Context>>) -> Option<Open> {
    let tracer = TRACER.get()?;
    let here = || CURRENT.try_with(|current| *current).ok();
    match outer.or_else(here) {
        Some(parent) => parent.map(|parent| Open::begin(Some(parent), Kind::Internal)),
        None => tracer.root(Kind::Internal),
    }
}

impl Tracer {
    fn root(&self, kind: Kind) -> Option<Open> {
        let open = Open::begin(None, kind);
        let mut low = [0; 8];
        low.copy_from_slice(&open.context.trace[8..]);
        (u64::from_be_bytes(low) % 1_000_000 < self.per_million).then_some(open)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sampled {
    Yes,
    No,
}

/// W3C's header: `version-trace-parent-flags`, all in lower-case hexadecimal digits. Later versions may have more.
fn parse(text: &str) -> Option<(Context, Sampled)> {
    let mut parts = text.trim().split('-');
    let [version] = bytes::<1>(parts.next()?)?;
    let trace = bytes::<16>(parts.next()?)?;
    let span = bytes::<8>(parts.next()?)?;
    let [flags] = bytes::<1>(parts.next()?)?;
    let whole = version != 0xff && (version != 0 || parts.next().is_none());
    let named = trace != [0; 16] && span != [0; 8];
    let sampled = if flags & 1 == 1 { Sampled::Yes } else { Sampled::No };
    (whole && named).then_some((Context { trace, span }, sampled))
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if hex.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Numbers that nothing else has. A kernel that gives none gives zeros, which collectors refuse.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).ok();
    bytes
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Open {
    fn begin(parent: Option<Context>, kind: Kind) -> Self {
        let trace = parent.map_or_else(random, |parent| parent.trace);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let context = Context { trace, span: random() };
        let parent = parent.map(|parent| parent.span);
        Self { context, parent, kind, began: Instant::now(), at: nanoseconds(wall) }
    }

    pub(crate) fn context(&self) -> Context {
        self.context
    }

    /// When a moment was that the clock of this process told.
    fn wall(&self, moment: Instant) -> u64 {
        self.at.saturating_add(nanoseconds(moment.saturating_duration_since(self.began)))
    }

    /// A part of it, from then until now.
    pub(crate) fn part(&self, name: &str, since: Instant) {
        let context = Context { trace: self.context.trace, span: random() };
        finish(Span {
            context,
            parent: Some(self.context.span),
            name: name.to_owned(),
            kind: Kind::Internal,
            start: self.wall(since),
            end: self.wall(Instant::now()),
            attributes: Vec::new(),
            error: None,
        });
    }

    /// It ends.
    pub(crate) fn end(
        &self,
        name: &str,
        attributes: Vec<(&'static str, Value)>,
        error: Option<&dyn Display>,
    ) {
        finish(Span {
            context: self.context,
            parent: self.parent,
            name: name.to_owned(),
            kind: self.kind,
            start: self.at,
            end: self.wall(Instant::now()),
            attributes,
            error: error.map(|error| clipped(error.to_string())),
        });
    }
}

/// An attribute's text.
pub(crate) fn text(value: impl Display) -> Value {
    Value::Text(clipped(value.to_string()))
}

fn clipped(mut text: String) -> String {
    text.truncate(recorder::clip(&text, MAX_TEXT).len());
    text
}

fn finish(span: Span) {
    let Some(tracer) = TRACER.get() else { return };
    if tracer.queue.try_send(span).is_err() {
        metric::SPANS.of(["dropped"]).add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_say_is_read_and_what_is_no_traceparent_is_not() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (context, sampled) = parse(good).unwrap();
        assert_eq!((context.trace[0], context.trace[15], context.span[7]), (0x0a, 0x9c, 0x31));
        assert_eq!(sampled, Sampled::Yes);
        assert_eq!(parse(&good.replace("-01", "-02")).unwrap().1, Sampled::No);
        assert!(parse(&good.replace("00-", "cc-").replace("-01", "-01-more")).is_some());
        for wrong in [
            "",
            "00",
            &good.replace("00-", "ff-"),
            &good.replace("-01", "-01-more"),
            &good.replace("-01", "-1"),
            &good.replace('a', "A"),
            &good.replace("b7ad6b7169203331", "0000000000000000"),
            &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    /// One test, since there is one tracer in a process.
    #[tokio::test]
    async fn parents_are_those_who_asked_and_a_full_queue_drops() {
        let mut spans = install(1_000_000).unwrap();
        assert!(install(0).is_none());
        let said = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";
        let call = call(Some(&format!("{said}1"))).unwrap();
        let inner = within(Some(call.context()), async { work(None).unwrap() }).await;
        inner.part("stage", Instant::now());
        let deeper = work(Some(Some(inner.context()))).unwrap();
        deeper.end("deeper", vec![("what", text("x".repeat(2 * MAX_TEXT)))], Some(&"broke"));
        let unsampled = super::call(Some(&format!("{said}0")));
        assert!(unsampled.is_none());
        assert!(within(None, async { work(None) }).await.is_none());
        // Operations of other tests may be traced by now.
        let mut next = || loop {
            let span = spans.try_recv().unwrap();
            if span.context.trace == call.context().trace {
                return span;
            }
        };
        let stage = next();
        assert_eq!((stage.name.as_str(), stage.parent), ("stage", Some(inner.context().span)));
        assert!(stage.start >= inner.at && stage.end >= stage.start);
        let deeper = next();
        assert_eq!(deeper.parent, Some(inner.context().span));
        assert_eq!(deeper.error.as_deref(), Some("broke"));
        assert_eq!(deeper.attributes, [("what", Value::Text("x".repeat(MAX_TEXT)))]);
        assert_eq!(inner.parent, Some(call.context().span));
        let before = metric::SPANS.of(["dropped"]).value();
        (0..QUEUE + 5).for_each(|_| inner.part("many", Instant::now()));
        assert!(metric::SPANS.of(["dropped"]).value() >= before + 5);
    }
}
