//! API keys: the server knows their hashes alone.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::Error;

/// The hashes of the keys that open the server, with names.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    keys: Vec<([u8; 32], String)>,
}

impl Keys {
    /// Reads a file with a line for each key: its SHA-256 in hexadecimal, and after a space a name
    /// that stands for the client (such as `printf %s KEY | sha256sum` prints it). Empty lines and
    /// those that begin with `#` are left out.
    ///
    /// # Errors
    /// [`Error::BadKey`] for a line that is no hash; [`Error::NoKeys`] if there is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (hash, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let hash = hash_of_hex(hash).ok_or(Error::BadKey { line: number + 1 })?;
            let name = match name.trim() {
                "" | "-" => format!("key {}", keys.len() + 1),
                name => name.to_owned(),
            };
            keys.push((hash, name));
        }
        match keys.is_empty() {
            true => Err(Error::NoKeys),
            false => Ok(Self { keys }),
        }
    }

    /// The name of a key. Every hash is compared to its last byte, so that the time says nothing.
    pub(crate) fn name_of(&self, key: &str) -> Option<&str> {
        let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let mut found = None;
        for (known, name) in &self.keys {
            if bool::from(known.ct_eq(&hash)) {
                found = Some(name.as_str());
            }
        }
        found
    }
}

fn hash_of_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    //! Tests of the key file.

    use super::*;

    #[test]
    fn a_key_is_known_by_its_hash_and_has_a_name() {
        // `printf %s secret | sha256sum` and `printf %s other | sha256sum`.
        let text = "# keys\n\
            2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b  -\n\n\
            d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa team blue\n";
        let keys = Keys::parse(text).unwrap();
        assert_eq!(keys.name_of("secret"), Some("key 1"));
        assert_eq!(keys.name_of("other"), Some("team blue"));
        assert_eq!(keys.name_of("Secret"), None);
        assert_eq!(keys.name_of(""), None);
    }

    #[test]
    fn a_line_that_is_no_hash_is_named() {
        let error = Keys::parse("\nsecret\n").unwrap_err();
        assert!(matches!(error, Error::BadKey { line: 2 }), "{error}");
        assert!(matches!(Keys::parse("# none\n"), Err(Error::NoKeys)));
    }
}
