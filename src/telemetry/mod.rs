//! Logging: format, level, throttling, and the subscriber that applies them.

mod events;
mod json;
mod log;
mod throttle;

pub use self::events::{LoggedEvent, recent};
pub use self::log::{AlreadySet, Format, LogFilter, SLOW, Settings, init, set_level};
pub use self::throttle::{Suppressed, Throttle};
