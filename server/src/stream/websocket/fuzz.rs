//! The messages of WebSocket channels as a target of `crate::fuzz`.

use tokio_tungstenite::tungstenite::Message;

use super::channel::Coding;

/// A message, as text and as bytes. What is read would be written so.
pub(crate) fn channels(data: &[u8]) {
    for coding in [Coding::Binary, Coding::Base64] {
        let text = std::str::from_utf8(data).ok().map(|text| Message::Text(text.into()));
        for message in [Some(Message::Binary(data.to_vec().into())), text].into_iter().flatten() {
            let Some((channel, bytes)) = coding.decode(message) else { continue };
            let again = coding.decode(coding.encode(channel, &bytes));
            assert_eq!(again, Some((channel, bytes)));
        }
    }
}
