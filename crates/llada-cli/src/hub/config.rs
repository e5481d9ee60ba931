//! What the environment says about the Hub.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ENDPOINT: &str = "https://huggingface.co";
/// Pause after the first of several failures in a row; it doubles with each.
const BACKOFF: Duration = Duration::from_millis(500);

/// Where models are downloaded from, and where to.
pub(super) struct HubConfig {
    /// Holds `models--ORG--NAME` folders.
    pub(super) cache: PathBuf,
    /// Without a slash at its end.
    pub(super) endpoint: String,
    pub(super) token: Option<String>,
    /// Only the cache may be used.
    pub(super) offline: bool,
    pub(super) backoff: Duration,
}

impl HubConfig {
    /// Reads the variables of `huggingface_hub`, and `LLADA_HUB_BACKOFF_MS` for tests.
    pub(super) fn from_env() -> Self {
        Self::new(&|name| std::env::var_os(name), std::env::home_dir())
    }

    fn new(variable: &dyn Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Self {
        let home = home.unwrap_or_default();
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let path = |name| variable(name).map(|value| expand(PathBuf::from(value), &home));
        let text = |name| variable(name)?.into_string().ok();
        let hf_home = path("HF_HOME").unwrap_or_else(|| {
            let cache = path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
            cache.join("huggingface")
        });
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let token = text("HF_TOKEN").or_else(|| {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
            std::fs::read_to_string(file).ok()
        });
        let token = token.map(|token| token.trim().to_owned());
        let is_on = |name| {
            let value = text(name).unwrap_or_default().to_lowercase();
            ["1", "on", "yes", "true"].contains(&&*value)
        };
        let older = ["HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"];
        let backoff = text("LLADA_HUB_BACKOFF_MS").and_then(|ms| ms.parse().ok());
        Self {
            cache: path("HF_HUB_CACHE")
                .or_else(|| older.into_iter().find_map(path))
                .unwrap_or_else(|| hf_home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.filter(|token| !token.is_empty()),
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            backoff: backoff.map_or(BACKOFF, Duration::from_millis),
        }
    }
}

/// The home folder for a `~` that no shell has seen.
fn expand(path: PathBuf, home: &Path) -> PathBuf {
    match path.strip_prefix("~") {
        Ok(rest) => home.join(rest),
        Err(_) => path,
    }
}

#[cfg(test)]
mod tests;
