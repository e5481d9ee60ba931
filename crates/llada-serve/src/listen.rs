//! Connections: taken in, bounded, timed, and brought to their end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use crate::app::{App, Context};
use crate::{Error, ServeConfig};

/// The address that a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Answers connections until `stop` ends, and then those that are there.
pub(crate) async fn listen(
    listener: TcpListener,
    router: Router,
    app: &Context,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let config = &app.config;
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(config.max_connections));
    let accept = accept_all(&listener, &router, config, &graceful, &places);
    tokio::select! {
        accepted = accept => accepted?,
        () = stop => {}
    }
    // From now on every answer says that its connection ends, and the probe of a balancer fails.
    app.is_stopping.store(true, Ordering::Relaxed);
    let accept = accept_all(&listener, &router, config, &graceful, &places);
    if let Ok(accepted) = tokio::time::timeout(config.drain, accept).await {
        accepted?;
    }
    drop(listener);
    // Every request has a deadline: this ends.
    graceful.shutdown().await;
    Ok(())
}

async fn accept_all(
    listener: &TcpListener,
    router: &Router,
    config: &ServeConfig,
    graceful: &GracefulShutdown,
    places: &Arc<Semaphore>,
) -> Result<(), Error> {
    loop {
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.map_err(|closed| Error::Io {
            what: "waiting for a connection to end",
            source: std::io::Error::other(closed),
        })?;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            // The peer is gone, or there are no more files for a moment.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let connection = connection(stream, address, router, config);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that goes away is no error of the server.
            let _ = connection.await;
            drop(place);
        });
    }
}

type Io = TokioIo<std::pin::Pin<Box<TimeoutStream<TcpStream>>>>;
type Service = TowerToHyperService<Router>;

fn connection(
    stream: TcpStream,
    address: SocketAddr,
    router: &Router,
    config: &ServeConfig,
) -> http1::Connection<Io, Service> {
    // A step's event is sent when it happens.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(config.write_timeout));
    let router = router.clone().layer(Extension(Peer(address)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.body_timeout)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(router),
        )
}

impl App {
    /// Whether the signal to stop has come.
    pub(crate) fn stops(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}
