//! What the supervisor tells the keeper: one datagram each, with one descriptor beside it where one is named.
//!
//! Numbers are little-endian. There is nothing to answer: the keeper takes what it can use and drops what it cannot. The
//! same orders, written down, are what one process leaves to the next (see `table`).

/// Longest name of a log, in bytes: `{instance}.access` and some room.
pub const MAX_NAME: usize = 64;
/// Longest datagram, in bytes.
pub const MAX_ORDER: usize = 32 + MAX_NAME;

const LOG: u8 = 1;
const RUN: u8 = 2;
const FIFO: u8 = 3;
const READY: u8 = 4;
const KEEP: u8 = 5;
const LINK: u8 = 6;
const PEER: u8 = 7;
const OUTPUT: u8 = 8;
const REAP: u8 = 9;
const BYE: u8 = 10;
const BECOME: u8 = 11;
const DISTRUST: u8 = 12;

/// News for the supervisor, one byte in a datagram. They say only where to look: one that is lost costs time.
pub mod news {
    /// A child of the keeper that is not the supervisor has ended and waits for `Order::Reap`.
    pub const CHILD: u8 = 1;
    /// The trouble of some log has begun, changed or ended, or a log was rotated: see the journal.
    pub const LOGS: u8 = 2;
}

/// Something that both processes hold, so that it outlives either of them. The keeper knows what it uses itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// The lock of the fleet: free when both are gone.
    Lock,
    /// What the supervisor shall run.
    Launch,
    /// Where the first supervisor says that it is ready, or why not. Not kept after it was started.
    Ready,
    /// The directory `.run`.
    RunDir,
    /// What the supervisor knows of every run.
    Records,
    /// The socket that clients connect to.
    Listener,
    /// What the keeper knows of every log.
    Journal,
    /// Bytes on their way from a pipe into a log, one for each thread that writes.
    Spool(u8),
    /// The program to become (`Order::Become`).
    Binary,
}

/// How many threads may write logs, and so how many spools there are.
pub const SPOOLS: u8 = 4;

impl Kept {
    /// How many there can be.
    pub const COUNT: usize = 8 + SPOOLS as usize;

    /// Every one.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map_while(Self::from_number)
    }

    /// Its place among all.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Lock => 0,
            Self::Launch => 1,
            Self::Ready => 2,
            Self::RunDir => 3,
            Self::Records => 4,
            Self::Listener => 5,
            Self::Journal => 6,
            Self::Binary => 7,
            Self::Spool(number) => number.saturating_add(8),
        }
    }

    /// The one at this place.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Lock,
            1 => Self::Launch,
            2 => Self::Ready,
            3 => Self::RunDir,
            4 => Self::Records,
            5 => Self::Listener,
            6 => Self::Journal,
            7 => Self::Binary,
            _ => Self::Spool(number.checked_sub(8).filter(|spool| *spool < SPOOLS)?),
        })
    }
}

/// One order to the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// What comes for `slot` belongs into the log `name` of the directory that comes beside this.
    Log {
        /// Names the log in later orders.
        slot: u32,
        /// Bytes of one file.
        max_size: u64,
        /// Files kept, the current one among them.
        max_files: u32,
        /// File name without `.log`.
        name: &'a str,
    },
    /// Read the pipe that comes beside this, to its end, into the log of `slot`; after what is left of an earlier run.
    Run {
        /// Which log.
        slot: u32,
        /// Which run of the instance.
        generation: u64,
    },
    /// Read the FIFO that comes beside this into the log of `slot`, in place of an earlier one.
    Fifo {
        /// Which log.
        slot: u32,
    },
    /// The supervisor answers from now on: if it dies, a new one is wanted.
    Ready,
    /// Keep what comes beside this, and leave it to every process that follows, in place of an earlier one.
    Keep(Kept),
    /// In a table only: the end of the link between the two that is for the reader.
    Link,
    /// In a table only: a pidfd of the other process of the pair.
    Peer,
    /// In a table only: what the supervisor writes to its standard error comes out here.
    Output,
    /// The exit of this child of the keeper was taken note of: reap it.
    Reap {
        /// Which child.
        pid: u32,
    },
    /// The supervisor is about to end as planned: write what is left, and end too.
    Bye {
        /// The exit code of the keeper.
        code: u8,
    },
    /// Become the program `Kept::Binary`, in this process.
    Become,
    /// In a table only: what the last supervisors knew made them crash; believe nothing but the goals.
    Distrust,
}

impl<'a> Order<'a> {
    /// Writes the order into `buffer` and returns its length; `None` if the name is too long.
    pub fn encode(&self, buffer: &mut [u8; MAX_ORDER]) -> Option<usize> {
        let plain = |tag| (tag, 0, 0, 0, "");
        let (tag, slot, number, count, name) = match *self {
            Self::Log { slot, max_size, max_files, name } => (LOG, slot, max_size, max_files, name),
            Self::Run { slot, generation } => (RUN, slot, generation, 0, ""),
            Self::Fifo { slot } => (FIFO, slot, 0, 0, ""),
            Self::Ready => plain(READY),
            Self::Keep(what) => (KEEP, u32::from(what.number()), 0, 0, ""),
            Self::Link => plain(LINK),
            Self::Peer => plain(PEER),
            Self::Output => plain(OUTPUT),
            Self::Reap { pid } => (REAP, pid, 0, 0, ""),
            Self::Bye { code } => (BYE, u32::from(code), 0, 0, ""),
            Self::Become => plain(BECOME),
            Self::Distrust => plain(DISTRUST),
        };
        let length = u8::try_from(name.len()).ok().filter(|length| usize::from(*length) <= MAX_NAME)?;
        let fields: [&[u8]; 6] =
            [&[tag], &slot.to_le_bytes(), &number.to_le_bytes(), &count.to_le_bytes(), &[length], name.as_bytes()];
        let mut rest = &mut buffer[..];
        for field in fields {
            let (head, tail) = rest.split_at_mut_checked(field.len())?;
            head.copy_from_slice(field);
            rest = tail;
        }
        let unused = rest.len();
        MAX_ORDER.checked_sub(unused)
    }

    /// Reads an order; `None` if it is none.
    #[must_use]
    pub fn decode(datagram: &'a [u8]) -> Option<Self> {
        let (tag, rest) = datagram.split_first()?;
        let (slot, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (length, name) = rest.split_first()?;
        if usize::from(*length) != name.len() || name.len() > MAX_NAME {
            return None;
        }
        let slot = u32::from_le_bytes(*slot);
        let number = u64::from_le_bytes(*number);
        match *tag {
            LOG => Some(Self::Log {
                slot,
                max_size: number,
                max_files: u32::from_le_bytes(*count),
                name: std::str::from_utf8(name).ok()?,
            }),
            RUN => Some(Self::Run { slot, generation: number }),
            FIFO => Some(Self::Fifo { slot }),
            READY => Some(Self::Ready),
            KEEP => Some(Self::Keep(Kept::from_number(u8::try_from(slot).ok()?)?)),
            LINK => Some(Self::Link),
            PEER => Some(Self::Peer),
            OUTPUT => Some(Self::Output),
            REAP => Some(Self::Reap { pid: slot }),
            BYE => Some(Self::Bye { code: u8::try_from(slot).ok()? }),
            BECOME => Some(Self::Become),
            DISTRUST => Some(Self::Distrust),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::{collection, proptest};

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(slot in any::<u32>(), max_size in any::<u64>(), max_files in any::<u32>(), code in any::<u8>(), name in "[a-z0-9_.-]{0,64}") {
            let orders = [
                Order::Log { slot, max_size, max_files, name: &name },
                Order::Run { slot, generation: max_size },
                Order::Fifo { slot },
                Order::Ready,
                Order::Link,
                Order::Peer,
                Order::Output,
                Order::Reap { pid: slot },
                Order::Bye { code },
                Order::Become,
                Order::Distrust,
            ];
            for order in orders.into_iter().chain(Kept::all().map(Order::Keep)) {
                let mut buffer = [0; MAX_ORDER];
                let length = order.encode(&mut buffer).unwrap();
                assert_eq!(Order::decode(&buffer[..length]), Some(order));
            }
        }

        #[test]
        fn garbage_is_no_order_and_no_panic(garbage in collection::vec(any::<u8>(), 0..200)) {
            if let Some(order) = Order::decode(&garbage) {
                let mut buffer = [0; MAX_ORDER];
                assert!(order.encode(&mut buffer).is_some());
            }
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        let name = "x".repeat(MAX_NAME + 1);
        assert_eq!(Order::Log { slot: 0, max_size: 0, max_files: 0, name: &name }.encode(&mut [0; MAX_ORDER]), None);
    }

    #[test]
    fn everything_that_is_kept_has_a_place_of_its_own() {
        let numbers: Vec<_> = Kept::all().map(|kept| usize::from(kept.number())).collect();
        assert_eq!(numbers, (0..Kept::COUNT).collect::<Vec<_>>());
    }
}
