//! What strangers send, as functions of bytes: none may panic, and each keeps what it promises.
//!
//! `./dev fuzz TARGET` drives one guided by coverage, from the package in `fuzz/`. The ordinary tests run every one over
//! its seeds in `fuzz/seeds` and over some mutations of them. What the daemon is built from holds nothing of this.

#[cfg(test)]
mod drive;
mod layer;
#[cfg(test)]
mod mutate;

use shim::frame;

/// A function that takes whatever comes.
pub type Target = fn(&[u8]);

/// All of them by name; the seeds of each lie in a directory of its name.
pub const TARGETS: [(&str, Target); 14] = [
    ("reference", crate::image::fuzz::reference),
    ("documents", crate::image::fuzz::documents),
    ("archive", crate::image::fuzz::archive),
    ("layer", layer::extraction),
    ("challenge", crate::image::registry::fuzz::challenge),
    ("hosts", crate::image::registry::fuzz::hosts),
    ("docker_config", crate::image::registry::fuzz::docker_config),
    ("accounts", crate::container::spec::fuzz::accounts),
    ("spdy", crate::stream::spdy::fuzz::frames),
    ("negotiation", crate::stream::fuzz::negotiation),
    ("websocket", crate::stream::websocket::fuzz::channels),
    ("cni_result", cni_result),
    ("ttrpc", ttrpc),
    ("container", crate::cri::fuzz::container),
];

/// The target of that name, or why there is none.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no target is named {name}")).1
}

/// What a CNI plugin prints.
fn cni_result(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else { return };
    let Ok(result) = cni::CniResult::from_value(value, "1.0.0") else { return };
    for interface in &result.interfaces {
        assert!(result.addresses(&interface.name).len() <= result.ips.len());
    }
    let known = |ip: &cni::Ip| ip.interface.is_none_or(|index| index < result.interfaces.len());
    assert!(result.ips.iter().all(known), "an address has an interface");
    // As it is recorded, and read again by the next daemon.
    let again = cni::CniResult::from_value(result.raw.clone(), "1.1.0");
    assert_eq!(again.as_ref(), Ok(&result));
}

/// What comes over a shim's socket, after a first byte that says in which pieces.
fn ttrpc(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let read = |piece: usize| {
        let (mut decoder, mut frames) = (frame::Decoder::default(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            decoder.push(piece);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(err) => return (frames, Some(err)),
                }
            }
        }
        (frames, None)
    };
    let (frames, broken) = read(bytes.len());
    assert_eq!(read(usize::from(*piece)), (frames.clone(), broken));
    assert!(
        frames.iter().map(|frame| frame.payload.len() + frame::HEADER).sum::<usize>()
            <= bytes.len()
    );
    for frame in frames {
        crate::cri::fuzz::shim_message(&frame.payload);
    }
}
