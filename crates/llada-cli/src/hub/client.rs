//! Requests to the Hub.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustls::crypto::ring;
use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::RepoId;
use super::cache::{is_commit, is_hex};
use super::config::HubConfig;
use super::retry::Failure;

/// Of a connection, of the headers of an answer, and of every read of its body.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;
/// Of the list of a repo's files.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// What a revision is.
#[derive(serde::Deserialize)]
pub(super) struct Revision {
    /// Its commit.
    pub(super) sha: String,
    pub(super) siblings: Vec<Sibling>,
}

/// A file of a revision.
#[derive(serde::Deserialize)]
pub(super) struct Sibling {
    /// As the server has it: not to be trusted.
    pub(super) rfilename: String,
}

/// A file to download.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) url: String,
    /// Its checksum: sha256 of a large file, git's sha1 of a small one.
    pub(super) etag: String,
    /// In bytes.
    pub(super) size: u64,
}

/// Which redirects are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follow {
    All,
    /// Those that stay at the endpoint; only its headers say what a file is.
    Endpoint,
}

pub(super) struct Client<'a> {
    config: &'a HubConfig,
    endpoint: Uri,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub(super) fn new(config: &'a HubConfig) -> Result<Self, Failure> {
        let endpoint = config.endpoint.parse().ok();
        let endpoint = endpoint.filter(|uri: &Uri| uri.scheme().is_some());
        let endpoint = endpoint.with_context(|| {
            let given = &config.endpoint;
            format!("HF_ENDPOINT={given}: expected a URL such as https://huggingface.co")
        })?;
        let roots = rustls_native_certs::load_native_certs().certs;
        if roots.is_empty() && endpoint.scheme_str() == Some("https") {
            return Err(Failure::Passing(anyhow!(
                "no root certificates found: install the package ca-certificates, or name a file \
                 in SSL_CERT_FILE"
            )));
        }
        let roots: Vec<_> = roots
            .iter()
            .map(|der| Certificate::from_der(der).to_owned())
            .collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .user_agent(concat!("llada/", env!("CARGO_PKG_VERSION")))
            // The size of a file is that of its bytes as they are.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .timeout_per_read(Some(TIMEOUT));
        Ok(Self {
            config,
            endpoint,
            agent: agent.build().into(),
        })
    }

    /// Looks up a branch, tag or commit.
    pub(super) fn revision(&self, id: &RepoId) -> Result<Revision, Failure> {
        let HubConfig { endpoint, .. } = self.config;
        let (RepoId { org, name, .. }, revision) = (id, percent_encoded(&id.revision));
        let url = format!("{endpoint}/api/models/{org}/{name}/revision/{revision}");
        let mut response = self.request(&Method::GET, &url, 0, Follow::All)?;
        let list = response.body_mut().with_config().limit(MAX_LIST_BYTES);
        let list = list.read_to_vec().context("reading the list of files");
        let list = list.map_err(Failure::Passing)?;
        let revision: Revision = serde_json::from_slice(&list)
            .with_context(|| format!("{endpoint} does not answer as a Hub does"))?;
        let sha = &revision.sha;
        if !is_commit(sha) || is_commit(&id.revision) && *sha != id.revision {
            return Err(anyhow!("{sha:?} is no commit, or not the one that was asked for").into());
        }
        Ok(revision)
    }

    /// Asks what a file is.
    pub(super) fn entry(&self, id: &RepoId, commit: &str, name: &str) -> Result<Entry, Failure> {
        let HubConfig { endpoint, .. } = self.config;
        let url = format!("{endpoint}/{}/{}/resolve/{commit}/{name}", id.org, id.name);
        let response = self.request(&Method::HEAD, &url, 0, Follow::Endpoint)?;
        let text = |name| text_of(&response, name);
        if let Some(other) = text("x-repo-commit")?.filter(|&other| other != commit) {
            return Err(anyhow!("{name} is of commit {other}, expected {commit}").into());
        }
        let etag = text("x-linked-etag")?.or(text("etag")?).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        if ![40, 64].contains(&etag.len()) || !is_hex(etag) {
            return Err(anyhow!("{name} has the ETag {etag:?}, which is no checksum").into());
        }
        // The length of a redirect is not that of the file.
        let length = text("content-length")?.filter(|_| response.status().is_success());
        let size = text("x-linked-size")?.or(length);
        let size = size.and_then(|size| size.parse().ok());
        Ok(Entry {
            size: size.with_context(|| format!("the server does not say how large {name} is"))?,
            name: name.to_owned(),
            etag: etag.to_owned(),
            url,
        })
    }

    /// The bytes of a file from `from` on, or all of them: the status tells.
    pub(super) fn bytes(&self, entry: &Entry, from: u64) -> Result<Response<Body>, Failure> {
        self.request(&Method::GET, &entry.url, from, Follow::All)
    }

    fn request(
        &self,
        method: &Method,
        url: &str,
        from: u64,
        follow: Follow,
    ) -> Result<Response<Body>, Failure> {
        let mut url: Uri = url.parse().context("making a URL")?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(method, &url, from)?;
            if !response.status().is_redirection() {
                return self.checked(response);
            }
            let target = text_of(&response, "location")?.and_then(|target| join(&url, target));
            let target = target.context("the server redirects to nowhere")?;
            if follow == Follow::Endpoint && !same_origin(&target, &self.endpoint) {
                return Ok(response);
            }
            url = target;
        }
        Err(anyhow!("the server redirects in circles").into())
    }

    /// One request; the token goes to the endpoint and to nobody else.
    fn send(&self, method: &Method, url: &Uri, from: u64) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        if let Some(token) = &self.config.token
            && same_origin(url, &self.endpoint)
        {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(());
        let request =
            request.context("the token of HF_TOKEN is no token: it has odd characters")?;
        let host = url.authority().map_or("", |host| host.as_str());
        let sent = self.agent.run(request);
        sent.map_err(|error| Failure::Passing(anyhow!(error).context(format!("asking {host}"))))
    }

    fn checked(&self, response: Response<Body>) -> Result<Response<Body>, Failure> {
        let status = response.status();
        let error = anyhow!("the server answers {status}");
        Err(match status {
            _ if status.is_success() => return Ok(response),
            // What is asked for lies past the end: the caller begins again.
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(response),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Failure::Passing(error),
            _ if status.is_server_error() => Failure::Passing(error),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let token = match self.config.token {
                    Some(_) => "another token, after accepting the conditions on the repo's page",
                    None => "a token that may read it",
                };
                let advice = format!("gated or private, or not exist: set HF_TOKEN to {token}");
                error.context(format!("the repo may be {advice}")).into()
            }
            StatusCode::NOT_FOUND => {
                let context = "the repo or its revision does not exist";
                error.context(context).into()
            }
            _ => error.into(),
        })
    }
}

/// A header as text.
pub(super) fn text_of<'a>(response: &'a Response<Body>, name: &str) -> Result<Option<&'a str>> {
    let value = response.headers().get(name).map(|value| value.to_str());
    let value = value.transpose();
    value.with_context(|| format!("reading the header {name}"))
}

/// Where a redirect from `base` to `target` leads; relative paths do not occur.
fn join(base: &Uri, target: &str) -> Option<Uri> {
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let url = if target.starts_with("//") {
        format!("{scheme}:{target}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else {
        target.to_owned()
    };
    let url: Uri = url.parse().ok()?;
    url.scheme().is_some().then_some(url)
}

/// Whether two URLs have scheme, host and port in common.
fn same_origin(a: &Uri, b: &Uri) -> bool {
    let origin = |uri: &Uri| {
        let scheme = uri.scheme_str().map(str::to_owned);
        let default = if scheme.as_deref() == Some("https") {
            443
        } else {
            80
        };
        let host = uri.host().map(str::to_lowercase);
        (scheme, host, uri.port_u16().unwrap_or(default))
    };
    origin(a) == origin(b)
}

/// A revision as one segment of a URL.
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).into(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests;
