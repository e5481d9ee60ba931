//! What the tests of several crates share: mask predictors with known behavior.
//! A dev-dependency only.
#![forbid(unsafe_code)]

mod blocks;
mod cached;
mod chain;
mod joint;
mod toy;

pub use blocks::BlockPredictor;
pub use cached::CachedPredictor;
pub use chain::ChainPredictor;
pub use joint::JointPredictor;
pub use toy::ToyPredictor;
