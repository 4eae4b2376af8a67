//! Quipu: an embeddable, thread-per-core storage engine for Linux.

mod codec;
pub mod disk;
mod entry;
mod error;
pub mod levels;
pub mod limits;
#[allow(dead_code)]
mod log;
#[allow(dead_code)]
mod manifest;

pub use error::{Error, Result};
