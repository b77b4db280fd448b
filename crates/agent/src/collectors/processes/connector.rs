//! The kernel's process events: `NETLINK_CONNECTOR`, group `CN_IDX_PROC`.
//!
//! A message is a netlink header (16 bytes), a connector header (20 bytes: two numbers naming it, two counters, a length)
//! and the event: what (4 bytes), the processor (4), the time (8), and numbers that depend on what. Asked for are programs
//! executed and ends of processes; ends of threads and everything else stay in the kernel.

use crate::collectors::kernel::{KernelSocket, NETLINK_HEADER, Received, SockFilter, filter, number, wait};
use rustix::net::netlink;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
/// Of what there is to be said before we read it.
const BUFFER_BYTES: usize = 8 << 20;
/// For the kernel's answer to our wish.
const ANSWER_MAX: Duration = Duration::from_millis(300);

const LISTEN: u32 = 1;
const IGNORE: u32 = 2;

const EVENT: usize = NETLINK_HEADER + 20;
const DATA: usize = EVENT + 16;
const ANSWER: u32 = 0;
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Exec {
        pid: u32,
    },
    Exit {
        pid: u32,
        status: u32,
        parent: Option<u32>,
    },
    /// To our wish.
    Answer {
        errno: u32,
    },
}

impl Event {
    /// The parent of the process `pid`, if this is its end.
    pub fn parent_of(&self, pid: u32) -> Option<u32> {
        match self {
            Event::Exit { pid: ended, parent, .. } if *ended == pid => *parent,
            Event::Exit { .. } | Event::Exec { .. } | Event::Answer { .. } => None,
        }
    }
}

/// What a message says; nothing if it is about something else, or a thread.
pub fn parse(message: &[u8]) -> Option<Event> {
    if (number(message, 16)?, number(message, 20)?) != (CN_IDX_PROC, CN_VAL_PROC) {
        return None;
    }
    let (first, second) = (number(message, DATA)?, number(message, DATA + 4));
    match number(message, EVENT)? {
        ANSWER => Some(Event::Answer { errno: first }),
        EXEC => Some(Event::Exec { pid: second? }),
        EXIT if second? == first => {
            // Older kernels do not say who the parent is.
            let parent = number(message, DATA + 20).filter(|parent| *parent > 0);
            Some(Event::Exit { pid: first, status: number(message, DATA + 8)?, parent })
        }
        _ => None,
    }
}

/// Lets pass what [`parse`] knows. The filter reads numbers big-endian, whatever the machine keeps.
fn wanted() -> [SockFilter; 10] {
    [
        filter::word(EVENT as u32),
        filter::equal(ANSWER, 7, 0),
        filter::equal(EXEC.to_be(), 6, 0),
        filter::equal(EXIT.to_be(), 0, 4),
        filter::word(DATA as u32),
        filter::to_index(),
        filter::word(DATA as u32 + 4),
        // Of a thread only: nothing.
        filter::equals_index(1, 0),
        filter::take(0),
        filter::take(u32::MAX),
    ]
}

/// A subscription.
#[derive(Debug)]
pub struct Connector(KernelSocket);

impl Connector {
    /// Subscribes, or says why that cannot be.
    pub fn open() -> Result<Self, String> {
        Self::with_buffer(BUFFER_BYTES)
    }

    /// The same with room for so much that is not read yet.
    pub fn with_buffer(bytes: usize) -> Result<Self, String> {
        let socket = KernelSocket::netlink(Some(netlink::CONNECTOR), CN_IDX_PROC, &wanted(), bytes)
            .map_err(|error| format!("the kernel tells nothing of processes: {error}"))?;
        let mut connector = Self(socket);
        // Newer kernels let a listener choose; older ones pass over a wish that they do not know.
        for wish in [&[LISTEN, EXEC | EXIT][..], &[LISTEN]] {
            connector.ask(wish).map_err(|error| format!("the kernel tells nothing of processes: {error}"))?;
            match connector.answer().map_err(|error| error.to_string())? {
                Some(0) => return Ok(connector),
                Some(errno) => {
                    let error = io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(0));
                    return Err(format!("the kernel tells nothing of processes: {error}"));
                }
                None => {}
            }
        }
        Err("the kernel tells nothing of processes: no answer, as in a container".to_owned())
    }

    fn ask(&self, wish: &[u32]) -> io::Result<()> {
        let body = wish.len() * 4;
        let length = NETLINK_HEADER + 20 + body;
        let mut message = Vec::with_capacity(length);
        let mut put = |value: u32| message.extend_from_slice(&value.to_ne_bytes());
        put(u32::try_from(length).unwrap_or(0));
        // The type (NLMSG_DONE), no flags.
        put(if cfg!(target_endian = "little") { 3 } else { 3 << 16 });
        [0, 0, CN_IDX_PROC, CN_VAL_PROC, 0, 0].into_iter().for_each(&mut put);
        // The length of the body, no flags.
        let body = u32::try_from(body).unwrap_or(0);
        put(if cfg!(target_endian = "little") { body } else { body << 16 });
        wish.iter().copied().for_each(&mut put);
        self.0.tell(&message)
    }

    fn answer(&mut self) -> io::Result<Option<u32>> {
        // What else comes meanwhile is read from `/proc` after this.
        for _ in 0..1_000 {
            match self.0.receive()? {
                Received::Datagram(message) => {
                    if let Some(Event::Answer { errno }) = parse(message) {
                        return Ok(Some(errno));
                    }
                }
                Received::Overrun => {}
                Received::Nothing => {
                    if !wait(&[self.0.as_fd()], ANSWER_MAX) {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    /// What came, at most so many, and whether more was lost.
    pub fn take(&mut self, at_most: usize) -> io::Result<(Vec<Event>, bool)> {
        let (mut events, mut is_overrun) = (Vec::new(), false);
        for _ in 0..at_most {
            match self.0.receive()? {
                Received::Datagram(message) => events.extend(parse(message)),
                Received::Overrun => is_overrun = true,
                Received::Nothing => break,
            }
        }
        Ok((events, is_overrun))
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Older kernels count listeners by these words only, and go on making events for nobody.
        if let Err(error) = self.ask(&[IGNORE]) {
            tracing::debug!(%error, "the kernel was not told that nobody listens");
        }
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As a kernel of version 6.18 sent them.
    const ANSWERED: &str = "4c00000003000000000000000000000001000000010000000000000001000000280000000000000000000000\
        e78e1e5fb61f0000000000000000000000000000000000000000000000000000";
    const EXECUTED: &str = "4c00000003000000020000000000000001000000010000000200000000000000280000000200000000000000\
        44724c5fb61f00001c5b00001c5b000000000000000000000000000000000000";
    const THREAD_ENDED: &str = "4c0000000300000019000000000000000100000001000000190000000000000028000000000000800000\
        000069d8f866b61f00001e5b00001c5b000000000000ffffffff0000000000000000";
    const ENDED: &str = "4c000000030000001a0000000000000001000000010000001a000000000000002800000000000080000000002f\
        fd2c67b61f00001c5b00001c5b00000003000011000000f15a0000f15a0000";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn messages_are_read_as_the_kernel_sends_them() {
        for (sample, expected) in [
            (ANSWERED, Some(Event::Answer { errno: 0 })),
            (EXECUTED, Some(Event::Exec { pid: 23_324 })),
            (THREAD_ENDED, None),
            (ENDED, Some(Event::Exit { pid: 23_324, status: 3 << 8, parent: Some(23_281) })),
        ] {
            let sample = bytes(sample);
            assert_eq!(parse(&sample), expected);
            for end in 0..sample.len() {
                parse(&sample[..end]);
            }
        }
        let mut other = bytes(EXECUTED);
        other[16] = 9;
        assert_eq!(parse(&other), None, "of another subsystem");
    }

    #[test]
    fn threads_and_what_is_not_asked_for_wake_nobody() {
        let mut connector = match Connector::open() {
            Ok(connector) => connector,
            Err(why) => return eprintln!("SKIPPED: {why}"),
        };
        std::thread::spawn(|| ()).join().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let mut ours = Vec::new();
        for _ in 0..100 {
            wait(&[connector.as_fd()], Duration::from_millis(50));
            let is_ours = |event: &Event| match event {
                Event::Exec { pid } | Event::Exit { pid, .. } => *pid == child.id() || *pid == std::process::id(),
                Event::Answer { .. } => false,
            };
            ours.extend(connector.take(1_000).unwrap().0.into_iter().filter(is_ours));
            if ours.len() >= 2 {
                break;
            }
        }
        let parent = Some(std::process::id());
        assert_eq!(ours, [Event::Exec { pid: child.id() }, Event::Exit { pid: child.id(), status: 0, parent }]);
    }
}
