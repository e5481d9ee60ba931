//! A server of its own for each test, and a client that speaks plain HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use llada::text::ChatTemplate;
use llada::{Checkpoint, CpuConfig, Device, Llada, Precision};
use llada_serve::{Error, Limits, Model, ServeConfig, serve};
use serde_json::Value;
use tokio::sync::oneshot;

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The answer of a request that went well.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// Status, field and code of an error.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, Value, String) {
        let error = &self.json()["error"];
        let code = error["code"].as_str().unwrap_or_default().to_owned();
        assert!(error["message"].is_string(), "{self:?}");
        (self.status, error["param"].clone(), code)
    }

    /// Name and data of each server-sent event; chunks have no name.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        assert_eq!(self.status, 200, "{self:?}");
        let mut events = Vec::new();
        for block in self.body.split("\n\n").filter(|block| !block.is_empty()) {
            let (mut name, mut data) = (String::new(), None);
            for line in block.lines() {
                match line.split_once(": ") {
                    Some(("event", value)) => value.clone_into(&mut name),
                    Some(("data", value)) => data = Some(value.to_owned()),
                    // A comment; never a field that OpenAI's client fails at.
                    _ => assert!(line.starts_with(':'), "{line}"),
                }
            }
            events.extend(data.map(|data| (name, data)));
        }
        assert!(self.body.ends_with("\n\n"), "{self:?}");
        events
    }

    /// The chunks of a stream that came to its end.
    #[track_caller]
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let mut chunks: Vec<String> = (self.events().into_iter())
            .filter(|(name, _)| name.is_empty())
            .map(|(_, data)| data)
            .collect();
        assert_eq!(chunks.pop().as_deref(), Some("[DONE]"), "{self:?}");
        let chunk = |text: &String| serde_json::from_str(text).unwrap();
        chunks.iter().map(chunk).collect()
    }
}

pub(crate) fn config() -> ServeConfig {
    ServeConfig {
        limits: Limits {
            max_running: 64,
            max_waiting: 256,
            memory_bytes: 1 << 30,
            prefix_bytes: 0,
            timeout: Duration::from_mins(5),
            max_batch_tokens: 1024,
        },
        max_body_bytes: 1 << 20,
        body_timeout: Duration::from_secs(20),
        write_timeout: Duration::from_secs(20),
        max_connections: 256,
        drain: Duration::ZERO,
        keys: None,
        cors_origins: Vec::new(),
        hosts: Vec::new(),
        started: 1_700_000_000,
    }
}

/// The poem model on one thread.
pub(crate) fn poems() -> Llada {
    let device = Device::cpu(CpuConfig {
        threads: 1,
        ..CpuConfig::default()
    });
    let checkpoint = Checkpoint::embedded().unwrap();
    checkpoint.frozen(&device.unwrap(), Precision::F32).unwrap()
}

/// The poem model as `poems`, and as `chat` with a template that writes the last message.
fn models() -> Vec<Model> {
    let checkpoint = Checkpoint::embedded().unwrap();
    let template = ChatTemplate::new("{{ messages[-1].content }}", Vec::new(), "a test".as_ref());
    let model =
        |id: &str, template| Model::new(id.to_owned(), poems(), template, checkpoint.config());
    vec![model("poems", None), model("chat", Some(template))]
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: ServeConfig) -> Self {
        Self::of(models(), config)
    }

    pub(crate) fn of(models: Vec<Model>, config: ServeConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let stopped = async {
                    let _ = stopped.await;
                };
                serve(listener, models, config, stopped).await
            })
        });
        Self {
            address: told.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Sends a request and reads the answer to its end.
    pub(crate) fn send(&self, method: &str, path: &str, head: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let length = body.len();
        // HTTP/1.0: an answer is not cut into chunks, and ends with its connection.
        let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let _ = stream.write_all(body);
        read(stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_mins(2)))
            .unwrap();
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        let json = "Content-Type: application/json\r\n";
        self.send("POST", path, json, body.to_string().as_bytes())
    }

    /// Asks the server to stop, without waiting.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits for the end of a server that was stopped.
    pub(crate) fn join(mut self) {
        self.stop();
        let thread = self.thread.take().unwrap();
        thread.join().unwrap().unwrap();
    }

    /// The value of a figure.
    pub(crate) fn figure(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse()
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// Reads an answer to its end.
pub(crate) fn read(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap_or(0),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}
