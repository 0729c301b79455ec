//! Who listens, asked of the kernel over netlink (`sock_diag`, see `man 7 sock_diag`): 16 to 65 microseconds,
//! where `/proc/net/tcp` takes milliseconds. Where netlink is not to be had, `/proc/net/tcp` answers.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, bind, recv,
    sendto, setsockopt, socket, sockopt,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u32 = 1;
const TCP_LISTEN: u32 = 10;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const BYTECODE_SOURCE_AT_LEAST: u8 = 2;
const BYTECODE_SOURCE_AT_MOST: u8 = 3;
const HEADER: usize = 16;

/// One end of a TCP connection of this machine, or a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What it is bound to.
    pub address: SocketAddr,
    /// Names the socket in `/proc/PID/fd`.
    pub inode: u32,
    /// Whose it is.
    pub uid: u32,
}

impl Listener {
    /// Whether a server that binds `host` would meet this one: the same address, or a wildcard on either side.
    #[must_use]
    pub fn meets(&self, host: IpAddr) -> bool {
        let mine = self.address.ip();
        mine == host
            || match (mine, host) {
                (IpAddr::V4(a), IpAddr::V4(b)) => a.is_unspecified() || b.is_unspecified(),
                (IpAddr::V6(a), IpAddr::V6(b)) => a.is_unspecified() || b.is_unspecified(),
                // A wildcard of IPv6 takes IPv4 too, unless its owner asked otherwise.
                (IpAddr::V6(a), IpAddr::V4(_)) => a.is_unspecified(),
                (IpAddr::V4(_), IpAddr::V6(b)) => b.is_unspecified(),
            }
    }
}

/// All sockets that listen on any port, of both families.
///
/// # Errors
/// When neither netlink nor `/proc/net` answers.
pub fn all_listeners() -> io::Result<Vec<Listener>> {
    listening(None)
}

/// All sockets that listen on `port`, of both families.
///
/// # Errors
/// When neither netlink nor `/proc/net` answers.
pub fn listeners(port: u16) -> io::Result<Vec<Listener>> {
    listening(Some(port))
}

/// This machine's ends of all connections that are open, of both families.
///
/// # Errors
/// When neither netlink nor `/proc/net` answers.
pub fn connected() -> io::Result<Vec<Listener>> {
    look(TCP_ESTABLISHED, None)
}

fn listening(port: Option<u16>) -> io::Result<Vec<Listener>> {
    look(TCP_LISTEN, port)
}

fn look(state: u32, port: Option<u16>) -> io::Result<Vec<Listener>> {
    match [AddressFamily::Inet, AddressFamily::Inet6].map(|family| ask(family, state, port)) {
        [Ok(mut four), Ok(six)] => {
            four.extend(six);
            Ok(four)
        }
        _ => from_proc(state, port),
    }
}

/// Whether a server could bind `address`: then nobody listens where it wants to. It is tried, which takes a tenth of the
/// time of asking; that it cannot be bound has many reasons, and `listeners` knows whose fault it is.
#[must_use]
pub fn can_bind(address: SocketAddr) -> bool {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let Ok(socket) = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None) else { return false };
    // As servers do, else the connections of the last one would be in the way. Two that do not listen may have it at once.
    let reused = setsockopt(&socket, sockopt::ReuseAddr, &true);
    let bound = reused.and_then(|()| match address {
        SocketAddr::V4(address) => bind(socket.as_raw_fd(), &SockaddrIn::from(address)),
        SocketAddr::V6(address) => bind(socket.as_raw_fd(), &SockaddrIn6::from(address)),
    });
    bound.is_ok()
}

fn ask(family: AddressFamily, state: u32, port: Option<u16>) -> io::Result<Vec<Listener>> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    sendto(socket.as_raw_fd(), &request(family, state, port), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if !read_messages(buffer.get(..length).unwrap_or_default(), port, &mut found)? {
            return Ok(found);
        }
    }
}

/// `nlmsghdr`, `inet_diag_req_v2`, and a filter on the source port, if one is asked for, in the kernel's byte code.
fn request(family: AddressFamily, state: u32, port: Option<u16>) -> Vec<u8> {
    let mut filter = Vec::new();
    let (lowest, highest) = port.map_or((0, u16::MAX), |port| (port, port));
    // Each comparison is an operation and an argument of 4 bytes each; `no` jumps past the end, which means reject.
    for (code, left, port) in [(BYTECODE_SOURCE_AT_LEAST, 16_u16, lowest), (BYTECODE_SOURCE_AT_MOST, 8, highest)] {
        filter.extend([code, 8]);
        filter.extend((left + 4).to_ne_bytes());
        filter.extend([0, 0]);
        filter.extend(port.to_ne_bytes());
    }
    let mut body = vec![if family == AddressFamily::Inet { 2 } else { 10 }, IPPROTO_TCP, 0, 0];
    body.extend((1_u32 << state).to_ne_bytes());
    body.extend([0; 48]);
    body.extend(20_u16.to_ne_bytes());
    body.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
    body.extend(filter);
    let mut message = Vec::new();
    message.extend(u32::try_from(HEADER + body.len()).unwrap_or(0).to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// Returns whether more is to come.
fn read_messages(mut bytes: &[u8], port: Option<u16>, found: &mut Vec<Listener>) -> io::Result<bool> {
    let broken = || io::Error::other("netlink gave a message that is too short");
    while bytes.len() >= HEADER {
        let length = bytes.first_chunk().map(|n| u32::from_ne_bytes(*n) as usize).ok_or_else(broken)?;
        let kind = bytes.get(4..).and_then(|b| b.first_chunk()).map(|n| u16::from_ne_bytes(*n)).ok_or_else(broken)?;
        let body = bytes.get(HEADER..length).ok_or_else(broken)?;
        match kind {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => return Err(io::Error::other("netlink refuses the question")),
            SOCK_DIAG_BY_FAMILY => {
                found.extend(read_listener(body).filter(|l| port.is_none_or(|port| l.address.port() == port)));
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// `inet_diag_msg`: family at 0, source port at 4 and source address at 8 (both in network order), uid at 64, inode at 68.
fn read_listener(body: &[u8]) -> Option<Listener> {
    let port = u16::from_be_bytes(*body.get(4..)?.first_chunk()?);
    let ip = if *body.first()? == 2 {
        IpAddr::V4(Ipv4Addr::from(*body.get(8..)?.first_chunk::<4>()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(*body.get(8..)?.first_chunk::<16>()?))
    };
    let number = |at: usize| Some(u32::from_ne_bytes(*body.get(at..)?.first_chunk()?));
    Some(Listener { address: SocketAddr::new(ip, port), uid: number(64)?, inode: number(68)? })
}

fn from_proc(state: u32, port: Option<u16>) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => {
                let lines = text.lines().skip(1).filter_map(|line| read_proc_line(line, state));
                found.extend(lines.filter(|listener| port.is_none_or(|port| listener.address.port() == port)));
            }
            // No IPv6, no second table.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn read_proc_line(line: &str, state: u32) -> Option<Listener> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    if *fields.get(3)? != format!("{state:02X}") {
        return None;
    }
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|n| Some(u32::from_str_radix(address.get(n * 8..n * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let bytes = words?.concat();
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        _ => IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
    };
    Some(Listener {
        address: SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?),
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn both_sources_see_the_same_listeners() {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = four.local_addr().unwrap().port();
        let six = TcpListener::bind(("::1", port));
        let mut diag = listeners(port).unwrap();
        let mut proc = from_proc(TCP_LISTEN, Some(port)).unwrap();
        diag.sort_by_key(|l| l.inode);
        proc.sort_by_key(|l| l.inode);
        assert_eq!(diag, proc);
        assert_eq!(diag.len(), 1 + usize::from(six.is_ok()));
        let address = four.local_addr().unwrap();
        let any = SocketAddr::from(([0, 0, 0, 0], port));
        assert!(!can_bind(address) && !can_bind(any), "a wildcard meets it");
        assert!(diag.iter().any(|l| l.address == address));
        let all = all_listeners().unwrap();
        assert!(diag.iter().all(|listener| all.contains(listener)));
        let client = std::net::TcpStream::connect(address).unwrap();
        let ends = |all: Vec<Listener>| all.into_iter().find(|end| end.address == client.local_addr().unwrap());
        let end = ends(connected().unwrap()).unwrap();
        assert_eq!(Some(end), ends(from_proc(TCP_ESTABLISHED, None).unwrap()));
        drop((four, six, client));
        assert!(can_bind(address) && can_bind(any));
    }

    #[test]
    fn a_wildcard_meets_every_address_of_its_family() {
        let at = |address: &str| Listener { address: address.parse().unwrap(), inode: 1, uid: 0 };
        let table = [
            ("127.0.0.1:1", "127.0.0.1", true),
            ("127.0.0.1:1", "127.0.0.2", false),
            ("0.0.0.0:1", "127.0.0.1", true),
            ("127.0.0.1:1", "0.0.0.0", true),
            ("[::]:1", "127.0.0.1", true),
            ("[::1]:1", "127.0.0.1", false),
            ("[::1]:1", "::", true),
        ];
        for (theirs, mine, meets) in table {
            assert_eq!(at(theirs).meets(mine.parse().unwrap()), meets, "{theirs} and {mine}");
        }
    }
}
