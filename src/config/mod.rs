//! YAML text to typed settings: every problem collected, each with line, path and hint.
//!
//! Knows the user's files and the words in them; not what follows from them (`plan`), no process, no network.
//! `load` is the way in; the passes are `disk`, `parse`, `interpolate`, `layers`, `fleet` and `instance`.

mod disk;
mod dotenv;
mod excerpt;
mod fleet;
mod health;
mod instance;
mod interpolate;
mod keys;
mod layers;
mod load;
mod near;
mod node;
mod parse;
mod problem;
mod reader;
mod schema;
mod settings;
mod value;
mod verbs;

#[cfg(test)]
pub(crate) mod scratch;
#[cfg(test)]
mod tests;

pub use health::is_token;
pub use instance::LANE_KEYS;
pub use interpolate::{Bad, Variables, interpolate};
pub use load::{EnvEntry, Source, base_file, load, nearest_name, read, read_env_file, tidy};
pub use problem::{Collector, Fault, Place, Problem, Problems, Sources};
pub use schema::schema;
pub use settings::{
    Brake, CacheBackend, CacheSettings, Clear, Condition, DatabaseSettings, DependencySettings, Engine, EnvFile,
    Framework, HealthSettings, Instance, Logging, Part, Preset, Restart, RestartPolicy, Settings, TestSettings,
};
pub use verbs::RESERVED_VERBS;
