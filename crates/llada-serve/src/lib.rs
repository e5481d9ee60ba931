//! HTTP server of llada: OpenAI's interface for completions and chats, and beside it what a masked
//! diffusion model can do and no such server offers: infilling of any pattern, likelihoods, and
//! the denoising as it happens. A page shows it.
//!
//! [`serve`] answers until it is told to stop. One thread, the engine, takes the steps of all
//! requests together; each has the result of its single run.
#![forbid(unsafe_code)]

mod app;
mod assets;
mod auth;
mod body;
mod edits;
mod engine;
mod error;
mod listen;
mod metrics;
mod model;
mod moves;
mod openapi;
mod page;
mod parts;
mod progress;
mod queue;
mod routes;
mod sampler;
mod stream;
mod structured;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use auth::Keys;
pub use model::Model;
pub use queue::Limits;

/// How a server answers.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// What is taken in.
    pub limits: Limits,
    /// Longest body of a request.
    pub max_body_bytes: usize,
    /// Time in which a body must come, and in which the headers of a request must.
    pub body_timeout: Duration,
    /// Time without progress after which a client that reads nothing is given up.
    pub write_timeout: Duration,
    /// Connections at a time.
    pub max_connections: usize,
    /// Time after the signal to stop in which new requests are still taken, so that a balancer can
    /// learn that this server goes.
    pub drain: Duration,
    /// Keys of which one must be sent; `None`: whoever reaches the server may use it.
    pub keys: Option<Keys>,
    /// Origins whose pages may use the server (CORS).
    pub cors_origins: Vec<String>,
    /// Names beside `localhost` and addresses that clients may call a server on loopback by.
    pub hosts: Vec<String>,
    /// Seconds since 1970 at the start, for the field `created`.
    pub started: u64,
}

/// Why a server does not start, or ends.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to serve.
    #[error("there is no model to serve")]
    NoModels,
    /// Two models have one name.
    #[error("two models are called {id:?}; name them: NAME=DIR")]
    SameName {
        /// The name.
        id: String,
    },
    /// The file of keys has none.
    #[error("the file of API keys holds no key: expected lines with the SHA-256 of a key each")]
    NoKeys,
    /// A line of the file of keys is no hash.
    #[error(
        "line {line} of the API keys is not the SHA-256 of a key in 64 hexadecimal digits: make one \
         by `printf %s KEY | sha256sum`"
    )]
    BadKey {
        /// Which line, from 1.
        line: usize,
    },
    /// An origin is not one.
    #[error("{origin:?} is not an origin, such as https://example.org")]
    BadOrigin {
        /// What came.
        origin: String,
    },
    /// The engine's thread has ended.
    #[error("the engine has stopped by a bug or a fault of the device; its message is above")]
    EngineDied,
    /// A system call failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Answers requests to `models` on `listener` until `stop` ends; then takes no more, and ends when
/// all that was accepted is answered.
///
/// # Errors
/// [`Error`] if it can't start, or the engine dies.
pub async fn serve(
    listener: TcpListener,
    models: Vec<Model>,
    config: ServeConfig,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    if models.is_empty() {
        return Err(Error::NoModels);
    }
    for (at, model) in models.iter().enumerate() {
        if models[..at].iter().any(|other| other.id == model.id) {
            let id = model.id.clone();
            return Err(Error::SameName { id });
        }
    }
    let models = Arc::new(models);
    let metrics = metrics::Metrics::new(&config.limits);
    let started = engine::Engine::start(Arc::clone(&models), config.limits, metrics.clone());
    let (engine, thread, died) = started.map_err(|source| Error::Io {
        what: "starting the engine's thread",
        source,
    })?;
    let is_loopback = (listener.local_addr()).is_ok_and(|address| address.ip().is_loopback());
    let app = app::App::new(models, engine.clone(), config, metrics, is_loopback);
    let router = app::router(&app)?;
    tokio::select! {
        served = listen::listen(listener, router, &app, stop) => served?,
        _ = died => return Err(Error::EngineDied),
    }
    engine.close();
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    match joined {
        Ok(Ok(())) => Ok(()),
        _ => Err(Error::EngineDied),
    }
}

/// Work of the processor that would hold up other requests, such as encoding a long text.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> error::Result<T> + Send + 'static,
) -> error::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(error::ApiError::internal(panic.to_string())))
}
