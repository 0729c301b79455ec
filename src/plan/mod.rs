//! Settings to specs: facts, environment, order, collisions, difference. Pure but for looking up paths on the disk in `claims`.

pub mod spec;
