//! What the supervisor tells the keeper: one datagram each, with one descriptor beside it where one is named.
//!
//! Numbers are little-endian. There is nothing to answer: the keeper takes what it can use and drops what it cannot.

/// Longest name of a log, in bytes: `{instance}.access` and some room.
pub const MAX_NAME: usize = 64;
/// Longest datagram, in bytes.
pub const MAX_ORDER: usize = 32 + MAX_NAME;

const LOG: u8 = 1;
const RUN: u8 = 2;
const FIFO: u8 = 3;
const READY: u8 = 4;

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
    /// Read the pipe that comes beside this, to its end, into the log of `slot`.
    Run {
        /// Which log.
        slot: u32,
    },
    /// The supervisor answers from now on: if it dies, a new one is wanted.
    Ready,
    /// Read the FIFO that comes beside this into the log of `slot`, in place of an earlier one.
    Fifo {
        /// Which log.
        slot: u32,
    },
}

impl<'a> Order<'a> {
    /// Writes the order into `buffer` and returns its length; `None` if the name is too long.
    pub fn encode(&self, buffer: &mut [u8; MAX_ORDER]) -> Option<usize> {
        let (tag, slot, max_size, max_files, name) = match *self {
            Self::Log { slot, max_size, max_files, name } => (LOG, slot, max_size, max_files, name),
            Self::Run { slot } => (RUN, slot, 0, 0, ""),
            Self::Fifo { slot } => (FIFO, slot, 0, 0, ""),
            Self::Ready => (READY, 0, 0, 0, ""),
        };
        let length = u8::try_from(name.len()).ok().filter(|length| usize::from(*length) <= MAX_NAME)?;
        let fields: [&[u8]; 6] = [
            &[tag],
            &slot.to_le_bytes(),
            &max_size.to_le_bytes(),
            &max_files.to_le_bytes(),
            &[length],
            name.as_bytes(),
        ];
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
        let (max_size, rest) = rest.split_first_chunk::<8>()?;
        let (max_files, rest) = rest.split_first_chunk::<4>()?;
        let (length, name) = rest.split_first()?;
        if usize::from(*length) != name.len() || name.len() > MAX_NAME {
            return None;
        }
        let slot = u32::from_le_bytes(*slot);
        match *tag {
            LOG => Some(Self::Log {
                slot,
                max_size: u64::from_le_bytes(*max_size),
                max_files: u32::from_le_bytes(*max_files),
                name: std::str::from_utf8(name).ok()?,
            }),
            RUN => Some(Self::Run { slot }),
            FIFO => Some(Self::Fifo { slot }),
            READY => Some(Self::Ready),
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
        fn what_is_encoded_is_decoded(slot in any::<u32>(), max_size in any::<u64>(), max_files in any::<u32>(), name in "[a-z0-9_.-]{0,64}") {
            for order in [Order::Log { slot, max_size, max_files, name: &name }, Order::Run { slot }, Order::Fifo { slot }, Order::Ready] {
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
}
