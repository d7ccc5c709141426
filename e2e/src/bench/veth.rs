//! A pod's link to a bridge, by netlink alone: requests put together by hand, so that what Podwright does is not
//! measured by Podwright's own code.
//!
//! The kernel handles a request while it is being sent. What it refuses is an error here; nothing is waited for.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netdevice::name_to_index;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
/// Request and acknowledgement; make it, and fail if it is there.
const ASK: u16 = 1 | 4;
const MAKE: u16 = ASK | 0x200 | 0x400;
const NLMSG_ERROR: u16 = 2;

const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
/// Of a message, before what belongs to its kind.
const HEADER: usize = 16;
const MAX_ANSWERS: usize = 8 << 10;

/// To the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?))
    }

    /// A bridge that is up, and its index.
    pub fn bridge(&self, name: &str) -> io::Result<u32> {
        let info = attribute(IFLA_INFO_KIND, b"bridge");
        let bridge = [link(0, IFF_UP), named(name), attribute(IFLA_LINKINFO, &info)].concat();
        self.ask(&[message(RTM_NEWLINK, MAKE, &bridge)])?;
        self.index(name)
    }

    /// A pair of which one end is a port of the bridge, which is up, and the other in that namespace: in one request.
    pub fn pair(
        &self,
        host: &str,
        bridge: u32,
        pod: &str,
        netns: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let fd = netns.as_raw_fd().to_ne_bytes();
        // It cannot be brought up before it has its other end.
        let peer = [link(0, 0), named(pod), attribute(IFLA_NET_NS_FD, &fd)].concat();
        let data = attribute(IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &peer));
        let info = [attribute(IFLA_INFO_KIND, b"veth"), data].concat();
        let master = attribute(IFLA_MASTER, &bridge.to_ne_bytes());
        let pair = [link(0, IFF_UP), named(host), master, attribute(IFLA_LINKINFO, &info)].concat();
        self.ask(&[message(RTM_NEWLINK, MAKE, &pair)])
    }

    /// Gives a link an address and brings it up, with a default route: three requests at once.
    pub fn configure(&self, name: &str, own: (Ipv4Addr, u8), gateway: Ipv4Addr) -> io::Result<()> {
        let index = self.index(name)?;
        let (addr, prefix) = (own.0.octets(), own.1);
        let mut address = vec![AF_INET, prefix, 0, 0];
        address.extend(index.to_ne_bytes());
        address.extend([attribute(IFA_LOCAL, &addr), attribute(IFA_ADDRESS, &addr)].concat());
        let mut route =
            vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
        route.extend(attribute(RTA_GATEWAY, &gateway.octets()));
        route.extend(attribute(RTA_OIF, &index.to_ne_bytes()));
        self.ask(&[
            message(RTM_NEWADDR, MAKE, &address),
            message(RTM_NEWLINK, ASK, &link(index, IFF_UP)),
            message(RTM_NEWROUTE, MAKE, &route),
        ])
    }

    /// With its other end.
    pub fn delete(&self, name: &str) -> io::Result<()> {
        self.ask(&[message(RTM_DELLINK, ASK, &[link(0, 0), named(name)].concat())])
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        Ok(name_to_index(self.0.as_fd(), name)?)
    }

    /// In one system call; the error is that of the first that was refused.
    fn ask(&self, messages: &[Vec<u8>]) -> io::Result<()> {
        send(&self.0, &messages.concat(), SendFlags::empty())?;
        let (mut open, mut refused) = (messages.len(), None);
        while open > 0 {
            let mut answers = [0; MAX_ANSWERS];
            let (_, len) = recv(&self.0, &mut answers, RecvFlags::DONTWAIT)?;
            let codes = codes(&answers[..len]);
            open = open.saturating_sub(codes.len());
            refused = refused.or(codes.into_iter().find(|code| *code != 0));
        }
        refused.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(-code)))
    }
}

/// One for each acknowledgement: 0, or the negative number of an error.
fn codes(mut answers: &[u8]) -> Vec<i32> {
    let mut codes = Vec::new();
    while let Some((len, rest)) = answers.split_first_chunk() {
        let len = u32::from_ne_bytes(*len) as usize;
        if rest.first_chunk() == Some(&NLMSG_ERROR.to_ne_bytes())
            && let Some(code) = answers.get(HEADER..).and_then(<[u8]>::first_chunk)
        {
            codes.push(i32::from_ne_bytes(*code));
        }
        answers = answers.get(len.next_multiple_of(4).max(HEADER)..).unwrap_or_default();
    }
    codes
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let len = (HEADER + body.len()) as u32;
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend_from_slice(body);
    bytes
}

/// An `ifinfomsg`: a link's index, 0 where another thing says which, and its flags with which of them are meant.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    [index, flags, flags].iter().for_each(|number| bytes.extend(number.to_ne_bytes()));
    bytes
}

fn named(name: &str) -> Vec<u8> {
    attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_aligned_and_their_length_is_not() {
        assert_eq!(named("eth0"), [9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
        assert_eq!(message(16, 5, &[1, 2, 3, 4])[..8], [20, 0, 0, 0, 16, 0, 5, 0]);
    }

    #[test]
    fn each_acknowledgement_has_its_code() {
        let ack =
            |code: i32| message(NLMSG_ERROR, 0, &[&code.to_ne_bytes()[..], &[0; 16]].concat());
        assert_eq!(codes(&[ack(0), message(16, 0, &[0; 16]), ack(-17)].concat()), [0, -17]);
        assert_eq!(codes(&[0; 64]), [0; 0]);
        assert_eq!(codes(&[0xff; 7]), [0; 0]);
    }
}
