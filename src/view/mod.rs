//! State to something to read: the snapshot that the API carries, the words of `why`, the status table. Pure.

pub mod explain;
pub mod snapshot;
pub mod table;
