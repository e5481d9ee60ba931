//! What the tests of several crates share: mask predictors with known behavior.
//! A dev-dependency only.
#![forbid(unsafe_code)]

mod joint;
mod toy;

pub use joint::JointPredictor;
pub use toy::ToyPredictor;
