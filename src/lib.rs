//! Quipu: an embeddable, thread-per-core storage engine for Linux.

#[allow(dead_code, unused_imports)]
mod cache;
mod codec;
pub mod disk;
mod entry;
mod error;
pub mod levels;
pub mod limits;
#[allow(dead_code, unused_imports)]
mod segment;

pub use error::{Error, Result};
