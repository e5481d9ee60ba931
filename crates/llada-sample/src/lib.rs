//! Sampling from a mask predictor: the reverse process of the paper, the remasking strategies and
//! blocks of the reference's generate.py, classifier-free guidance, and infilling of any pattern;
//! and from its autoregressive twin.
#![forbid(unsafe_code)]

mod autoregressive;
mod block;
mod commit;
mod config;
mod draws;
mod error;
mod evaluate;
mod refresh;
mod remask;
mod request;
mod run;
mod sample;

pub use autoregressive::sample_autoregressive;
pub use config::{CacheMode, Process, Remasking, SampleConfig};
pub use draws::{Draws, RecordedDraws};
pub use error::{Error, Result};
pub use refresh::RefreshPolicy;
pub use request::{Output, Request, Task};
pub use sample::{Revealed, StepEvent, sample};
