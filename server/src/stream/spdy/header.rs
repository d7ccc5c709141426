//! Header blocks: name and value pairs in one zlib stream for each direction of a connection.

use std::sync::OnceLock;

use flate2::{Decompress, FlushDecompress, Status};

use super::frame::Violation;

/// Of one block once it is inflated; clients need a hundred bytes.
const MAX_INFLATED: usize = 64 << 10;
/// Pairs in one block.
const MAX_PAIRS: usize = 128;
/// How much is inflated at a time.
const STEP: usize = 4 << 10;

/// The words of SPDY/3's dictionary, each of which stands there after its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
    accept-language accept-ranges age allow authorization cache-control connection content-base \
    content-encoding content-language content-length content-location content-md5 content-range content-type \
    date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since \
    last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after \
    server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status \
    200_OK version HTTP/1.1 url public set-cookie keep-alive origin";
/// What follows them.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
    403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
    text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// SPDY/3's dictionary (draft 3, section 2.6.10.1).
pub(crate) fn dictionary() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut bytes = Vec::new();
        for word in WORDS.split_whitespace() {
            let word = word.replace('_', " ");
            bytes.extend(u32::try_from(word.len()).unwrap_or(0).to_be_bytes());
            bytes.extend(word.as_bytes());
        }
        bytes.extend(TAIL.as_bytes());
        bytes
    })
}

/// The headers of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of a header, whose name is lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        value.split('\0').next()
    }
}

/// What the peer's header blocks are read with. The window is made with the first block.
#[derive(Debug, Default)]
pub(super) struct Inflater(Option<Decompress>);

impl Inflater {
    /// The headers of the next block of the connection.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, Violation> {
        let plain = self.inflate(block)?;
        parse(&plain).ok_or(Violation("malformed headers"))
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Violation> {
        let inflate = self.0.get_or_insert_with(|| Decompress::new(true));
        let mut plain = Vec::new();
        let mut step = [0; STEP];
        loop {
            let (read, written) = (inflate.total_in(), inflate.total_out());
            let outcome = inflate.decompress(block, &mut step, FlushDecompress::Sync);
            let read = usize::try_from(inflate.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(inflate.total_out() - written).unwrap_or(usize::MAX);
            block = &block[read.min(block.len())..];
            plain.extend_from_slice(&step[..written.min(STEP)]);
            if plain.len() > MAX_INFLATED {
                return Err(Violation("headers too large"));
            }
            match outcome {
                Ok(Status::Ok | Status::BufError) if read > 0 || written > 0 => {}
                Ok(Status::Ok | Status::BufError) if block.is_empty() => return Ok(plain),
                // A stream that has ended has no room for the next block.
                Ok(_) => return Err(Violation("headers that end their compression")),
                Err(err) => {
                    err.needs_dictionary().ok_or(Violation("headers that are no zlib stream"))?;
                    inflate
                        .set_dictionary(dictionary())
                        .map_err(|_| Violation("headers with another dictionary"))?;
                }
            }
        }
    }
}

fn parse(plain: &[u8]) -> Option<Headers> {
    let mut rest = plain;
    let pairs = number(&mut rest)?;
    if pairs > MAX_PAIRS {
        return None;
    }
    let headers = (0..pairs)
        .map(|_| Some((text(&mut rest)?.to_ascii_lowercase(), text(&mut rest)?)))
        .collect::<Option<_>>()?;
    rest.is_empty().then_some(Headers(headers))
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*number)).ok()
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = number(rest)?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

/// Our own header blocks, which are all empty: stored as they are, so that no compressor has to be kept.
#[derive(Debug, Default)]
pub(super) struct Deflater {
    begun: bool,
}

impl Deflater {
    /// The next block of the connection, without headers in it.
    pub(super) fn empty(&mut self) -> Vec<u8> {
        // zlib: 32 KiB window, no dictionary; then deflate's stored block (RFC 1951, 3.2.4) of four zeroes.
        const ZLIB: [u8; 2] = [0x78, 0x01];
        const STORED: [u8; 9] = [0, 4, 0, !4, !0, 0, 0, 0, 0];
        // An empty one, as a flush of zlib's leaves it: Go's reader hands out what was before it only then.
        const FLUSH: [u8; 5] = [0, 0, 0, !0, !0];
        let begin: &[u8] = if std::mem::replace(&mut self.begun, true) { &[] } else { &ZLIB };
        [begin, &STORED, &FLUSH].concat()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    /// As zlib's own users write blocks.
    pub(crate) struct Writer(Compress);

    impl Writer {
        pub(crate) fn new() -> Self {
            let mut deflate = Compress::new(Compression::best(), true);
            deflate.set_dictionary(dictionary()).unwrap();
            Self(deflate)
        }

        pub(crate) fn block(&mut self, pairs: &[(&str, &str)]) -> Vec<u8> {
            let length = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
            let mut plain = length(pairs.len()).to_vec();
            for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
                plain.extend(length(text.len()));
                plain.extend(text.as_bytes());
            }
            self.compress(&plain)
        }

        pub(crate) fn compress(&mut self, plain: &[u8]) -> Vec<u8> {
            let mut out = Vec::with_capacity(plain.len() + 1024);
            self.0.compress_vec(plain, &mut out, FlushCompress::Sync).unwrap();
            out
        }
    }

    #[test]
    fn the_dictionary_is_the_one_that_everybody_has() {
        assert_eq!(dictionary().len(), 1423);
        // Its Adler-32, as it stands in the third to sixth byte of every SPDY/3 connection's first headers.
        let mut writer = Writer::new();
        assert_eq!(writer.block(&[])[..6], [0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn blocks_of_one_connection_share_their_window() {
        let (mut writer, mut inflater) = (Writer::new(), Inflater::default());
        let first = writer.block(&[("Streamtype", "error"), ("port", "8080"), ("requestid", "0")]);
        let second = writer.block(&[("streamtype", "data"), ("port", "8080"), ("requestid", "0")]);
        assert!(second.len() < first.len());
        let first = inflater.read(&first).unwrap();
        assert_eq!((first.get("streamtype"), first.get("port")), (Some("error"), Some("8080")));
        assert_eq!(inflater.read(&second).unwrap().get("streamtype"), Some("data"));
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        let (mut writer, mut inflater) = (Writer::new(), Inflater::default());
        let bomb = writer.compress(&vec![b'a'; 8 << 20]);
        assert!(bomb.len() < 64 << 10);
        assert_eq!(inflater.read(&bomb), Err(Violation("headers too large")));
        let many = u32::try_from(MAX_PAIRS + 1).unwrap().to_be_bytes();
        let block = Writer::new().compress(&[&many[..], &vec![0; 8 * (MAX_PAIRS + 1)]].concat());
        assert!(Inflater::default().read(&block).is_err());
    }

    #[test]
    fn what_we_write_reads_as_no_headers() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        for _ in 0..3 {
            let block = deflater.empty();
            assert!(block.ends_with(&[0, 0, 0xff, 0xff]), "it ends as zlib's sync flush does");
            assert_eq!(inflater.read(&block).unwrap(), Headers::default());
        }
    }

    proptest! {
        #[test]
        fn headers_survive(pairs in proptest::collection::vec(("[a-z-]{1,20}", ".{0,40}"), 0..20)) {
            let given: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            let read = Inflater::default().read(&Writer::new().block(&given)).unwrap();
            prop_assert_eq!(read, Headers(pairs));
        }

        #[test]
        fn no_bytes_confuse_it(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..4)) {
            let mut inflater = Inflater::default();
            for block in blocks {
                let _ = inflater.read(&block);
            }
        }

        #[test]
        fn no_plain_text_confuses_it(plain in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Inflater::default().read(&Writer::new().compress(&plain));
        }
    }
}
