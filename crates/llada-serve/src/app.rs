//! What all requests share, the routes, and what is asked of a request before it reaches one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::engine::Engine;
use crate::error::ApiError;
use crate::listen::Peer;
use crate::metrics::{Answered, Metrics, Path};
use crate::model::Model;
use crate::queue::Client;
use crate::{Error, ServeConfig, openapi, page, routes};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) models: Arc<Vec<Model>>,
    pub(crate) engine: Engine,
    pub(crate) config: ServeConfig,
    pub(crate) metrics: Metrics,
    /// The signal to stop has come.
    pub(crate) is_stopping: AtomicBool,
    is_loopback: bool,
    since: Instant,
    requests: AtomicU64,
}

pub(crate) type Context = Arc<App>;

impl App {
    pub(crate) fn new(
        models: Arc<Vec<Model>>,
        engine: Engine,
        config: ServeConfig,
        metrics: Metrics,
        is_loopback: bool,
    ) -> Context {
        Arc::new(Self {
            models,
            engine,
            config,
            metrics,
            is_stopping: AtomicBool::new(false),
            is_loopback,
            since: Instant::now(),
            requests: AtomicU64::new(0),
        })
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        self.config.started + self.since.elapsed().as_secs()
    }

    /// The name of a request that no other one of this server has.
    pub(crate) fn new_id(&self, kind: &str) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{kind}-{:x}-{number}", self.config.started)
    }
}

/// All routes.
pub(crate) fn router(app: &Context) -> Result<Router, Error> {
    let open = Router::new()
        .route("/", only(get(page::index)))
        .route("/page/{name}", only(get(page::file)))
        .route("/openapi.json", only(get(openapi::document)))
        .route("/health", only(get(routes::health)));
    let guarded = Router::new()
        .route("/v1/models", only(get(routes::models::list)))
        // Names such as ORG/NAME have a slash.
        .route("/v1/models/{*model}", only(get(routes::models::one)))
        .route("/v1/completions", only(post(routes::completions::create)))
        .route("/v1/chat/completions", only(post(routes::chat::create)))
        .route("/v1/infill", only(post(routes::infill::create)))
        .route("/v1/likelihood", only(post(routes::likelihood::create)))
        .route("/tokenize", only(post(routes::tokens::tokenize)))
        .route("/detokenize", only(post(routes::tokens::detokenize)))
        .route("/tokenizer_info", only(get(routes::tokens::info)))
        .route("/metrics", only(get(routes::metrics)))
        .layer(from_fn_with_state(Arc::clone(app), check_key));
    let router = open
        .merge(guarded)
        .fallback(no_such_path)
        .layer(from_fn_with_state(Arc::clone(app), observe))
        .layer(cors(&app.config.cors_origins)?)
        .with_state(Arc::clone(app));
    Ok(router)
}

/// A route that says which method it is not asked by.
fn only(route: MethodRouter<Context>) -> MethodRouter<Context> {
    route.fallback(async |request: Request| {
        ApiError::no_such_method(request.method().as_str(), request.uri().path())
    })
}

async fn no_such_path(request: Request) -> ApiError {
    ApiError::no_such_path(request.method().as_str(), request.uri().path())
}

/// Pages of no other origin may use the server unless they are named.
fn cors(origins: &[String]) -> Result<CorsLayer, Error> {
    let layer = CorsLayer::new();
    if origins.is_empty() {
        return Ok(layer);
    }
    let origin = |origin: &String| match HeaderValue::from_str(origin) {
        Ok(value) if origin.contains("://") && !origin.ends_with('/') => Ok(value),
        _ => Err(Error::BadOrigin {
            origin: origin.clone(),
        }),
    };
    let origins = origins.iter().map(origin).collect::<Result<Vec<_>, _>>()?;
    Ok(layer
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION]))
}

/// Who asks: set on every request that passed.
async fn check_key(
    State(app): State<Context>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let client: Client = match &app.config.keys {
        None => {
            let peer = request.extensions().get::<Peer>();
            let address = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
            address.to_string().into()
        }
        Some(keys) => {
            let sent = request
                .headers()
                .get(header::AUTHORIZATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, key)| key.trim());
            let name = sent.and_then(|key| keys.name_of(key));
            name.ok_or_else(ApiError::unauthorized)?.into()
        }
    };
    request.extensions_mut().insert(client);
    Ok(next.run(request).await)
}

/// Counts answers, refuses foreign names of a loopback server, and says at the end of its life that
/// a connection is not used again.
async fn observe(State(app): State<Context>, request: Request, next: Next) -> Response {
    let since = Instant::now();
    let path = match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_owned(),
        None => "other".to_owned(),
    };
    let mut response = match foreign_host(&app, &request) {
        Some(host) => ApiError::forbidden_host(&host).into_response(),
        None => next.run(request).await,
    };
    let status = response.status().as_u16();
    let answered = Answered {
        path: path.clone(),
        status,
    };
    app.metrics.requests.get_or_create(&answered).inc();
    let seconds = app.metrics.seconds.get_or_create(&Path { path });
    seconds.observe(since.elapsed().as_secs_f64());
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        HeaderName::from_static("referrer-policy"),
        HeaderValue::from_static("no-referrer"),
    );
    if app.is_stopping.load(Ordering::Relaxed) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The host that a request names, if the server listens on loopback and it is none of its names: a
/// page of the web can make a browser take its own name for a loopback address (DNS rebinding).
fn foreign_host(app: &App, request: &Request) -> Option<String> {
    if !app.is_loopback {
        return None;
    }
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => host.split(':').next()?,
    };
    let is_own = name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || app.config.hosts.iter().any(|own| own.eq_ignore_ascii_case(name));
    (!is_own).then(|| name.to_owned())
}
