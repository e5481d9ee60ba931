//! `llada serve`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use llada::sample::{Request, SampleConfig};
use llada::text::Error as TextError;
use llada::{Checkpoint, Device, LoadError, Overrides, Tokenizer};
use llada_serve::{Keys, Limits, Model, ServeConfig};

use super::memory;
use super::observe::of_sampler;
use crate::args::{AdapterArg, Dtype, Format, RunArgs, ServeArgs};
use crate::config::{Misuse, device, open, precision, sampling_preset};
use crate::output::note;

pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    let config = config(args)?;
    let device = device(&RunArgs {
        device: args.device,
        threads: args.threads,
        format: Format::Text,
    })?;
    let models = models(args, &device)?;
    // What is free now is free for requests, an eighth of it for prefixes.
    let memory_bytes = memory_bytes(args)?;
    let prefix_bytes = memory_bytes / 8 / models.len();
    let config = ServeConfig {
        limits: Limits {
            memory_bytes: memory_bytes - memory_bytes / 8,
            prefix_bytes,
            ..config.limits
        },
        ..config
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the server's threads")?;
    runtime.block_on(async {
        let address = (args.host, args.port);
        let listener = tokio::net::TcpListener::bind(address).await;
        let listener = listener.with_context(|| {
            format!(
                "listening on {}:{}; --port 0 takes a free port",
                args.host, args.port
            )
        })?;
        let mut stop = Stop::new()?;
        let address = listener.local_addr().context("asking for the port")?;
        note(&format!("listening on http://{address}"));
        if !args.host.is_loopback() && args.api_keys.is_none() {
            note("warning: whoever reaches this address may use the server; see --api-keys");
        }
        let served = llada_serve::serve(listener, models, config, stop.wait());
        served.await.map_err(anyhow::Error::from)
    })
}

/// What stops the server: accepted work is brought to its end first.
struct Stop {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .context("catching SIGTERM")?,
        })
    }

    async fn wait(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
        note("stopping: accepted requests are answered first; once more ends at once");
        tokio::spawn(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
    }
}

/// A number of seconds, at most a year of them.
fn seconds(flag: &str, seconds: f64, least: f64) -> Result<Duration> {
    const MOST: f64 = 31_536_000.0;
    match (least..=MOST).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(Misuse::of(format!(
            "--{flag} must be from {least} to {MOST} seconds, got {seconds}"
        ))),
    }
}

fn config(args: &ServeArgs) -> Result<ServeConfig> {
    crate::config::check_counts(&[
        ("--max-running", Some(args.max_running)),
        ("--max-waiting", Some(args.max_waiting)),
        ("--max-connections", Some(args.max_connections)),
        ("--max-body", Some(args.max_body)),
    ])?;
    let keys = match &args.api_keys {
        None => None,
        Some(path) => {
            let text = llada_files::read_text(path);
            let text = text.with_context(|| format!("reading {}", path.display()))?;
            let keys = Keys::parse(&text);
            Some(keys.with_context(|| format!("reading {}", path.display()))?)
        }
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line reads the clock"
    )]
    let now = SystemTime::now();
    let io_timeout = seconds("io-timeout", args.io_timeout, 0.1)?;
    Ok(ServeConfig {
        limits: Limits {
            max_running: args.max_running,
            max_waiting: args.max_waiting,
            memory_bytes: 0,
            prefix_bytes: 0,
            timeout: seconds("timeout", args.timeout, 0.001)?,
            max_batch_tokens: 1024,
        },
        max_body_bytes: args.max_body,
        body_timeout: io_timeout,
        write_timeout: io_timeout,
        max_connections: args.max_connections,
        drain: seconds("drain", args.drain, 0.0)?,
        keys,
        cors_origins: args.cors_origin.clone(),
        hosts: args.allow_host.clone(),
        started: now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    })
}

fn memory_bytes(args: &ServeArgs) -> Result<usize> {
    const USUAL: u64 = 2 << 30;
    let bytes = match args.memory {
        Some(gigabytes) if gigabytes > 0.0 && gigabytes < 1e9 => (gigabytes * 1e9) as u64,
        Some(_) => {
            return Err(Misuse::of(
                "--memory must be a positive number of gigabytes",
            ));
        }
        None => memory::available_bytes().map_or(USUAL, |free| free / 2),
    };
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// All models, the default one first.
fn models(args: &ServeArgs, device: &Device) -> Result<Vec<Model>> {
    if args.open.mask_token_id.is_some() && args.model.len() != 1 {
        return Err(Misuse::of(format!(
            "--mask-token-id: with {} --model it is not said whose mask that is; write it into their \
             config.json (mask_token_id)",
            args.model.len()
        )));
    }
    let preset = sampling_preset(args.preset.as_deref())?;
    let mut models = Vec::new();
    let first = args.model.first().map(|named| named.path.as_path());
    if args.model.is_empty() {
        for (id, checkpoint) in [
            ("poems", Checkpoint::embedded()?),
            ("poems-instruct", Checkpoint::embedded_instruct()?),
        ] {
            models.push(serve_checkpoint(id, &checkpoint, args.dtype, device)?);
        }
    }
    let load = |id: &str, path: Option<&Path>, adapters: &[AdapterArg]| {
        let checkpoint = open(path, adapters, args.open)?;
        let model = serve_checkpoint(id, &checkpoint, args.dtype, device);
        model.with_context(|| format!("loading {id}"))
    };
    for named in &args.model {
        models.push(load(&named.id, Some(&named.path), &[])?);
    }
    for named in &args.adapter {
        let adapters = std::slice::from_ref(&named.adapter);
        models.push(load(&named.id, first, adapters)?);
    }
    for model in &mut models {
        model.preset = preset;
        check_preset(model)?;
    }
    Ok(models)
}

/// Refuses a preset for a model that has a loop of its own.
fn check_preset(model: &Model) -> Result<()> {
    let overrides = Overrides {
        preset: model.preset,
        ..Overrides::default()
    };
    let task = Request::generate(vec![0], SampleConfig::default()).task;
    match model.llada.policy().request(task, false, &overrides) {
        Err(error) => Err(of_sampler(error).context(format!("model {}", model.id))),
        Ok(_) => Ok(()),
    }
}

fn serve_checkpoint(
    id: &str,
    checkpoint: &Checkpoint,
    dtype: Dtype,
    device: &Device,
) -> Result<Model> {
    let tokenizer = match checkpoint.tokenizer() {
        // Ids can do without: texts are numbers then.
        Err(LoadError::Text(TextError::Missing { .. })) => {
            note(&format!(
                "warning: {id} has no tokenizer: its texts are the numbers of tokens"
            ));
            Tokenizer::of_numbers(checkpoint.config().vocab_size)
        }
        tokenizer => tokenizer?,
    };
    let template = match checkpoint.template() {
        Err(LoadError::Text(TextError::NoChatTemplate { .. })) => None,
        template => Some(template?),
    };
    let precision = precision(dtype);
    let precision = precision.unwrap_or_else(|| checkpoint.source().default_precision(device));
    let llada = checkpoint.frozen_with(tokenizer, device, precision)?;
    Ok(Model::new(
        id.to_owned(),
        llada,
        template,
        checkpoint.config(),
    ))
}
