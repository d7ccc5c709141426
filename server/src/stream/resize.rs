//! Sizes of a terminal, as JSON objects one after the other.

use serde::Deserialize;

use super::channel::Input;

/// Of an object that is not whole yet.
const MAX_OBJECT: usize = 4 << 10;

#[derive(Deserialize)]
struct Size {
    #[serde(alias = "Width")]
    width: u32,
    #[serde(alias = "Height")]
    height: u32,
}

/// The sizes that a client tells.
#[derive(Debug)]
pub(super) struct Sizes {
    /// `None` once there are no more.
    from: Option<Input>,
    bytes: Vec<u8>,
}

impl Sizes {
    pub(super) fn new(from: Option<Input>) -> Self {
        Self { from, bytes: Vec::new() }
    }

    /// The next width and height; of those that arrived together the last. `None` once the client has ended the stream
    /// or sent what is none. Nothing is lost where this is dropped half-way.
    pub(super) async fn next(&mut self) -> Option<(u32, u32)> {
        loop {
            let Some(chunk) = self.from.as_mut()?.next().await else { break };
            self.bytes.extend_from_slice(&chunk.bytes);
            let Some((size, used)) = last(&self.bytes) else { break };
            self.bytes.drain(..used);
            if self.bytes.len() > MAX_OBJECT {
                break;
            }
            if size.is_some() {
                return size;
            }
        }
        self.from = None;
        None
    }
}

/// The last size of the whole objects, and their length; `None` where something else stands.
fn last(bytes: &[u8]) -> Option<(Option<(u32, u32)>, usize)> {
    let mut objects = serde_json::Deserializer::from_slice(bytes).into_iter::<Size>();
    let (mut size, mut used) = (None, 0);
    while let Some(object) = objects.next() {
        match object {
            Ok(one) => {
                used = objects.byte_offset();
                if one.width > 0 && one.height > 0 {
                    size = Some((one.width, one.height));
                }
            }
            Err(err) if err.is_eof() => break,
            Err(_) => return None,
        }
    }
    Some((size, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_size_counts() {
        let two = br#"{"Width":80,"Height":24}
{"Width":100,"Height":30}{"Wid"#;
        assert_eq!(last(two), Some((Some((100, 30)), two.len() - 5)));
        assert_eq!(last(br#"{"Width":0,"Height":24}"#), Some((None, 23)));
        assert_eq!(last(br#"{"Width":70000,"Height":-1}"#), None);
        assert_eq!(last(b""), Some((None, 0)));
        assert_eq!(last(b"]"), None);
    }
}
