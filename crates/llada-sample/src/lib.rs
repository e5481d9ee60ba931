//! Sampling from a mask predictor: the reverse process of the paper, the remasking strategies and
//! blocks of the reference's generate.py, classifier-free guidance, and infilling of any pattern;
//! and from its autoregressive twin.
//!
//! A [`Session`] steps requests that come and go, [`sample`] runs a list of them, and a [`Policy`]
//! says what a request of a model is by default.
#![forbid(unsafe_code)]

mod ahead;
mod block;
mod canvas;
mod commit;
mod config;
mod draws;
mod edit;
mod end_think;
mod error;
mod evaluate;
mod margin_exit;
mod policy;
mod prefixes;
mod preset;
mod process;
mod protocol;
mod refresh;
mod remask;
mod request;
mod rules;
mod run;
mod running;
mod session;
mod speculate;
mod timestep;

pub use config::{CacheMode, EndThink, Horizon, Remasking, SampleConfig};
pub use draws::{Draws, RecordedDraws};
pub use error::{Error, Result};
pub use margin_exit::MarginExit;
pub use policy::{AnswerLength, Overrides, Policy};
pub use preset::Preset;
pub use process::{Alg, Process};
pub use protocol::Protocol;
pub use refresh::RefreshPolicy;
pub use request::{Output, Request, RequestMemory, Task};
pub use rules::{Rules, RulesError};
pub use session::{Edit, Ended, Observer, Revealed, Session, StepEvent, sample};
