//! A Hub with one repo on loopback, and a second server for its large files.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha1::Digest as _;

/// The only commit of the repo `org/name`.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request and what became of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// How often the same was asked before.
    pub(crate) nth: usize,
    /// Bytes of the body that were sent.
    pub(crate) sent: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Whether it asks for the bytes of a file.
    pub(crate) fn gets(&self, file: &str) -> bool {
        self.method == "GET" && self.path.ends_with(&format!("/{file}"))
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// `Content-Length`; without one the body ends where the connection does.
    pub(crate) length: Option<usize>,
    /// The connection breaks after so many bytes of the body.
    pub(crate) cut: Option<usize>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status,
            length: Some(body.len()),
            body,
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With another value of a header.
    pub(crate) fn lying(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.with(name, value)
    }
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

/// An HTTP server, a thread per connection, a connection per request.
struct Server {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(answer: Arc<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&log);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&shared));
                std::thread::spawn(move || serve(&stream, &*answer, &log));
            }
        });
        Self { port, log }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn serve(mut stream: &TcpStream, answer: &Answer, log: &Mutex<Vec<Request>>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next()?,
        path: words.next()?,
        ..Request::default()
    };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        let name = name.to_lowercase();
        request.headers.insert(name, value.to_owned());
    }
    let same = |other: &&Request| other.method == request.method && other.path == request.path;
    request.nth = log.lock().ok()?.iter().filter(same).count();
    let reply = answer(&request);
    let body = if request.method == "HEAD" {
        &[][..]
    } else {
        &reply.body[..reply.cut.unwrap_or(reply.body.len())]
    };
    // Before the answer: the client may ask for the log as soon as it has that.
    request.sent = body.len();
    log.lock().ok()?.push(request);
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
    if let Some(length) = reply.length {
        head += &format!("Content-Length: {length}\r\n");
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).ok()?;
    stream.write_all(body).ok()
}

/// A Hub whose large files lie on another server.
pub(crate) struct Hub {
    endpoint: Server,
    cdn: Server,
}

type Files = BTreeMap<&'static str, Vec<u8>>;

impl Hub {
    /// `change` sees every reply and may make another one of it.
    pub(crate) fn start(
        files: Files,
        change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (files, change) = (Arc::new(files), Arc::new(change));
        let (its_files, its_change) = (Arc::clone(&files), Arc::clone(&change));
        let cdn = Server::start(Arc::new(move |request| {
            let file = its_files.get(request.path.trim_start_matches("/cdn/"));
            let reply = file.map_or(Reply::new(404, ""), |bytes| contents(request, bytes));
            its_change(request, reply)
        }));
        let url = cdn.url();
        let endpoint = Server::start(Arc::new(move |request| {
            change(request, endpoint_reply(request, &files, &url))
        }));
        Self { endpoint, cdn }
    }

    pub(crate) fn url(&self) -> String {
        self.endpoint.url()
    }

    /// The requests to the endpoint.
    pub(crate) fn log(&self) -> Vec<Request> {
        self.endpoint.log.lock().expect("no panic").clone()
    }

    /// The requests to the server of the large files.
    pub(crate) fn cdn_log(&self) -> Vec<Request> {
        self.cdn.log.lock().expect("no panic").clone()
    }
}

fn endpoint_reply(request: &Request, files: &Files, cdn: &str) -> Reply {
    let revisions = ["main", "v1.0", "refs%2Fpr%2F1", COMMIT];
    let revision = request.path.strip_prefix("/api/models/org/name/revision/");
    if revision.is_some_and(|revision| revisions.contains(&revision)) {
        let siblings: Vec<_> = files
            .keys()
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let list = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
        return Reply::new(200, list.to_string());
    }
    let prefix = format!("/org/name/resolve/{COMMIT}/");
    let name = request.path.strip_prefix(&prefix).unwrap_or_default();
    let Some(bytes) = files.get(name) else {
        return Reply::new(404, "not found");
    };
    let etag = format!("\"{}\"", etag(name, bytes));
    let reply = if is_large(name) {
        Reply::new(302, "elsewhere")
            .with("Location", format!("{cdn}/cdn/{name}"))
            .with("X-Linked-Etag", etag)
            .with("X-Linked-Size", bytes.len().to_string())
    } else {
        contents(request, bytes).with("ETag", etag)
    };
    reply.with("X-Repo-Commit", COMMIT)
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// The name of a file's blob.
pub(crate) fn etag(name: &str, bytes: &[u8]) -> String {
    if is_large(name) {
        return hex(&sha2::Sha256::digest(bytes));
    }
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(&sha1::Sha1::digest(blob))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All bytes, or those of the range that is asked for.
fn contents(request: &Request, bytes: &[u8]) -> Reply {
    let range = request.header("range");
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return Reply::new(200, bytes);
    };
    let from = range.trim_end_matches('-').parse().expect("a number");
    let Some(rest) = bytes.get(from..) else {
        return Reply::new(416, "");
    };
    let (last, size) = (bytes.len() - 1, bytes.len());
    Reply::new(206, rest).with("Content-Range", format!("bytes {from}-{last}/{size}"))
}
