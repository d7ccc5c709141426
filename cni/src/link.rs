//! The loopback interface, through netlink.

use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// `RTM_NEWLINK`: create a link or, by its index, change one.
const RTM_NEWLINK: u16 = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFF_UP: u32 = 1;
/// In every network namespace the loopback interface is the first.
const LOOPBACK_INDEX: i32 = 1;
/// A header of 16 bytes, an `ifinfomsg` of 16.
const REQUEST_LEN: usize = 32;

/// Brings the loopback interface of the calling thread's network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    // No protocol is the number 0, NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &up_request(LOOPBACK_INDEX), SendFlags::empty())?;
    // The kernel handles the request in send, so the answer is there.
    let mut answer = [0u8; 4096];
    let (_, len) = recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    acknowledged(&answer[..len.min(answer.len())])
}

fn up_request(index: i32) -> [u8; REQUEST_LEN] {
    let mut message = [0u8; REQUEST_LEN];
    let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(REQUEST_LEN as u32).to_ne_bytes());
    put(4, &RTM_NEWLINK.to_ne_bytes());
    put(6, &(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    // The ifinfomsg: family and type stay zero; the index, the flags, and which flags are meant.
    put(20, &index.to_ne_bytes());
    put(24, &IFF_UP.to_ne_bytes());
    put(28, &IFF_UP.to_ne_bytes());
    message
}

/// An acknowledgement is an error message of the number 0.
fn acknowledged(message: &[u8]) -> io::Result<()> {
    let kind = message.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    let code = message.get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an unexpected netlink message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_care() {
        let mut message = [0u8; 36];
        message[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        acknowledged(&message).unwrap();
        message[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(acknowledged(&message).unwrap_err().raw_os_error(), Some(1));
        assert!(acknowledged(&message[..18]).is_err() && acknowledged(&[]).is_err());
    }
}
