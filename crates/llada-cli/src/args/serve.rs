//! Raw flags of `llada serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{AdapterArg, DeviceName, Dtype, OpenArgs};

/// A model and the name that requests give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedModel {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
}

impl std::str::FromStr for NamedModel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, path) = match text.split_once('=') {
            Some((id, path)) => (id.to_owned(), path),
            None => (text.trim_end_matches('/').to_owned(), text),
        };
        match id.is_empty() || path.is_empty() {
            true => Err("expected [NAME=]DIR".to_owned()),
            false => Ok(Self {
                id,
                path: path.into(),
            }),
        }
    }
}

/// An adapter that is a model of its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NamedAdapter {
    pub(crate) id: String,
    pub(crate) adapter: AdapterArg,
}

impl std::str::FromStr for NamedAdapter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((id, adapter)) if !id.is_empty() && !adapter.is_empty() => Ok(Self {
                id: id.to_owned(),
                adapter: adapter.parse()?,
            }),
            _ => Err("expected NAME=DIR[:SCALE]".to_owned()),
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ServeArgs {
    /// Address to listen on; 0.0.0.0 is all of this machine's
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// A model and the name that requests give it; may be given several times, the first is the
    /// default [default: the embedded poem model as poems, and as poems-instruct with its adapter]
    #[arg(short, long, value_name = "[NAME=]DIR|FILE.gguf|ORG/NAME[@REV]")]
    pub(crate) model: Vec<NamedModel>,
    /// The first model with a `LoRA` adapter of PEFT, as a model of its own; may be given several
    /// times
    #[arg(long, visible_alias = "lora", value_name = "NAME=DIR|ORG/NAME[:SCALE]")]
    pub(crate) adapter: Vec<NamedAdapter>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// What requests have that say nothing else: exact, balanced or fast, as for `llada generate`
    #[arg(long, value_name = "fast|balanced|exact")]
    pub(crate) preset: Option<String>,
    /// Precision of the matrix products, as for `llada generate`
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) dtype: Dtype,
    /// Where to compute: cpu, cuda[:N], or auto
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceName,
    /// Worker threads; 0 means one per core
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// File with the SHA-256 of an API key in each line, and a name after it; without it whoever
    /// reaches the server may use it
    #[arg(long, value_name = "FILE")]
    pub(crate) api_keys: Option<PathBuf>,
    /// Origin whose pages may use the server, such as `https://example.org`; may be given several
    /// times [default: none]
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors_origin: Vec<String>,
    /// Name by which clients may call a server on loopback, beside localhost
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
    /// Sequences that are worked on together
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) max_running: usize,
    /// Sequences that may wait; more are answered with 429
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_waiting: usize,
    /// Gigabytes that running sequences may hold beside the weights [default: half of what is free]
    #[arg(long, value_name = "GB")]
    pub(crate) memory: Option<f64>,
    /// Seconds in which a request is answered, waiting included
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    pub(crate) timeout: f64,
    /// Longest body of a request, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub(crate) max_body: usize,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) max_connections: usize,
    /// Seconds in which a body must come, and a reader must take something
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(crate) io_timeout: f64,
    /// Seconds after SIGTERM in which new requests are still taken, for balancers to learn of it
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub(crate) drain: f64,
}
